//! One call: from the wait for a place to what is said of it afterwards.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use quarterdeck_runtime::facility::Authority;
use quarterdeck_runtime::{span, spans};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;
use uuid::Uuid;

use super::breaker::{Breaker, BreakerState, Change, Refusal, Ticket, Verdict};
use super::info::InfoBook;
use super::metrics::CloudMetrics;
use super::probe::Health;
use super::rate::Bucket;
use super::status::{LastError, ProviderStatus};
use super::threads::Threads;
use super::{Limits, Method, method, running};
use crate::error::{CloudError, Result};
use crate::model::ClusterId;
use crate::provider::{CallClass, CallCtx, SharedProvider};

/// What the guard of one provider consists of.
pub(super) struct Core {
    pub(super) name: Arc<str>,
    pub(super) provider: SharedProvider,
    pub(super) cluster: Arc<OnceLock<ClusterId>>,
    pub(super) limits: Limits,
    places: [Arc<Semaphore>; 4],
    buckets: [Bucket; 4],
    breaker: Mutex<Breaker>,
    pub(super) threads: Threads,
    pub(super) counts: Counts,
    pub(super) book: InfoBook,
    pub(super) metrics: OnceLock<CloudMetrics>,
    pub(super) health: Health,
    last_error: Mutex<Option<LastError>>,
    /// Account and time of the last good answer about nodes.
    pub(super) refreshed: Mutex<Option<(Arc<str>, Instant)>>,
    /// Cancelled when the guard goes.
    pub(super) stop: CancellationToken,
}

/// Calls that run.
#[derive(Default)]
pub(super) struct Counts {
    /// By class, whether somebody waits for them or not.
    pub(super) in_flight: [AtomicUsize; 4],
    /// Those for which nobody waits any more.
    pub(super) abandoned: AtomicUsize,
    /// Those of them that could not be dropped.
    pub(super) stuck: AtomicUsize,
}

/// Leave to make a call; what came of it has to be told.
struct Leave<'a> {
    core: &'a Core,
    ticket: Option<Ticket>,
}

impl Leave<'_> {
    fn used(mut self, verdict: Verdict) {
        if let Some(ticket) = self.ticket.take() {
            self.core.verdict(ticket, verdict);
        }
    }
}

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            self.core.verdict(ticket, Verdict::Unknown);
        }
    }
}

/// Tells the metrics of a call, also if its caller goes away.
struct Measured<'a> {
    core: &'a Core,
    method: Method,
    begun: Instant,
    outcome: &'static str,
}

impl Drop for Measured<'_> {
    fn drop(&mut self) {
        if let Some(metrics) = self.core.metrics.get() {
            metrics.ended(&self.core.name, &self.method, self.outcome, self.begun.elapsed());
        }
    }
}

impl Core {
    pub(super) fn new(
        name: &str,
        provider: SharedProvider,
        cluster: Arc<OnceLock<ClusterId>>,
        limits: Limits,
    ) -> std::io::Result<Self> {
        let calls = CallClass::ALL.iter().map(|class| class.places()).sum::<usize>() + limits.abandoned.most + 1;
        Ok(Self {
            name: name.into(),
            provider,
            cluster,
            places: CallClass::ALL.map(|class| Arc::new(Semaphore::new(class.places()))),
            buckets: CallClass::ALL.map(|_| Bucket::new(limits.rate)),
            breaker: Mutex::new(Breaker::new(limits.breaker.clone())),
            threads: Threads::start(name, calls)?,
            limits,
            counts: Counts::default(),
            book: InfoBook::default(),
            metrics: OnceLock::new(),
            health: Health::default(),
            last_error: Mutex::default(),
            refreshed: Mutex::default(),
            stop: CancellationToken::new(),
        })
    }

