//! The work queue.

use std::time::Duration;

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
    /// Upstream's per-item limits (client-go `util/workqueue/default_rate_limiters.go`), for ever.
    fn default() -> Self {
        Self { base: Duration::from_millis(5), max: Duration::from_secs(1000), tries: None }
    }
}

/// The sending side of a queue. Cheap to clone; never waits.
pub struct Enqueue<K> {
    _key: std::marker::PhantomData<fn() -> K>,
}

impl<K> Clone for Enqueue<K> {
    fn clone(&self) -> Self {
        Self { _key: std::marker::PhantomData }
    }
}

impl<K: Key> Enqueue<K> {
    /// Adds a key that is new or whose world changed.
    pub fn add(&self, _key: K) {
        todo!()
    }

    /// Adds a key after a delay; an earlier time already set stays.
    pub fn add_after(&self, _key: K, _delay: Duration) {
        todo!()
    }

    /// Adds a key that only wants a look, behind all changed ones.
    pub fn resync(&self, _key: K) {
        todo!()
    }
}
