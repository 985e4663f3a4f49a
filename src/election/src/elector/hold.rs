//! Holding: renew, and stand down when that fails for too long or the Lease is seen to be another's.

use super::{Action, Answer, Draining, Elector, Holding, Loss, Pending, Phase, Purpose, Request};
use crate::{
    clock::BootInstant,
    epoch::EpochToken,
    observer::is_older,
    record::{Change, LeaseView},
};

impl Elector {
    /// Stands down if it is time, renews if that is due.
    pub(super) fn hold(&mut self, now: BootInstant, actions: &mut Vec<Action>) {
        let Phase::Holding(holding) = &mut self.phase else {
            return;
        };
        if now >= holding.renewed + self.timing.step_down_after() {
            self.lose(now, Loss::NotRenewed, actions);
            return;
        }
        if self.pending.is_some() || now < holding.next_try {
            return;
        }
        holding.try_began = now;
        let base = holding.lease.clone();
        let request = self.replace(base, Change::Renew);
        self.ask(now, Purpose::Renew, request, self.timing.try_limit(), actions);
    }

    pub(super) fn next_wake_holding(&self, holding: &Holding) -> BootInstant {
        let step_down = holding.renewed + self.timing.step_down_after();
        match self.pending {
            Some(_) => step_down,
            None => step_down.min(holding.next_try),
        }
    }

    pub(super) fn on_hold_answer(
        &mut self,
        now: BootInstant,
        pending: &Pending,
        answer: Answer,
        actions: &mut Vec<Action>,
    ) {
        let limit = self.timing.try_limit();
        match (answer, pending.purpose) {
            (Answer::Wrote(Ok(lease)), _) => self.renewed(now, pending, lease, actions),
            (Answer::Wrote(Err(_)), Purpose::Renew) => {
                self.slow_paths += 1;
                self.ask(now, Purpose::SlowRead { until: now + limit }, Request::Get, limit, actions);
            }
            (Answer::Got(Ok(lease)), Purpose::SlowRead { until }) => {
                self.judge_tenure(now, lease.as_ref(), None, actions);
                let (Phase::Holding(holding), Some(lease)) = (&mut self.phase, lease) else {
                    return;
                };
                holding.lease = lease.clone();
                let request = self.replace(lease, Change::Renew);
                self.ask(now, Purpose::SlowRenew, request, until.since(now), actions);
            }
            _ => self.try_again_later(now),
        }
    }

    fn renewed(&mut self, now: BootInstant, pending: &Pending, lease: LeaseView, actions: &mut Vec<Action>) {
        let renewed = self.counted_from(pending.sent, now);
        let Phase::Holding(holding) = &mut self.phase else {
            return;
        };
        holding.renewed = renewed;
        holding.lease = lease;
        holding.next_try = pending.sent + self.timing.retry_period();
        if holding.announced {
            actions.push(Action::Extend { deadline: renewed + self.timing.tenure() });
        }
    }

    fn try_again_later(&mut self, now: BootInstant) {
        let retry = self.timing.retry_period();
        if let Phase::Holding(holding) = &mut self.phase {
            holding.next_try = now.max(holding.try_began + retry);
        }
    }

    /// Ends the tenure if the Lease is seen to be of another one. `version` is known for what a watch delivers, which may be
    /// older than our own last write; what a read says is never older.
    pub(super) fn judge_tenure(
        &mut self,
        now: BootInstant,
        lease: Option<&LeaseView>,
        version: Option<u64>,
        actions: &mut Vec<Action>,
    ) {
        let Phase::Holding(holding) = &self.phase else {
            return;
        };
        if is_older(version, &holding.lease) {
            return;
        }
        let loss = match lease {
            Some(lease) if lease.uid != holding.lease.uid => Loss::Deleted,
            Some(lease) if !self.is_mine(&lease.record) || lease.token() != holding.token => {
                Loss::Taken { holder: lease.record.holder.clone() }
            }
            Some(_) => return,
            None => Loss::Deleted,
        };
        self.lose(now, loss, actions);
    }

    pub(super) fn on_fence(&mut self, now: BootInstant, token: &EpochToken, may_lead: bool, actions: &mut Vec<Action>) {
        let tenure = self.timing.tenure();
        let Phase::Holding(holding) = &mut self.phase else {
            return;
        };
        if holding.token != *token {
            return;
        }
        if !may_lead {
            self.lose(now, Loss::FenceNotProven, actions);
            return;
        }
        if holding.announced || now >= holding.renewed + self.timing.step_down_after() {
            return;
        }
        holding.announced = true;
        actions.push(Action::Lead {
            token: token.clone(),
            lease_version: holding.first_version,
            deadline: holding.renewed + tenure,
        });
    }

    /// A renewal, with its precondition, is the quickest way to learn whether the lease is still ours.
    pub(super) fn on_doubt(&mut self, now: BootInstant) {
        if let Phase::Holding(holding) = &mut self.phase
            && self.pending.is_none()
        {
            holding.next_try = holding.next_try.min(now);
        }
    }

    /// Ends the tenure: the gate shuts now, everything else follows once the workers are joined.
    pub(super) fn lose(&mut self, now: BootInstant, loss: Loss, actions: &mut Vec<Action>) {
        let Phase::Holding(holding) = &self.phase else {
            return;
        };
        let announced = holding.announced;
        let ours_until = holding.renewed + self.timing.lease_duration();
        // With a write under way it is not known what the Lease's version will be.
        let lease = self.pending.is_none().then(|| holding.lease.clone());
        self.pending = None;
        let release = matches!(loss, Loss::Stopped | Loss::NotRenewed | Loss::FenceNotProven);
        self.not_before = match loss {
            // Let one that can renew go first.
            Loss::NotRenewed => now + self.timing.retry_period(),
            // Let one whose server has a working fence go first.
            Loss::FenceNotProven => now + self.timing.lease_duration(),
            Loss::Stopped | Loss::Taken { .. } | Loss::Deleted => now,
        };
        let give_up = self.stopping.then(|| now + self.timing.longest_write() * 2);
        self.phase = Phase::Draining(Draining { release, lease, ours_until, give_up });
        #[cfg(test)]
        let announced = announced
            && !(self.bugs.release_first && {
                actions.push(Action::StandDown { loss: loss.clone() });
                self.drained(now, actions);
                true
            });
        if announced {
            actions.push(Action::StandDown { loss });
        } else if matches!(self.phase, Phase::Draining(_)) {
            self.drained(now, actions);
        }
    }
}