    /// Makes one call. Calls that change something need an authority, and the gate is asked when the call starts.
    pub(super) async fn call<T, F>(
        self: &Arc<Self>,
        method: Method,
        authority: Option<&Authority>,
        op_id: Uuid,
        make: impl FnOnce(SharedProvider, CallCtx) -> F + Send + 'static,
    ) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let span = spans::child(|| {
            span!(
                "cloud",
                otel.kind = "client",
                provider = &*self.name,
                method = method.name,
                outcome = tracing::field::Empty,
                otel.status_code = tracing::field::Empty,
            )
        });
        let answer = self.call_within(method, authority, op_id, make).instrument(span.clone()).await;
        span.record("outcome", answer.as_ref().err().map_or("ok", CloudError::outcome));
        if answer.is_err() {
            span.record("otel.status_code", "ERROR");
        }
        answer
    }

    async fn call_within<T, F>(
        self: &Arc<Self>,
        method: Method,
        authority: Option<&Authority>,
        op_id: Uuid,
        make: impl FnOnce(SharedProvider, CallCtx) -> F + Send + 'static,
    ) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let unknown = || CloudError::Unavailable("the cluster's id is not known yet".to_owned());
        let cluster = self.cluster.get().cloned().ok_or_else(unknown)?;
        if method != method::PROBE {
            self.used();
        }
        let (place, leave) = match self.admit(&method).await {
            Ok(admitted) => admitted,
            Err(error) => return Err(self.refused(&method, error)),
        };
        if let Some(authority) = authority {
            let admitted = authority.gate.admit(authority.gate.write_timeout());
            admitted.map_err(|refused| self.refused(&method, refused.into()))?.finished();
        }
        let deadline = self.limits.deadline_of(&method);
        let begun = Instant::now();
        let cancel = self.stop.child_token();
        // Whoever stops waiting, for whatever reason, tells the call.
        let stops = cancel.clone().drop_guard();
        let context = CallCtx {
            deadline: begun + deadline,
            cancel: cancel.clone(),
            lease_epoch: authority.map_or(0, |authority| authority.epoch),
            op_id,
            cluster,
        };
        let provider = Arc::clone(&self.provider);
        let mut measured = Measured { core: self, method, begun, outcome: "cancelled" };
        let told = running::start(self, method, place, cancel, move || make(provider, context));
        let answer = match tokio::time::timeout(deadline, told).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(CloudError::Unavailable(format!("provider {} is being stopped", self.name))),
            Err(_) => {
                Err(CloudError::Timeout { method: method.name, after: deadline, maybe_applied: method.class.changes() })
            }
        };
        drop(stops);
        measured.outcome = answer.as_ref().err().map_or("ok", CloudError::outcome);
        drop(measured);
        leave.used(self.judge(&method, op_id, answer.as_ref().err()));
        answer
    }

    /// Waits for a place and a token, then asks the breaker.
    async fn admit(&self, method: &Method) -> Result<(OwnedSemaphorePermit, Leave<'_>)> {
        let until = Instant::now() + self.limits.patience;
        // Nobody waits for a place that the breaker would not let them use.
        let refusal = self.breaker.lock().refusal(Instant::now());
        if let Some(refusal) = refusal {
            return Err(self.left_alone(refusal));
        }
        let class = method.class as usize;
        let waiting = tokio::time::timeout_at(until, Arc::clone(&self.places[class]).acquire_owned());
        let place = waiting.await.ok().and_then(std::result::Result::ok).ok_or_else(|| CloudError::Busy {
            provider: self.name.to_string(),
            class: method.class.name(),
            waited: self.limits.patience,
        })?;
        self.buckets[class].wait(until).await.map_err(|after| CloudError::Throttled {
            after: Some(after),
            message: format!("the rate limit of {} calls to provider {} is reached", method.class.name(), self.name),
        })?;
        let ticket = self.breaker.lock().admit(Instant::now());
        let ticket = ticket.map_err(|refusal| self.left_alone(refusal))?;
        Ok((place, Leave { core: self, ticket: Some(ticket) }))
    }

    fn left_alone(&self, refusal: Refusal) -> CloudError {
        CloudError::BreakerOpen { provider: self.name.to_string(), left: refusal.left, last: refusal.last }
    }

    /// Counts a call that was not made.
    fn refused(&self, method: &Method, error: CloudError) -> CloudError {
        if let Some(metrics) = self.metrics.get() {
            // The cloud's own throttling is told otherwise.
            let reason = if matches!(error, CloudError::Throttled { .. }) { "rate_limit" } else { error.outcome() };
            metrics.refused(&self.name, method, reason);
        }
        error
    }

    /// What an answer says of the provider, and of the rate.
    fn judge(&self, method: &Method, op_id: Uuid, error: Option<&CloudError>) -> Verdict {
        let Some(error) = error else {
            self.health.answered();
            return Verdict::Well;
        };
        *self.last_error.lock() =
            Some(LastError { method: method.name, message: error.to_string(), at: Instant::now() });
        if let CloudError::Throttled { after, .. } = error {
            self.buckets[method.class as usize].throttled(Instant::now(), *after);
            if let Some(metrics) = self.metrics.get() {
                metrics.throttled(&self.name, method);
            }
        }
        let denied = matches!(error, CloudError::Denied(_));
        if (denied || error.is_providers_fault()) && *method != method::PROBE {
            self.health.doubt();
        }
        if error.is_providers_fault() {
            let message = format!("{}: {error}", method.name);
            return Verdict::Fault { op_id, message };
        }
        Verdict::Well
    }

    fn verdict(&self, ticket: Ticket, verdict: Verdict) {
        let change = self.breaker.lock().ended(Instant::now(), ticket, verdict);
        self.log(change);
    }

    /// One line for each change of the breaker.
    fn log(&self, change: Option<Change>) {
        let provider = &*self.name;
        match change {
            None => {}
            Some(Change::Opened { pause, why }) => {
                tracing::warn!(
                    provider,
                    pause_ms = pause.as_millis() as u64,
                    error = why,
                    "the cloud provider is left alone"
                );
            }
            Some(Change::Held { why }) => {
                tracing::error!(provider, error = why, "the cloud provider is left alone until its calls end");
            }
            Some(Change::Closed) => tracing::info!(provider, "the cloud provider answers again"),
        }
    }

    /// To be called when calls that cannot be dropped became more or fewer, or runtimes.
    pub(super) fn reckon(&self, exhausted: bool) {
        let (stuck, limits) = (self.counts.stuck.load(SeqCst), &self.limits.abandoned);
        let now = Instant::now();
        let too_many = stuck > limits.tolerated;
        let held = if exhausted {
            Some(format!("it has blocked all threads of {} runtimes", self.threads.blocked()))
        } else if stuck >= limits.most {
            Some(format!("{stuck} calls that nobody waits for any more block a thread each"))
        } else {
            None
        };
        let mut breaker = self.breaker.lock();
        let tripped = too_many.then(|| breaker.trip(now, format!("{stuck} calls block a thread each"))).flatten();
        let hold = breaker.hold(now, held);
        drop(breaker);
        self.log(tripped);
        self.log(hold);
    }

    /// How it is.
    pub(super) fn status(&self) -> ProviderStatus {
        let now = Instant::now();
        let breaker = self.breaker.lock();
        let (state, refusal) = (breaker.state(), breaker.refusal(now));
        drop(breaker);
        let refreshed = self.refreshed.lock().clone();
        ProviderStatus {
            provider: Arc::clone(&self.name),
            breaker: state,
            left: refusal.map(|refusal| refusal.left),
            in_flight: CallClass::ALL.map(|class| (class, self.counts.in_flight[class as usize].load(SeqCst))),
            abandoned: self.counts.abandoned.load(SeqCst),
            stuck: self.counts.stuck.load(SeqCst),
            rates: CallClass::ALL.map(|class| (class, self.buckets[class as usize].rate(now))),
            last_error: self.last_error.lock().clone(),
            account: refreshed.as_ref().map(|(account, _)| Arc::clone(account)),
            cache_age: refreshed.map(|(_, at)| now.saturating_duration_since(at)),
            trouble: self.health.trouble(),
        }
    }

    /// Until when the breaker lets nothing through, if so.
    pub(super) fn left(&self) -> Option<Duration> {
        self.breaker.lock().refusal(Instant::now()).map(|refusal| refusal.left)
    }

    /// Whether the breaker is closed.
    pub(super) fn is_closed(&self) -> bool {
        self.breaker.lock().state() == BreakerState::Closed
    }
}
