//! The write gate: nearest the wire, it lets a write out only if it is sure to end before the tenure does.
//!
//! The elector holds the [`GateKeeper`]; everybody else gets clones of the [`Gate`], which can only ask and shut.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
use http::{HeaderName, HeaderValue};
use tokio::sync::Notify;

use crate::{
    clock::{BootInstant, Clock},
    epoch::{Epoch, EpochToken},
    seed::{self, Bug},
    timing::{LEASE_DURATION_FLAG, Timing},
};

/// After a refusal by the fence, how long to wait before the same write is tried again: another apiserver's copy of the Lease
/// lags by milliseconds.
pub const FENCE_RETRY: Duration = Duration::from_millis(100);

/// The longest write of a process that takes no part in an election.
const LONGEST_UNELECTED_WRITE: Duration = Duration::from_secs(30);

/// Why a write was not let out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// This process does not hold the lease.
    #[error("not leading: the write gate is shut")]
    NotLeading,
    /// The write could still be running when the tenure ends.
    #[error("a write of {timeout:?} does not fit into the {remaining:?} that are left of the lease")]
    DeadlineTooNear {
        /// What the write asked for; twice as much must be left.
        timeout: Duration,
        /// What is left until the deadline.
        remaining: Duration,
    },
}

/// A write ended in 504 with the longest timeout that the lease allows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the write did not end within {tried:?}, the longest that a lease of {lease:?} allows (a slow admission webhook?): \
     {LEASE_DURATION_FLAG}={needed:?} would allow {next:?}"
)]
pub struct WriteTooSlow {
    /// The timeout that was not enough.
    pub tried: Duration,
    /// The lease duration in force.
    pub lease: Duration,
    /// The lease duration that would allow `next`.
    pub needed: Duration,
    /// The timeout that would be tried next.
    pub next: Duration,
}

/// How often the gate answered what, since the process started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GateCounts {
    /// Writes let out.
    pub admitted: u64,
    /// Writes refused as [`Refused::NotLeading`].
    pub not_leading: u64,
    /// Writes refused as [`Refused::DeadlineTooNear`].
    pub deadline_too_near: u64,
}

#[derive(Default)]
struct Counters {
    admitted: AtomicU64,
    not_leading: AtomicU64,
    deadline_too_near: AtomicU64,
}

/// One time the gate stood open; permits keep it alive.
struct Opening {
    epoch: Option<Epoch>,
    fenced: AtomicBool,
    /// Nanoseconds on the boot clock by which every write must have ended.
    deadline: AtomicU64,
    shut: AtomicBool,
    in_flight: AtomicU64,
    /// Nanoseconds on the boot clock by which all writes let out so far must have ended.
    ends_by: AtomicU64,
    /// Nanoseconds on the boot clock until which writes whose answer nobody read may still run.
    abandoned_until: AtomicU64,
    ended: Notify,
}

impl Opening {
    fn new(epoch: Option<Epoch>, deadline: BootInstant, fenced: bool) -> Arc<Self> {
        Arc::new(Self {
            epoch,
            fenced: AtomicBool::new(fenced),
            deadline: AtomicU64::new(deadline.as_nanos()),
            shut: AtomicBool::new(false),
            in_flight: AtomicU64::new(0),
            ends_by: AtomicU64::new(0),
            abandoned_until: AtomicU64::new(0),
            ended: Notify::new(),
        })
    }

    fn end_one(&self) {
        if self.in_flight.fetch_sub(1, SeqCst) == 1 {
            self.ended.notify_waiters();
        }
    }
}

struct Inner {
    clock: Arc<dyn Clock>,
    timing: Timing,
    elected: bool,
    opening: ArcSwapOption<Opening>,
    counters: Counters,
    doubt: Notify,
}

/// Asks may a write go out now. Cheap to clone; the answer takes no lock.
#[derive(Clone)]
pub struct Gate {
    inner: Arc<Inner>,
}

impl Gate {
    /// A gate that is shut until its keeper opens it.
    pub fn new(timing: Timing, clock: Arc<dyn Clock>) -> (Self, GateKeeper) {
        let gate = Self::with(timing, clock, true);
        (gate.clone(), GateKeeper { gate })
    }

    /// The gate of a process that takes no part in an election (`--leader-elect=false`): open, without a token, until
    /// [`Gate::shut`].
    pub fn unelected(clock: Arc<dyn Clock>) -> Self {
        let gate = Self::with(Timing::default(), clock, false);
        gate.inner.opening.store(Some(Opening::new(None, BootInstant::from_nanos(u64::MAX), false)));
        gate
    }

