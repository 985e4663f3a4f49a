//! What controllers see of an informer.

use std::marker::PhantomData;
use std::sync::Arc;

use crate::object::{Cached, Kind, ObjectKey, Typed};

/// Which objects of a kind an informer holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Selection {
    /// One namespace, or all.
    pub namespace: Option<String>,
    /// Label selector as in a list request.
    pub labels: Option<String>,
    /// Field selector as in a list request.
    pub fields: Option<String>,
}

/// An index: the function gives every key under which an object is found.
pub struct Index<K> {
    /// Name, unique within the informer; the same name must always mean the same function.
    pub name: &'static str,
    /// Calls its second argument with each key of the object.
    pub keys: fn(&K, &mut dyn FnMut(&str)),
}

/// A change of one object as a handler sees it.
#[derive(Debug)]
pub enum Change<'a, K> {
    /// The object is new to the cache.
    Added(&'a Arc<K>),
    /// The object changed; also delivered with `old` and `new` equal after a re-list.
    Updated {
        /// The cached object before.
        old: &'a Arc<K>,
        /// The cached object now.
        new: &'a Arc<K>,
    },
    /// The object is gone; found by a watch event or by a complete list.
    Deleted {
        /// Its last known state.
        last: &'a Arc<K>,
        /// Whether `last` is its final state (false when a re-list found it missing).
        is_final: bool,
    },
}

impl<K> Change<'_, K> {
    /// The newest known state.
    #[must_use]
    pub fn object(&self) -> &Arc<K> {
        match self {
            Self::Added(object) | Self::Updated { new: object, .. } | Self::Deleted { last: object, .. } => object,
        }
    }
}

/// Read access to an informer's store. Cheap to clone; reads are in memory and never wait for the
/// server.
pub struct Lister<K> {
    _form: PhantomData<fn() -> K>,
}

impl<K> Clone for Lister<K> {
    fn clone(&self) -> Self {
        Self { _form: PhantomData }
    }
}

impl<K: Cached> Lister<K> {
    /// The object with this key.
    #[must_use]
    pub fn get(&self, _key: &ObjectKey) -> Option<Arc<K>> {
        todo!()
    }

    /// All objects.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<K>> {
        todo!()
    }

    /// The objects of one namespace.
    #[must_use]
    pub fn in_namespace(&self, _namespace: &str) -> Vec<Arc<K>> {
        todo!()
    }

    /// The objects an index holds under a key. Panics if the index was never declared: that is a
    /// bug of the controller, and its first reconcile shows it.
    #[must_use]
    pub fn indexed(&self, _index: &'static str, _key: &str) -> Vec<Arc<K>> {
        todo!()
    }

    /// How many objects an index holds under a key; for choosing the smallest set.
    #[must_use]
    pub fn indexed_len(&self, _index: &'static str, _key: &str) -> usize {
        todo!()
    }

    /// Number of objects.
    #[must_use]
    pub fn len(&self) -> usize {
        todo!()
    }

    /// Whether the store is empty; says nothing about the cluster before [`Self::has_synced`].
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the first complete list has been stored and handed to the handlers.
    #[must_use]
    pub fn has_synced(&self) -> bool {
        todo!()
    }

    /// The kind this informer reads.
    #[must_use]
    pub fn kind(&self) -> &Kind {
        todo!()
    }

    /// Adds an index; panics once the informer runs.
    pub fn add_index(&self, _index: Index<K>) {
        todo!()
    }

    /// Adds a handler. It runs synchronously in the informer's task: it may only enqueue. A late
    /// handler is given the present objects as [`Change::Added`] first.
    pub fn on_change(&self, _handler: impl Fn(Change<'_, K>) + Send + Sync + 'static) {
        todo!()
    }
}

/// All informers of a process. Declaring one does no I/O.
#[derive(Clone)]
pub struct Informers {
    _private: (),
}

impl Informers {
    /// The informer of a typed form, made on first use and shared afterwards.
    #[must_use]
    pub fn typed<K: Typed>(&self, _selection: Selection) -> Lister<K> {
        todo!()
    }

    /// The informer of a kind that is known only at run time, in a form such as
    /// [`Metadata`](crate::view::Metadata). May be called while the process runs: the informer
    /// starts at once.
    #[must_use]
    pub fn dynamic<K: Cached>(&self, _kind: Kind, _selection: Selection) -> Lister<K> {
        todo!()
    }

    /// Stops the informer of a kind that is no longer wanted.
    pub fn stop(&self, _kind: &Kind) {
        todo!()
    }
}
