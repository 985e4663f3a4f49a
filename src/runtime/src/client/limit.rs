//! The client-side rate limit: one token bucket a controller.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// A token bucket. A caller that finds it empty books the next free token and waits for it, so
/// callers are served in the order in which they came.
#[derive(Debug)]
pub(crate) struct Limiter {
    per_second: f64,
    burst: f64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Negative while tokens are booked ahead.
    tokens: f64,
    as_of: Instant,
}

impl Limiter {
    /// A full bucket; a rate of zero or less means no limit.
    pub(crate) fn new(per_second: f32, burst: u32) -> Self {
        let burst = f64::from(burst.max(1));
        Self {
            per_second: f64::from(per_second),
            burst,
            state: Mutex::new(State { tokens: burst, as_of: Instant::now() }),
        }
    }

    /// Takes one token, waiting for it if need be; says how long that took.
    pub(crate) async fn take(&self) -> Duration {
        let wait = self.book(Instant::now());
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        wait
    }

    /// Books one token and says how far in the future it is free.
    fn book(&self, now: Instant) -> Duration {
        if self.per_second <= 0.0 {
            return Duration::ZERO;
        }
        let mut state = self.state.lock();
        let gained = now.saturating_duration_since(state.as_of).as_secs_f64() * self.per_second;
        state.tokens = (state.tokens + gained).min(self.burst) - 1.0;
        state.as_of = now.max(state.as_of);
        if state.tokens >= 0.0 { Duration::ZERO } else { Duration::from_secs_f64(-state.tokens / self.per_second) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_goes_at_once_and_then_the_rate_holds() {
        let limiter = Limiter::new(10.0, 3);
        let start = Instant::now();
        let waits: Vec<_> = (0..5).map(|_| limiter.book(start).as_millis()).collect();
        assert_eq!(waits, [0, 0, 0, 100, 200]);
        assert_eq!(limiter.book(start + Duration::from_millis(300)).as_millis(), 0);
        let later = start + Duration::from_secs(60);
        let waits: Vec<_> = (0..4).map(|_| limiter.book(later).as_millis()).collect();
        assert_eq!(waits, [0, 0, 0, 100]);
    }

    #[test]
    fn no_rate_means_no_limit() {
        let limiter = Limiter::new(0.0, 1);
        let start = Instant::now();
        assert!((0..1000).all(|_| limiter.book(start).is_zero()));
    }
}
