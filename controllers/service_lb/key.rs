//! What one reconcile is about.

use std::fmt;
use std::sync::Arc;

use quarterdeck_runtime::object::ObjectKey;

/// What one reconcile is about. A Service is in one pair of hands at a time: its load balancer is never changed and
/// removed at once.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Key {
    /// The load balancer of a Service.
    Service(ObjectKey),
    /// The status of an `AddressPool`.
    Pool(Arc<str>),
    /// The comparison of a provider's load balancers with the Services; by the provider's place in the flag.
    Audit(usize),
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service(key) => key.fmt(f),
            Self::Pool(name) => write!(f, "pool {name}"),
            Self::Audit(provider) => write!(f, "audit {provider}"),
        }
    }
}
