//! The admission-controls directory, which kube-addon-manager applies before it starts on the addons.
//!
//! Upstream (`kubernetes:cluster/addons/addon-manager/kube-addons.sh`, v1.36.3) has every master apply
//! it at its start, leader or not, up to a hundred times, and never look again. Here it is a second
//! directory source: the leader applies it, for nothing is written without the Lease; it is read before
//! the addons, and again when it changes; what drifts is put back. As upstream, its files end in
//! `.yaml` or `.json`, objects that name no namespace go to `default`, and nothing of it is ever
//! deleted.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use super::source::Snapshot;
use super::source::directory::Folder;

/// Name of this source.
pub(super) const SOURCE: &str = "admission-controls";

/// The directory as a source; none for an empty path.
pub(super) fn folder(path: &Path) -> Option<Folder> {
    let (endings, path) = (&["yaml", "json"], path.to_owned());
    (!path.as_os_str().is_empty()).then_some(Folder { source: SOURCE, path, endings, prune: false, optional: true })
}

/// Keeps still about a directory that never had a file: most masters have none.
pub(super) fn once_there(publish: impl Fn(Snapshot) + Send + Sync) -> impl Fn(Snapshot) + Send + Sync {
    let there = AtomicBool::new(false);
    move |snapshot: Snapshot| {
        let tells = !snapshot.addons.is_empty() || snapshot.problem.is_some();
        if there.fetch_or(tells, Ordering::Relaxed) || tells {
            publish(snapshot);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use parking_lot::Mutex;
    use tokio::time::Instant;

    use super::*;
    use crate::addon::manifest::Limits;
    use crate::addon::source::directory::Scanner;

    const MAP: &str =
        "{apiVersion: v1, kind: ConfigMap, metadata: {name: x, labels: {addonmanager.kubernetes.io/mode: Reconcile}}}";

    #[test]
    fn nothing_of_it_is_ever_evidence_of_absence() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("controls");
        assert_eq!(folder(Path::new("")), None);
        let mut scanner = Scanner::of(folder(&path).expect("a path"), Limits::default());
        let published = Mutex::new(Vec::new());
        let publish = once_there(|snapshot| published.lock().push(snapshot));
        let first = scanner.scan(Instant::now());
        assert!(first.problem.is_none() && first.complete && first.settled, "{first:?}");
        publish(first);
        assert!(published.lock().is_empty(), "a directory that is not there is not worth a word");
        fs::create_dir(&path).expect("a folder");
        for name in ["a.yaml", "b.json", "c.yml"] {
            fs::write(path.join(name), MAP).expect("a file");
        }
        publish(scanner.scan(Instant::now()));
        let snapshot = published.lock().pop().expect("one");
        assert_eq!(snapshot.addons.keys().map(|name| &**name).collect::<Vec<_>>(), ["a.yaml", "b.json"]);
        assert!(snapshot.never_prunes && snapshot.addons.values().all(|addon| !addon.is_evidence()));
        fs::remove_dir_all(&path).expect("gone");
        publish(scanner.scan(Instant::now()));
        let snapshot = published.lock().pop().expect("one");
        assert!(!snapshot.complete && snapshot.addons.len() == 2, "what was read stays in force: {snapshot:?}");
    }
}
