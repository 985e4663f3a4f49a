//! Who makes a request.

use std::collections::BTreeMap;

/// User of requests without credentials.
pub(crate) const ANONYMOUS: &str = "system:anonymous";
/// Group of requests without credentials.
const UNAUTHENTICATED: &str = "system:unauthenticated";
/// Group of all others.
const AUTHENTICATED: &str = "system:authenticated";

/// A user, as an authenticator found it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct User {
    /// Name.
    pub(crate) name: String,
    /// Unique id, often empty.
    pub(crate) uid: String,
    /// Groups.
    pub(crate) groups: Vec<String>,
    /// What else is known, by key.
    pub(crate) extra: BTreeMap<String, Vec<String>>,
}

impl User {
    /// The user of a request without credentials.
    pub(crate) fn anonymous() -> Self {
        Self { name: ANONYMOUS.into(), groups: vec![UNAUTHENTICATED.into()], ..Self::default() }
    }

    /// Adds the group of all users that showed who they are (apiserver:authentication/group).
    pub(crate) fn authenticated(mut self) -> Self {
        if self.name != ANONYMOUS && !self.groups.iter().any(|g| g == AUTHENTICATED || g == UNAUTHENTICATED) {
            self.groups.push(AUTHENTICATED.into());
        }
        self
    }
}
