//! How a cloud call can fail.

use std::time::Duration;

use quarterdeck_election::Refused;

/// Result of a cloud call.
pub type Result<T> = std::result::Result<T, CloudError>;

/// How a cloud call failed. No error ever means that something is gone: only
/// [`Lookup::Absent`](crate::model::Lookup::Absent) and an empty answer of a complete list do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CloudError {
    /// What the call acts on is not there.
    #[error("not found: {0}")]
    NotFound(String),
    /// The provider does not do this.
    #[error("the provider does not implement {0}")]
    NotImplemented(String),
    /// Somebody else does this for the provider: hands off.
    #[error("{0} is implemented elsewhere")]
    ImplementedElsewhere(String),
    /// The provider asks to be called again after this time, for reasons of its own.
    #[error("to be retried after {after:?}: {message}")]
    RetryAfter {
        /// The time.
        after: Duration,
        /// Why.
        message: String,
    },
    /// Too many calls.
    #[error("throttled{}: {message}", after.map(|after| format!(", to be retried after {after:?}")).unwrap_or_default())]
    Throttled {
        /// When to call again, if the cloud says so.
        after: Option<Duration>,
        /// What the cloud says.
        message: String,
    },
    /// No answer in time.
    #[error("no answer from {method} within {after:?}{}", if *maybe_applied { "; it may have been done" } else { "" })]
    Timeout {
        /// The method.
        method: &'static str,
        /// How long it was waited for.
        after: Duration,
        /// Whether the call may have changed something all the same.
        maybe_applied: bool,
    },
    /// It changed while the call was made, or is being changed.
    #[error("conflict: {0}")]
    Conflict(String),
    /// The cloud cannot change this in place.
    #[error("cannot be changed: {0}")]
    Immutable(String),
    /// A limit of the account is reached.
    #[error("quota exceeded: {0}")]
    Quota(String),
    /// The credentials are refused, or may not do this.
    #[error("denied: {0}")]
    Denied(String),
    /// The request makes no sense to the cloud.
    #[error("invalid: {0}")]
    Invalid(String),
    /// The cloud, or the plug-in, cannot be reached or is not able to answer.
    #[error("unavailable: {0}")]
    Unavailable(String),
    /// The breaker is open: the provider failed so often that it is left alone for this time.
    #[error("provider {provider} is left alone for {left:?} after repeated failures: {last}")]
    BreakerOpen {
        /// The provider.
        provider: String,
        /// Until it is tried again.
        left: Duration,
        /// Its last failure.
        last: String,
    },
    /// No place for the call within the time that callers may wait.
    #[error("{class} calls to provider {provider} are all taken: waited {waited:?}")]
    Busy {
        /// The provider.
        provider: String,
        /// The class of calls.
        class: &'static str,
        /// How long it was waited for.
        waited: Duration,
    },
    /// This process does not lead, or not for long enough.
    #[error("not leading: {0}")]
    NotLeading(String),
    /// The other side has seen a later tenure than ours.
    #[error("superseded: {0}")]
    Superseded(String),
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

impl From<Refused> for CloudError {
    fn from(refused: Refused) -> Self {
        Self::NotLeading(refused.to_string())
    }
}

impl CloudError {
    /// Value of the label `outcome` of the metrics.
    #[must_use]
    pub fn outcome(&self) -> &'static str {
        match self {
            Self::NotFound(_) => "not_found",
            Self::NotImplemented(_) => "not_implemented",
            Self::ImplementedElsewhere(_) => "implemented_elsewhere",
            Self::RetryAfter { .. } => "retry_after",
            Self::Throttled { .. } => "throttled",
            Self::Timeout { .. } => "timeout",
            Self::Conflict(_) => "conflict",
            Self::Immutable(_) => "immutable",
            Self::Quota(_) => "quota",
            Self::Denied(_) => "denied",
            Self::Invalid(_) => "invalid",
            Self::Unavailable(_) => "unavailable",
            Self::BreakerOpen { .. } => "breaker_open",
            Self::Busy { .. } => "busy",
            Self::NotLeading(_) => "not_leading",
            Self::Superseded(_) => "superseded",
            Self::Other(_) => "other",
        }
    }

    /// Whether the call may have changed something although it failed: what it was about has to be read again
    /// before anything is concluded.
    #[must_use]
    pub fn maybe_applied(&self) -> bool {
        match self {
            Self::Timeout { maybe_applied, .. } => *maybe_applied,
            Self::Unavailable(_) | Self::Other(_) => true,
            _ => false,
        }
    }

    /// When to call again, if the other side says so.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RetryAfter { after, .. } => Some(*after),
            Self::Throttled { after, .. } => *after,
            Self::BreakerOpen { left, .. } => Some(*left),
            _ => None,
        }
    }

    /// Whether it tells of a provider that is unwell, rather than of a request that is.
    #[must_use]
    pub fn is_providers_fault(&self) -> bool {
        matches!(self, Self::Timeout { .. } | Self::Unavailable(_) | Self::Other(_))
    }
}
