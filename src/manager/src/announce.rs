//! Says who leads, and what the leader cannot do: in the log, and as Events on the Lease.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use quarterdeck_election::{ElectionStatus, FenceState, Leadership};
use quarterdeck_runtime::events::{Reason, Recorder};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::control::{State, States};
use crate::flags::ElectionFlags;
use crate::reasons;

/// For how long the fence has to be out of order before an Event says so: a server does not look at one that was only just
/// installed.
const FENCE_SETTLES: Duration = Duration::from_secs(10);

/// Speaks for one replica.
#[derive(Clone)]
pub(crate) struct Announcer {
    lease: ObjectReference,
    identity: String,
    recorder: Recorder,
}

impl Announcer {
    /// A voice for the replica named `identity`; `recorder` writes as the manager.
    pub(crate) fn new(flags: &ElectionFlags, identity: &str, recorder: Recorder) -> Self {
        let lease = ObjectReference {
            api_version: Some("coordination.k8s.io/v1".to_owned()),
            kind: Some("Lease".to_owned()),
            namespace: Some(flags.leader_elect_resource_namespace.clone()),
            name: Some(flags.leader_elect_resource_name.clone()),
            ..ObjectReference::default()
        };
        Self { lease, identity: identity.to_owned(), recorder }
    }

    /// Follows the leadership until `stop`. A loss is only a log line: the gate is shut by then.
    pub(crate) async fn follow(self, mut leadership: watch::Receiver<Leadership>, stop: CancellationToken) {
        loop {
            match &*leadership.borrow_and_update() {
                Leadership::Leading(tenure) => {
                    tracing::info!(identity = self.identity, epoch = %tenure.token(), "became leader");
                    self.say("became leader");
                }
                Leadership::Standby { holder, lost: Some(loss) } => {
                    tracing::warn!(identity = self.identity, holder = holder.as_deref(), reason = %loss, "stopped leading");
                }
                Leadership::Standby { holder, lost: None } => {
                    tracing::info!(identity = self.identity, holder = holder.as_deref(), "standing by");
                }
            }
            tokio::select! {
                () = stop.cancelled() => return,
                changed = leadership.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Tells, while this replica leads, of its fence and of controllers that must not run, until `stop`. The log has them on
    /// every replica; an Event is the leader's.
    pub(crate) async fn follow_trouble(
        self,
        mut leadership: watch::Receiver<Leadership>,
        mut status: Option<watch::Receiver<ElectionStatus>>,
        states: States,
        stop: CancellationToken,
    ) {
        let (mut told, mut changed, mut fails) = (Told::default(), states.follow(), false);
        while !stop.is_cancelled() {
            changed.mark_unchanged();
            let leads = leadership.borrow_and_update().tenure().is_some();
            let seen = status.as_mut().map(|status| status.borrow_and_update().clone());
            let error = seen.as_ref().and_then(|seen| seen.last_error.as_deref());
            if std::mem::replace(&mut fails, error.is_some()) != error.is_some() {
                self.log_lease(error);
            }
            if leads {
                let fence = seen.and_then(|seen| seen.fence);
                for (reason, message) in told.news(fence.as_ref(), &states.all(), Instant::now()) {
                    self.recorder.event(&self.lease, reason, format!("{}: {message}", self.identity));
                }
            }
            tokio::select! {
                () = stop.cancelled() => return,
                ended = leadership.changed() => if ended.is_err() { return },
                ended = changed.changed() => if ended.is_err() { return },
                () = next(&mut status) => {}
            }
        }
    }

    /// A line of the log when the Lease cannot be read or written, and when it can again: never one for each try.
    fn log_lease(&self, error: Option<&str>) {
        let lease = self.lease.name.as_deref();
        match error {
            Some(error) => tracing::warn!(lease, error, "the lease cannot be read or written"),
            None => tracing::info!(lease, "the lease is read and written again"),
        }
    }

    /// Says that this replica stops leading because it was told to.
    pub(crate) fn stopping(&self) {
        self.say("stopped leading");
    }

    fn say(&self, what: &str) {
        self.recorder.event(&self.lease, reasons::ELECTION, format!("{} {what}", self.identity));
    }
}

/// Resolves when there is news of the election, which every renewal is; never without one.
async fn next(status: &mut Option<watch::Receiver<ElectionStatus>>) {
    if let Some(status) = status
        && status.changed().await.is_ok()
    {
        return;
    }
    std::future::pending::<()>().await;
}

/// What was told, so that each change is told once.
#[derive(Default)]
struct Told {
    /// The reason that was told of the fence last.
    fence: Option<Reason>,
    /// Since when the fence has been out of order.
    broken: Option<Instant>,
    /// The controllers of which something bad was told last, and what.
    controllers: BTreeMap<&'static str, (Reason, String)>,
}

impl Told {
    fn news(
        &mut self,
        fence: Option<&FenceState>,
        states: &BTreeMap<&'static str, State>,
        now: Instant,
    ) -> Vec<(Reason, String)> {
        let mut news = Vec::new();
        news.extend(fence.and_then(|fence| self.of_fence(fence, now)));
        for (controller, state) in states {
            let bad = match state {
                State::Blocked(why) => Some((reasons::BLOCKED, why.clone())),
                State::Failed(why) => Some((reasons::FAILED, why.clone())),
                State::Running => None,
                // On its way to one or the other.
                _ => continue,
            };
            match (self.controllers.get(controller), bad) {
                (Some(before), Some(bad)) if *before == bad => {}
                (None, None) => {}
                (_, Some(bad)) => {
                    news.push((bad.0, format!("{controller}: {}", bad.1)));
                    self.controllers.insert(controller, bad);
                }
                (Some(_), None) => {
                    news.push((reasons::RUNS, format!("{controller} runs")));
                    self.controllers.remove(controller);
                }
            }
        }
        news
    }

    fn of_fence(&mut self, fence: &FenceState, now: Instant) -> Option<(Reason, String)> {
        let (reason, message) = match fence {
            FenceState::Verified => {
                self.broken = None;
                let was_bad = self.fence.take_if(|told| *told != reasons::FENCE_WORKS).is_some();
                return was_bad.then(|| (reasons::FENCE_WORKS, "the fence works".to_owned()));
            }
            FenceState::Broken(why) => (reasons::FENCE_BROKEN, format!("writes go out without a token: {why}")),
            FenceState::Absent => {
                (reasons::FENCE_ABSENT, "no fence is installed; quarterdeck install brings it".to_owned())
            }
        };
        let since = *self.broken.get_or_insert(now);
        if now.duration_since(since) < FENCE_SETTLES || self.fence.replace(reason) == Some(reason) {
            return None;
        }
        Some((reason, message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(news: Vec<(Reason, String)>) -> Vec<&'static str> {
        news.into_iter().map(|(reason, _)| reason.name()).collect()
    }

    #[test]
    fn each_change_of_a_controller_is_told_once() {
        let (mut told, now) = (Told::default(), Instant::now());
        let mut seen = |state: State| names(told.news(None, &BTreeMap::from([("a", state)]), now));
        assert_eq!(seen(State::Running), [""; 0], "all is well from the start");
        let blocked = |why: &str| State::Blocked(why.to_owned());
        assert_eq!(seen(blocked("x")), ["ControllerBlocked"]);
        assert_eq!(seen(blocked("x")), [""; 0]);
        assert_eq!(seen(blocked("y")), ["ControllerBlocked"], "for another reason");
        assert_eq!(seen(State::Warming), [""; 0], "not yet");
        assert_eq!(seen(State::Failed("y".to_owned())), ["ControllerFailed"]);
        assert_eq!(seen(State::Running), ["ControllerRunning"]);
        assert_eq!(seen(State::Running), [""; 0]);
    }

    #[test]
    fn a_fence_is_given_time_and_then_told_of_once() {
        let (mut told, start) = (Told::default(), Instant::now());
        let broken = FenceState::Broken("it admits everything".into());
        let mut seen = |fence: &FenceState, second| {
            names(told.news(Some(fence), &BTreeMap::new(), start + FENCE_SETTLES * second))
        };
        assert_eq!(seen(&broken, 0), [""; 0]);
        assert_eq!(seen(&FenceState::Verified, 0), [""; 0], "it was only just installed");
        assert_eq!(seen(&broken, 1), [""; 0]);
        assert_eq!(seen(&broken, 2), ["FenceBroken"]);
        assert_eq!(seen(&broken, 3), [""; 0]);
        assert_eq!(seen(&FenceState::Absent, 4), ["FenceAbsent"]);
        assert_eq!(seen(&FenceState::Verified, 5), ["FenceWorks"]);
        assert_eq!(seen(&FenceState::Verified, 6), [""; 0]);
    }
}
