//! The loop that reads the directory when it changes, and once a minute.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher as _};
use parking_lot::Mutex;
use quarterdeck_runtime::controller::Worker;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::read::Root;
use super::scan::{SETTLE, Scanner};
use crate::addon::source::Snapshot;
use crate::addon::source::changes::{is_only_reading, quiet_after};
use crate::addon::source::channel::{Good, GoodStore};

/// How often a directory is read without an event unless somebody says otherwise.
pub const RESCAN: Duration = Duration::from_secs(60);

/// Reads the directory and hands each reading on.
pub struct DirectoryWatch {
    scanner: Arc<Mutex<Scanner>>,
    publish: Box<dyn Fn(Snapshot) + Send + Sync>,
    rescan: Duration,
    /// Told of the first reading.
    read_once: watch::Sender<bool>,
    /// Nothing is read before these have been.
    after: Vec<watch::Receiver<bool>>,
    /// Where readings are kept for the next process.
    store: Option<Arc<dyn GoodStore>>,
    /// Digest of what was kept last.
    kept: Mutex<Option<[u8; 32]>>,
}

impl DirectoryWatch {
    /// A watch whose readings go to `publish`.
    #[must_use]
    pub fn new(scanner: Scanner, publish: impl Fn(Snapshot) + Send + Sync + 'static) -> Self {
        Self {
            scanner: Arc::new(Mutex::new(scanner)),
            publish: Box::new(publish),
            rescan: RESCAN,
            read_once: watch::Sender::new(false),
            after: Vec::new(),
            store: None,
            kept: Mutex::default(),
        }
    }

    /// Keeps what was read whole, and starts with what was kept: it stays in force while the directory
    /// cannot be read.
    #[must_use]
    pub fn kept_in(mut self, store: Arc<dyn GoodStore>) -> Self {
        self.store = Some(store);
        self
    }

    /// Sets how often the directory is read without an event.
    #[must_use]
    pub fn every(mut self, rescan: Duration) -> Self {
        self.rescan = rescan;
        self
    }

    /// Has nothing read before the first reading of `first` was handed on.
    #[must_use]
    pub fn after(mut self, first: &Self) -> Self {
        self.after.push(first.read_once.subscribe());
        self
    }

    async fn read(&self) -> bool {
        let scanner = Arc::clone(&self.scanner);
        let read = tokio::task::spawn_blocking(move || scanner.lock().scan(Instant::now())).await;
        let Ok(snapshot) = read else { return false };
        let unsettled = snapshot.complete && !snapshot.settled;
        let (whole, digest) = (snapshot.complete && snapshot.settled, snapshot.digest);
        (self.publish)(snapshot);
        if whole {
            self.keep(digest).await;
        }
        self.read_once.send_replace(true);
        unsettled
    }
}

impl DirectoryWatch {
    /// Takes what was kept, if there is a store.
    async fn recall(&self) {
        let Some(store) = &self.store else { return };
        let key = self.scanner.lock().key();
        match store.load(&key).await {
            Ok(Some(good)) => {
                let scanner = Arc::clone(&self.scanner);
                let _ = tokio::task::spawn_blocking(move || scanner.lock().recall(&good.manifests)).await;
            }
            Ok(None) => {}
            Err(error) => tracing::warn!(source = key, %error, "what was read last of a directory cannot be used"),
        }
    }

    /// Keeps what was read, if it is new.
    async fn keep(&self, digest: [u8; 32]) {
        let Some(store) = &self.store else { return };
        if *self.kept.lock() == Some(digest) {
            return;
        }
        let scanner = Arc::clone(&self.scanner);
        let contents = tokio::task::spawn_blocking(move || {
            let scanner = scanner.lock();
            scanner.contents().map(|files| (scanner.key(), files))
        });
        // Changed meanwhile, or not whole: the next reading is kept.
        let Ok(Some((key, manifests))) = contents.await else { return };
        let read_at = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let good = Good { read_at, index: bytes::Bytes::new(), manifests };
        // The store tells of its troubles.
        if store.save(&key, good).await.is_ok() {
            *self.kept.lock() = Some(digest);
        }
    }
}

