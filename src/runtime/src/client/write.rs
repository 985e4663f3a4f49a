//! Writes: preconditions by verb, and the record of what was written.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::object::{Kind, ObjectKey, ResourceVersion};

/// What a DELETE requires of the live object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeletePrecondition {
    /// `metadata.uid` of the object that was decided on.
    pub uid: String,
    /// Its resourceVersion, where the decision rests on its content.
    pub resource_version: Option<String>,
}

/// What a merge patch requires of the live object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PatchPrecondition {
    /// The value does not depend on what was read: the object only has to be the same one.
    Uid(String),
    /// The value depends on what was read.
    ResourceVersion {
        /// `metadata.uid` of the object read.
        uid: String,
        /// `metadata.resourceVersion` of the object read.
        resource_version: String,
    },
}

/// What an apply believes of the live object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ApplyTo {
    /// It exists with this uid; if not, the apply is a conflict and creates nothing.
    Known {
        /// `metadata.uid` of the live object.
        uid: String,
    },
    /// It does not exist; sent without `force`, so that what was created meanwhile is not
    /// overwritten.
    Absent,
}

/// How an apply is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApplyOptions {
    /// Field manager.
    pub manager: &'static str,
    /// Take fields from other managers; never sent with [`ApplyTo::Absent`].
    pub force: bool,
    /// Ask the server to check and answer, and store nothing.
    pub dry_run: bool,
}

/// What happens to the dependents of a deleted object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    /// The object goes at once, dependents after it.
    Background,
    /// Dependents go first.
    Foreground,
    /// Dependents stay.
    Orphan,
}

/// What the server says of an object it has just stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.resourceVersion`.
    pub resource_version: String,
    /// `metadata.generation`, 0 where the kind has none.
    pub generation: i64,
}

/// One write of ours, as read-your-writes needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrote {
    /// The kind written.
    pub kind: Kind,
    /// The object written.
    pub key: ObjectKey,
    /// What a cache must show before it may be trusted again.
    pub expect: Expect,
}

/// What a cache must show of an object after a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expect {
    /// This version or a later one, or no object at a later version.
    AtLeast(ResourceVersion),
    /// The uid gone, or its deletionTimestamp set.
    Deleted {
        /// The uid that was deleted.
        uid: String,
    },
    /// A version other than this one, after a conflict.
    OtherThan(String),
}

/// Collects the writes of one reconcile. Clones share the list.
#[derive(Clone, Debug, Default)]
pub struct WriteLog(Arc<Mutex<Vec<Wrote>>>);

impl WriteLog {
    /// Adds a write.
    pub fn push(&self, wrote: Wrote) {
        self.0.lock().push(wrote);
    }

    /// Takes all writes collected so far.
    #[must_use]
    pub fn take(&self) -> Vec<Wrote> {
        std::mem::take(&mut *self.0.lock())
    }
}
