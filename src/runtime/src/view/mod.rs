//! Slim forms of kinds that are only read: they hold the fields some controller reads and nothing
//! else, and cannot be written back.

mod common;
mod metadata;
mod node;
mod pod;

pub use common::{Labels, intern};
pub use metadata::Metadata;
pub use node::NodeView;
pub use pod::{PodIp, PodPhase, PodView, PortView, Protocol};
