//! Where an informer keeps its objects: a slab with 32-bit ids, a table of keys, and indexes that
//! hold ids.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use hashbrown::HashTable;

use super::Index;
use super::postings::{Keys, Postings};
use crate::object::{Cached, ObjectKey};

/// One object in the store.
struct Slot<K> {
    key: ObjectKey,
    object: Arc<K>,
    /// Estimate of what the object takes, in bytes.
    bytes: u32,
    /// The last list that contained the object; see [`Store::begin_list`].
    listed: u32,
}

/// A declared index with its ids.
struct Declared<K> {
    index: Index<K>,
    ids: Postings,
}

/// Objects, their keys and their indexes. An object keeps its id for life, so that an update whose
/// index keys did not change touches nothing but the slot.
pub(super) struct Store<K> {
    slots: Vec<Option<Slot<K>>>,
    free: Vec<u32>,
    by_key: HashTable<u32>,
    namespaces: Option<Postings>,
    declared: Vec<Declared<K>>,
    hasher: RandomState,
    bytes: u64,
    list: u32,
    before: Keys,
    after: Keys,
}

impl<K: Cached> Store<K> {
    /// An empty store.
    pub(super) fn new(namespaced: bool) -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            by_key: HashTable::new(),
            namespaces: namespaced.then(Postings::default),
            declared: Vec::new(),
            hasher: RandomState::new(),
            bytes: 0,
            list: 0,
            before: Keys::default(),
            after: Keys::default(),
        }
    }

    /// Adds an index over the objects present and to come; one that is declared already stays.
    pub(super) fn add_index(&mut self, index: Index<K>) {
        if index.name == super::BY_NAMESPACE || self.declared.iter().any(|known| known.index.name == index.name) {
            return;
        }
        let mut ids = Postings::default();
        for (id, slot) in (0_u32..).zip(&self.slots) {
            let Some(slot) = slot else { continue };
            self.after.fill(|visit| (index.keys)(&slot.object, visit));
            self.after.each(|key| ids.insert(&self.hasher, key, id));
        }
        self.declared.push(Declared { index, ids });
    }

    fn hash(&self, namespace: &str, name: &str) -> u64 {
        self.hasher.hash_one((namespace, name))
    }

    fn id(&self, key: &ObjectKey) -> Option<u32> {
        let hash = self.hash(key.namespace(), key.name());
        self.by_key.find(hash, |id| self.slots[*id as usize].as_ref().is_some_and(|slot| slot.key == *key)).copied()
    }

    fn object(&self, id: u32) -> Option<&Arc<K>> {
        self.slots[id as usize].as_ref().map(|slot| &slot.object)
    }

    pub(super) fn get(&self, key: &ObjectKey) -> Option<&Arc<K>> {
        self.id(key).and_then(|id| self.object(id))
    }

    pub(super) fn len(&self) -> usize {
        self.by_key.len()
    }

    /// Estimate of what all objects take, in bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes + (self.slots.capacity() * size_of::<Option<Slot<K>>>()) as u64
    }

    pub(super) fn all(&self) -> Vec<Arc<K>> {
        self.slots.iter().flatten().map(|slot| Arc::clone(&slot.object)).collect()
    }

    /// Ids under a key of an index; `None` when there is no such index.
    fn ids(&self, index: &str, key: &str) -> Option<&[u32]> {
        if index == super::BY_NAMESPACE {
            return self.namespaces.as_ref().map(|ids| ids.get(&self.hasher, key));
        }
        let declared = self.declared.iter().find(|known| known.index.name == index)?;
        Some(declared.ids.get(&self.hasher, key))
    }

    pub(super) fn indexed(&self, index: &str, key: &str) -> Option<Vec<Arc<K>>> {
        Some(self.ids(index, key)?.iter().filter_map(|id| self.object(*id)).map(Arc::clone).collect())
    }

    pub(super) fn indexed_len(&self, index: &str, key: &str) -> Option<usize> {
        self.ids(index, key).map(<[u32]>::len)
    }

    /// Stores an object and returns the one it replaces.
    pub(super) fn put(&mut self, key: ObjectKey, object: Arc<K>, bytes: u32) -> Option<Arc<K>> {
        self.bytes += u64::from(bytes);
        let listed = self.list;
        let Some(id) = self.id(&key) else {
            self.insert(Slot { key, object, bytes, listed });
            return None;
        };
        let slot = self.slots[id as usize].as_mut().expect("an id in the key table has a slot");
        self.bytes -= u64::from(slot.bytes);
        (slot.bytes, slot.listed) = (bytes, listed);
        // A view shares its key's text with the slot; keep it that way.
        slot.key = key;
        let old = std::mem::replace(&mut slot.object, Arc::clone(&object));
        let (before, after, hasher) = (&mut self.before, &mut self.after, &self.hasher);
        for Declared { index, ids } in &mut self.declared {
            before.fill(|visit| (index.keys)(&old, visit));
            after.fill(|visit| (index.keys)(&object, visit));
            if before == after {
                continue;
            }
            before.each(|key| {
                if !after.contains(key) {
                    ids.remove(hasher, key, id);
                }
            });
            after.each(|key| ids.insert(hasher, key, id));
        }
        Some(old)
    }

    fn insert(&mut self, slot: Slot<K>) {
        let hash = self.hash(slot.key.namespace(), slot.key.name());
        let id = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            u32::try_from(self.slots.len() - 1).expect("fewer than 2^32 objects fit into memory")
        });
        if let Some(namespaces) = &mut self.namespaces {
            namespaces.insert(&self.hasher, slot.key.namespace(), id);
        }
        for Declared { index, ids } in &mut self.declared {
            self.after.fill(|visit| (index.keys)(&slot.object, visit));
            self.after.each(|key| ids.insert(&self.hasher, key, id));
        }
        self.slots[id as usize] = Some(slot);
        let (slots, hasher) = (&self.slots, &self.hasher);
        self.by_key.insert_unique(hash, id, |id| {
            let key = &slots[*id as usize].as_ref().expect("an id in the key table has a slot").key;
            hasher.hash_one((key.namespace(), key.name()))
        });
    }

    /// Removes an object and returns it.
    pub(super) fn remove(&mut self, key: &ObjectKey) -> Option<Arc<K>> {
        let hash = self.hash(key.namespace(), key.name());
        let slots = &self.slots;
        let found = self.by_key.find_entry(hash, |id| slots[*id as usize].as_ref().is_some_and(|s| s.key == *key));
        let (id, _) = found.ok()?.remove();
        let slot = self.slots[id as usize].take().expect("an id in the key table has a slot");
        self.free.push(id);
        self.bytes -= u64::from(slot.bytes);
        if let Some(namespaces) = &mut self.namespaces {
            namespaces.remove(&self.hasher, slot.key.namespace(), id);
        }
        for Declared { index, ids } in &mut self.declared {
            self.before.fill(|visit| (index.keys)(&slot.object, visit));
            self.before.each(|key| ids.remove(&self.hasher, key, id));
        }
        Some(slot.object)
    }

    /// Starts a list: what is put or marked from now on is in it.
    pub(super) fn begin_list(&mut self) {
        self.list = self.list.wrapping_add(1);
    }

    /// Notes that the list contains an object, without a new state of it.
    pub(super) fn mark_listed(&mut self, key: &ObjectKey) {
        let list = self.list;
        if let Some(slot) = self.id(key).and_then(|id| self.slots[id as usize].as_mut()) {
            slot.listed = list;
        }
    }

    /// Keys of the objects that the present list did not contain.
    pub(super) fn unlisted(&self) -> Vec<ObjectKey> {
        self.slots.iter().flatten().filter(|slot| slot.listed != self.list).map(|slot| slot.key.clone()).collect()
    }

    /// Gives back room that a shrunken store no longer needs.
    pub(super) fn shrink(&mut self) {
        if self.len() * 4 > self.slots.len() {
            return;
        }
        while matches!(self.slots.last(), Some(None)) {
            self.slots.pop();
        }
        let end = self.slots.len();
        self.free.retain(|id| (*id as usize) < end);
        self.free.shrink_to_fit();
        self.slots.shrink_to_fit();
    }
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
