//! How often something happens, without keeping when it did.

use std::time::Duration;

use tokio::time::Instant;

/// The time over which a rate is taken: what lies longer back counts for little.
const SPAN: Duration = Duration::from_secs(60);

/// Events a second, each weighing less the longer ago it was.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rate {
    /// Events, decayed up to `at`.
    weight: f64,
    at: Option<Instant>,
}

impl Rate {
    /// Counts one event.
    pub(super) fn count(&mut self, now: Instant) {
        self.weight = self.decayed(now) + 1.0;
        self.at = Some(now);
    }

    /// Events a second.
    pub(super) fn per_second(&self, now: Instant) -> f64 {
        let rate = self.decayed(now) / SPAN.as_secs_f64();
        // What nobody would read as anything else than nothing.
        if rate < 0.0005 { 0.0 } else { rate }
    }

    fn decayed(&self, now: Instant) -> f64 {
        let Some(at) = self.at else { return 0.0 };
        self.weight * (-now.saturating_duration_since(at).as_secs_f64() / SPAN.as_secs_f64()).exp()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_rate_is_told_as_it_is_and_fades_when_it_ends() {
        let (start, mut rate) = (Instant::now(), Rate::default());
        let mut now = start;
        for _ in 0..3000 {
            now += Duration::from_millis(200);
            rate.count(now);
        }
        let steady = rate.per_second(now);
        assert!((steady - 5.0).abs() < 0.05, "{steady}");
        let later = rate.per_second(now + SPAN);
        assert!((later / steady - (-1.0_f64).exp()).abs() < 0.01, "{later}");
        assert!(rate.per_second(now + SPAN * 20) == 0.0);
        assert!(Rate::default().per_second(start) == 0.0);
    }
}
