//! A map that forgets what was not used for longest.

use std::collections::HashMap;
use std::hash::Hash;

/// A map of bounded size.
#[derive(Debug)]
pub(super) struct Recent<K, V> {
    entries: HashMap<K, (V, u64)>,
    capacity: usize,
    uses: u64,
}

impl<K: Hash + Eq + Clone, V> Recent<K, V> {
    /// An empty map of at most `capacity` entries, at least one.
    pub(super) fn new(capacity: usize) -> Self {
        Self { entries: HashMap::new(), capacity: capacity.max(1), uses: 0 }
    }

    /// The value of a key, made by `make` if there is none.
    pub(super) fn entry(&mut self, key: K, make: impl FnOnce() -> V) -> &mut V {
        self.uses += 1;
        if self.entries.len() >= self.capacity && !self.entries.contains_key(&key) {
            self.forget();
        }
        let entry = self.entries.entry(key).or_insert_with(|| (make(), 0));
        entry.1 = self.uses;
        &mut entry.0
    }

    /// Forgets the quarter that was not used for longest, so that it need not be done each time.
    fn forget(&mut self) {
        let mut uses: Vec<u64> = self.entries.values().map(|(_, used)| *used).collect();
        uses.sort_unstable();
        let oldest_kept = uses[uses.len() / 4];
        self.entries.retain(|_, (_, used)| *used > oldest_kept);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_last_is_kept() {
        let mut recent = Recent::new(8);
        for key in 0..8 {
            *recent.entry(key, || 0) += 1;
        }
        *recent.entry(0, || 0) += 1;
        assert_eq!(*recent.entry(8, || 0), 0);
        assert!(recent.entries.len() <= 8);
        assert_eq!(*recent.entry(0, || 0), 2);
        assert_eq!(*recent.entry(1, || 0), 0);
        for key in 0..1000 {
            recent.entry(key, || 0);
            assert!(recent.entries.len() <= 8);
        }
    }
}
