//! Read-your-writes: who waits until a store shows a write.

use std::collections::{BTreeMap, HashMap};

use crate::client::Expect;
use crate::object::{ObjectKey, ResourceVersion};

/// What is called once.
pub(super) type Callback = Box<dyn FnOnce() + Send>;

/// Those who wait, by what wakes them.
#[derive(Default)]
pub(super) struct Waiters {
    by_key: HashMap<ObjectKey, Vec<(u64, Expect)>>,
    by_version: BTreeMap<(ResourceVersion, u64), ObjectKey>,
    callbacks: HashMap<u64, Callback>,
    next: u64,
}

impl Waiters {
    pub(super) fn is_empty(&self) -> bool {
        self.callbacks.is_empty()
    }

    pub(super) fn add(&mut self, key: &ObjectKey, expect: Expect, callback: Callback) {
        self.next += 1;
        if let Expect::AtLeast(version) = expect {
            self.by_version.insert((version, self.next), key.clone());
        }
        self.by_key.entry(key.clone()).or_default().push((self.next, expect));
        self.callbacks.insert(self.next, callback);
    }

    /// Takes those who wait for this object and for whom `shown` is true.
    pub(super) fn take_shown(&mut self, key: &ObjectKey, shown: impl Fn(&Expect) -> bool, ready: &mut Vec<Callback>) {
        let Some(waiting) = self.by_key.get_mut(key) else { return };
        for (id, expect) in waiting.extract_if(.., |(_, expect)| shown(expect)) {
            if let Expect::AtLeast(version) = expect {
                self.by_version.remove(&(version, id));
            }
            ready.extend(self.callbacks.remove(&id));
        }
        if waiting.is_empty() {
            self.by_key.remove(key);
        }
    }

    /// Takes those who wait for a version that is reached, whatever became of their object.
    pub(super) fn take_reached(&mut self, version: ResourceVersion, ready: &mut Vec<Callback>) {
        while let Some(((wanted, id), key)) = self.by_version.pop_first() {
            if wanted > version {
                self.by_version.insert((wanted, id), key);
                return;
            }
            ready.extend(self.callbacks.remove(&id));
            if let Some(waiting) = self.by_key.get_mut(&key) {
                waiting.retain(|(other, _)| *other != id);
                if waiting.is_empty() {
                    self.by_key.remove(&key);
                }
            }
        }
    }

    /// Takes all keys that someone waits for.
    pub(super) fn keys(&self) -> Vec<ObjectKey> {
        self.by_key.keys().cloned().collect()
    }

    /// Takes all, when nothing will be shown any more.
    pub(super) fn take_all(&mut self) -> Vec<Callback> {
        let all = std::mem::take(self);
        self.next = all.next;
        all.callbacks.into_values().collect()
    }
}
