//! What a source of addons yields. The engine knows nothing else of it.

pub mod directory;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::ident::Ident;
use super::manifest::{Desired, Problem};

/// An addon, named within its source.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AddonId {
    /// Name of the source, such as `directory`.
    pub source: &'static str,
    /// Name within the source; for a directory the file's path below it.
    pub name: Arc<str>,
}

impl fmt::Display for AddonId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.source, self.name)
    }
}

impl fmt::Debug for AddonId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What a source says about the handling of an addon, beyond the modes of its objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Whether objects that leave the addon are deleted.
    pub prune: bool,
}

impl Default for Policy {
    fn default() -> Self {
        Self { prune: true }
    }
}

/// One addon as its source has it.
#[derive(Clone, Debug, PartialEq)]
pub struct Addon {
    /// Its name.
    pub id: AddonId,
    /// What tells one state of it from another; for a directory the content's digest.
    pub version: Arc<str>,
    /// The objects to manage.
    pub objects: Vec<Arc<Desired>>,
    /// How it is handled.
    pub policy: Policy,
    /// Addons of the same source that have to be ready first.
    pub dependencies: Vec<Arc<str>>,
    /// Objects that it names and does not manage.
    pub skipped: Vec<Ident>,
    /// What was wrong in it.
    pub problems: Vec<Problem>,
    /// Whether all of it was understood: only then is an object's absence evidence.
    pub complete: bool,
}

impl Addon {
    /// Whether the absence of an object in it is evidence that the object is not wanted: it was
    /// read whole, and it is not empty.
    #[must_use]
    pub fn is_evidence(&self) -> bool {
        self.complete && self.policy.prune && !(self.objects.is_empty() && self.skipped.is_empty())
    }

    /// Every object that it names.
    pub fn named(&self) -> impl Iterator<Item = &Ident> {
        self.objects.iter().map(|object| &object.ident).chain(&self.skipped)
    }
}

/// All addons of a source at one time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// The addons by name.
    pub addons: BTreeMap<Arc<str>, Arc<Addon>>,
    /// Whether the source could be read whole: only then is an addon's absence evidence.
    pub complete: bool,
    /// Whether two readings some time apart agreed: a copy in progress is not evidence.
    pub settled: bool,
    /// Why the source could not be read whole.
    pub problem: Option<String>,
    /// A digest of names and contents, to compare replicas by.
    pub digest: [u8; 32],
    /// Whether nothing that leaves the source is ever deleted.
    pub never_prunes: bool,
}
