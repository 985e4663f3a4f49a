//! The three durations an operator sets, and everything that follows from them.

use std::time::Duration;

/// The flag that sets the lease duration, for messages.
pub const LEASE_DURATION_FLAG: &str = "--leader-elect-lease-duration";
/// The flag that sets the renew deadline, for messages.
pub const RENEW_DEADLINE_FLAG: &str = "--leader-elect-renew-deadline";
/// The flag that sets the retry period, for messages.
pub const RETRY_PERIOD_FLAG: &str = "--leader-elect-retry-period";

/// The least guard time, whatever the lease duration.
const LEAST_GUARD: Duration = Duration::from_millis(500);
/// The longest time a write gets at its first try.
const LONGEST_FIRST_WRITE: Duration = Duration::from_secs(2);

/// A set of durations that cannot work together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TimingError {
    /// One of the three is zero.
    #[error("{flag} must be greater than zero")]
    Zero {
        /// The flag that sets the duration.
        flag: &'static str,
    },
    /// The Lease's record holds whole seconds only.
    #[error("{LEASE_DURATION_FLAG}={lease:?} must be whole seconds, as a Lease holds nothing finer")]
    NotWholeSeconds {
        /// The lease duration asked for.
        lease: Duration,
    },
    /// The Lease's record holds a 32-bit number of seconds.
    #[error("{LEASE_DURATION_FLAG}={lease:?} is longer than a Lease can hold")]
    TooLong {
        /// The lease duration asked for.
        lease: Duration,
    },
    /// Upstream's first check (`client-go:tools/leaderelection/leaderelection.go`).
    #[error("{LEASE_DURATION_FLAG}={lease:?} must be greater than {RENEW_DEADLINE_FLAG}={renew:?}")]
    LeaseNotOverRenew {
        /// The lease duration asked for.
        lease: Duration,
        /// The renew deadline asked for.
        renew: Duration,
    },
    /// Upstream's second check (`client-go:tools/leaderelection/leaderelection.go`).
    #[error("{RENEW_DEADLINE_FLAG}={renew:?} must be greater than 1.2 × {RETRY_PERIOD_FLAG}={retry:?}")]
    RenewNotOverRetry {
        /// The renew deadline asked for.
        renew: Duration,
        /// The retry period asked for.
        retry: Duration,
    },
    /// Too little of the lease is left for two renewals once the guard and the writes in flight are taken off.
    #[error(
        "{LEASE_DURATION_FLAG}={lease:?} leaves a window of {window:?} for renewals (guard {guard:?} and twice the write timeout \
         {write:?} taken off), less than 2 × {RETRY_PERIOD_FLAG}={retry:?}: raise {LEASE_DURATION_FLAG}, or lower \
         {RETRY_PERIOD_FLAG} (and {RENEW_DEADLINE_FLAG}={renew:?} with it)"
    )]
    WindowTooShort {
        /// The lease duration asked for.
        lease: Duration,
        /// The renew deadline asked for.
        renew: Duration,
        /// The retry period asked for.
        retry: Duration,
        /// `W`, what is left for renewals.
        window: Duration,
        /// `g`, the guard time.
        guard: Duration,
        /// `T`, the write timeout.
        write: Duration,
    },
}

/// The durations of one election, checked; `D`, `g`, `T` and `W` are the names used in the design.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Timing {
    lease_duration: Duration,
    renew_deadline: Duration,
    retry_period: Duration,
}

impl Default for Timing {
    /// Upstream's 15 s, 10 s and 2 s.
    fn default() -> Self {
        Self {
            lease_duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry_period: Duration::from_secs(2),
        }
    }
}

