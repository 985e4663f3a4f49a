//! What a source of addons yields. The engine knows nothing else of it.

mod changes;
pub mod channel;
pub mod directory;
pub mod objects;

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use quarterdeck_runtime::controller::Account;

use sha2::{Digest as _, Sha256};

use super::ident::Ident;
use super::lifecycle::Lifecycle;
use super::manifest::{Desired, Problem};
use super::revision::Mode as Rollback;

/// Name of the source of Addon objects; its addons are named `namespace/name`.
pub const OBJECTS: &str = "addon";

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
    /// What is done about its revisions, where its source says.
    pub rollback: Option<Rollback>,
}

impl Default for Policy {
    fn default() -> Self {
        Self { prune: true, drift: Drift::Repair, health_timeout: HEALTH_TIMEOUT, paused: false, rollback: None }
    }
}

/// Namespace of objects whose manifest names none, as with kubectl.
pub const DEFAULT_NAMESPACE: &str = "default";

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

/// An object of an addon, and how it comes about.
#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    /// The object as written.
    pub desired: Arc<Desired>,
    /// Its namespace if it names none and lives in one.
    pub namespace: Arc<str>,
    /// As who it is read and written; the engine's own account if none.
    pub account: Option<Account>,
    /// The step of the addon's lifecycle that makes it, where it has one.
    pub step: Option<StepId>,
}

/// A step within a lifecycle: the phase's place in it, and the step's in the phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StepId {
    /// Which phase.
    pub phase: usize,
    /// Which of its steps.
    pub node: usize,
}

impl Object {
    /// Its name once it is known whether its kind lives in namespaces.
    #[must_use]
    pub fn resolved(&self, namespaced: bool) -> Ident {
        let namespace = match (namespaced, self.ident.namespace.is_empty()) {
            (false, _) => "".into(),
            (true, true) => Arc::clone(&self.namespace),
            (true, false) => Arc::clone(&self.ident.namespace),
        };
        Ident { namespace, ..self.ident.clone() }
    }
}

impl From<Desired> for Object {
    fn from(desired: Desired) -> Self {
        Self { desired: Arc::new(desired), namespace: DEFAULT_NAMESPACE.into(), account: None, step: None }
    }
}

impl Deref for Object {
    type Target = Desired;

    fn deref(&self) -> &Desired {
        &self.desired
    }
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
    pub objects: Vec<Object>,
    /// How its objects come about, where that is more than applying them: an Addon object's phases.
    pub lifecycle: Option<Arc<Lifecycle>>,
    /// As who what leaves it is deleted; the engine's own account if none.
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
#[derive(Clone, Debug, Default)]
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

/// Addons are compared by address first: a reading shares those that did not change with the one
/// before.
impl PartialEq for Snapshot {
    fn eq(&self, other: &Self) -> bool {
        (self.complete, self.settled, &self.problem, self.digest, self.never_prunes)
            == (other.complete, other.settled, &other.problem, other.digest, other.never_prunes)
            && self.addons.len() == other.addons.len()
            && self.addons.iter().zip(&other.addons).all(|(one, other)| one.0 == other.0 && is_same(one.1, other.1))
    }
}

/// Whether two readings of an addon say the same.
#[must_use]
pub fn is_same(a: &Arc<Addon>, b: &Arc<Addon>) -> bool {
    Arc::ptr_eq(a, b) || a == b
}

/// A digest of addons by name and version, for [`Snapshot::digest`].
#[must_use]
pub fn digest(addons: &BTreeMap<Arc<str>, Arc<Addon>>) -> [u8; 32] {
    let mut hasher = Sha256::new();
    for (name, addon) in addons {
        hasher.update((name.len() as u64).to_le_bytes());
        hasher.update(name.as_bytes());
        hasher.update(addon.version.as_bytes());
    }
    hasher.finalize().into()
}
