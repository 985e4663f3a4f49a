//! Tells our own writes from those of others, so that the events that our own writes cause start
//! nothing.

use std::collections::HashMap;

use parking_lot::Mutex;
use quarterdeck_runtime::object::{ObjectKey, ResourceVersion};

/// The last write of each slice.
#[derive(Default)]
pub(super) struct OwnWrites(Mutex<HashMap<ObjectKey, State>>);

enum State {
    /// A write is under way; the newest version that the watch showed meanwhile.
    Writing(ResourceVersion),
    /// We wrote this version.
    Wrote(ResourceVersion),
    /// A delete is under way or done, and the watch has not shown it yet.
    Deleting,
}

impl OwnWrites {
    /// A create or update is about to be sent.
    pub(super) fn begin(&self, key: &ObjectKey) {
        self.0.lock().insert(key.clone(), State::Writing(0));
    }

    /// A delete is about to be sent.
    pub(super) fn begin_delete(&self, key: &ObjectKey) {
        self.0.lock().insert(key.clone(), State::Deleting);
    }

    /// The write was answered with this version, or failed. Returns whether the watch has already
    /// shown a version of someone else's.
    pub(super) fn end(&self, key: &ObjectKey, written: Option<ResourceVersion>) -> bool {
        let mut states = self.0.lock();
        let seen = match states.get(key) {
            Some(State::Writing(seen)) => *seen,
            _ => 0,
        };
        match written {
            Some(version) => states.insert(key.clone(), State::Wrote(version)),
            None => states.remove(key),
        };
        written.is_some_and(|version| seen > version)
    }

    /// Whether a version that the watch shows is, or may turn out to be, ours.
    pub(super) fn shows(&self, key: &ObjectKey, version: Option<ResourceVersion>) -> bool {
        let Some(version) = version else { return false };
        match self.0.lock().get_mut(key) {
            Some(State::Writing(seen)) => {
                *seen = version.max(*seen);
                true
            }
            Some(State::Wrote(written)) => version <= *written,
            Some(State::Deleting) | None => false,
        }
    }

    /// Whether a deletion that the watch shows is ours; forgets the slice.
    pub(super) fn shows_deleted(&self, key: &ObjectKey) -> bool {
        matches!(self.0.lock().remove(key), Some(State::Deleting))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_writes_of_others_are_news() {
        let own = OwnWrites::default();
        let key = ObjectKey::new("ns", "slice");
        assert!(!own.shows(&key, Some(5)), "never written by us");

        own.begin(&key);
        assert!(own.shows(&key, Some(7)), "may be ours: the answer is not there yet");
        assert!(!own.end(&key, Some(7)));
        assert!(own.shows(&key, Some(7)));
        assert!(!own.shows(&key, Some(8)), "a later version is not ours");

        own.begin(&key);
        assert!(own.shows(&key, Some(10)));
        assert!(own.end(&key, Some(9)), "someone wrote after us, before we knew our version");

        own.begin(&key);
        assert!(!own.end(&key, None));
        assert!(!own.shows(&key, Some(11)), "a failed write is nobody's");
    }

    #[test]
    fn only_the_deletes_of_others_are_news() {
        let own = OwnWrites::default();
        let key = ObjectKey::new("ns", "slice");
        own.begin_delete(&key);
        assert!(own.shows_deleted(&key));
        assert!(!own.shows_deleted(&key));
        own.begin(&key);
        own.end(&key, Some(3));
        assert!(!own.shows_deleted(&key));
    }
}