impl Timing {
    /// Checks the three durations against each other.
    ///
    /// # Errors
    /// Names the flags to change: see [`TimingError`].
    pub fn new(
        lease_duration: Duration,
        renew_deadline: Duration,
        retry_period: Duration,
    ) -> Result<Self, TimingError> {
        for (flag, value) in [
            (LEASE_DURATION_FLAG, lease_duration),
            (RENEW_DEADLINE_FLAG, renew_deadline),
            (RETRY_PERIOD_FLAG, retry_period),
        ] {
            if value.is_zero() {
                return Err(TimingError::Zero { flag });
            }
        }
        if lease_duration.subsec_nanos() != 0 {
            return Err(TimingError::NotWholeSeconds { lease: lease_duration });
        }
        if i32::try_from(lease_duration.as_secs()).is_err() {
            return Err(TimingError::TooLong { lease: lease_duration });
        }
        if lease_duration <= renew_deadline {
            return Err(TimingError::LeaseNotOverRenew { lease: lease_duration, renew: renew_deadline });
        }
        if renew_deadline <= retry_period.mul_f64(1.2) {
            return Err(TimingError::RenewNotOverRetry { renew: renew_deadline, retry: retry_period });
        }
        let timing = Self { lease_duration, renew_deadline, retry_period };
        if timing.window() < retry_period * 2 {
            return Err(TimingError::WindowTooShort {
                lease: lease_duration,
                renew: renew_deadline,
                retry: retry_period,
                window: timing.window(),
                guard: timing.guard(),
                write: timing.write_timeout(),
            });
        }
        Ok(timing)
    }

    /// `D`: how long followers wait without a change before they take over. Whole seconds.
    pub fn lease_duration(&self) -> Duration {
        self.lease_duration
    }

    /// How long after its last successful renewal the leader gives up, if `W` does not end it first.
    pub fn renew_deadline(&self) -> Duration {
        self.renew_deadline
    }

    /// How often the leader renews, and how long a candidate waits after a failed try.
    pub fn retry_period(&self) -> Duration {
        self.retry_period
    }

    /// `D` in seconds, as the record holds it.
    pub fn lease_seconds(&self) -> i32 {
        i32::try_from(self.lease_duration.as_secs()).expect("checked in Timing::new")
    }

    /// `g = max(0.1·D, 0.5 s)`: covers clocks that run at different rates, and the flight to the server.
    pub fn guard(&self) -> Duration {
        guard_of(self.lease_duration)
    }

    /// `T = min(2 s, D/8)`: what a write gets at its first try.
    pub fn write_timeout(&self) -> Duration {
        (self.lease_duration / 8).min(LONGEST_FIRST_WRITE)
    }

    /// `D − g`: counted from the sending of a successful renewal, the moment by which every write must have ended.
    pub fn tenure(&self) -> Duration {
        self.lease_duration.saturating_sub(self.guard())
    }

    /// `W = D − g − 2T`: how long after the sending of a renewal writes are admitted at all.
    pub fn window(&self) -> Duration {
        self.tenure().saturating_sub(self.write_timeout() * 2)
    }

    /// `min(renew deadline, W)`: how long after the sending of its last successful renewal the leader steps down.
    pub fn step_down_after(&self) -> Duration {
        self.renew_deadline.min(self.window())
    }

    /// How long one renewal try may last, so that two fit before the step-down: `(W − retry)/2`, or less where the renew
    /// deadline comes before `W`.
    pub fn try_limit(&self) -> Duration {
        self.step_down_after().saturating_sub(self.retry_period) / 2
    }

    /// `(D − g − 2·retry)/2`: the longest a write may take after it ended in 504 with less, and still be admitted between two
    /// renewals, one of which may fail.
    pub fn longest_write(&self) -> Duration {
        self.tenure().saturating_sub(self.retry_period * 2) / 2
    }

    /// The shortest lease duration, in whole seconds, whose [`Timing::longest_write`] is at least `write`, with this retry period.
    pub fn lease_for_write(&self, write: Duration) -> Duration {
        let needed = write * 2 + self.retry_period * 2;
        let by_share = needed.mul_f64(1.0 / 0.9);
        let mut seconds = by_share.max(needed + LEAST_GUARD).as_secs();
        while Duration::from_secs(seconds).saturating_sub(guard_of(Duration::from_secs(seconds))) < needed {
            seconds += 1;
        }
        Duration::from_secs(seconds)
    }
}

