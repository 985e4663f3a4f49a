//! Informers without a server, for tests of controllers: the test says what the caches show.

use std::sync::atomic::{AtomicU64, Ordering};

use super::{Informers, Lister, Selection};
use crate::object::{Cached, Kind, ObjectKey, Typed};

/// Fills an informer's store as a server would. Handlers and waiters are called before a method
/// returns.
pub struct Feed<K> {
    lister: Lister<K>,
    /// Versions that the feed has given out itself.
    version: AtomicU64,
}

impl<K: Typed> Feed<K> {
    /// The informer that a controller's `setup` declared, or will declare, on `informers`. Nothing
    /// is listed yet: [`Self::sync`] does that.
    #[must_use]
    pub fn of(informers: &Informers, selection: Selection) -> Self {
        Self::over(informers.typed(selection))
    }

    /// An informer of its own that shows these objects and has synced.
    #[must_use]
    pub fn with(objects: impl IntoIterator<Item = K>) -> Self {
        let feed = Self::of(&Informers::new(), Selection::default());
        feed.sync(objects);
        feed
    }
}

impl<K: Cached> Feed<K> {
    /// Like [`Self::of`], for a kind that is known only at run time.
    #[must_use]
    pub fn dynamic(informers: &Informers, kind: Kind, selection: Selection) -> Self {
        Self::over(informers.dynamic(kind, selection))
    }

    /// Feeds the informer of this lister, which must not run.
    #[must_use]
    pub fn over(lister: Lister<K>) -> Self {
        Self { lister, version: AtomicU64::new(0) }
    }

    /// What a controller reads.
    #[must_use]
    pub fn lister(&self) -> &Lister<K> {
        &self.lister
    }

    /// A complete list: objects that are not in it are gone. The informer has synced afterwards.
    pub fn sync(&self, objects: impl IntoIterator<Item = K>) {
        let shared = &self.lister.shared;
        shared.begin_list();
        for object in objects {
            shared.put(object, 0);
        }
        let version = self.version.fetch_add(1, Ordering::Relaxed) + 1;
        shared.end_list(&version.to_string(), true);
    }

    /// The server has stored an object: a new one, or a new state of one.
    pub fn apply(&self, object: K) {
        self.lister.shared.put(object, 0);
    }

    /// The server has removed an object; `false` if the store did not hold it.
    pub fn delete(&self, key: &ObjectKey) -> bool {
        let held = self.lister.get(key).is_some();
        self.lister.shared.remove(key, None);
        held
    }

    /// The server has reached this version, so that all writes up to it show.
    pub fn reach(&self, version: u64) {
        self.version.fetch_max(version, Ordering::Relaxed);
        self.lister.shared.see(&version.to_string());
    }
}

/// A lister over exactly these objects.
#[must_use]
pub fn lister<K: Typed>(objects: impl IntoIterator<Item = K>) -> Lister<K> {
    Feed::with(objects).lister
}
