//! What happened, in the order of etcd's revisions.

use std::fmt;

/// A stretch of time in which one replica held the Lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tenure {
    /// Its epoch: `<lease uid>/<leaseTransitions>`.
    pub token: String,
    /// Revision of the first write of the Lease that showed it.
    pub began: u64,
    /// Who wrote that.
    pub replica: String,
}

/// What a write did to its object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// It made it.
    Create,
    /// It changed it.
    Update,
    /// It removed it.
    Delete,
}

/// A write that landed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// Revision at which it landed.
    pub version: u64,
    /// Who sent it.
    pub replica: String,
    /// The epoch's token it carried.
    pub token: Option<String>,
    /// Whether it went out under the manager's own name, which carries no token.
    pub own_name: bool,
    /// Kind, namespace and name, for people.
    pub object: String,
    /// `metadata.uid` of the object.
    pub uid: String,
    /// What it did.
    pub verb: Verb,
}

/// What happened to one Lease and under it.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// The tenures, oldest first.
    pub tenures: Vec<Tenure>,
    /// The writes, oldest first.
    pub writes: Vec<Write>,
    /// Changes of which no replica's write is known: the history is incomplete if there are any.
    pub orphans: Vec<Landed>,
}

use super::Landed;

impl History {
    /// The tenure in which a write was sent: the one whose token it carried, else the last one of its sender that had begun
    /// when it landed. Index into `tenures`.
    pub fn tenure_of(&self, write: &Write) -> Option<usize> {
        match &write.token {
            Some(token) => self.tenures.iter().position(|tenure| tenure.token == *token),
            None => {
                self.tenures.iter().rposition(|tenure| tenure.replica == write.replica && tenure.began < write.version)
            }
        }
    }

    /// The tenure that held the Lease at a revision. Index into `tenures`.
    pub fn tenure_at(&self, version: u64) -> Option<usize> {
        self.tenures.iter().rposition(|tenure| tenure.began < version)
    }

    /// The history up to a revision.
    #[must_use]
    pub fn until(&self, version: u64) -> Self {
        let mut past = self.clone();
        past.tenures.retain(|tenure| tenure.began <= version);
        past.writes.retain(|write| write.version <= version);
        past.orphans.retain(|landed| landed.version <= version);
        past
    }

    /// How many tenures landed writes.
    pub fn working_tenures(&self) -> usize {
        let mut worked: Vec<_> = self.writes.iter().filter_map(|write| self.tenure_of(write)).collect();
        worked.sort_unstable();
        worked.dedup();
        worked.len()
    }
}

impl fmt::Display for Write {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let token = self.token.as_deref().unwrap_or("no token");
        write!(f, "{}: {:?} of {} by {} under {token}", self.version, self.verb, self.object, self.replica)
    }
}

impl fmt::Display for Tenure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} took the lease, {}", self.began, self.replica, self.token)
    }
}
