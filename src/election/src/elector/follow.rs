//! Following: watch the Lease, and take it when it is free, expired or absent.

use std::time::Duration;

use super::{Action, Answer, Elector, Holding, Pending, Phase, Purpose, Request};
#[cfg(not(test))]
use crate::seed::{self, Bug};
use crate::{
    clock::BootInstant,
    lease_api::LeaseError,
    observer::Verdict,
    record::{Change, LeaseView},
};

/// How often a follower reads the Lease while the watch is silent.
const LOOK_EVERY: Duration = Duration::from_secs(1);

impl Elector {
    /// Takes the lease if it can be taken, else looks at it if the watch has been silent for long.
    pub(super) fn follow(&mut self, now: BootInstant, actions: &mut Vec<Action>) {
        let taking = self.pending.as_ref().is_some_and(|pending| pending.purpose == Purpose::Take);
        if self.stopping {
            if taking || self.perhaps_taken {
                self.release_what_may_be_ours(now, actions);
            } else {
                self.phase = Phase::Finished;
                self.pending = None;
                actions.push(Action::Finish);
            }
            return;
        }
        if taking {
            return;
        }
        if now >= self.not_before
            && let Some(request) = self.request_to_take(now)
        {
            self.perhaps_taken = true;
            // Until it is answered no other try is made; then what is left of the window must still allow a renewal.
            self.ask(now, Purpose::Take, request, self.timing.try_limit(), actions);
            return;
        }
        if self.pending.is_none() && now >= self.look_at() {
            self.looked = Some(now);
            self.ask(now, Purpose::Look, Request::Get, self.timing.try_limit(), actions);
        }
    }

    pub(super) fn next_wake_following(&self) -> Option<BootInstant> {
        if self.pending.as_ref().is_some_and(|pending| pending.purpose == Purpose::Take) {
            return None;
        }
        let look = self.pending.is_none().then(|| self.look_at());
        let take = self.take_at().map(|take| take.max(self.not_before));
        match (look, take) {
            (Some(look), Some(take)) => Some(look.min(take)),
            (look, take) => look.or(take),
        }
    }

    /// When the lease can be taken if nothing changes.
    fn take_at(&self) -> Option<BootInstant> {
        if self.perhaps_taken {
            // Before the next try it has to be known how the last one ended.
            return None;
        }
        match self.observer.verdict(BootInstant::default()) {
            Verdict::Unknown => None,
            Verdict::Absent { vacant_at } | Verdict::Free { vacant_at } => Some(vacant_at),
            Verdict::Held { holder, .. } | Verdict::Expired { holder } if holder == self.identity => {
                Some(self.observer.vacant_at())
            }
            Verdict::Expired { .. } => Some(BootInstant::default()),
            Verdict::Held { until, .. } => Some(until),
        }
    }

    fn request_to_take(&self, now: BootInstant) -> Option<Request> {
        if self.take_at().is_none_or(|take| now < take) {
            return None;
        }
        Some(match self.observer.lease() {
            Some(lease) => self.replace(lease.clone(), Change::Take),
            None => Request::Create { identity: self.identity.clone(), duration_seconds: self.timing.lease_seconds() },
        })
    }

    /// When to read the Lease: at once if nothing is known, else when a live holder's renewal is overdue.
    fn look_at(&self) -> BootInstant {
        let again = self.looked.map_or(BootInstant::default(), |looked| looked + LOOK_EVERY);
        if self.perhaps_taken {
            return self.not_before;
        }
        let overdue =
            self.heard.map_or(BootInstant::default(), |heard| heard + self.timing.retry_period() + LOOK_EVERY);
        again.max(overdue)
    }

    pub(super) fn on_follow_answer(
        &mut self,
        now: BootInstant,
        pending: &Pending,
        answer: Answer,
        actions: &mut Vec<Action>,
    ) {
        match answer {
            Answer::Got(Ok(_)) => self.perhaps_taken = false,
            Answer::Got(Err(_)) => {
                if self.perhaps_taken {
                    self.not_before = self.not_before.max(pending.sent + LOOK_EVERY);
                }
            }
            Answer::Wrote(Ok(lease)) if !self.is_surely_ours(now, &lease) => {
                self.perhaps_taken = true;
                self.not_before = now;
            }
            Answer::Wrote(Ok(lease)) => {
                self.perhaps_taken = false;
                let token = lease.token();
                let renewed = self.counted_from(pending.sent, now);
                self.phase = Phase::Holding(Holding {
                    first_version: lease.version_number().unwrap_or_default(),
                    token: token.clone(),
                    lease,
                    renewed,
                    try_began: pending.sent,
                    next_try: pending.sent + self.timing.retry_period(),
                    announced: false,
                });
                actions.push(Action::ProveFence { token });
            }
            Answer::Wrote(Err(error)) => {
                // Somebody else was faster, or the outcome is unknown: read before anything else.
                let at_once = match error {
                    LeaseError::Conflict | LeaseError::Unknown(_) => true,
                    LeaseError::NotFound => self.observer.lease().is_some(),
                    LeaseError::Rejected(_) => false,
                };
                self.perhaps_taken = true;
                self.not_before = if at_once { now } else { pending.sent + self.timing.retry_period() };
            }
        }
    }

    /// Whether a write of ours that went through began a tenure: not if the Lease is known to have gone on since, nor if it
    /// was deleted on the way, so that a holder whom we had not waited for may go on.
    fn is_surely_ours(&self, now: BootInstant, written: &LeaseView) -> bool {
        let latest = self.observer.lease();
        latest.is_some_and(|latest| latest.uid == written.uid && latest.record == written.record)
            && self.observer.vacant_at() <= now
    }

    #[cfg(not(test))]
    #[expect(clippy::unused_self, reason = "the test build looks at the seeded faults")]
    pub(super) fn counted_from(&self, sent: BootInstant, answered: BootInstant) -> BootInstant {
        if seed::carries(Bug::DeadlineFromAnswer) { answered } else { sent }
    }

    #[cfg(test)]
    pub(super) fn counted_from(&self, sent: BootInstant, answered: BootInstant) -> BootInstant {
        if self.bugs.deadline_from_answer { answered } else { sent }
    }
}
