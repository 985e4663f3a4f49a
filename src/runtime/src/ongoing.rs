//! What is wrong now, so that the log has one line when it begins and one when it is over: never one for each time that it is
//! found so.

use std::collections::HashSet;
use std::hash::Hash;

use parking_lot::Mutex;

/// Troubles that are remembered at most; those beyond are told each time.
const CAPACITY: usize = 10_000;

/// The troubles that there are now.
#[derive(Debug)]
pub struct Ongoing<K>(Mutex<HashSet<K>>);

impl<K> Default for Ongoing<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash> Ongoing<K> {
    /// Notes that there is this trouble; whether there was none.
    pub fn begins(&self, trouble: K) -> bool {
        let mut all = self.0.lock();
        if all.len() >= CAPACITY {
            return !all.contains(&trouble);
        }
        all.insert(trouble)
    }

    /// Notes that there is no such trouble; whether there was.
    pub fn ends(&self, trouble: &K) -> bool {
        let mut all = self.0.lock();
        !all.is_empty() && all.remove(trouble)
    }

    /// Forgets troubles of what is there no more.
    pub fn retain(&self, is_there: impl FnMut(&K) -> bool) {
        self.0.lock().retain(is_there);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_begins_once_and_ends_once() {
        let troubles = Ongoing::default();
        assert!(!troubles.ends(&"a"));
        assert!(troubles.begins("a") && !troubles.begins("a") && troubles.begins("b"));
        assert!(troubles.ends(&"a") && !troubles.ends(&"a"));
        troubles.retain(|trouble| *trouble != "b");
        assert!(troubles.begins("a") && troubles.begins("b"));
    }
}
