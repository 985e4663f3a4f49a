//! Runs controllers: workers over a queue, read-your-writes, deadlines, contained panics.

mod failing;
mod metrics;
mod reconcile;
#[cfg(test)]
mod tests;
mod waiting;

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use parking_lot::Mutex;
use serde_json::value::RawValue;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use failing::Failing;
pub use metrics::{EngineMetrics, ReconcileMetrics, SlowReconcile};
use waiting::Waiting;

use crate::client::Api;
use crate::controller::{Account, Controller, Descriptor, Grant, Setup, SetupError};
use crate::events::Recorder;
use crate::facility::{Authority, Facilities};
use crate::informer::{InformerHandle, Informers, State};
use crate::notes::Notes;
use crate::object::Kind;
use crate::queue::{Queue, QueueMetricFamilies, QueueStatus};

/// First restart delay of a loop that ended, doubled up to [`LOOP_RESTART_MAX`].
const LOOP_RESTART: Duration = Duration::from_millis(200);
/// Longest restart delay of a loop that ended.
const LOOP_RESTART_MAX: Duration = Duration::from_secs(30);

/// Limits on a single reconcile.
#[derive(Clone, Copy, Debug)]
pub struct Deadlines {
    /// After this a warning names the key.
    pub soft: Duration,
    /// After this the reconcile is cancelled and its key retried.
    pub hard: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self { soft: Duration::from_secs(30), hard: Duration::from_secs(600) }
    }
}

/// What building a controller needs. Building does no I/O.
#[derive(Clone)]
pub struct Foundation {
    /// The process's informers.
    pub informers: Informers,
    /// The process's metrics registry.
    pub registry: prometheus::Registry,
    /// Families of the queue metrics.
    pub queues: QueueMetricFamilies,
    /// Families of the engine's own metrics.
    pub engine: EngineMetrics,
    /// Limits on a single reconcile.
    pub deadlines: Deadlines,
    /// What the replica says of itself to the others.
    pub notes: Notes,
    /// What controllers share.
    pub facilities: Facilities,
}

/// What a controller is given while it leads.
#[derive(Clone)]
pub struct Means {
    /// Calls under the controller's identity.
    pub api: Api,
    /// Events under the controller's name.
    pub recorder: Recorder,
    /// The right to make calls that change things outside the API server.
    pub authority: Authority,
    /// Cancelled when the tenure ends.
    pub stop: CancellationToken,
}

/// A controller that has been set up: it can lead and stop leading any number of times.
pub trait Unit: Send + Sync {
    /// The controller's fixed facts.
    fn descriptor(&self) -> &'static Descriptor;
    /// The service account under which it writes.
    fn account(&self) -> &Account;
    /// Kinds it reads through informers.
    fn reads(&self) -> &[Kind];
    /// The informers without which it cannot work.
    fn informers(&self) -> &[InformerHandle];
    /// Rights it declares beyond upstream's role.
    fn grants(&self) -> &[Grant];
    /// Why it stays out although it is enabled, if it does.
    fn aside(&self) -> Option<&str>;
    /// Whether all its informers have synced.
    fn synced(&self) -> bool;
    /// Why one of its informers cannot be relied on.
    fn trouble(&self) -> Option<String>;
    /// Starts the loops that run on every replica.
    fn start_loops(&self, stop: &CancellationToken) -> Vec<JoinHandle<()>>;
    /// Reconciles until the tenure ends; returns when every worker has been joined.
    fn lead(self: Arc<Self>, means: Means) -> BoxFuture<'static, ()>;
    /// Puts keys that have waited since before `instant` behind the others.
    fn demote_before(&self, instant: Instant);
    /// A picture of its queue.
    fn queue(&self) -> QueueStatus;
    /// Its slowest reconciles of late.
    fn slowest(&self) -> Vec<SlowReconcile>;
    /// What it has to tell beside that: the name of the part, and its content as JSON.
    fn told(&self) -> Option<(&'static str, Box<RawValue>)>;
    /// Refreshes gauges that grow while nothing happens.
    fn refresh_metrics(&self);
    /// How long it has had work and finished nothing, while it leads.
    fn stuck_for(&self) -> Option<Duration>;
}

/// Sets a controller up.
///
/// # Errors
/// When its configuration makes no sense.
pub fn build<C: Controller>(config: &C::Config, foundation: &Foundation) -> Result<Arc<dyn Unit>, SetupError> {
    let queue = Queue::new(foundation.queues.queue(C::DESCRIPTOR.queue));
    let mut setup = Setup::new(foundation.informers.clone(), queue.enqueue(), foundation.registry.clone());
    setup.notes = foundation.notes.clone();
    setup.facilities = foundation.facilities.clone();
    let controller = C::setup(config, &mut setup)?;
    Ok(Arc::new(ControllerUnit {
        descriptor: &C::DESCRIPTOR,
        account: setup.account.clone().unwrap_or_else(|| Account::system(C::DESCRIPTOR.account)),
        controller,
        waiting: Waiting::new(foundation.informers.clone(), queue.clone()),
        queue,
        setup,
        metrics: foundation.engine.controller(C::DESCRIPTOR.name),
        failing: Failing::default(),
        deadlines: foundation.deadlines,
        leading_since: Mutex::new(None),
    }))
}

/// A controller with its queue.
struct ControllerUnit<C: Controller> {
    descriptor: &'static Descriptor,
    account: Account,
    controller: C,
    queue: Queue<C::Key>,
    waiting: Waiting<C::Key>,
    setup: Setup<C::Key>,
    metrics: ReconcileMetrics,
    failing: Failing<C::Key>,
    deadlines: Deadlines,
    leading_since: Mutex<Option<Instant>>,
}

impl<C: Controller> Unit for ControllerUnit<C> {
    fn descriptor(&self) -> &'static Descriptor {
        self.descriptor
    }

