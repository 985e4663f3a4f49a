//! What the kube-apiservers write down of every request.

mod event;
mod policy;
mod reader;

pub use event::{Actor, Event, ObjectReference, Outcome, Stage};
pub use policy::AuditPolicy;
pub use reader::AuditReader;
