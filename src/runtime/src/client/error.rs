//! Errors of API calls, and what a caller should do about each class.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use quarterdeck_election::Refused;

/// What an error asks of its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// May pass by itself: retry with backoff.
    Transient,
    /// The object changed meanwhile: retry once the cache shows the newer version.
    Conflict,
    /// Retrying the same request cannot help.
    Terminal,
    /// This process does not hold the lease, or holds it no longer: stop without noise.
    NotLeader,
}

/// A failed call to the API server.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The server answered with an error status.
    #[error("{verb} {what}: {} (code {})", .status.message.as_deref().unwrap_or("no message"), .status.code.unwrap_or(0))]
    Status {
        /// HTTP verb or Kubernetes verb of the call.
        verb: &'static str,
        /// Resource and object, such as `services a/b`.
        what: String,
        /// The status as the server sent it.
        status: Box<Status>,
    },
    /// The gate did not let the write out.
    #[error("{verb} {what}: {source}")]
    Gate {
        /// Kubernetes verb of the call.
        verb: &'static str,
        /// Resource and object.
        what: String,
        /// Why the gate refused.
        source: Refused,
    },
    /// The server's epoch fence refused the write: another tenure has begun.
    #[error("{verb} {what}: refused by the epoch fence")]
    Fenced {
        /// Kubernetes verb of the call.
        verb: &'static str,
        /// Resource and object.
        what: String,
    },
    /// No answer within the time the write was given; it may or may not have been carried out.
    #[error("{verb} {what}: no answer within {limit:?}; lease timing: {hint}")]
    Deadline {
        /// Kubernetes verb of the call.
        verb: &'static str,
        /// Resource and object.
        what: String,
        /// The time given.
        limit: std::time::Duration,
        /// What would allow a longer time.
        hint: String,
    },
    /// The request did not reach the server, or its answer did not reach us.
    #[error("{verb} {what}: {source}")]
    Transport {
        /// Kubernetes verb of the call.
        verb: &'static str,
        /// Resource and object.
        what: String,
        /// The underlying error.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The answer was not what it should be.
    #[error("{verb} {what}: cannot read the answer: {source}")]
    Decode {
        /// Kubernetes verb of the call.
        verb: &'static str,
        /// Resource and object.
        what: String,
        /// The decoder's error.
        source: serde_json::Error,
    },
    /// The call lacks what its verb requires, such as a resourceVersion; nothing was sent.
    #[error("{verb} {what}: {reason}")]
    Invalid {
        /// Kubernetes verb of the call.
        verb: &'static str,
        /// Resource and object.
        what: String,
        /// What is missing.
        reason: String,
    },
}

impl ApiError {
    /// What the error asks of its caller.
    #[must_use]
    pub fn class(&self) -> Class {
        todo!()
    }

    /// The server's HTTP status code, if it answered.
    #[must_use]
    pub fn code(&self) -> Option<u16> {
        todo!()
    }

    /// The server says the object does not exist.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.code() == Some(404)
    }

    /// The object changed, or is not the one decided on (a 409 other than AlreadyExists, or a 422
    /// on `metadata.uid`).
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        todo!()
    }

    /// The name is taken.
    #[must_use]
    pub fn is_already_exists(&self) -> bool {
        todo!()
    }

    /// The namespace is being deleted (cause `NamespaceTerminating`).
    #[must_use]
    pub fn is_namespace_terminating(&self) -> bool {
        todo!()
    }
}
