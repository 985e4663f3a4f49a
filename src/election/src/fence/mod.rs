//! The epoch fence: the server itself refuses the writes of a past tenure.
//!
//! A ValidatingAdmissionPolicy, with the Lease as its parameter, compares the token that a write carries with what the Lease
//! says. Requests without our key are none of its business, and it is built so that it can never lock the cluster: see
//! [`policy`]. It counts as there only while [`probe`] proves it.

pub mod policy;
pub mod probe;

use std::{str::FromStr, sync::Arc};

use futures::future::BoxFuture;

pub use policy::{EPOCH_MESSAGE, FencePolicy, NAMESPACE_MESSAGE};
pub use probe::KubeFenceProver;

use crate::epoch::EpochToken;

/// Whether we may lead without a working fence (`--fence`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum FenceMode {
    /// Lead all the same, and leave the header out.
    #[default]
    Auto,
    /// Do not lead.
    Required,
}

impl FromStr for FenceMode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Self::Auto),
            "required" => Ok(Self::Required),
            other => Err(format!("unknown fence mode {other:?}: it is auto or required")),
        }
    }
}

impl std::fmt::Display for FenceMode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Required => "required",
        })
    }
}

/// What two dry-run writes showed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum FenceState {
    /// The present token is admitted, the one before it refused.
    Verified,
    /// It is there and does not work; why.
    Broken(Arc<str>),
    /// Any token is admitted: no policy, or no binding.
    Absent,
}

impl FenceState {
    /// Whether writes should carry the token.
    pub fn is_verified(&self) -> bool {
        matches!(self, Self::Verified)
    }
}

/// The fence could not be looked at; it is as good or bad as it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("could not probe the fence: {0}")]
pub struct ProbeError(pub String);

/// Proves that the server refuses past epochs; see [`KubeFenceProver`].
pub trait FenceProver: Send + Sync + 'static {
    /// Looks whether `token` is admitted and the one before it refused. Bounded by itself to a few seconds.
    fn prove(&self, token: EpochToken) -> BoxFuture<'static, Result<FenceState, ProbeError>>;
}

/// A refusal that came from our fence, and not from missing rights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FenceRefusal {
    /// The write's epoch is not the Lease's: see [`crate::Gate::fence_refused`].
    Epoch,
    /// The write may only act on a namespace that is being deleted, and it is not.
    NamespaceNotDeleting,
}

impl FenceRefusal {
    /// Recognises a refusal by the message in the server's `Status`.
    pub fn of_message(message: &str) -> Option<Self> {
        if message.contains(EPOCH_MESSAGE) {
            Some(Self::Epoch)
        } else if message.contains(NAMESPACE_MESSAGE) {
            Some(Self::NamespaceNotDeleting)
        } else {
            None
        }
    }

    /// Recognises a refusal in an error of kube's client.
    pub fn of_error(error: &kube::Error) -> Option<Self> {
        match error {
            kube::Error::Api(status) => Self::of_message(&status.message),
            _ => None,
        }
    }
}
