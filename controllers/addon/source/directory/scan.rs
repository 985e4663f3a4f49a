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

/// Name of this source.
pub const SOURCE: &str = "directory";

/// How long two readings that agree have to lie apart to count as evidence of absence.
pub(super) const SETTLE: Duration = Duration::from_secs(1);

type Digest = [u8; 32];

/// Reads the directory again and again; a file is decoded only when its content changed.
#[derive(Debug)]
pub struct Scanner {
    path: PathBuf,
    limits: Limits,
    decoded: HashMap<Arc<str>, (Digest, Arc<Addon>)>,
    /// The digest of the last reading, and since when it has been that.
    agreed: Option<(Digest, Instant)>,
}

impl Scanner {
    /// A scanner of this directory.
    #[must_use]
    pub fn new(path: PathBuf, limits: Limits) -> Self {
        Self { path, limits, decoded: HashMap::new(), agreed: None }
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads everything; blocks on the file system.
    pub fn scan(&mut self, now: Instant) -> Snapshot {
        let root = match Root::open(&self.path) {
            Ok(root) => root,
            Err(error) => {
                self.agreed = None;
                let problem = Some(format!("{}: {error}", self.path.display()));
                return Snapshot { problem, ..Snapshot::default() };
            }
        };
        let found = root.find(self.limits.files);
        let mut addons = BTreeMap::new();
        let mut left = self.limits.total_bytes as u64;
        let mut missing = None;
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
                    missing.get_or_insert_with(|| format!("{name}: {error}"));
                }
                Err(fault) => {
                    addons.insert(Arc::clone(&name), Arc::new(unreadable(&name, &fault)));
                }
            }
        }
        self.decoded.retain(|name, _| addons.contains_key(name));
        let fault = found.faults.first().map(|(path, fault)| format!("{}: {fault}", self.path.join(path).display()));
        let problem = fault.or(missing);
        let digest = digest(&addons);
        let settled = match self.agreed {
            Some((before, since)) if before == digest => now.duration_since(since) >= SETTLE,
            _ => {
                self.agreed = Some((digest, now));
                false
            }
        };
        Snapshot { addons, complete: problem.is_none(), settled, problem, digest }
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
            id: id(name),
            version: hex(&digest).into(),
            package: None,
            description: format!("file {name}").into(),
            account: None,
            lifecycle: None,
            complete: decoded.is_complete(),
            objects: decoded.objects.into_iter().map(Into::into).collect(),
            policy: Policy::default(),
            dependencies: Vec::new(),
            skipped: decoded.skipped,
            problems: decoded.problems,
        });
        self.decoded.insert(Arc::clone(name), (digest, Arc::clone(&addon)));
        addon
    }
}

fn id(name: &Arc<str>) -> AddonId {
    AddonId { source: SOURCE, name: Arc::clone(name) }
}

/// A file that is there and cannot be read: nothing of it is wanted, and nothing of it goes.
fn unreadable(name: &Arc<str>, fault: &ReadFault) -> Addon {
    let problem =
        Problem { place: Place::default(), object: None, field: None, message: fault.to_string(), warning: false };
    Addon {
        id: id(name),
        version: "unreadable".into(),
        package: None,
        description: format!("file {name}").into(),
        account: None,
        lifecycle: None,
        objects: Vec::new(),
        policy: Policy::default(),
        dependencies: Vec::new(),
        skipped: Vec::new(),
        problems: vec![problem],
        complete: false,
    }
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
