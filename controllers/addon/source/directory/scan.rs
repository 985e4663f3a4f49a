//! One reading of the directory, and what changed since the one before.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use super::read::{Found, ReadFault, Root, Stamp};
use crate::addon::manifest::{Format, Limits, Place, Problem, decode};
use crate::addon::source::{Addon, AddonId, Policy, Snapshot, digest};

/// Name of the source of addons.
pub const SOURCE: &str = "directory";

/// How long two readings that agree have to lie apart to count as evidence of absence.
pub(super) const SETTLE: Duration = Duration::from_secs(1);

/// How often a directory that changes while it is read is read before what there is must do.
const READINGS: usize = 4;

type Digest = [u8; 32];

/// A directory that is a source, and what is special about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Folder {
    /// Name of the source.
    pub source: &'static str,
    /// Where it is.
    pub path: PathBuf,
    /// How names of manifests end, without the dot.
    pub endings: &'static [&'static str],
    /// Whether what leaves it is deleted.
    pub prune: bool,
    /// Whether it is nothing worth telling if it is not there.
    pub optional: bool,
}

impl Folder {
    /// The directory of addons (`kubernetes:cluster/addons/addon-manager`, v1.36.3).
    #[must_use]
    pub fn addons(path: PathBuf) -> Self {
        Self { source: SOURCE, path, endings: &["yaml", "yml", "json"], prune: true, optional: false }
    }
}

/// Reads the directory again and again; a file is decoded only when its content changed.
///
/// What can be read no more stays in force as it was read last: it is still wanted, and nothing of it
/// goes.
#[derive(Debug)]
pub struct Scanner {
    folder: Folder,
    limits: Limits,
    /// What was read last of each file that is there.
    good: BTreeMap<Arc<str>, Arc<Addon>>,
    decoded: HashMap<Arc<str>, (Digest, Arc<Addon>)>,
    /// The digest of the last reading, and since when it has been that.
    agreed: Option<(Digest, Instant)>,
}

impl Scanner {
    /// A scanner of this directory of addons.
    #[must_use]
    pub fn new(path: PathBuf, limits: Limits) -> Self {
        Self::of(Folder::addons(path), limits)
    }

    /// A scanner of this directory.
    #[must_use]
    pub fn of(folder: Folder, limits: Limits) -> Self {
        Self { folder, limits, good: BTreeMap::new(), decoded: HashMap::new(), agreed: None }
    }

    /// The directory.
    #[must_use]
    pub fn folder(&self) -> &Folder {
        &self.folder
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.folder.path
    }

    /// What tells this directory from others wherever readings of it are kept.
    #[must_use]
    pub fn key(&self) -> String {
        let digest: Digest = Sha256::digest(self.folder.path.as_os_str().as_encoded_bytes()).into();
        format!("{}-{}", self.folder.source, hex(&digest))
    }

    /// Takes what another process read last of the directory: it stays in force where nothing can be
    /// read. What is known already counts more.
    pub fn recall(&mut self, files: &BTreeMap<String, Bytes>) {
        if !self.good.is_empty() {
            return;
        }
        for (name, bytes) in files {
            let name: Arc<str> = name.as_str().into();
            let addon = self.decode(&name, bytes);
            self.good.insert(name, addon);
        }
    }

    /// The content of the files as they were read last, to be kept; none if that is not to be had any
    /// more, or was not whole.
    #[must_use]
    pub fn contents(&self) -> Option<BTreeMap<String, Bytes>> {
        let root = Root::open(&self.folder.path).ok()?;
        let read = |(name, addon): (&Arc<str>, &Arc<Addon>)| {
            let bytes = root.read(name, self.limits.file_bytes as u64).ok()?.bytes;
            let digest: Digest = Sha256::digest(&bytes).into();
            (hex(&digest) == *addon.version).then(|| (name.to_string(), Bytes::from(bytes)))
        };
        // A file that is left alone has nothing that is in force.
        self.good.iter().filter(|(_, addon)| &*addon.version != SKIPPED).map(read).collect()
    }

