//! Shared informers: one list and watch a (kind, selection, form, identity) in the process, with a
//! store, indexes, and handlers that only enqueue.
//!
//! ```text
//! WatchTransport → driver (requests, resume, back-off) → wire (lines → events) → Shared (store,
//! handlers, waiters) → Lister, Informers
//! ```
//! One task an informer drives its requests and changes its store; nothing else does. Reads share
//! the store's lock, which is held for one object at a time.

mod backoff;
mod barrier;
mod change;
mod driver;
#[cfg(test)]
mod fake_server;
mod lister;
mod metrics;
mod postings;
mod registry;
mod request;
mod shared;
mod status;
mod store;
pub mod testing;
mod transport;
mod visible;
mod wire;

pub use barrier::Freshness;
pub use change::{Change, Index, IndexKeys, Selection};
pub use lister::Lister;
pub use registry::{InformerHandle, Informers};
pub use status::{State, Status};
pub use transport::{BoxError, WatchBody, WatchTransport};

/// Index by namespace, which every informer of a namespaced kind has.
pub const BY_NAMESPACE: &str = "namespace";
