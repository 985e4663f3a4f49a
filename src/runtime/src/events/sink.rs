//! Where events go: a queue and a task for each component.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use prometheus::{IntCounterVec, Opts, Registry};
use serde_json::json;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::Recorder;
use super::correlate::{Correlator, Occurrence, Report};
use crate::client::{Api, ApiError, Class, Clients, Identity};
use crate::object::Cached;

/// Events of one component that wait at most; further ones are dropped
/// (`client-go:tools/record/event.go`).
const QUEUED: usize = 1000;
/// How long to wait after each failed try; then the event is dropped.
const WAITS: [Duration; 4] =
    [Duration::from_secs(1), Duration::from_secs(3), Duration::from_secs(10), Duration::from_secs(10)];

/// What a component's task is told.
pub(super) enum Message {
    /// To be written.
    Event(Box<Occurrence>),
    /// All before it has been dealt with.
    Flush(oneshot::Sender<()>),
}

/// Counts what became of one component's events.
pub(super) struct Tally {
    component: Arc<str>,
    events: IntCounterVec,
}

impl Tally {
    /// Counts that nobody sees.
    pub(super) fn unregistered() -> Self {
        Self { component: "".into(), events: counters().expect("the name is valid") }
    }

    pub(super) fn component(&self) -> &Arc<str> {
        &self.component
    }

    pub(super) fn count(&self, outcome: &'static str) {
        self.events.with_label_values(&[&*self.component, outcome]).inc();
    }
}

fn counters() -> Result<IntCounterVec, prometheus::Error> {
    let help = "Events recorded, by what became of them (written, spam, queue_full, not_leader, failed).";
    IntCounterVec::new(Opts::new("quarterdeck_events_total", help), &["component", "outcome"])
}

/// Gives out recorders and writes what they record, each under its controller's account and
/// through the gate: a process that does not lead writes no events. Clones share the queues.
#[derive(Clone)]
pub struct EventSink {
    clients: Clients,
    events: IntCounterVec,
    recorders: Arc<Mutex<HashMap<Arc<str>, Recorder>>>,
    hurry: Arc<watch::Sender<bool>>,
}

impl EventSink {
    /// Registers the metric; writes nothing yet.
    ///
    /// # Errors
    /// When a metric of its name is registered already.
    pub fn start(clients: &Clients, registry: &Registry) -> Result<Self, prometheus::Error> {
        let events = counters()?;
        registry.register(Box::new(events.clone()))?;
        Ok(Self {
            clients: clients.clone(),
            events,
            recorders: Arc::default(),
            hurry: Arc::new(watch::Sender::new(false)),
        })
    }

    /// The recorder of a component, which writes as `identity`: the same one each time, so that what
    /// was written in an earlier tenure is still counted up. The first call starts its task, which
    /// ends when the sink and all recorders of the component are gone.
    #[must_use]
    pub fn recorder(&self, component: &str, identity: &Identity) -> Recorder {
        let component: Arc<str> = component.into();
        let start = || {
            let (queue, messages) = mpsc::channel(QUEUED);
            let tally = Arc::new(Tally { component: Arc::clone(&component), events: self.events.clone() });
            let (api, hurry) = (self.clients.api(identity), self.hurry.subscribe());
            tokio::spawn(Writer { api, tally: Arc::clone(&tally), hurry }.run(messages));
            Recorder { queue: Some(queue), tally }
        };
        self.recorders.lock().entry(Arc::clone(&component)).or_insert_with(start).clone()
    }

    /// Waits until all events recorded so far are dealt with, or `within` has passed. Until then a
    /// failed write is not tried again.
    pub async fn flush(&self, within: Duration) {
        let queues: Vec<_> = self.recorders.lock().values().filter_map(|recorder| recorder.queue.clone()).collect();
        self.hurry.send_replace(true);
        let all = futures::future::join_all(queues.into_iter().map(|queue| async move {
            let (done, dealt_with) = oneshot::channel();
            if queue.send(Message::Flush(done)).await.is_ok() {
                let _ = dealt_with.await;
            }
        }));
        let _ = tokio::time::timeout(within, all).await;
        self.hurry.send_replace(false);
    }
}

/// The task of one component.
struct Writer {
    api: Api,
    tally: Arc<Tally>,
    hurry: watch::Receiver<bool>,
}

impl Writer {
    async fn run(mut self, mut messages: mpsc::Receiver<Message>) {
        let mut correlator = Correlator::new(self.tally.component().as_ref());
        while let Some(message) = messages.recv().await {
            match message {
                Message::Flush(done) => drop(done.send(())),
                Message::Event(occurrence) => match correlator.observe(*occurrence, Instant::now()) {
                    Some(report) => self.write(report).await,
                    None => self.tally.count("spam"),
                },
            }
        }
    }

    async fn write(&mut self, mut report: Report) {
        let mut waits = WAITS.into_iter();
        loop {
            let error = match self.send(&mut report).await {
                Ok(()) => return self.tally.count("written"),
                Err(error) => error,
            };
            if error.class() == Class::NotLeader {
                return self.tally.count("not_leader");
            }
            // Nobody to blame: it was written before, or the namespace is on its way out.
            if error.is_already_exists() || error.is_namespace_terminating() {
                return self.tally.count("failed");
            }
            let wait = if may_pass(&error) { waits.next() } else { None };
            let Some(wait) = wait.filter(|_| !*self.hurry.borrow()) else {
                tracing::warn!(
                    component = &**self.tally.component(),
                    event = %report.event.key(),
                    reason = report.event.reason,
                    message = report.event.message,
                    error = &error as &dyn std::error::Error,
                    "event not written"
                );
                return self.tally.count("failed");
            };
            let _ = tokio::time::timeout(wait, self.hurry.wait_for(|hurry| *hurry)).await;
        }
    }

    async fn send(&self, report: &mut Report) -> Result<(), ApiError> {
        let event = &report.event;
        if report.counted {
            let patch = json!({"count": event.count, "lastTimestamp": event.last_timestamp, "message": event.message});
            match self.api.patch_event(&event.key(), &patch).await {
                // The server forgets events after an hour.
                Err(error) if error.is_not_found() => report.counted = false,
                sent => return sent,
            }
        }
        self.api.create_event(event).await
    }
}

/// Whether the same event may be written later on: the server could not be reached, or was not able.
fn may_pass(error: &ApiError) -> bool {
    error.class() == Class::Transient && error.code().is_none_or(|code| code >= 500 || code == 429 || code == 401)
}
