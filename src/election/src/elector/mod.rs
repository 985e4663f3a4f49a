//! The elector: a state machine that takes (now, event) and returns actions.
//!
//! There is no clock and no I/O in here, so that a table can test it and a model checker can drive it; the
//! [`driver`](crate::driver) does what it says. The rules:
//!
//! * There is at most one request under way; a new one replaces it, and answers to old ones are ignored.
//! * Every tenure is an epoch of its own: taking the lease always moves `leaseTransitions`, also from ourselves.
//! * The deadline counts from the `now` at which a renewal was *asked for*, which is never after it was sent.
//! * After a tenure the lease is neither released nor taken again before the workers are joined and their writes have ended.

mod follow;
mod hold;
mod leave;
#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
mod types;

use std::{sync::Arc, time::Duration};

pub use types::{Action, Answer, Event, Loss, Request, RequestId};
use types::{Draining, Holding, Pending, Phase, Purpose, Releasing};

use crate::{
    clock::BootInstant,
    leadership::Activity,
    lease_api::{LeaseError, LeaseSight},
    observer::Observer,
    record::{Change, LeaseView, Record},
    timing::Timing,
};

/// Faults to be seeded by tests, which must then fail.
#[cfg(test)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Bugs {
    /// The deadline counts from the answer instead of the sending.
    pub(crate) deadline_from_answer: bool,
    /// The lease is released before the workers are joined.
    pub(crate) release_first: bool,
}

/// The elector of one Lease.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Elector {
    identity: Arc<str>,
    timing: Timing,
    observer: Observer,
    phase: Phase,
    pending: Option<Pending>,
    requests: RequestId,
    /// No try to take the lease before this.
    not_before: BootInstant,
    /// When the Lease was last heard of (an event or an answer), and when a read was last asked for.
    heard: Option<BootInstant>,
    looked: Option<BootInstant>,
    /// A try to take the lease may have been committed without our knowing.
    perhaps_taken: bool,
    stopping: bool,
    slow_paths: u64,
    last_error: Option<LeaseError>,
    #[cfg(test)]
    pub(crate) bugs: Bugs,
}

impl Elector {
    /// An elector that has seen nothing and follows. `identity` must be this process's alone: hostname and a random part.
    pub fn new(identity: impl Into<Arc<str>>, timing: Timing) -> Self {
        Self {
            identity: identity.into(),
            timing,
            observer: Observer::new(timing.lease_duration()),
            phase: Phase::Following,
            pending: None,
            requests: 0,
            not_before: BootInstant::default(),
            heard: None,
            looked: None,
            perhaps_taken: false,
            stopping: false,
            slow_paths: 0,
            last_error: None,
            #[cfg(test)]
            bugs: Bugs::default(),
        }
    }

    /// Takes one event at `now` and says what to do. `now` never goes back.
    pub fn step(&mut self, now: BootInstant, event: Event) -> Vec<Action> {
        let mut actions = Vec::new();
        match event {
            Event::Tick => {}
            Event::Seen(sight) => self.on_seen(now, &sight, &mut actions),
            Event::Answered(id, answer) => self.on_answer(now, id, answer, &mut actions),
            Event::FenceJudged { token, may_lead } => {
                self.on_fence(now, &token, may_lead, &mut actions);
            }
            Event::Doubt => self.on_doubt(now),
            Event::WorkersJoined => self.on_joined(now, &mut actions),
            Event::Stop => self.on_stop(now, &mut actions),
        }
        self.go_on(now, &mut actions);
        actions
    }

    /// When [`Event::Tick`] is due; [`None`] if only an event can change anything. A moment in the past means now.
    pub fn next_wake(&self) -> Option<BootInstant> {
        match &self.phase {
            Phase::Following => self.next_wake_following(),
            Phase::Holding(holding) => Some(self.next_wake_holding(holding)),
            Phase::Draining(draining) => draining.give_up,
            Phase::Releasing(releasing) => Some(match &self.pending {
                Some(_) => releasing.until,
                None => releasing.next_try.min(releasing.until),
            }),
            Phase::Finished => None,
        }
    }

    /// What the elector is doing.
    pub fn activity(&self) -> Activity {
        match &self.phase {
            Phase::Following => Activity::Standby,
            Phase::Holding(Holding { announced: false, .. }) => Activity::Proving,
            Phase::Holding(_) => Activity::Leading,
            Phase::Draining(_) => Activity::Draining,
            Phase::Releasing(_) => Activity::Releasing,
            Phase::Finished => Activity::Finished,
        }
    }

