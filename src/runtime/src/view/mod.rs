//! Slim forms of kinds that are only read: they hold the fields some controller reads and nothing
//! else, and cannot be written back.
//!
//! They decode in one pass from the server's JSON: fields that are not kept are skipped without
//! being built, strings are borrowed from the input, and what objects repeat (labels, namespaces,
//! node names) is shared.

mod common;
mod intern;
mod metadata;
mod node;
mod pod;

use std::any::Any;

pub use common::Labels;
pub use intern::intern;
pub use metadata::Metadata;
pub use node::{Address, Condition, NodeView, Taint};
pub use pod::{IpFamily, PodIp, PodPhase, PodView, PortView, Protocol};

/// About how many bytes a view holds on the heap beside itself, shared text left out; `None` when
/// the object is not a view.
pub(crate) fn heap_bytes(object: &dyn Any) -> Option<usize> {
    if let Some(pod) = object.downcast_ref::<PodView>() {
        return Some(pod.heap_bytes());
    }
    if let Some(node) = object.downcast_ref::<NodeView>() {
        return Some(node.heap_bytes());
    }
    object.downcast_ref::<Metadata>().map(Metadata::heap_bytes)
}
