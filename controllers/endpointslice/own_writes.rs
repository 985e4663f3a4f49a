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

/// A write that is under way. Dropped without an answer, when a reconcile is cancelled, it leaves
/// nothing behind: whatever the watch shows then is news.
pub(super) struct Ongoing<'a> {
    own: &'a OwnWrites,
    key: &'a ObjectKey,
    answered: bool,
}

impl Ongoing<'_> {
    /// The write was carried out and made this version. Returns whether the watch has already
    /// shown a later one, which is someone else's.
    pub(super) fn wrote(mut self, version: Option<ResourceVersion>) -> bool {
        let Some(version) = version else { return false };
        self.answered = true;
        let before = self.own.0.lock().insert(self.key.clone(), State::Wrote(version));
        matches!(before, Some(State::Writing(seen)) if seen > version)
    }

    /// The delete was carried out.
    pub(super) fn deleted(mut self) {
        self.answered = true;
    }
}

impl Drop for Ongoing<'_> {
    fn drop(&mut self) {
        if !self.answered {
            self.own.0.lock().remove(self.key);
        }
    }
}

impl OwnWrites {
    /// A create or update is about to be sent.
    pub(super) fn begin<'a>(&'a self, key: &'a ObjectKey) -> Ongoing<'a> {
        self.0.lock().insert(key.clone(), State::Writing(0));
        Ongoing { own: self, key, answered: false }
    }

    /// A delete is about to be sent.
    pub(super) fn begin_delete<'a>(&'a self, key: &'a ObjectKey) -> Ongoing<'a> {
        self.0.lock().insert(key.clone(), State::Deleting);
        Ongoing { own: self, key, answered: false }
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

        let write = own.begin(&key);
        assert!(own.shows(&key, Some(7)), "may be ours: the answer is not there yet");
        assert!(!write.wrote(Some(7)));
        assert!(own.shows(&key, Some(7)));
        assert!(!own.shows(&key, Some(8)), "a later version is not ours");

        let write = own.begin(&key);
        assert!(own.shows(&key, Some(10)));
        assert!(write.wrote(Some(9)), "someone wrote after us, before we knew our version");

        drop(own.begin(&key));
        assert!(!own.shows(&key, Some(11)), "a write that failed or was cancelled is nobody's");
    }

    #[test]
    fn only_the_deletes_of_others_are_news() {
        let own = OwnWrites::default();
        let key = ObjectKey::new("ns", "slice");
        own.begin_delete(&key).deleted();
        assert!(own.shows_deleted(&key));
        assert!(!own.shows_deleted(&key));
        drop(own.begin_delete(&key));
        assert!(!own.shows_deleted(&key), "a delete that failed or was cancelled is nobody's");
        own.begin(&key).wrote(Some(3));
        assert!(!own.shows_deleted(&key));
    }
}