impl Worker for DirectoryWatch {
    async fn run(&self, stop: CancellationToken) {
        let path = self.scanner.lock().path().to_owned();
        for first in &self.after {
            let mut first = first.clone();
            tokio::select! {
                () = stop.cancelled() => return,
                // Whoever is gone will not be waited for.
                _ = first.wait_for(|read| *read) => {}
            }
        }
        self.recall().await;
        let changed = Arc::new(Notify::new());
        let mut eyes = Eyes::default();
        while !stop.is_cancelled() {
            // Watched first, read second: what changes in between is an event.
            eyes.look_at(&path, &changed);
            let unsettled = self.read().await;
            let next = if unsettled { SETTLE } else { self.rescan };
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(next) => {}
                () = quiet_after(&changed) => {}
            }
        }
    }
}

/// The inotify watch, made anew when the directory was replaced.
#[derive(Default)]
struct Eyes {
    watcher: Option<RecommendedWatcher>,
    identity: Option<(u64, u64)>,
    /// Whether the log says that it cannot be watched.
    told: bool,
}

impl Eyes {
    fn look_at(&mut self, path: &Path, changed: &Arc<Notify>) {
        let identity = Root::open(path).and_then(|root| root.identity()).ok();
        if self.watcher.is_some() && self.identity == identity {
            return;
        }
        self.identity = identity;
        self.watcher = watch_path(path, changed)
            .inspect_err(|error| {
                if !std::mem::replace(&mut self.told, true) {
                    tracing::warn!(path = %path.display(), %error, "cannot watch the addon directory; it is read now and then");
                }
            })
            .ok();
        if self.watcher.is_some() && std::mem::take(&mut self.told) {
            tracing::info!(path = %path.display(), "the addon directory is watched again");
        }
    }
}

