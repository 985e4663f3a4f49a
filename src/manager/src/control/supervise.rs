//! The supervisor of one controller.

use std::sync::Arc;
use std::time::Duration;

use quarterdeck_election::leadership::{Leadership, Tenure};
use quarterdeck_runtime::client::Clients;
use quarterdeck_runtime::engine::{Means, Unit};
use quarterdeck_runtime::events::EventSink;
use quarterdeck_runtime::facility::Authority;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{Barrier, Sight, State, States};

/// How often caches are looked at while they fill or are refused.
const CACHE_CHECK: Duration = Duration::from_millis(100);

/// Runs one controller through its states until the process stops.
pub(crate) struct Supervisor {
    /// The controller.
    pub(crate) unit: Arc<dyn Unit>,
    /// Where its state is shown.
    pub(crate) states: States,
    /// Whether this process leads.
    pub(crate) leadership: watch::Receiver<Leadership>,
    /// The manager that runs the same controller; `None` when there is none, or when this
    /// controller was asked for by name.
    pub(crate) predecessor: Option<watch::Receiver<Sight>>,
    /// What holds work back until caches are as new as the tenure.
    pub(crate) barrier: Arc<Barrier>,
    /// The way to the server.
    pub(crate) clients: Clients,
    /// Where its events go.
    pub(crate) events: EventSink,
    /// How long before the lease was won its last sign of life lay, at most: keys older than that
    /// were the old leader's work.
    pub(crate) handed_over: Duration,
}

impl Supervisor {
    /// Runs until `stop`; on a stop the tenure's end is what ends the work.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let tenure = self.leadership.borrow_and_update().tenure().cloned();
            match (self.blocked(), self.unit.synced() && self.looked(), tenure) {
                (Some(reason), ..) => self.set(State::Blocked(reason)),
                (None, false, _) => self.set(State::Warming),
                (None, true, None) => self.set(State::Standby),
                (None, true, Some(tenure)) => {
                    self.lead(&tenure).await;
                    // What ended the work was seen already, and nothing else need happen: its state is not draining any more.
                    if self.blocked().is_some() {
                        continue;
                    }
                }
            }
            tokio::select! {
                () = stop.cancelled() => {}
                changed = self.leadership.changed() => if changed.is_err() { return },
                () = predecessor_changed(&mut self.predecessor) => {}
                () = tokio::time::sleep(CACHE_CHECK), if self.waits_for_caches() => {}
            }
        }
    }

    fn set(&self, state: State) {
        self.states.set(self.unit.descriptor().name, state);
    }

    /// Why the controller must not run now.
    fn blocked(&self) -> Option<String> {
        if let Some(predecessor) = &self.predecessor
            && let Some(reason) = predecessor.borrow().blocks(self.unit.descriptor().name)
        {
            return Some(reason);
        }
        self.unit.trouble()
    }

    /// Whether the predecessor's Lease has been looked at, if there is one.
    fn looked(&self) -> bool {
        self.predecessor.as_ref().is_none_or(|sight| !matches!(*sight.borrow(), Sight::NotYet))
    }

    /// Whether something may change that is not announced on a channel.
    fn waits_for_caches(&self) -> bool {
        !self.unit.synced() || self.unit.trouble().is_some()
    }

    /// Leads for one tenure, or until something blocks the controller.
    async fn lead(&mut self, tenure: &Arc<Tenure>) {
        let Some(guard) = tenure.enter() else { return };
        let descriptor = self.unit.descriptor();
        let stop = tenure.cancellation();
        tokio::select! {
            () = stop.cancelled() => return,
            () = self.barrier.pass(tenure, self.unit.informers()) => {}
        }
        self.set(State::Running);
        self.unit.demote_before(tokio::time::Instant::now() - self.handed_over);
        let identity = self.unit.account().identity();
        let means = Means {
            api: self.clients.api_with(&identity, descriptor.share),
            recorder: self.events.recorder(descriptor.name, &identity),
            authority: Authority { gate: self.clients.gate().clone(), epoch: tenure.lease_version() },
            stop: stop.clone(),
        };
        let mut work = tokio::spawn(Arc::clone(&self.unit).lead(means));
        let ended = loop {
            tokio::select! {
                ended = &mut work => break ended,
                () = stop.cancelled() => {
                    self.set(State::Draining);
                    break work.await;
                }
                () = predecessor_changed(&mut self.predecessor) => if self.blocked().is_some() {
                    stop.cancel();
                },
            }
        };
        drop(guard);
        match ended {
            Err(error) => self.set(State::Failed(error.to_string())),
            Ok(()) if !stop.is_cancelled() => self.set(State::Failed("it ended by itself".to_owned())),
            // The change that ended it has been seen: nothing else would tell why it does not run.
            Ok(()) => {
                if let Some(reason) = self.blocked() {
                    self.set(State::Blocked(reason));
                }
            }
        }
    }
}

/// Resolves when the predecessor's sight changes; never without one.
async fn predecessor_changed(predecessor: &mut Option<watch::Receiver<Sight>>) {
    if let Some(receiver) = predecessor
        && receiver.changed().await.is_ok()
    {
        return;
    }
    std::future::pending::<()>().await;
}
