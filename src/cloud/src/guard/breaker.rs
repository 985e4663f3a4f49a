//! The breaker: a provider that fails again and again is left alone for a while.
//!
//! A state machine without a clock. What counts is a run of failures of different operations: one that nobody can do,
//! however often it is tried, says nothing of the provider.

use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

/// What to wait while somebody else's call tries the provider.
const WHILE_TRIED: Duration = Duration::from_secs(1);

/// When a provider is left alone, and for how long.
#[derive(Clone, Debug)]
pub struct BreakerLimits {
    /// Failures of as many different operations in a row open it.
    pub faults: usize,
    /// For how long, the first time.
    pub first: Duration,
    /// For how long at most; each time is twice as long as the one before.
    pub longest: Duration,
}

impl Default for BreakerLimits {
    fn default() -> Self {
        Self { faults: 5, first: Duration::from_secs(5), longest: Duration::from_secs(60) }
    }
}

/// What the breaker does, as metrics and the status page have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BreakerState {
    /// Calls are let through.
    Closed,
    /// None is.
    Open,
    /// One is, to see.
    HalfOpen,
}

impl BreakerState {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Closed, Self::Open, Self::HalfOpen];

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

/// What came of a call.
#[derive(Clone, Debug)]
pub(super) enum Verdict {
    /// The provider answered.
    Well,
    /// It did not, or is unwell.
    Fault { op_id: Uuid, message: String },
    /// Nobody waited for the answer.
    Unknown,
}

/// What the log is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Opened { pause: Duration, why: String },
    Held { why: String },
    Closed,
}

/// Leave to make a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ticket {
    /// Whether it is the one call that tries the provider, and which.
    trial: Option<u64>,
}

/// Why there is no leave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) left: Duration,
    pub(super) last: String,
}

#[derive(Debug)]
enum State {
    Closed { run: Vec<Uuid>, since: Option<Instant> },
    Open { until: Instant },
    Trying { trial: u64 },
}

/// The breaker of one provider.
#[derive(Debug)]
pub(super) struct Breaker {
    limits: BreakerLimits,
    state: State,
    /// How long it was open last.
    pause: Duration,
    last: String,
    held: Option<String>,
    trials: u64,
}

impl Breaker {
    pub(super) fn new(limits: BreakerLimits) -> Self {
        let state = State::Closed { run: Vec::new(), since: None };
        Self { pause: Duration::ZERO, last: String::new(), held: None, trials: 0, limits, state }
    }

    pub(super) fn state(&self) -> BreakerState {
        match (&self.held, &self.state) {
            (Some(_), _) | (None, State::Open { .. }) => BreakerState::Open,
            (None, State::Closed { .. }) => BreakerState::Closed,
            (None, State::Trying { .. }) => BreakerState::HalfOpen,
        }
    }

    /// Why a call has no leave now, if so.
    pub(super) fn refusal(&self, now: Instant) -> Option<Refusal> {
        if let Some(why) = &self.held {
            return Some(Refusal { left: self.limits.longest, last: why.clone() });
        }
        let left = match &self.state {
            State::Closed { .. } => return None,
            State::Open { until } => until.saturating_duration_since(now),
            State::Trying { .. } => WHILE_TRIED,
        };
        (!left.is_zero()).then(|| Refusal { left, last: self.last.clone() })
    }

    /// Asks leave to make a call now.
    pub(super) fn admit(&mut self, now: Instant) -> Result<Ticket, Refusal> {
        if let Some(refusal) = self.refusal(now) {
            return Err(refusal);
        }
        if matches!(self.state, State::Closed { .. }) {
            return Ok(Ticket { trial: None });
        }
        self.trials += 1;
        self.state = State::Trying { trial: self.trials };
        Ok(Ticket { trial: Some(self.trials) })
    }

    /// Tells what came of a call.
    pub(super) fn ended(&mut self, now: Instant, ticket: Ticket, verdict: Verdict) -> Option<Change> {
        if let Verdict::Fault { message, .. } = &verdict {
            self.last.clone_from(message);
        }
        match (&mut self.state, ticket.trial, verdict) {
            (State::Closed { run, .. }, None, Verdict::Well) => {
                run.clear();
                None
            }
            (State::Closed { run, .. }, None, Verdict::Fault { op_id, .. }) => {
                if !run.contains(&op_id) {
                    run.push(op_id);
                }
                (run.len() >= self.limits.faults).then(|| self.open(now))
            }
            (State::Trying { trial }, Some(mine), verdict) if *trial == mine => match verdict {
                Verdict::Well => {
                    self.state = State::Closed { run: Vec::new(), since: Some(now) };
                    Some(Change::Closed)
                }
                Verdict::Fault { .. } => Some(self.open(now)),
                // The next one tries.
                Verdict::Unknown => {
                    self.state = State::Open { until: now };
                    None
                }
            },
            // Calls of before say nothing of now.
            _ => None,
        }
    }

    /// Opens it for a reason of its own.
    pub(super) fn trip(&mut self, now: Instant, why: String) -> Option<Change> {
        self.last = why;
        matches!(self.state, State::Closed { .. }).then(|| self.open(now))
    }

    /// Keeps it open, whatever the time, until the reason is gone.
    pub(super) fn hold(&mut self, now: Instant, why: Option<String>) -> Option<Change> {
        let (had, has) = (self.held.is_some(), why.is_some());
        self.held = why;
        match (had, has) {
            (false, true) => Some(Change::Held { why: self.held.clone().unwrap_or_default() }),
            (true, false) => {
                // It may be tried at once.
                self.state = State::Open { until: now };
                None
            }
            _ => None,
        }
    }

