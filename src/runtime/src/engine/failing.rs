//! Which keys fail, so that the log has one line when a key begins to fail, one when it fails otherwise, and one when it is
//! well again: never one for each try.

use std::collections::HashMap;
use std::fmt::Display;
use std::hash::Hash;

use parking_lot::Mutex;

use crate::gist::gist;

/// Keys that are remembered at most; what fails beyond that is logged each time that it is retried.
const CAPACITY: usize = 10_000;
/// So many conflicts in a row are nothing but others' writes.
const ORDINARY_CONFLICTS: u32 = 5;

/// How a key fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// It is tried again.
    Retrying,
    /// It is left alone until something changes.
    GivenUp,
    /// Others change what it writes, again and again.
    Conflicting,
    /// Its last try panicked.
    Panicked,
    /// Its last try took too long.
    TooLong,
}

impl State {
    /// Value of the field `state`.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Retrying => "retrying",
            Self::GivenUp => "given-up",
            Self::Conflicting => "conflicting",
            Self::Panicked => "panicked",
            Self::TooLong => "too-long",
        }
    }
}

/// What was logged of a key last.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Told {
    state: State,
    /// The error, less what differs from try to try.
    gist: String,
}

/// The keys that fail.
pub(super) struct Failing<K>(Mutex<HashMap<K, Told>>);

impl<K> Default for Failing<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Clone + Eq + Hash> Failing<K> {
    /// Notes a failure, the `failures`th before this one; whether it is news.
    pub(super) fn note(&self, key: &K, state: State, failures: u32, error: &dyn Display) -> bool {
        if state == State::Conflicting && failures < ORDINARY_CONFLICTS {
            return false;
        }
        let told = Told { state, gist: gist(error) };
        let mut all = self.0.lock();
        if all.get(key) == Some(&told) {
            return false;
        }
        if all.len() < CAPACITY || all.contains_key(key) {
            all.insert(key.clone(), told);
        }
        true
    }

    /// Notes that a key is well; whether it was not.
    pub(super) fn is_well(&self, key: &K) -> bool {
        let mut all = self.0.lock();
        !all.is_empty() && all.remove(key).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_fails_is_told_once_and_when_it_is_well_again() {
        let failing = Failing::default();
        let note = |state, error: &str| failing.note(&"a", state, 0, &error);
        assert!(!failing.is_well(&"a"));
        assert!(note(State::Retrying, "no answer within 2000 ms"));
        assert!(!note(State::Retrying, "no answer within 2001 ms"), "the same in other numbers");
        assert!(note(State::Retrying, "forbidden"), "for another reason");
        assert!(note(State::GivenUp, "forbidden"), "otherwise");
        assert!(!note(State::GivenUp, "forbidden"));
        assert!(failing.note(&"b", State::GivenUp, 0, &"forbidden"), "another key");
        assert!(failing.is_well(&"a") && !failing.is_well(&"a"));
        assert!(note(State::GivenUp, "forbidden"), "anew");
    }

    #[test]
    fn conflicts_are_told_when_they_do_not_end() {
        let failing = Failing::default();
        let told: Vec<u32> =
            (0..20).filter(|failures| failing.note(&"a", State::Conflicting, *failures, &"it changed")).collect();
        assert_eq!(told, [ORDINARY_CONFLICTS]);
    }
}
