//! Leaving: when the workers are joined, give the lease back, then follow again or end.

use super::{Action, Answer, Draining, Elector, Pending, Phase, Purpose, Releasing, Request};
use crate::{
    clock::BootInstant,
    lease_api::LeaseError,
    record::{Change, LeaseView},
};

impl Elector {
    pub(super) fn on_joined(&mut self, now: BootInstant, actions: &mut Vec<Action>) {
        if matches!(self.phase, Phase::Draining(_)) {
            self.drained(now, actions);
        }
    }

    /// Goes on with what is due while draining or releasing.
    pub(super) fn leave(&mut self, now: BootInstant, actions: &mut Vec<Action>) {
        match &self.phase {
            Phase::Draining(Draining { give_up: Some(give_up), .. }) if now >= *give_up => self.drained(now, actions),
            Phase::Releasing(releasing) if now >= releasing.until => self.left(now, actions),
            Phase::Releasing(releasing) if self.pending.is_none() && now >= releasing.next_try => {
                let within = self.timing.try_limit().min(releasing.until.since(now));
                self.ask(now, Purpose::ReleaseRead, Request::Get, within, actions);
            }
            _ => {}
        }
    }

    /// The workers are joined: nothing of the tenure can land any more.
    pub(super) fn drained(&mut self, now: BootInstant, actions: &mut Vec<Action>) {
        let Phase::Draining(draining) = &mut self.phase else {
            return;
        };
        let (release, lease) = (draining.release, draining.lease.take());
        // If the Lease was deleted under us, and so soon that nobody can have had it since, nobody is left to wait for.
        if now < draining.ours_until {
            self.observer.vacate(now, &self.identity);
        }
        if !release {
            self.left(now, actions);
            return;
        }
        // What a stop waits for others do not: we are about to follow again, and may take the lease ourselves.
        let patience = if self.stopping { self.timing.renew_deadline() } else { self.timing.try_limit() };
        self.phase = Phase::Releasing(Releasing { until: now + patience, next_try: now });
        match lease {
            Some(lease) => self.release(now, lease, actions),
            None => self.ask(now, Purpose::ReleaseRead, Request::Get, self.timing.try_limit().min(patience), actions),
        }
    }

    /// Stopping while a try to take the lease is open: if it went through, give the lease back.
    pub(super) fn release_what_may_be_ours(&mut self, now: BootInstant, actions: &mut Vec<Action>) {
        let until = now + self.timing.renew_deadline();
        self.phase = Phase::Releasing(Releasing { until, next_try: now });
        self.ask(now, Purpose::ReleaseRead, Request::Get, self.timing.try_limit(), actions);
    }

    fn release(&mut self, now: BootInstant, lease: LeaseView, actions: &mut Vec<Action>) {
        let Phase::Releasing(releasing) = &self.phase else {
            return;
        };
        let within = self.timing.try_limit().min(releasing.until.since(now));
        let request = self.replace(lease, Change::Release);
        self.ask(now, Purpose::Release, request, within, actions);
    }

    pub(super) fn on_leave_answer(
        &mut self,
        now: BootInstant,
        pending: &Pending,
        answer: Answer,
        actions: &mut Vec<Action>,
    ) {
        match answer {
            Answer::Got(Ok(Some(lease))) if self.is_mine(&lease.record) => {
                self.release(now, lease, actions);
            }
            Answer::Got(Ok(_)) | Answer::Wrote(Ok(_) | Err(LeaseError::NotFound)) => {
                self.left(now, actions);
            }
            Answer::Got(Err(_)) | Answer::Wrote(Err(_)) if !self.stopping => {
                self.left(now, actions);
            }
            Answer::Wrote(Err(LeaseError::Conflict)) => {
                if let Phase::Releasing(releasing) = &mut self.phase {
                    releasing.next_try = now;
                }
            }
            Answer::Got(Err(_)) | Answer::Wrote(Err(_)) => {
                let pause = self.timing.retry_period() / 8;
                if let Phase::Releasing(releasing) = &mut self.phase {
                    releasing.next_try = now.max(pending.sent + pause);
                }
            }
        }
    }

    /// Leaving is over: end, or follow again.
    fn left(&mut self, now: BootInstant, actions: &mut Vec<Action>) {
        self.pending = None;
        self.perhaps_taken = false;
        if self.stopping {
            self.phase = Phase::Finished;
            actions.push(Action::Finish);
        } else {
            self.phase = Phase::Following;
            self.follow(now, actions);
        }
    }
}
