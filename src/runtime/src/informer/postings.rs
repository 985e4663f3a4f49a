//! One index of a store: which ids stand under which key.

use std::hash::{BuildHasher, RandomState};

use hashbrown::HashTable;

/// The ids of one key, sorted. Most keys of most indexes have one object, which takes no list.
enum Ids {
    One([u32; 1]),
    Many(Vec<u32>),
}

impl Ids {
    fn as_slice(&self) -> &[u32] {
        match self {
            Self::One(id) => id,
            Self::Many(ids) => ids,
        }
    }

    fn insert(&mut self, id: u32) {
        match self {
            Self::One([present]) if *present == id => {}
            Self::One([present]) => {
                let (low, high) = if *present < id { (*present, id) } else { (id, *present) };
                *self = Self::Many(vec![low, high]);
            }
            Self::Many(ids) => {
                if let Err(at) = ids.binary_search(&id) {
                    ids.insert(at, id);
                }
            }
        }
    }

    /// Takes an id out; true when none is left.
    fn remove(&mut self, id: u32) -> bool {
        match self {
            Self::One([present]) => *present == id,
            Self::Many(ids) => {
                if let Ok(at) = ids.binary_search(&id) {
                    ids.remove(at);
                }
                if ids.capacity() > 16 && ids.len() * 4 < ids.capacity() {
                    ids.shrink_to(ids.len() * 2);
                }
                ids.is_empty()
            }
        }
    }
}

struct Posting {
    key: Box<str>,
    ids: Ids,
}

/// Ids by key.
#[derive(Default)]
pub(super) struct Postings(HashTable<Posting>);

impl Postings {
    pub(super) fn get(&self, hasher: &RandomState, key: &str) -> &[u32] {
        self.0.find(hasher.hash_one(key), |posting| *posting.key == *key).map_or(&[], |posting| posting.ids.as_slice())
    }

    pub(super) fn insert(&mut self, hasher: &RandomState, key: &str, id: u32) {
        let hash = hasher.hash_one(key);
        match self.0.find_mut(hash, |posting| *posting.key == *key) {
            Some(posting) => posting.ids.insert(id),
            None => {
                let posting = Posting { key: key.into(), ids: Ids::One([id]) };
                self.0.insert_unique(hash, posting, |posting| hasher.hash_one(&*posting.key));
            }
        }
    }

    pub(super) fn remove(&mut self, hasher: &RandomState, key: &str, id: u32) {
        let Ok(mut entry) = self.0.find_entry(hasher.hash_one(key), |posting| *posting.key == *key) else { return };
        if entry.get_mut().ids.remove(id) {
            entry.remove();
        }
    }
}

/// The keys of one object in one index, gathered without a string for each.
#[derive(Default, PartialEq, Eq)]
pub(super) struct Keys {
    text: String,
    ends: Vec<usize>,
}

impl Keys {
    /// Replaces the keys by those that `produce` hands to its argument.
    pub(super) fn fill(&mut self, produce: impl FnOnce(&mut dyn FnMut(&str))) {
        self.text.clear();
        self.ends.clear();
        let (text, ends) = (&mut self.text, &mut self.ends);
        produce(&mut |key| {
            text.push_str(key);
            ends.push(text.len());
        });
    }

    fn iter(&self) -> impl Iterator<Item = &str> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, end)| &self.text[start..*end])
    }

    pub(super) fn each(&self, visit: impl FnMut(&str)) {
        self.iter().for_each(visit);
    }

    pub(super) fn contains(&self, key: &str) -> bool {
        self.iter().any(|present| present == key)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn equal_a_map_of_sets(ops in prop::collection::vec((any::<bool>(), 0..4_u8, 0..40_u32), 0..300)) {
            let hasher = RandomState::new();
            let mut postings = Postings::default();
            let mut model: BTreeMap<String, BTreeSet<u32>> = BTreeMap::new();
            for (add, key, id) in ops {
                let key = key.to_string();
                if add {
                    postings.insert(&hasher, &key, id);
                    model.entry(key).or_default().insert(id);
                } else {
                    postings.remove(&hasher, &key, id);
                    model.entry(key).or_default().remove(&id);
                }
            }
            for (key, ids) in &model {
                prop_assert_eq!(postings.get(&hasher, key), ids.iter().copied().collect::<Vec<_>>());
            }
            prop_assert_eq!(postings.0.len(), model.values().filter(|ids| !ids.is_empty()).count());
        }
    }

    #[test]
    fn keys_keep_their_bounds() {
        let (mut one, mut two) = (Keys::default(), Keys::default());
        one.fill(|visit| ["ab", "", "c"].into_iter().for_each(visit));
        two.fill(|visit| ["a", "bc"].into_iter().for_each(visit));
        assert!(one != two && one.contains("") && !two.contains(""));
        assert_eq!(one.iter().collect::<Vec<_>>(), ["ab", "", "c"]);
    }
}