    fn account(&self) -> &Account {
        &self.account
    }

    fn reads(&self) -> &[Kind] {
        &self.setup.reads
    }

    fn informers(&self) -> &[InformerHandle] {
        &self.setup.required
    }

    fn grants(&self) -> &[Grant] {
        &self.setup.grants
    }

    fn aside(&self) -> Option<&str> {
        self.setup.aside.as_deref()
    }

    fn synced(&self) -> bool {
        self.setup.required.iter().all(InformerHandle::has_synced)
    }

    fn trouble(&self) -> Option<String> {
        self.setup.required.iter().find_map(|informer| match informer.status().state {
            State::Forbidden(message) => Some(format!("cannot read {}: {message}", informer.kind())),
            State::NotServed => Some(format!("the server does not serve {}", informer.kind())),
            _ => None,
        })
    }

    fn start_loops(&self, stop: &CancellationToken) -> Vec<JoinHandle<()>> {
        let name = self.descriptor.name;
        self.setup
            .loops
            .iter()
            .map(|worker| {
                let (worker, stop) = (Arc::clone(worker), stop.clone());
                tokio::spawn(async move {
                    let mut delay = LOOP_RESTART;
                    while !stop.is_cancelled() {
                        let (run, run_stop) = (Arc::clone(&worker), stop.clone());
                        let ended = tokio::spawn(async move { run.run_boxed(run_stop).await }).await;
                        if stop.is_cancelled() {
                            return;
                        }
                        tracing::error!(controller = name, panicked = ended.is_err(), "a loop ended; it starts again");
                        tokio::select! {
                            () = stop.cancelled() => return,
                            () = tokio::time::sleep(delay) => delay = (delay * 2).min(LOOP_RESTART_MAX),
                        }
                    }
                })
            })
            .collect()
    }

    fn lead(self: Arc<Self>, means: Means) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            *self.leading_since.lock() = Some(Instant::now());
            let mut workers = JoinSet::new();
            for _ in 0..self.setup.workers {
                let (unit, means) = (Arc::clone(&self), means.clone());
                workers.spawn(async move { unit.work(&means).await });
            }
            while workers.join_next().await.is_some() {}
            self.waiting.join().await;
            *self.leading_since.lock() = None;
        })
    }

    fn demote_before(&self, instant: Instant) {
        self.queue.demote_before(instant);
    }

    fn queue(&self) -> QueueStatus {
        self.queue.status()
    }

    fn slowest(&self) -> Vec<SlowReconcile> {
        self.metrics.slowest()
    }

    fn told(&self) -> Option<(&'static str, Box<RawValue>)> {
        self.controller.told()
    }

    fn refresh_metrics(&self) {
        self.queue.refresh_metrics();
    }

    fn stuck_for(&self) -> Option<Duration> {
        let since = (*self.leading_since.lock())?;
        let status = self.queue.status();
        if status.depth == 0 {
            return None;
        }
        let (_, waited) = status.oldest?;
        let quiet = status.idle_seconds.unwrap_or(f64::MAX).min(waited).min(since.elapsed().as_secs_f64());
        Some(Duration::from_secs_f64(quiet))
    }
}
