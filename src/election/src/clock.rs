//! Time as the election counts it: nanoseconds since boot, suspend included.

use std::{
    ops::{Add, Sub},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use jiff::Timestamp;
use nix::time::ClockId;

/// A moment on `CLOCK_BOOTTIME`, in nanoseconds.
///
/// [`std::time::Instant`] stands still while the machine is suspended; a lease does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct BootInstant(u64);

impl BootInstant {
    /// The moment `nanos` nanoseconds after boot.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since boot.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// The time from `earlier` to this moment; zero if `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for BootInstant {
    type Output = Self;

    /// Saturates at the end of time (584 years after boot).
    fn add(self, rhs: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(rhs.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl Sub<Duration> for BootInstant {
    type Output = Self;

    /// Saturates at boot.
    fn sub(self, rhs: Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(rhs.as_nanos()).unwrap_or(u64::MAX)))
    }
}

/// Where the election reads the time.
pub trait Clock: Send + Sync + 'static {
    /// Now, on a clock that never steps and counts suspend.
    fn now(&self) -> BootInstant;

    /// Now, for people: what is written into the Lease. Never compared with anything.
    fn wall(&self) -> Timestamp {
        Timestamp::now()
    }
}

/// The machine's `CLOCK_BOOTTIME`.
#[derive(Debug, Clone, Copy, Default)]
pub struct BootClock;

impl Clock for BootClock {
    fn now(&self) -> BootInstant {
        let now = ClockId::CLOCK_BOOTTIME.now().expect("CLOCK_BOOTTIME is in every Linux since 2.6.39");
        BootInstant::from_nanos(
            u64::try_from(Duration::from(now).as_nanos()).expect("boot was less than 584 years ago"),
        )
    }
}

/// A clock that moves only when told to, for tests and models. Clones share the time.
#[derive(Debug, Clone, Default)]
pub struct ManualClock {
    nanos: Arc<AtomicU64>,
}

impl ManualClock {
    /// A clock that shows `start`.
    pub fn at(start: BootInstant) -> Self {
        Self { nanos: Arc::new(AtomicU64::new(start.as_nanos())) }
    }

    /// Moves the clock on by `by`.
    pub fn advance(&self, by: Duration) {
        self.set(self.now() + by);
    }

    /// Sets the clock.
    pub fn set(&self, to: BootInstant) {
        self.nanos.store(to.as_nanos(), Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> BootInstant {
        BootInstant::from_nanos(self.nanos.load(Ordering::SeqCst))
    }

    /// The epoch plus the manual time, so that records are reproducible.
    fn wall(&self) -> Timestamp {
        wall_at(self.now())
    }
}

/// Tokio's clock, which tests can pause; never for production, as it stands still in suspend.
#[derive(Debug, Clone, Copy)]
pub struct TokioClock {
    origin: tokio::time::Instant,
}

impl Default for TokioClock {
    fn default() -> Self {
        Self { origin: tokio::time::Instant::now() }
    }
}

impl Clock for TokioClock {
    fn now(&self) -> BootInstant {
        // One hour in, so that no test meets the saturation at boot.
        BootInstant::default() + Duration::from_secs(3600) + self.origin.elapsed()
    }

    fn wall(&self) -> Timestamp {
        wall_at(self.now())
    }
}

fn wall_at(now: BootInstant) -> Timestamp {
    Timestamp::from_nanosecond(i128::from(now.as_nanos())).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_saturates() {
        let end = BootInstant::from_nanos(u64::MAX);
        assert_eq!(end + Duration::MAX, end);
        assert_eq!(BootInstant::default() - Duration::from_secs(1), BootInstant::default());
        assert_eq!(BootInstant::default().since(end), Duration::ZERO);
    }

    #[test]
    fn boot_clock_goes_forward() {
        let first = BootClock.now();
        assert!(first > BootInstant::default());
        assert!(BootClock.now() >= first);
    }
}