    fn with(timing: Timing, clock: Arc<dyn Clock>, elected: bool) -> Self {
        let inner = Inner {
            clock,
            timing,
            elected,
            opening: ArcSwapOption::empty(),
            counters: Counters::default(),
            doubt: Notify::new(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Lets a write out that sends `?timeout=<timeout>`, if twice that is left of the tenure: once for the way to the server
    /// and the kill of a silent connection, once for the server's own limit, which counts from receipt.
    ///
    /// Ask as late as possible: after the body is serialised and a connection is at hand.
    ///
    /// # Errors
    /// Says why not; see [`Refused`].
    pub fn admit(&self, timeout: Duration) -> Result<Permit, Refused> {
        let counters = &self.inner.counters;
        let Some(opening) = self.inner.opening.load_full() else {
            counters.not_leading.fetch_add(1, SeqCst);
            return Err(Refused::NotLeading);
        };
        let now = self.inner.clock.now();
        let end = now + timeout * 2;
        // Counted before the check, and its end noted before that: whoever shuts the gate either sees this write in flight and
        // knows how long, or this write sees the gate shut.
        opening.ends_by.fetch_max(end.as_nanos(), SeqCst);
        opening.in_flight.fetch_add(1, SeqCst);
        let deadline = BootInstant::from_nanos(opening.deadline.load(SeqCst));
        let stuck_open = seed::carries(Bug::GateOff);
        if opening.shut.load(SeqCst) && !stuck_open {
            opening.end_one();
            counters.not_leading.fetch_add(1, SeqCst);
            return Err(Refused::NotLeading);
        }
        if end > deadline && !stuck_open {
            opening.end_one();
            counters.deadline_too_near.fetch_add(1, SeqCst);
            return Err(Refused::DeadlineTooNear { timeout, remaining: deadline.since(now) });
        }
        counters.admitted.fetch_add(1, SeqCst);
        let fenced = opening.fenced.load(SeqCst);
        Ok(Permit { opening, timeout, end, fenced, finished: false })
    }

    /// What a write asks for at its first try.
    pub fn write_timeout(&self) -> Duration {
        self.inner.timing.write_timeout()
    }

    /// What a write that ended in 504 after `previous` asks for next: twice as much, up to what the lease allows.
    ///
    /// # Errors
    /// `previous` was the longest already; the error says which lease duration would do.
    pub fn longer_timeout(&self, previous: Duration) -> Result<Duration, WriteTooSlow> {
        let timing = &self.inner.timing;
        let longest = if self.inner.elected { timing.longest_write() } else { LONGEST_UNELECTED_WRITE };
        let next = previous * 2;
        if previous >= longest {
            return Err(WriteTooSlow {
                tried: previous,
                lease: timing.lease_duration(),
                needed: timing.lease_for_write(next),
                next,
            });
        }
        Ok(next.min(longest))
    }

    /// Shuts the gate at once. Writes already let out are not recalled: see [`Gate::quiet`].
    pub fn shut(&self) {
        if let Some(opening) = &*self.inner.opening.load() {
            opening.shut.store(true, SeqCst);
        }
    }

    /// Whether a write of the usual timeout would be let out now.
    pub fn is_open(&self) -> bool {
        self.open_opening().is_some_and(|opening| {
            let deadline = BootInstant::from_nanos(opening.deadline.load(SeqCst));
            self.inner.clock.now() + self.write_timeout() * 2 <= deadline
        })
    }

    /// The token of the present tenure, if the gate stands open and there is one.
    pub fn token(&self) -> Option<EpochToken> {
        self.open_opening()?.epoch.as_ref().map(|epoch| epoch.token().clone())
    }

    /// What is left until the deadline: zero while the gate is shut, [`None`] without an election.
    pub fn remaining(&self) -> Option<Duration> {
        if !self.inner.elected {
            return None;
        }
        let left = self
            .open_opening()
            .map(|opening| BootInstant::from_nanos(opening.deadline.load(SeqCst)).since(self.inner.clock.now()));
        Some(left.unwrap_or_default())
    }

    /// How often the gate answered what.
    pub fn counts(&self) -> GateCounts {
        let counters = &self.inner.counters;
        GateCounts {
            admitted: counters.admitted.load(SeqCst),
            not_leading: counters.not_leading.load(SeqCst),
            deadline_too_near: counters.deadline_too_near.load(SeqCst),
        }
    }

    /// To be called when the server's fence refused the write of `permit`: tells the elector to look at its lease again, and
    /// says whether the write may be tried again after [`FENCE_RETRY`] (the token is still ours as far as is known) or this
    /// process no longer leads.
    pub fn fence_refused(&self, permit: &Permit) -> FenceVerdict {
        self.inner.doubt.notify_one();
        match (self.token(), permit.token()) {
            (Some(ours), Some(theirs)) if ours == *theirs => FenceVerdict::RetryAfter(FENCE_RETRY),
            _ => FenceVerdict::NotLeading,
        }
    }

    /// Waits until no write let out so far can still be running: every permit is finished, or its time is over.
    /// Meant for after [`Gate::shut`]; while the gate is open there may be no such moment.
    pub async fn quiet(&self) {
        let Some(opening) = self.inner.opening.load_full() else {
            return;
        };
        loop {
            let ended = opening.ended.notified();
            let in_flight = opening.in_flight.load(SeqCst) > 0;
            let until = if in_flight { &opening.ends_by } else { &opening.abandoned_until };
            let left = BootInstant::from_nanos(until.load(SeqCst)).since(self.inner.clock.now());
            // Permits that outlived their time do not count: whatever holds them, their writes are over.
            if left.is_zero() {
                return;
            }
            let _ = tokio::time::timeout(left, ended).await;
        }
    }

    fn open_opening(&self) -> Option<Arc<Opening>> {
        self.inner.opening.load_full().filter(|opening| !opening.shut.load(SeqCst))
    }
}

/// What to do about a write that the fence refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FenceVerdict {
    /// The token is still ours: the server's copy of the Lease lags. Try again after this time.
    RetryAfter(Duration),
    /// The tenure of that write is over.
    NotLeading,
}

/// Opens, extends and shuts a [`Gate`]; there is one keeper a gate. Dropping it shuts the gate.
pub struct GateKeeper {
    gate: Gate,
}

impl GateKeeper {
    /// The gate.
    pub fn gate(&self) -> &Gate {
        &self.gate
    }

    /// Opens the gate for a new tenure, until `deadline`. `fenced` says whether writes carry the epoch's header.
    pub fn open(&self, epoch: Epoch, deadline: BootInstant, fenced: bool) {
        self.gate.shut();
        self.gate.inner.opening.store(Some(Opening::new(Some(epoch), deadline, fenced)));
    }

    /// Moves the deadline on; never back, and never on a shut gate.
    pub fn extend(&self, deadline: BootInstant) {
        if let Some(opening) = self.gate.open_opening() {
            opening.deadline.fetch_max(deadline.as_nanos(), SeqCst);
        }
    }

    /// From now on writes carry the epoch's header, or not.
    pub fn set_fenced(&self, fenced: bool) {
        if let Some(opening) = &*self.gate.inner.opening.load() {
            opening.fenced.store(fenced, SeqCst);
        }
    }

    /// Shuts the gate at once.
    pub fn shut(&self) {
        self.gate.shut();
    }

    /// Resolves when a write was refused by the fence.
    pub(crate) async fn doubted(&self) {
        self.gate.inner.doubt.notified().await;
    }

    /// The clock the gate goes by; the elector must use the same one.
    pub(crate) fn clock(&self) -> Arc<dyn Clock> {
        self.gate.inner.clock.clone()
    }

    /// The durations the gate goes by; the elector must use the same ones.
    pub(crate) fn timing(&self) -> Timing {
        self.gate.inner.timing
    }
}

impl Drop for GateKeeper {
    fn drop(&mut self) {
        self.gate.shut();
    }
}

/// The right to send one write, once, now.
///
/// Keep it with the exchange, not with the caller: call [`Permit::finished`] once the answer is there (or nothing was sent).
/// A permit dropped before that counts as a write which may still run until [`Permit::must_end_by`], and holds up the release
/// of the lease until then. So let a started exchange end in a task of its own when its caller is cancelled.
#[must_use]
pub struct Permit {
    opening: Arc<Opening>,
    timeout: Duration,
    end: BootInstant,
    fenced: bool,
    finished: bool,
}

impl Permit {
    /// What to send as `?timeout=`; kill the connection 250 ms after it.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// When the server is sure to have ended this write.
    pub fn must_end_by(&self) -> BootInstant {
        self.end
    }

    /// The token of the tenure that sends this write; [`None`] without an election.
    pub fn token(&self) -> Option<&EpochToken> {
        self.opening.epoch.as_ref().map(Epoch::token)
    }

    /// The extra key of the token; [`None`] without an election.
    pub fn extra_key(&self) -> Option<&str> {
        self.opening.epoch.as_ref().map(Epoch::key)
    }

    /// The header to send, if the fence is known to work; [`None`] otherwise.
    pub fn fence_header(&self) -> Option<(HeaderName, HeaderValue)> {
        self.opening.epoch.as_ref().filter(|_| self.fenced && !seed::carries(Bug::FenceOff)).map(Epoch::header)
    }

    /// Whether this write still belongs to the present tenure and that has not been given up.
    pub fn is_current(&self) -> bool {
        !self.opening.shut.load(SeqCst)
    }

    /// The write has been answered by the server, or was never sent: it cannot land any more.
    pub fn finished(mut self) {
        self.finished = true;
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if !self.finished {
            self.opening.abandoned_until.fetch_max(self.end.as_nanos(), SeqCst);
        }
        self.opening.end_one();
    }
}

impl std::fmt::Debug for Permit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Permit").field("token", &self.token()).field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gate")
            .field("token", &self.token())
            .field("remaining", &self.remaining())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
