//! The work queue: each key at most once, never in two hands at once, with delays, per-key backoff
//! and two lanes, so that new and changed keys never wait behind resyncs and failures.

mod metrics;
mod rate;
mod state;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

pub use metrics::{QueueMetricFamilies, QueueMetrics};
pub use quarterdeck_api::status::QueuePart as QueueStatus;
pub(crate) use state::Lane;
use state::State;

use crate::controller::Key;

/// How failing keys are retried: `base · 2ⁿ`, at most `max`, given up after `tries`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// First delay.
    pub base: Duration,
    /// Longest delay.
    pub max: Duration,
    /// Failures in a row after which the key is dropped until it changes; `None` for never.
    pub tries: Option<u32>,
}

impl Default for Retry {
    /// Upstream's per-item limits (`client-go:util/workqueue/default_rate_limiters.go`), for ever.
    fn default() -> Self {
        Self { base: Duration::from_millis(5), max: Duration::from_secs(1000), tries: None }
    }
}

impl Retry {
    /// The delay before try `failures + 1`, or `None` when the key is given up.
    #[must_use]
    pub fn delay(&self, failures: u32) -> Option<Duration> {
        if self.tries.is_some_and(|tries| failures > tries) {
            return None;
        }
        let doubled = self.base.saturating_mul(1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX));
        Some(doubled.min(self.max))
    }
}

/// A work queue. Clones share it.
pub struct Queue<K> {
    shared: Arc<Shared<K>>,
}

struct Shared<K> {
    state: Mutex<State<K>>,
    ready: Notify,
    metrics: QueueMetrics,
}

impl<K> Clone for Queue<K> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

/// A key in a worker's hands.
#[derive(Debug)]
pub struct Taken<K> {
    /// The key.
    pub key: K,
    /// Failures in a row before this try.
    pub failures: u32,
}

impl<K: Key> Queue<K> {
    /// An empty queue.
    #[must_use]
    pub fn new(metrics: QueueMetrics) -> Self {
        let shared = Shared { state: Mutex::new(State::default()), ready: Notify::new(), metrics };
        Self { shared: Arc::new(shared) }
    }

    /// The sending side.
    #[must_use]
    pub fn enqueue(&self) -> Enqueue<K> {
        Enqueue { queue: self.clone() }
    }

    /// Takes the next key, waiting for one. Cancelling the wait loses nothing. The key must be given
    /// back with one of [`Self::done`], [`Self::retry`], [`Self::park`].
    pub async fn take(&self) -> Taken<K> {
        loop {
            let notified = self.shared.ready.notified();
            let next_due = {
                let now = Instant::now();
                let mut state = self.shared.state.lock();
                state.promote_due(now);
                if let Some((taken, waited)) = state.take(now) {
                    self.shared.metrics.taken(state.depth(), waited);
                    if state.depth() > 0 {
                        self.shared.ready.notify_one();
                    }
                    return taken;
                }
                state.next_due()
            };
            match next_due {
                Some(due) => {
                    let _ = tokio::time::timeout_at(due, notified).await;
                }
                None => notified.await,
            }
        }
    }

    /// Gives a key back that reached its goal; its failures are forgotten.
    pub fn done(&self, key: &K) {
        self.give_back(key, |state, now| state.finish(key, now, None, true));
    }

    /// Gives a key back that reached its goal and wants another look later.
    pub fn done_until(&self, key: &K, delay: Duration) {
        self.give_back(key, |state, now| state.finish(key, now, Some(now + delay), true));
    }

    /// Gives a failed key back; it returns after its backoff, in the lane of failures. Returns the
    /// delay, or `None` when the key is given up until it changes.
    pub fn retry(&self, key: &K, retry: &Retry) -> Option<Duration> {
        self.shared.metrics.retried();
        let mut delay = None;
        self.give_back(key, |state, now| {
            let failures = state.count_failure(key);
            delay = retry.delay(failures);
            state.finish(key, now, delay.map(|delay| now + delay), delay.is_none())
        });
        delay
    }

    /// Gives a key back untried: a worker was cancelled, or the lease is lost. It stays queued.
    pub fn give_up(&self, key: &K) {
        self.give_back(key, |state, now| {
            state.mark_dirty(key, Lane::Changed, now);
            state.finish(key, now, None, false)
        });
    }

    /// Sets a key aside until [`Self::unpark`]; it occupies no worker and is taken by none.
    pub fn park(&self, key: &K) {
        self.shared.state.lock().park(key, Instant::now());
    }

    /// Makes a parked key ready again; does nothing to keys that are not parked.
    pub fn unpark(&self, key: &K) {
        if self.shared.state.lock().unpark(key, Instant::now()) {
            self.shared.ready.notify_one();
        }
    }

    /// Moves what has waited since before `instant` behind what came later. A new leader calls it
    /// with the time of the old one's last sign of life: what came before that was its work.
    pub fn demote_before(&self, instant: Instant) {
        self.shared.state.lock().demote_before(instant);
    }

    /// A picture of the queue.
    #[must_use]
    pub fn status(&self) -> QueueStatus {
        self.shared.state.lock().status(Instant::now())
    }

    /// Refreshes the gauges that grow while nothing happens.
    pub fn refresh_metrics(&self) {
        let (unfinished, longest) = self.shared.state.lock().running(Instant::now());
        self.shared.metrics.running(unfinished, longest);
    }

    fn add(&self, key: K, lane: Lane) {
        let mut state = self.shared.state.lock();
        if state.add(key, lane, Instant::now()) {
            self.shared.metrics.added(state.depth());
            drop(state);
            self.shared.ready.notify_one();
        }
    }

    fn add_after(&self, key: K, delay: Duration) {
        if delay.is_zero() {
            return self.add(key, Lane::Changed);
        }
        if self.shared.state.lock().add_at(key, Instant::now() + delay) {
            self.shared.ready.notify_one();
        }
    }

    fn give_back(&self, _key: &K, finish: impl FnOnce(&mut State<K>, Instant) -> state::Finished) {
        let mut state = self.shared.state.lock();
        let finished = finish(&mut state, Instant::now());
        self.shared.metrics.finished(state.depth(), finished.worked);
        drop(state);
        if finished.wake {
            self.shared.ready.notify_one();
        }
    }
}

/// The sending side of a queue. Cheap to clone; never waits.
pub struct Enqueue<K> {
    queue: Queue<K>,
}

impl<K> Clone for Enqueue<K> {
    fn clone(&self) -> Self {
        Self { queue: self.queue.clone() }
    }
}

impl<K: Key> Enqueue<K> {
    /// Adds a key that is new or whose world changed.
    pub fn add(&self, key: K) {
        self.queue.add(key, Lane::Changed);
    }

    /// Adds a key after a delay; an earlier time already set stays.
    pub fn add_after(&self, key: K, delay: Duration) {
        self.queue.add_after(key, delay);
    }

    /// Adds a key that only wants a look, behind all changed ones.
    pub fn resync(&self, key: K) {
        self.queue.add(key, Lane::Later);
    }
}
