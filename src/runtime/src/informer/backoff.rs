//! How long an informer waits before it tries again.

use std::hash::{BuildHasher, RandomState};
use std::ops::Range;
use std::time::Duration;

use tokio::time::Instant;

/// First base; the wait is between once and twice the base.
const FIRST: Duration = Duration::from_millis(800);
/// Last base, so that no wait is longer than 30 s.
const LAST: Duration = Duration::from_secs(15);
/// So long without a failure makes the next one a first one (client-go `tools/cache/reflector.go`).
const FORGET: Duration = Duration::from_secs(120);

/// Waits of 0.8 s to 30 s that double, spread at random so that informers do not return in step.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
    last: Option<Instant>,
}

impl Backoff {
    /// The wait after a failure; `at_least` is what the server asked for.
    pub(super) fn after_failure(&mut self, at_least: Duration) -> Duration {
        let now = Instant::now();
        if self.last.is_some_and(|last| now.duration_since(last) > FORGET) {
            self.failures = 0;
        }
        let base = FIRST.saturating_mul(1 << self.failures.min(10)).min(LAST);
        self.failures += 1;
        let wait = (base + base.mul_f64(fraction())).max(at_least);
        self.last = Some(now + wait);
        wait
    }
}

/// A number of [0, 1).
fn fraction() -> f64 {
    f64::from(u32::try_from(random(0..1 << 20)).expect("it is below 2^20")) / f64::from(1 << 20)
}

/// A number of this range. Good enough to spread load; the standard hasher's keys are random.
pub(super) fn random(range: Range<u64>) -> u64 {
    range.start + RandomState::new().hash_one(()) % (range.end - range.start)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn waits_double_up_to_thirty_seconds_and_start_over_after_a_good_time() {
        let mut backoff = Backoff::default();
        for base in [800, 1600, 3200, 6400, 12_800, 15_000, 15_000] {
            let wait = backoff.after_failure(Duration::ZERO);
            assert!((base..=2 * base).contains(&(wait.as_millis() as u64)), "{wait:?} for a base of {base} ms");
            tokio::time::advance(wait).await;
        }
        tokio::time::advance(FORGET + Duration::from_millis(1)).await;
        assert!(backoff.after_failure(Duration::ZERO) <= FIRST * 2);
    }

    #[tokio::test(start_paused = true)]
    async fn the_server_may_ask_for_more() {
        assert_eq!(Backoff::default().after_failure(Duration::from_secs(60)), Duration::from_secs(60));
    }
}