    /// Reads everything; blocks on the file system.
    pub fn scan(&mut self, now: Instant) -> Snapshot {
        let root = match Root::open(&self.folder.path) {
            Ok(root) => root,
            Err(error) => {
                self.agreed = None;
                let problem = format!("{}: {error}", self.folder.path.display());
                let is_nothing =
                    self.folder.optional && self.good.is_empty() && error.kind() == std::io::ErrorKind::NotFound;
                let problem = (!is_nothing).then_some(problem);
                let (addons, never_prunes) = (self.good.clone(), !self.folder.prune);
                let digest = digest(&addons);
                return Snapshot { addons, complete: is_nothing, settled: is_nothing, problem, digest, never_prunes };
            }
        };
        // What changes while it is read is read again: half of one state and half of another is neither.
        let mut reading = self.read(&root);
        let mut steady = self.is_steady(&root, &reading);
        for _ in 1..READINGS {
            if steady {
                break;
            }
            reading = self.read(&root);
            steady = self.is_steady(&root, &reading);
        }
        self.conclude(reading, steady, now)
    }

    /// Reads every file once.
    fn read(&mut self, root: &Root) -> Reading {
        let found = root.find(self.limits.files, self.folder.endings);
        let mut stamps = Vec::new();
        let mut addons = BTreeMap::new();
        let mut left = self.limits.total_bytes as u64;
        let mut gone_meanwhile = Vec::new();
        for name in found.files.iter().cloned() {
            let limit = left.min(self.limits.file_bytes as u64);
            match root.read(&name, limit) {
                Ok(text) => {
                    left -= text.bytes.len() as u64;
                    stamps.push((Arc::clone(&name), text.stamp));
                    let addon = self.decode(&name, &text.bytes);
                    addons.insert(name, addon);
                }
                // Gone between listing and reading: the next reading tells. Not evidence in this one.
                Err(ReadFault::System(error)) if error.kind() == std::io::ErrorKind::NotFound => {
                    gone_meanwhile.push(name);
                }
                Err(fault) => {
                    let before = self.good.get(&name);
                    addons.insert(Arc::clone(&name), Arc::new(self.unreadable(&name, &fault, before)));
                }
            }
        }
        Reading { found, addons, stamps, gone_meanwhile }
    }

    /// Whether everything is still as it was when it was read.
    fn is_steady(&self, root: &Root, reading: &Reading) -> bool {
        let now = root.find(self.limits.files, self.folder.endings);
        reading.gone_meanwhile.is_empty()
            && now.files == reading.found.files
            && now.skipped == reading.found.skipped
            && reading.stamps.iter().all(|(name, stamp)| root.stamp(name) == Some(*stamp))
            && now.folders == reading.found.folders
    }

    /// What a reading says. One that was not steady is a copy in progress, and never settles.
    fn conclude(&mut self, reading: Reading, steady: bool, now: Instant) -> Snapshot {
        let Reading { found, mut addons, gone_meanwhile, .. } = reading;
        self.decoded.retain(|name, _| addons.contains_key(name));
        for (name, mark) in found.skipped {
            let addon = Arc::new(self.skipped(&name, &mark));
            addons.insert(name, addon);
        }
        let told = |(path, fault): &(PathBuf, ReadFault)| format!("{}: {fault}", self.folder.path.join(path).display());
        let gone = gone_meanwhile.first().map(|name| format!("{name}: gone between listing and reading"));
        let problem = found.faults.first().map(told).or(gone);
        for (name, addon) in &self.good {
            // It may be where nobody could look.
            if gone_meanwhile.contains(name) || found.faults.iter().any(|fault| may_hide(fault, name)) {
                addons.entry(Arc::clone(name)).or_insert_with(|| Arc::clone(addon));
            }
        }
        self.good.clone_from(&addons);
        let digest = digest(&addons);
        let settled = match self.agreed {
            _ if !steady => {
                self.agreed = None;
                false
            }
            Some((before, since)) if before == digest => now.duration_since(since) >= SETTLE,
            _ => {
                self.agreed = Some((digest, now));
                false
            }
        };
        let never_prunes = !self.folder.prune;
        Snapshot { addons, complete: problem.is_none(), settled, problem, digest, never_prunes }
    }

