//! Providers as plug-ins: the protocol `quarterdeck.cloudprovider.v1`, spoken from both sides.
//!
//! `proto/…/cloudprovider.proto` is the protocol and its reference. [`Plugin`] is a [`Provider`](crate::Provider) whose
//! calls go to a plug-in; [`serve`] offers any provider as a plug-in.

mod channel;
mod client;
mod decode;
mod encode;
mod folder;
mod listen;
mod select;
mod server;
mod status;
#[cfg(test)]
mod tests;
mod uri;

pub use channel::TlsFiles;
pub use client::Plugin;
pub(crate) use folder::Watched;
pub use listen::{serve, serve_tls};
pub(crate) use select::{Entry, KIND, expand};
pub use status::{Called, from_status, to_status};
pub use uri::{PluginUri, PluginUriError};

/// Bytes of a message at most, in both directions: what every gRPC library accepts unless told otherwise.
pub const MESSAGE_LIMIT: usize = 4 * 1024 * 1024;

/// The messages and services, generated.
#[allow(missing_docs, clippy::all, reason = "generated; the comments of the .proto file are its documentation")]
pub mod pb {
    tonic::include_proto!("quarterdeck.cloudprovider.v1");
}
