//! One reading of the directory, and what changed since the one before.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use super::read::{ReadFault, Root};
use crate::addon::manifest::{Format, Limits, Place, Problem, decode};
use crate::addon::source::{Addon, AddonId, Policy, Snapshot};

/// Name of the source of addons.
pub const SOURCE: &str = "directory";

/// How long two readings that agree have to lie apart to count as evidence of absence.
pub(super) const SETTLE: Duration = Duration::from_secs(1);

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
        let found = root.find(self.limits.files, self.folder.endings);
        let mut addons = BTreeMap::new();
        let mut left = self.limits.total_bytes as u64;
        let mut gone_meanwhile = Vec::new();
        for name in found.files {
            let limit = left.min(self.limits.file_bytes as u64);
            match root.read(&name, limit) {
                Ok(text) => {
                    left -= text.bytes.len() as u64;
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

/// Whether a file may be there although it was not found.
fn may_hide((path, fault): &(PathBuf, ReadFault), name: &str) -> bool {
    matches!(fault, ReadFault::TooMany(_)) || Path::new(name).starts_with(path)
}

fn problem(message: String, warning: bool) -> Problem {
    Problem { place: Place::default(), object: None, field: None, message, warning }
}

fn digest(addons: &BTreeMap<Arc<str>, Arc<Addon>>) -> Digest {
    let mut hasher = Sha256::new();
    for (name, addon) in addons {
        hasher.update((name.len() as u64).to_le_bytes());
        hasher.update(name.as_bytes());
        hasher.update(addon.version.as_bytes());
    }
    hasher.finalize().into()
}

/// A digest's first 16 bytes in hexadecimal.
pub(crate) fn hex(digest: &Digest) -> String {
    digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const MAP: &str =
        "{apiVersion: v1, kind: ConfigMap, metadata: {name: x, labels: {addonmanager.kubernetes.io/mode: Reconcile}}}";

    fn scanner(dir: &Path) -> Scanner {
        Scanner::new(dir.to_owned(), Limits { file_bytes: 1000, ..Limits::default() })
    }

    #[test]
    fn a_reading_settles_when_the_next_agrees() {
        let dir = tempfile::tempdir().expect("a directory");
        fs::write(dir.path().join("a.yaml"), MAP).expect("a file");
        let mut scanner = scanner(dir.path());
        let start = Instant::now();
        assert!(!scanner.scan(start).settled);
        assert!(!scanner.scan(start + SETTLE / 2).settled);
        assert!(scanner.scan(start + SETTLE).settled);
        fs::write(dir.path().join("b.yaml"), MAP).expect("a file");
        assert!(!scanner.scan(start + SETTLE * 2).settled);
        assert!(scanner.scan(start + SETTLE * 3).settled);
        fs::remove_file(dir.path().join("b.yaml")).expect("removed");
        let gone = scanner.scan(start + SETTLE * 4);
        assert_eq!((gone.addons.len(), gone.complete, gone.settled), (1, true, false));
    }

    #[test]
    fn what_cannot_be_read_is_there_and_is_no_evidence() {
        let dir = tempfile::tempdir().expect("a directory");
        let at = |name: &str| dir.path().join(name);
        fs::write(at("good.yaml"), MAP).expect("a file");
        fs::write(at("half.yaml"), format!("{MAP}\n---\na: [")).expect("a file");
        fs::write(at("empty.yaml"), "# nothing\n").expect("a file");
        fs::write(at("large.yaml"), "x".repeat(2000)).expect("a file");
        fs::create_dir(at("folder.yaml")).expect("a folder");
        std::os::unix::fs::symlink("../x", at("out.yaml")).expect("a link");
        let snapshot = scanner(dir.path()).scan(Instant::now());
        assert!(snapshot.complete);
        let evidence: Vec<_> =
            snapshot.addons.iter().map(|(name, addon)| (&**name, addon.objects.len(), addon.is_evidence())).collect();
        assert_eq!(
            evidence,
            [
                ("empty.yaml", 0, false),
                ("good.yaml", 1, true),
                ("half.yaml", 1, false),
                ("large.yaml", 0, false),
                ("out.yaml", 0, false)
            ]
        );
        assert!(snapshot.addons["large.yaml"].problems[0].to_string().contains("2000 bytes"));
    }

    #[test]
    fn a_missing_directory_is_not_complete() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut scanner = scanner(&dir.path().join("none"));
        let snapshot = scanner.scan(Instant::now());
        assert!(!snapshot.complete && !snapshot.settled && snapshot.addons.is_empty());
        assert!(snapshot.problem.expect("a problem").contains("none"));
    }

    #[test]
    fn an_unchanged_file_is_decoded_once() {
        let dir = tempfile::tempdir().expect("a directory");
        fs::write(dir.path().join("a.yaml"), MAP).expect("a file");
        let mut scanner = scanner(dir.path());
        let (one, two) = (scanner.scan(Instant::now()), scanner.scan(Instant::now()));
        assert!(Arc::ptr_eq(&one.addons["a.yaml"], &two.addons["a.yaml"]));
        assert_eq!(one.digest, two.digest);
    }

    #[test]
    fn what_cannot_be_read_any_more_stays_in_force() {
        let dir = tempfile::tempdir().expect("a directory");
        let at = |name: &str| dir.path().join("addons").join(name);
        fs::create_dir_all(at("sub")).expect("folders");
        for name in ["a.yaml", "b.yaml", "sub/c.yaml"] {
            fs::write(at(name), MAP.replace("name: x", &format!("name: {}", &name[name.len() - 6..name.len() - 5])))
                .expect("a file");
        }
        let mut scanner = scanner(&dir.path().join("addons"));
        let good = scanner.scan(Instant::now());
        assert!(good.complete && good.addons.len() == 3);

        // One file: what it wanted is wanted, and it is told.
        fs::write(at("a.yaml"), "x".repeat(2000)).expect("too large");
        let snapshot = scanner.scan(Instant::now());
        let addon = &snapshot.addons["a.yaml"];
        assert!(snapshot.complete && !addon.is_evidence() && !addon.problems.is_empty());
        assert_eq!(addon.objects, good.addons["a.yaml"].objects);
        let again = scanner.scan(Instant::now());
        assert_eq!(again.addons["a.yaml"].objects, good.addons["a.yaml"].objects, "and not for one reading only");

        // Part of it cannot be looked into: what is gone elsewhere is gone, and the reading is no evidence.
        fs::remove_file(at("b.yaml")).expect("removed");
        fs::rename(at("sub"), dir.path().join("away")).expect("moved");
        let deep = "d/".repeat(20);
        fs::create_dir_all(at("sub").join(deep)).expect("folders nested too deep");
        let snapshot = scanner.scan(Instant::now());
        assert!(!snapshot.complete, "{:?}", snapshot.problem);
        assert!(!snapshot.addons.contains_key("b.yaml"));

        // The whole directory.
        let before = scanner.scan(Instant::now());
        fs::rename(dir.path().join("addons"), dir.path().join("gone")).expect("moved");
        let snapshot = scanner.scan(Instant::now());
        assert!(!snapshot.complete && !snapshot.settled && snapshot.problem.is_some());
        assert_eq!(snapshot.addons, before.addons);
    }

    #[test]
    fn a_skipped_file_or_folder_is_no_evidence() {
        let dir = tempfile::tempdir().expect("a directory");
        let at = |name: &str| dir.path().join(name);
        fs::create_dir(at("sub")).expect("a folder");
        for name in ["a.yaml", "b.yaml", "sub/c.yaml"] {
            fs::write(at(name), MAP).expect("a file");
        }
        let mut scanner = scanner(dir.path());
        assert_eq!(scanner.scan(Instant::now()).addons["a.yaml"].objects.len(), 1);
        for mark in ["a.yaml.skip", "sub.skip", "b.skip", "none.yaml.skip"] {
            fs::write(at(mark), "").expect("a mark");
        }
        let snapshot = scanner.scan(Instant::now());
        assert!(snapshot.complete);
        let evidence: Vec<_> =
            snapshot.addons.iter().map(|(name, addon)| (&**name, addon.objects.len(), addon.is_evidence())).collect();
        assert_eq!(evidence, [("a.yaml", 0, false), ("b.yaml", 1, true), ("sub/c.yaml", 0, false)]);
        let problem = &snapshot.addons["sub/c.yaml"].problems[0];
        assert!(problem.warning && problem.to_string().contains("sub.skip"), "{problem}");
        fs::remove_file(at("sub.skip")).expect("the mark is taken away");
        assert!(scanner.scan(Instant::now()).addons["sub/c.yaml"].is_evidence());
    }

    /// What is read is what is hashed, however fast the file is swapped.
    #[test]
    fn content_and_digest_belong_together() {
        let dir = tempfile::tempdir().expect("a directory");
        let at = |name: &str| dir.path().join(name);
        let texts: Vec<String> = (0..2).map(|n| MAP.replace("name: x", &format!("name: x{n}"))).collect();
        fs::write(at("a.yaml"), &texts[0]).expect("a file");
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for round in (0_usize..).take_while(|_| !stop.load(std::sync::atomic::Ordering::Relaxed)) {
                    fs::write(at("new"), &texts[round % 2]).expect("a file");
                    fs::rename(at("new"), at("a.yaml")).expect("a swap");
                }
            });
            let mut scanner = scanner(dir.path());
            for _ in 0..2000 {
                let snapshot = scanner.scan(Instant::now());
                let addon = &snapshot.addons["a.yaml"];
                let expected =
                    texts.iter().position(|text| hex(&Sha256::digest(text.as_bytes()).into()) == *addon.version);
                assert_eq!(addon.objects[0].ident.name.strip_prefix('x').and_then(|n| n.parse().ok()), expected);
            }
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
        });
    }
}