fn guard_of(lease: Duration) -> Duration {
    (lease / 10).max(LEAST_GUARD)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn derives_the_figures_of_the_design() {
        let t = Timing::default();
        assert_eq!(Timing::new(ms(15_000), ms(10_000), ms(2000)), Ok(t));
        assert_eq!((t.guard(), t.write_timeout(), t.window()), (ms(1500), ms(1875), ms(9750)));
        assert_eq!((t.step_down_after(), t.try_limit(), t.longest_write()), (ms(9750), ms(3875), ms(4750)));
        let t = Timing::new(ms(4000), ms(3000), ms(500)).unwrap();
        assert_eq!((t.guard(), t.write_timeout(), t.window()), (ms(500), ms(500), ms(2500)));
        assert_eq!((t.step_down_after(), t.try_limit(), t.longest_write()), (ms(2500), ms(1000), ms(1250)));
        let t = Timing::new(ms(60_000), ms(20_000), ms(4000)).unwrap();
        assert_eq!((t.write_timeout(), t.step_down_after(), t.try_limit()), (ms(2000), ms(20_000), ms(8000)));
    }

    #[test]
    fn refuses_what_cannot_work_and_names_the_flags() {
        let cases = [
            (0, 10_000, 2000, &[LEASE_DURATION_FLAG][..]),
            (15_000, 0, 2000, &[RENEW_DEADLINE_FLAG]),
            (15_000, 10_000, 0, &[RETRY_PERIOD_FLAG]),
            (1500, 1000, 200, &[LEASE_DURATION_FLAG]),
            (i64::MAX as u64 / 1000 * 1000, 10_000, 2000, &[LEASE_DURATION_FLAG]),
            (10_000, 10_000, 2000, &[LEASE_DURATION_FLAG, RENEW_DEADLINE_FLAG]),
            (15_000, 2400, 2000, &[RENEW_DEADLINE_FLAG, RETRY_PERIOD_FLAG]),
            (4000, 3000, 2000, &[LEASE_DURATION_FLAG, RENEW_DEADLINE_FLAG, RETRY_PERIOD_FLAG]),
            (1000, 900, 200, &[LEASE_DURATION_FLAG, RENEW_DEADLINE_FLAG, RETRY_PERIOD_FLAG]),
        ];
        for (lease, renew, retry, flags) in cases {
            let text = Timing::new(ms(lease), ms(renew), ms(retry)).expect_err("must be refused").to_string();
            for flag in flags {
                assert!(text.contains(flag), "{lease}/{renew}/{retry}: {text}");
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_accepted_leaves_room_for_two_tries_and_every_write(
            lease in 1u64..120, renew in 1u64..120_000, retry in 1u64..60_000,
        ) {
            if let Ok(t) = Timing::new(ms(lease * 1000), ms(renew), ms(retry)) {
                prop_assert!(t.retry_period() + t.try_limit() * 2 <= t.step_down_after());
                prop_assert!(t.step_down_after() + t.write_timeout() * 2 + t.guard() <= t.lease_duration());
                prop_assert!(t.longest_write() >= t.write_timeout());
                prop_assert!(t.try_limit() > Duration::ZERO);
            }
        }

        #[test]
        fn the_lease_named_for_a_write_would_do_and_a_second_less_would_not(write in 1u64..60_000) {
            let t = Timing::default();
            let lease = t.lease_for_write(ms(write));
            let longest = |lease| Timing { lease_duration: lease, ..t }.longest_write();
            prop_assert!(longest(lease) >= ms(write));
            prop_assert!(longest(lease - ms(1000)) < ms(write));
        }
    }
}