fn watch_path(path: &Path, changed: &Arc<Notify>) -> notify::Result<RecommendedWatcher> {
    let (changed, own) = (Arc::clone(changed), path.to_owned());
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
        // Events without a path say that some were lost.
        let concerns = |event: &Event| event.paths.is_empty() || event.paths.iter().any(|path| path.starts_with(&own));
        if event.is_ok_and(|event| concerns(&event) && !is_only_reading(event.kind)) {
            changed.notify_one();
        }
    })?;
    if path.is_dir() {
        watcher.watch(path, RecursiveMode::Recursive)?;
    }
    // The directory may be a link that is swapped, or may come later.
    if let Some(parent) = path.parent().filter(|parent| parent.is_dir()) {
        watcher.watch(parent, RecursiveMode::NonRecursive)?;
    }
    Ok(watcher)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use tokio::sync::mpsc;

    use super::*;
    use crate::addon::manifest::Limits;
    use crate::addon::source::channel::DiskStore;

    const MAP: &str =
        "{apiVersion: v1, kind: ConfigMap, metadata: {name: x, labels: {addonmanager.kubernetes.io/mode: Reconcile}}}";

    /// The next reading for which `wanted` holds; a test that waits for ever hangs and is ended.
    async fn until(readings: &mut mpsc::UnboundedReceiver<Snapshot>, wanted: impl Fn(&Snapshot) -> bool) {
        while !wanted(&readings.recv().await.expect("the watch runs")) {}
    }

    fn start(path: &Path) -> (mpsc::UnboundedReceiver<Snapshot>, CancellationToken, tokio::task::JoinHandle<()>) {
        let (send, readings) = mpsc::unbounded_channel();
        let watch = DirectoryWatch::new(Scanner::new(path.to_owned(), Limits::default()), move |snapshot| {
            let _ = send.send(snapshot);
        });
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        (readings, stop, tokio::spawn(async move { watch.run(stopped).await }))
    }

    #[tokio::test]
    async fn changes_are_seen_without_the_rescan() {
        let dir = tempfile::tempdir().expect("a directory");
        let (mut readings, stop, task) = start(dir.path());
        until(&mut readings, |snapshot| snapshot.settled && snapshot.addons.is_empty()).await;
        fs::create_dir(dir.path().join("sub")).expect("a folder");
        fs::write(dir.path().join("sub/a.yaml"), MAP).expect("a file");
        until(&mut readings, |snapshot| snapshot.settled && snapshot.addons.len() == 1).await;
        fs::rename(dir.path().join("sub/a.yaml"), dir.path().join("b.yaml")).expect("a move");
        until(&mut readings, |snapshot| snapshot.addons.contains_key("b.yaml") && snapshot.addons.len() == 1).await;
        fs::remove_file(dir.path().join("b.yaml")).expect("removed");
        until(&mut readings, |snapshot| snapshot.settled && snapshot.addons.is_empty()).await;
        stop.cancel();
        task.await.expect("it ends");
    }

    /// A master that starts while its directory is away knows what stood in it.
    #[tokio::test]
    async fn what_was_kept_is_in_force_after_a_restart() {
        let dir = tempfile::tempdir().expect("a directory");
        let (addons, state) = (dir.path().join("addons"), dir.path().join("state"));
        fs::create_dir(&addons).expect("a folder");
        fs::write(addons.join("a.yaml"), MAP).expect("a file");
        fs::write(addons.join("b.yaml"), MAP).expect("a file");
        fs::write(addons.join("b.yaml.skip"), "").expect("a mark");
        let store = || -> Arc<dyn GoodStore> { Arc::new(DiskStore::of("directory", &state, 10_000)) };
        let watch = |scanner: Scanner| {
            let (send, readings) = mpsc::unbounded_channel();
            let watch = DirectoryWatch::new(scanner, move |snapshot| {
                let _ = send.send(snapshot);
            });
            (watch.kept_in(store()), readings)
        };
        let scanner = || Scanner::new(addons.clone(), Limits::default());
        let (first, mut readings) = watch(scanner());
        let stop = CancellationToken::new();
        let (stopped, key) = (stop.clone(), scanner().key());
        let task = tokio::spawn(async move { first.run(stopped).await });
        until(&mut readings, |snapshot| snapshot.settled).await;
        // Kept after the reading was handed on; two changes follow each other through the store.
        while store().load(&key).await.expect("readable").is_none() {
            tokio::task::yield_now().await;
        }
        stop.cancel();
        task.await.expect("it ends");
        fs::rename(&addons, dir.path().join("away")).expect("moved");

        let (second, mut readings) = watch(scanner());
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let task = tokio::spawn(async move { second.run(stopped).await });
        let snapshot = readings.recv().await.expect("a reading");
        assert!(!snapshot.complete && !snapshot.settled && snapshot.problem.is_some());
        let objects: Vec<_> = snapshot.addons.iter().map(|(name, addon)| (&**name, addon.objects.len())).collect();
        assert_eq!(objects, [("a.yaml", 1)]);
        // It is back, with less: that counts, and only that.
        fs::create_dir(&addons).expect("a folder");
        fs::write(addons.join("c.yaml"), MAP).expect("a file");
        until(&mut readings, |snapshot| snapshot.settled && snapshot.addons.contains_key("c.yaml")).await;
        stop.cancel();
        task.await.expect("it ends");

        // Another directory's content is not this one's.
        let (third, mut readings) = watch(Scanner::new(dir.path().join("other"), Limits::default()));
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let task = tokio::spawn(async move { third.run(stopped).await });
        assert!(readings.recv().await.expect("a reading").addons.is_empty());
        stop.cancel();
        task.await.expect("it ends");
    }

    #[tokio::test]
    async fn a_swapped_directory_is_seen() {
        let dir = tempfile::tempdir().expect("a directory");
        for name in ["one", "two"] {
            fs::create_dir(dir.path().join(name)).expect("a folder");
            fs::write(dir.path().join(name).join(format!("{name}.yaml")), MAP).expect("a file");
        }
        symlink("one", dir.path().join("current")).expect("a link");
        let (mut readings, stop, task) = start(&dir.path().join("current"));
        until(&mut readings, |snapshot| snapshot.addons.contains_key("one.yaml")).await;
        symlink("two", dir.path().join("next")).expect("a link");
        fs::rename(dir.path().join("next"), dir.path().join("current")).expect("a swap");
        until(&mut readings, |snapshot| snapshot.addons.contains_key("two.yaml")).await;
        fs::write(dir.path().join("two/three.yaml"), MAP).expect("a file");
        until(&mut readings, |snapshot| snapshot.addons.len() == 2).await;
        stop.cancel();
        task.await.expect("it ends");
    }
}
