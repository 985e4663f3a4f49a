//! Shared informers: one list and watch a (kind, selection, form) in the process, with a store,
//! indexes, and handlers that only enqueue.

mod lister;

pub use lister::{Change, Index, Informers, Lister, Selection};

/// Index by namespace, which every informer of a namespaced kind has.
pub const BY_NAMESPACE: &str = "namespace";
