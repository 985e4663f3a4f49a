//! Whether a provider is well: asked now and then while somebody uses it, and at once when calls fail.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use quarterdeck_runtime::events::Reason;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::core::Core;
use crate::error::CloudError;
use crate::reasons;

/// How long after its last use a provider is still asked.
const IN_USE: Duration = Duration::from_secs(300);
/// Failures of this time lead to one question.
const AT_LEAST: Duration = Duration::from_secs(10);

/// What is wrong with a provider as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TroubleKind {
    /// It refuses the credentials.
    Denied,
    /// It cannot be reached, or does not answer.
    Unreachable,
}

impl TroubleKind {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Denied, Self::Unreachable];

    /// Value of the label `kind` of the metric.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Denied => "denied",
            Self::Unreachable => "unreachable",
        }
    }

    /// Reason of an event about it.
    #[must_use]
    pub fn reason(self) -> Reason {
        match self {
            Self::Denied => reasons::DENIED,
            Self::Unreachable => reasons::UNREACHABLE,
        }
    }
}

/// A provider that is not well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// What is wrong.
    pub kind: TroubleKind,
    /// What it says, or what is known.
    pub message: String,
}

/// What is known of a provider's health.
#[derive(Default)]
pub(super) struct Health {
    state: Mutex<State>,
    begun: AtomicBool,
    wake: Arc<Notify>,
}

#[derive(Default)]
struct State {
    trouble: Option<Trouble>,
    /// Whether a controller has taken it to make an event of it.
    told: bool,
    /// Whether what was told is over, and nobody was told of that.
    recovered: bool,
    used: Option<Instant>,
    answered: Option<Instant>,
}

impl Health {
    /// The provider answered a call.
    pub(super) fn answered(&self) {
        self.state.lock().answered = Some(Instant::now());
    }

    /// A call failed in a way that may be the provider's.
    pub(super) fn doubt(&self) {
        self.state.lock().answered = None;
        self.wake.notify_one();
    }

    /// What is wrong with it now.
    pub(super) fn trouble(&self) -> Option<Trouble> {
        self.state.lock().trouble.clone()
    }

    /// What is wrong, if nobody was told yet.
    pub(super) fn take(&self) -> Option<Trouble> {
        let mut state = self.state.lock();
        if state.told {
            return None;
        }
        state.told = state.trouble.is_some();
        state.trouble.clone()
    }

    /// Whether what was told is over, if nobody was told of that yet.
    pub(super) fn take_recovery(&self) -> bool {
        std::mem::take(&mut self.state.lock().recovered)
    }

    /// Takes what a probe came to; says what changed.
    fn judge(&self, result: &Result<(), CloudError>) -> Option<Option<Trouble>> {
        let kind = match result {
            Err(CloudError::Denied(_)) => Some(TroubleKind::Denied),
            Err(CloudError::BreakerOpen { .. }) => Some(TroubleKind::Unreachable),
            Err(error) if error.is_providers_fault() => Some(TroubleKind::Unreachable),
            // It was not asked, or asked to be left alone for a while: that says nothing.
            Err(CloudError::Busy { .. } | CloudError::Throttled { .. } | CloudError::RetryAfter { .. }) => return None,
            Ok(()) | Err(_) => None,
        };
        let message = result.as_ref().err().map(ToString::to_string).unwrap_or_default();
        let trouble = kind.map(|kind| Trouble { kind, message });
        let mut state = self.state.lock();
        let changed = state.trouble.as_ref().map(|trouble| trouble.kind) != kind;
        state.trouble.clone_from(&trouble);
        if changed {
            // Another trouble that comes before that was told takes its place.
            state.recovered = trouble.is_none() && (state.told || state.recovered);
            state.told = false;
        }
        changed.then_some(trouble)
    }
}

impl Core {
    /// Somebody uses the provider.
    pub(super) fn used(self: &Arc<Self>) {
        let first = self.health.state.lock().used.replace(Instant::now()).is_none_or(|used| used.elapsed() > IN_USE);
        if !self.health.begun.swap(true, SeqCst) {
            self.threads.watch().spawn(keep_asking(Arc::downgrade(self), Arc::clone(&self.health.wake)));
        } else if first {
            self.health.wake.notify_one();
        }
    }

    fn is_in_use(&self) -> bool {
        self.health.state.lock().used.is_some_and(|used| used.elapsed() <= IN_USE)
    }

    /// Asks once, if there is a reason to.
    async fn ask_if_due(self: &Arc<Self>) {
        let due = {
            let state = self.health.state.lock();
            let lately = |at: &Instant| at.elapsed() < self.limits.probe_every;
            // Who answers calls is well.
            state.trouble.is_some() || !state.answered.as_ref().is_some_and(lately)
        };
        if !due || !self.is_in_use() {
            return;
        }
        let provider = &*self.name;
        match self.health.judge(&self.probe().await) {
            None => {}
            Some(Some(Trouble { kind, message })) => {
                tracing::warn!(provider, trouble = kind.name(), error = message, "the cloud provider is not well");
            }
            Some(None) => {
                // It may be another one now: a plug-in that was replaced.
                self.book.doubt();
                tracing::info!(provider, "the cloud provider is well");
            }
        }
    }
}

async fn keep_asking(core: Weak<Core>, wake: Arc<Notify>) {
    loop {
        let Some(now) = core.upgrade() else { return };
        let (stop, every) = (now.stop.clone(), now.limits.probe_every);
        now.ask_if_due().await;
        if now.is_in_use() && now.health.trouble().is_none() {
            now.renew_info().await;
        }
        // While it is left alone there is nobody to ask; after that this question is the one that tries it.
        let open = now.left().unwrap_or_default();
        let trouble = now.health.trouble().is_some() || !now.is_closed();
        drop(now);
        let rest = AT_LEAST.min(every);
        let wait = if trouble { rest.max(open) } else { every };
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
            () = async { wake.notified().await; tokio::time::sleep(rest).await } => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trouble_is_told_once() {
        let health = Health::default();
        let denied = Err(CloudError::Denied("bad key".to_owned()));
        assert_eq!(health.judge(&Ok(())), None, "well from the start");
        assert!(matches!(health.judge(&denied), Some(Some(Trouble { kind: TroubleKind::Denied, .. }))));
        assert_eq!(health.judge(&denied), None);
        assert!(health.take().is_some_and(|trouble| trouble.message.contains("bad key")));
        assert_eq!(health.take(), None);
        // Being asked to wait is neither better nor worse.
        let busy = Err(CloudError::Throttled { after: None, message: String::new() });
        assert_eq!(health.judge(&busy), None);
        assert!(health.trouble().is_some());
        let away = Err(CloudError::Unavailable("no route".to_owned()));
        assert!(matches!(health.judge(&away), Some(Some(Trouble { kind: TroubleKind::Unreachable, .. }))));
        assert!(health.take().is_some());
        assert!(!health.take_recovery(), "it is not over");
        assert_eq!(health.judge(&Ok(())), Some(None));
        assert_eq!((health.take(), health.trouble()), (None, None));
        assert!(health.take_recovery() && !health.take_recovery(), "told once");
        // Of a trouble that nobody was told of, nobody is told that it is over.
        assert!(health.judge(&away).is_some() && health.judge(&Ok(())).is_some());
        assert!(!health.take_recovery());
    }
}
