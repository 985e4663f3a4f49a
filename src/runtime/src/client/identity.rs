//! Who a request is made as.

use http::HeaderValue;

/// Who a request is made as.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Identity {
    /// The kubeconfig's own user.
    Manager,
    /// A service account, by impersonation. The account object need not exist: role bindings name
    /// it.
    ServiceAccount {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
}

impl Identity {
    /// A service account in `kube-system`, where those of the controllers live.
    pub fn system(name: impl Into<String>) -> Self {
        Self::ServiceAccount { namespace: "kube-system".to_owned(), name: name.into() }
    }

    /// The `Impersonate-User` header; the server adds the groups of a service account by itself
    /// (`apiserver:pkg/endpoints/filters/impersonation.go`). `None` for the manager, and for names
    /// that no header can hold, which no account has.
    pub(crate) fn impersonate_user(&self) -> Option<HeaderValue> {
        match self {
            Self::Manager => None,
            Self::ServiceAccount { namespace, name } => {
                HeaderValue::try_from(format!("system:serviceaccount:{namespace}:{name}")).ok()
            }
        }
    }

    /// Whether a header can name this identity.
    pub(crate) fn is_sendable(&self) -> bool {
        matches!(self, Self::Manager) || self.impersonate_user().is_some()
    }
}

impl std::fmt::Display for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Manager => f.write_str("the manager's own user"),
            Self::ServiceAccount { namespace, name } => write!(f, "service account {namespace}/{name}"),
        }
    }
}