    /// What has been seen of the Lease.
    pub fn observer(&self) -> &Observer {
        &self.observer
    }

    /// Our name in the Lease.
    pub fn identity(&self) -> &Arc<str> {
        &self.identity
    }

    /// The durations this election goes by.
    pub fn timing(&self) -> &Timing {
        &self.timing
    }

    /// How often a renewal needed to read the Lease first.
    pub fn slow_paths(&self) -> u64 {
        self.slow_paths
    }

    /// The last error of a request; [`None`] after one that went well.
    pub fn last_error(&self) -> Option<&LeaseError> {
        self.last_error.as_ref()
    }

    /// The moment by which every write must have ended, while the lease is ours.
    pub fn deadline(&self) -> Option<BootInstant> {
        match &self.phase {
            Phase::Holding(holding) => Some(holding.renewed + self.timing.tenure()),
            _ => None,
        }
    }

    /// What is due at `now` in the present phase, until nothing is.
    fn go_on(&mut self, now: BootInstant, actions: &mut Vec<Action>) {
        match &self.phase {
            Phase::Following => self.follow(now, actions),
            Phase::Holding(_) => self.hold(now, actions),
            Phase::Draining(_) | Phase::Releasing(_) => self.leave(now, actions),
            Phase::Finished => {}
        }
    }

    fn on_seen(&mut self, now: BootInstant, sight: &LeaseSight, actions: &mut Vec<Action>) {
        self.heard = Some(now);
        match sight {
            LeaseSight::Is(lease) => {
                self.judge_tenure(now, Some(lease), lease.version_number(), actions);
                self.observer.saw(now, lease);
            }
            LeaseSight::Gone(version) => {
                self.judge_tenure(now, None, *version, actions);
                self.observer.saw_none(now, *version);
            }
        }
    }

    fn on_answer(&mut self, now: BootInstant, id: RequestId, answer: Answer, actions: &mut Vec<Action>) {
        let Some(pending) = self.pending.take_if(|pending| pending.id == id) else {
            return;
        };
        self.last_error = answer.error().cloned();
        match &answer {
            Answer::Got(Ok(Some(lease))) | Answer::Wrote(Ok(lease)) => {
                self.heard = Some(now);
                self.observer.saw(now, lease);
            }
            Answer::Got(Ok(None)) => {
                self.heard = Some(now);
                self.observer.saw_none(now, None);
            }
            Answer::Got(Err(_)) | Answer::Wrote(Err(_)) => {}
        }
        match pending.purpose {
            Purpose::Look | Purpose::Take => self.on_follow_answer(now, &pending, answer, actions),
            Purpose::Renew | Purpose::SlowRead { .. } | Purpose::SlowRenew => {
                self.on_hold_answer(now, &pending, answer, actions);
            }
            Purpose::ReleaseRead | Purpose::Release => {
                self.on_leave_answer(now, &pending, answer, actions);
            }
        }
    }

    fn on_stop(&mut self, now: BootInstant, actions: &mut Vec<Action>) {
        if std::mem::replace(&mut self.stopping, true) {
            return;
        }
        let give_up = now + self.timing.longest_write() * 2;
        match &mut self.phase {
            Phase::Holding(_) => self.lose(now, Loss::Stopped, actions),
            Phase::Draining(draining) => draining.give_up = Some(give_up),
            Phase::Releasing(releasing) => releasing.until = now + self.timing.renew_deadline(),
            Phase::Following | Phase::Finished => {}
        }
    }

    /// Sends a request; whatever was under way is given up.
    fn ask(
        &mut self,
        now: BootInstant,
        purpose: Purpose,
        request: Request,
        within: Duration,
        actions: &mut Vec<Action>,
    ) {
        self.requests += 1;
        self.pending = Some(Pending { id: self.requests, purpose, sent: now });
        actions.push(Action::Ask { id: self.requests, request, within });
    }

    fn replace(&self, base: LeaseView, change: Change) -> Request {
        Request::Replace {
            base,
            change,
            identity: self.identity.clone(),
            duration_seconds: self.timing.lease_seconds(),
        }
    }

    fn is_mine(&self, record: &Record) -> bool {
        record.holder == self.identity
    }
}