    fn decode(&mut self, name: &Arc<str>, bytes: &[u8]) -> Arc<Addon> {
        let digest: Digest = Sha256::digest(bytes).into();
        if let Some((before, addon)) = self.decoded.get(name)
            && *before == digest
        {
            return Arc::clone(addon);
        }
        let format = if name.ends_with(".json") { Format::Json } else { Format::Yaml };
        let decoded = decode(bytes, format, &self.limits);
        let addon = Arc::new(Addon {
            id: self.id(name),
            version: hex(&digest).into(),
            package: None,
            description: format!("file {name}").into(),
            account: None,
            lifecycle: None,
            complete: decoded.is_complete(),
            objects: decoded.objects.into_iter().map(Into::into).collect(),
            policy: self.policy(),
            dependencies: Vec::new(),
            skipped: decoded.skipped,
            problems: decoded.problems,
        });
        self.decoded.insert(Arc::clone(name), (digest, Arc::clone(&addon)));
        addon
    }

    fn id(&self, name: &Arc<str>) -> AddonId {
        AddonId { source: self.folder.source, name: Arc::clone(name) }
    }

    fn policy(&self) -> Policy {
        Policy { prune: self.folder.prune, ..Policy::default() }
    }

    /// A file that is there and cannot be read: what was read of it before is wanted as it was, and
    /// nothing of it goes.
    fn unreadable(&self, name: &Arc<str>, fault: &ReadFault, before: Option<&Arc<Addon>>) -> Addon {
        Addon {
            id: self.id(name),
            version: UNREADABLE.into(),
            package: None,
            description: format!("file {name}").into(),
            account: None,
            lifecycle: None,
            objects: before.map(|addon| addon.objects.clone()).unwrap_or_default(),
            policy: self.policy(),
            dependencies: before.map(|addon| addon.dependencies.clone()).unwrap_or_default(),
            skipped: before.map(|addon| addon.skipped.clone()).unwrap_or_default(),
            problems: vec![problem(fault.to_string(), false)],
            complete: false,
        }
    }

    /// A file that a mark beside it has left alone: nothing of it is wanted, and nothing of it goes.
    fn skipped(&self, name: &Arc<str>, mark: &str) -> Addon {
        Addon {
            id: self.id(name),
            version: SKIPPED.into(),
            package: None,
            description: format!("file {name}").into(),
            account: None,
            lifecycle: None,
            objects: Vec::new(),
            policy: self.policy(),
            dependencies: Vec::new(),
            skipped: Vec::new(),
            problems: vec![problem(format!("left alone because of {mark}; what was applied of it stays"), true)],
            complete: false,
        }
    }
}

/// Version of a file that is there and cannot be read.
const UNREADABLE: &str = "unreadable";
/// Version of a file that is left alone.
const SKIPPED: &str = "skipped";

/// What one pass over all files found.
struct Reading {
    found: Found,
    addons: BTreeMap<Arc<str>, Arc<Addon>>,
    /// What the files were that were read.
    stamps: Vec<(Arc<str>, Stamp)>,
    /// Files that were listed and were gone when they were to be read.
    gone_meanwhile: Vec<Arc<str>>,
}

/// Whether a file may be there although it was not found.
fn may_hide((path, fault): &(PathBuf, ReadFault), name: &str) -> bool {
    matches!(fault, ReadFault::TooMany(_)) || Path::new(name).starts_with(path)
}

fn problem(message: String, warning: bool) -> Problem {
    Problem { place: Place::default(), object: None, field: None, message, warning }
}

/// A digest's first 16 bytes in hexadecimal.
pub(crate) fn hex(digest: &Digest) -> String {
    digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
#[path = "scan_tests.rs"]
mod tests;