    fn open(&mut self, now: Instant) -> Change {
        // One that was well for a moment only is as unwell as before.
        let rested = match &self.state {
            State::Closed { since, .. } => {
                since.is_none_or(|since| now.saturating_duration_since(since) >= self.limits.longest)
            }
            _ => false,
        };
        self.pause = if rested { self.limits.first } else { (self.pause * 2).max(self.limits.first) };
        self.pause = self.pause.min(self.limits.longest);
        self.state = State::Open { until: now + self.pause };
        Change::Opened { pause: self.pause, why: self.last.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault() -> Verdict {
        Verdict::Fault { op_id: Uuid::new_v4(), message: "no answer".to_owned() }
    }

    fn open(breaker: &mut Breaker, now: Instant) -> Option<Change> {
        let mut last = None;
        for _ in 0..5 {
            let ticket = breaker.admit(now).unwrap();
            last = breaker.ended(now, ticket, fault());
        }
        last
    }

    fn seconds(change: Option<Change>) -> u64 {
        match change {
            Some(Change::Opened { pause, .. }) => pause.as_secs(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn opens_on_a_run_of_faults_and_closes_after_one_good_call() {
        let now = Instant::now();
        let mut breaker = Breaker::new(BreakerLimits::default());
        for _ in 0..4 {
            let ticket = breaker.admit(now).unwrap();
            assert_eq!(breaker.ended(now, ticket, fault()), None);
        }
        let ticket = breaker.admit(now).unwrap();
        assert_eq!(breaker.ended(now, ticket, Verdict::Well), None);
        assert_eq!(seconds(open(&mut breaker, now)), 5);
        let refusal = breaker.admit(now + Duration::from_secs(2)).unwrap_err();
        assert_eq!((refusal.left.as_secs(), refusal.last.as_str()), (3, "no answer"));
        // One call may try; others may not, until it has ended.
        let later = now + Duration::from_secs(5);
        let trial = breaker.admit(later).unwrap();
        assert_eq!(breaker.state(), BreakerState::HalfOpen);
        assert!(breaker.admit(later).is_err());
        assert_eq!(breaker.ended(later, trial, Verdict::Well), Some(Change::Closed));
        assert!(breaker.admit(later).is_ok());
    }

    #[test]
    fn the_pause_doubles_to_a_bound_while_trials_fail() {
        let mut now = Instant::now();
        let mut breaker = Breaker::new(BreakerLimits::default());
        let mut pauses = vec![seconds(open(&mut breaker, now))];
        for _ in 0..5 {
            now += Duration::from_secs(60);
            let trial = breaker.admit(now).unwrap();
            pauses.push(seconds(breaker.ended(now, trial, fault())));
        }
        assert_eq!(pauses, [5, 10, 20, 40, 60, 60]);
        // Well for a moment only: no new start.
        now += Duration::from_secs(60);
        let trial = breaker.admit(now).unwrap();
        breaker.ended(now, trial, Verdict::Well);
        assert_eq!(seconds(open(&mut breaker, now)), 60);
        now += Duration::from_secs(60);
        let trial = breaker.admit(now).unwrap();
        breaker.ended(now, trial, Verdict::Well);
        assert_eq!(seconds(open(&mut breaker, now + Duration::from_secs(60))), 5);
    }

    #[test]
    fn one_operation_that_nobody_can_do_opens_nothing() {
        let now = Instant::now();
        let mut breaker = Breaker::new(BreakerLimits::default());
        let op_id = Uuid::new_v4();
        for _ in 0..100 {
            let ticket = breaker.admit(now).unwrap();
            let fault = Verdict::Fault { op_id, message: "bad annotation".to_owned() };
            assert_eq!(breaker.ended(now, ticket, fault), None);
        }
        assert_eq!(breaker.state(), BreakerState::Closed);
    }

    #[test]
    fn calls_of_before_say_nothing_of_now() {
        let now = Instant::now();
        let mut breaker = Breaker::new(BreakerLimits::default());
        let early = breaker.admit(now).unwrap();
        open(&mut breaker, now);
        assert_eq!(breaker.ended(now, early, Verdict::Well), None);
        assert_eq!(breaker.state(), BreakerState::Open);
        let later = now + Duration::from_secs(6);
        let trial = breaker.admit(later).unwrap();
        assert_eq!(breaker.ended(later, early, fault()), None);
        assert_eq!(breaker.state(), BreakerState::HalfOpen);
        // A trial that nobody waited for is no trial: the next call is one.
        assert_eq!(breaker.ended(later, trial, Verdict::Unknown), None);
        assert!(breaker.admit(later).is_ok());
    }

    #[test]
    fn one_that_is_held_stays_open_until_the_reason_is_gone() {
        let now = Instant::now();
        let mut breaker = Breaker::new(BreakerLimits::default());
        assert!(matches!(breaker.trip(now, "threads".to_owned()), Some(Change::Opened { .. })));
        assert!(matches!(breaker.hold(now, Some("all blocked".to_owned())), Some(Change::Held { .. })));
        assert_eq!(breaker.hold(now, Some("all blocked".to_owned())), None);
        let year = now + Duration::from_secs(31_536_000);
        assert_eq!(breaker.admit(year).unwrap_err().last, "all blocked");
        assert_eq!(breaker.hold(year, None), None);
        let trial = breaker.admit(year).unwrap();
        assert_eq!(breaker.ended(year, trial, Verdict::Well), Some(Change::Closed));
    }
}
