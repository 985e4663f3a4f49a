//! The last writes that gate or fence refused, for the status page.

use std::collections::VecDeque;
use std::sync::Arc;

use http::HeaderValue;
use jiff::Timestamp;
use parking_lot::Mutex;

/// How many are kept.
const KEPT: usize = 20;

/// Who refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refuser {
    /// The write gate of this process; nothing was sent.
    Gate,
    /// The server, by the epoch fence.
    Fence,
}

impl Refuser {
    /// As it is shown.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Gate => "gate",
            Self::Fence => "fence",
        }
    }
}

/// A write that was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// When, by the machine's clock.
    pub at: Timestamp,
    /// By whom.
    pub by: Refuser,
    /// The user as whom it would have been made; `None` for the manager's own.
    pub account: Option<String>,
    /// Verb and object.
    pub what: String,
    /// Why.
    pub why: String,
}

/// The last refusals of a process. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Refusals(Arc<Mutex<VecDeque<Refusal>>>);

impl Refusals {
    /// The refusals that are kept, newest first.
    #[must_use]
    pub fn all(&self) -> Vec<Refusal> {
        self.0.lock().iter().rev().cloned().collect()
    }

    pub(super) fn note(&self, by: Refuser, account: Option<&HeaderValue>, what: String, why: String) {
        let account = account.and_then(|user| user.to_str().ok()).map(str::to_owned);
        let mut kept = self.0.lock();
        if kept.len() == KEPT {
            kept.pop_front();
        }
        kept.push_back(Refusal { at: Timestamp::now(), by, account, what, why });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_ones_are_kept() {
        let refusals = Refusals::default();
        let user = HeaderValue::from_static("system:serviceaccount:kube-system:endpoint-controller");
        for number in 0..KEPT + 5 {
            refusals.note(Refuser::Gate, Some(&user), format!("update endpoints a/{number}"), "shut".to_owned());
        }
        let all = refusals.all();
        assert_eq!(all.len(), KEPT);
        assert_eq!(all[0].what, format!("update endpoints a/{}", KEPT + 4));
        assert_eq!(all[KEPT - 1].what, "update endpoints a/5");
    }
}
