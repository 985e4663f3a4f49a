//! The time in a made-up cloud.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

/// Milliseconds since 1970 that advance with tokio's clock, which tests pause. The wall clock is read once, so that
/// times in a kept state mean something after a restart.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    base: u64,
    start: Instant,
}

impl Default for Clock {
    fn default() -> Self {
        let base = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { base: millis(base), start: Instant::now() }
    }
}

impl Clock {
    /// Now, in milliseconds since 1970.
    #[must_use]
    pub fn now(&self) -> u64 {
        self.base.saturating_add(millis(self.start.elapsed()))
    }
}

/// A duration in milliseconds.
pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
