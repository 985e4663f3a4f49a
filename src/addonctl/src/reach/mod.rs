//! How managers are found and asked.
//!
//! Every replica has a Lease of its own that says where it serves and which certificate it shows ([`lease`]); the Lease of
//! the election says which of them leads ([`choose`]). It is reached by a port-forward to its pod, which needs no more of
//! the network than kube-apiserver does, or at its address ([`link`]). Either way TLS goes from end to end, and the
//! server's certificate has to be the one that the replica's Lease names, or one that a given authority signed
//! ([`verify`]), before the user's certificate or token is shown to it ([`credentials`]).

mod choose;
mod credentials;
mod error;
mod follow;
mod lease;
mod link;
mod manager;
mod pod;
mod site;
mod verify;

pub(crate) use error::ReachError;
pub(crate) use follow::Follower;
#[cfg(test)]
pub(crate) use lease::Election;
pub(crate) use lease::Replica;
pub(crate) use manager::Answer;
pub(crate) use site::{Site, Survey};
