//! What a source of addons yields. The engine knows nothing else of it.

pub mod directory;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use quarterdeck_runtime::controller::Account;

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

/// What becomes of an object that somebody changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drift {
    /// It is put back.
    Repair,
    /// It is told, and put back only with the next version.
    Report,
}

/// What a source says about the handling of an addon, beyond the modes of its objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Whether objects that leave the addon are deleted.
    pub prune: bool,
    /// What becomes of an object that somebody changed.
    pub drift: Drift,
    /// How long objects may take to become healthy before the addon counts as degraded.
    pub health_timeout: Duration,
    /// Whether nothing is done about it for now.
    pub paused: bool,
}

impl Default for Policy {
    fn default() -> Self {
        Self { prune: true, drift: Drift::Repair, health_timeout: HEALTH_TIMEOUT, paused: false }
    }
}

/// How long objects may take to become healthy unless their addon says otherwise.
pub const HEALTH_TIMEOUT: Duration = Duration::from_secs(300);

/// What other addons know an addon by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Package {
    /// Its name, such as `core/fluentd`.
    pub name: Arc<str>,
    /// Its version.
    pub version: Arc<str>,
}

/// Another package that has to be ready before an addon is installed or updated.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Dependency {
    /// The package.
    pub package: Arc<str>,
    /// An exact version, a constraint, or `*`.
    pub version: Arc<str>,
}

/// One addon as its source has it.
#[derive(Clone, Debug, PartialEq)]
pub struct Addon {
    /// Its name.
    pub id: AddonId,
    /// What tells one state of it from another; for a directory the content's digest.
    pub version: Arc<str>,
    /// What others know it by, where its source says.
    pub package: Option<Package>,
    /// What it is for, where its source says.
    pub description: Arc<str>,
    /// The objects to manage.
    pub objects: Vec<Arc<Desired>>,
    /// As who its objects are read and written; the engine's own account if none.
    pub account: Option<Account>,
    /// How it is handled.
    pub policy: Policy,
    /// Packages that have to be ready first.
    pub dependencies: Vec<Dependency>,
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
}
