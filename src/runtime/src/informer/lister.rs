//! What controllers see of an informer.

use std::sync::Arc;

use super::shared::Shared;
use super::{Change, Index, InformerHandle, State, Status};
use crate::object::{Cached, Kind, ObjectKey};

/// Read access to an informer's store. Cheap to clone; reads are in memory and never wait for the
/// server.
pub struct Lister<K> {
    pub(super) shared: Arc<Shared<K>>,
}

impl<K> Clone for Lister<K> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<K: Cached> Lister<K> {
    /// The object with this key.
    #[must_use]
    pub fn get(&self, key: &ObjectKey) -> Option<Arc<K>> {
        self.shared.store.read().get(key).cloned()
    }

    /// All objects.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<K>> {
        self.shared.store.read().all()
    }

    /// The objects of one namespace; none for a cluster-scoped kind.
    #[must_use]
    pub fn in_namespace(&self, namespace: &str) -> Vec<Arc<K>> {
        self.shared.store.read().indexed(super::BY_NAMESPACE, namespace).unwrap_or_default()
    }

    /// The objects an index holds under a key. Panics if the index was never declared: that is a
    /// bug of the controller, and its first reconcile shows it.
    #[must_use]
    pub fn indexed(&self, index: &'static str, key: &str) -> Vec<Arc<K>> {
        let found = self.shared.store.read().indexed(index, key);
        found.unwrap_or_else(|| self.no_such_index(index))
    }

    /// How many objects an index holds under a key; for choosing the smallest set. Panics like
    /// [`Self::indexed`].
    #[must_use]
    pub fn indexed_len(&self, index: &'static str, key: &str) -> usize {
        let found = self.shared.store.read().indexed_len(index, key);
        found.unwrap_or_else(|| self.no_such_index(index))
    }

    fn no_such_index<T>(&self, index: &str) -> T {
        panic!("the informer of {} has no index {index:?}: declare it in setup", self.shared.core.kind)
    }

    /// Number of objects.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shared.store.read().len()
    }

    /// Whether the store is empty; says nothing about the cluster before [`Self::has_synced`].
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the first complete list has been stored and handed to the handlers.
    #[must_use]
    pub fn has_synced(&self) -> bool {
        self.shared.core.progress.has_synced()
    }

    /// What the informer does and holds.
    #[must_use]
    pub fn status(&self) -> Status {
        self.shared.status()
    }

    /// The server's words while it refuses the read (403); the store keeps what it has.
    #[must_use]
    pub fn refusal(&self) -> Option<String> {
        match self.shared.core.progress.state() {
            State::Forbidden(message) => Some(message),
            _ => None,
        }
    }

    /// The informer, whatever its form.
    #[must_use]
    pub fn handle(&self) -> InformerHandle {
        InformerHandle(Arc::clone(&self.shared) as _)
    }

    /// The kind this informer reads.
    #[must_use]
    pub fn kind(&self) -> &Kind {
        &self.shared.core.kind
    }

    /// Adds an index; one of the same name is declared once. Panics once the informer runs, unless
    /// it has that index already.
    pub fn add_index(&self, index: Index<K>) {
        self.shared.add_index(index);
    }

    /// Adds a handler. It runs synchronously in the informer's task: it may only enqueue. A late
    /// handler is given the present objects as [`Change::Added`] first. A handler that panics is
    /// logged and called again on the next change. It must not add handlers to the same informer.
    pub fn on_change(&self, handler: impl Fn(Change<'_, K>) + Send + Sync + 'static) {
        self.shared.on_change(Box::new(handler));
    }
}
