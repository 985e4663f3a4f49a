//! One shared copy of what many objects repeat.

use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::{Arc, LazyLock};

use hashbrown::HashTable;
use parking_lot::Mutex;

/// Longest text that is shared, in bytes: a label's key (a prefix of 253, a slash, a name of 63).
/// Longer ones are hardly ever repeated.
const LONGEST: usize = 253 + 1 + 63;
/// A power of two, so that workers decoding different kinds seldom meet.
const SHARDS: usize = 16;
/// A shard is swept first when it holds this many values.
const FIRST_SWEEP: usize = 256;

static TEXTS: LazyLock<Pool<str>> = LazyLock::new(Pool::new);

/// One shared copy of a text that many objects repeat: node names, label keys, namespaces. A text
/// that nobody uses any more is forgotten.
#[must_use]
pub fn intern(text: &str) -> Arc<str> {
    if text.len() > LONGEST { text.into() } else { TEXTS.share(text, || text.into()) }
}

/// A set of shared values. Values that only the pool holds are dropped when a shard has doubled
/// since it was last swept, so that it never holds more than twice what is in use, and sweeping
/// costs a constant amount of work for each new value.
pub(crate) struct Pool<T: ?Sized> {
    shards: [Mutex<Shard<T>>; SHARDS],
    hasher: RandomState,
}

struct Shard<T: ?Sized> {
    values: HashTable<Arc<T>>,
    sweep_at: usize,
}

impl<T: Hash + Eq + ?Sized> Pool<T> {
    pub(crate) fn new() -> Self {
        Self {
            shards: std::array::from_fn(|_| Mutex::new(Shard { values: HashTable::new(), sweep_at: FIRST_SWEEP })),
            hasher: RandomState::new(),
        }
    }

    /// The shared copy of `value`, made by `make` if there is none yet.
    pub(crate) fn share(&self, value: &T, make: impl FnOnce() -> Arc<T>) -> Arc<T> {
        let hash = self.hasher.hash_one(value);
        let mut shard = self.shards[(hash >> 48) as usize % SHARDS].lock();
        if let Some(shared) = shard.values.find(hash, |shared| **shared == *value) {
            return Arc::clone(shared);
        }
        if shard.values.len() >= shard.sweep_at {
            // Nobody can clone the pool's copy meanwhile: that takes the shard's lock.
            shard.values.retain(|shared| Arc::strong_count(shared) > 1);
            shard.sweep_at = (shard.values.len() * 2).max(FIRST_SWEEP);
            let keep = shard.sweep_at;
            shard.values.shrink_to(keep, |shared| self.hasher.hash_one(&**shared));
        }
        let shared = make();
        shard.values.insert_unique(hash, Arc::clone(&shared), |shared| self.hasher.hash_one(&**shared));
        shared
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().values.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_texts_share_one_copy() {
        assert!(Arc::ptr_eq(&intern("node-7"), &intern("node-7")));
        assert!(!Arc::ptr_eq(&intern("node-7"), &intern("node-8")));
        assert_eq!(&*intern(""), "");
    }

    #[test]
    fn long_texts_are_not_kept() {
        let text = "x".repeat(LONGEST + 1);
        assert!(!Arc::ptr_eq(&intern(&text), &intern(&text)));
        assert_eq!(*intern(&text), *text);
    }

    #[test]
    fn unused_values_are_forgotten_and_used_ones_stay() {
        let pool: Pool<str> = Pool::new();
        let kept: Vec<_> = (0..50).map(|n| pool.share(&format!("kept-{n}"), || format!("kept-{n}").into())).collect();
        for n in 0..100_000 {
            let text = format!("passing-{n}");
            drop(pool.share(&text, || text.as_str().into()));
        }
        assert!(pool.len() <= SHARDS * FIRST_SWEEP + kept.len(), "{} values are held", pool.len());
        for (n, text) in kept.iter().enumerate() {
            assert!(Arc::ptr_eq(text, &pool.share(&format!("kept-{n}"), || unreachable!("it is in use"))));
        }
    }
}
