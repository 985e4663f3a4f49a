//! The loop that reads channels: each in its own time, so that a slow one holds up no other.

use std::collections::BTreeSet;
use std::hash::{BuildHasher as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher as _};
use parking_lot::Mutex;
use quarterdeck_api::version::Version;
use quarterdeck_runtime::controller::Worker;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::in_force::{Channel, ChannelLimits, View};
use super::merge::merge;
use super::store::GoodStore;
use super::{ChannelConfig, ChannelReading};
use crate::addon::location::Fetcher;
use crate::addon::source::changes::{is_only_reading, quiet_after};

/// How long two readings that agree have to lie apart to count as evidence of absence.
const SETTLE: Duration = Duration::from_secs(1);

type Publish = Box<dyn Fn(ChannelReading) + Send + Sync>;

/// Reads all channels and hands each reading on.
pub struct ChannelWatch {
    config: ChannelConfig,
    limits: ChannelLimits,
    fetcher: Fetcher,
    store: Arc<dyn GoodStore>,
    kubernetes: watch::Receiver<Option<Version>>,
    found: Option<watch::Receiver<u64>>,
    publish: Publish,
}

/// What the channels said last.
struct Shared {
    views: Vec<View>,
    /// The last digest of each channel that was published whole, and since when it is that.
    agreed: Vec<Option<([u8; 32], Instant)>>,
    settled: Vec<bool>,
    /// What was told of each channel.
    told: Vec<Vec<String>>,
}

impl ChannelWatch {
    /// A watch whose readings go to `publish`. `kubernetes` tells the API server's version once it is
    /// known, and when it changes.
    #[must_use]
    pub fn new(
        config: ChannelConfig,
        fetcher: Fetcher,
        store: Arc<dyn GoodStore>,
        kubernetes: watch::Receiver<Option<Version>>,
        publish: impl Fn(ChannelReading) + Send + Sync + 'static,
    ) -> Self {
        let limits = ChannelLimits::default();
        Self { config, limits, fetcher, store, kubernetes, found: None, publish: Box::new(publish) }
    }

    /// Looks into the store again each time that this changes.
    #[must_use]
    pub fn finding(self, found: watch::Receiver<u64>) -> Self {
        Self { found: Some(found), ..self }
    }

    async fn follow(&self, number: usize, shared: &Mutex<Shared>) {
        let (text, location) = &self.config.channels[number];
        let mut channel = Channel::new(text, location.clone(), self.config.repair_drift, self.limits);
        let mut kubernetes = self.kubernetes.clone();
        let mut found = self.found.clone();
        let version = kubernetes.borrow_and_update().clone();
        channel.load(&*self.store, version.as_ref()).await;
        self.tell(number, channel.view(), shared);
        let changed = Arc::new(Notify::new());
        let mut eyes = Eyes::default();
        loop {
            let files = channel.view().files;
            // Watched first, read second: what changes in between is an event.
            eyes.look_at(&files, &changed);
            let version = kubernetes.borrow_and_update().clone();
            channel.read(&self.fetcher, &*self.store, version.as_ref()).await;
            let settled = self.tell(number, channel.view(), shared);
            let wait = if settled { jittered(self.config.interval) } else { SETTLE };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = quiet_after(&changed) => {}
                () = version_changed(&mut kubernetes) => {}
                () = more_was_found(&mut found) => {
                    let version = kubernetes.borrow().clone();
                    channel.load_newer(&*self.store, version.as_ref()).await;
                    self.tell(number, channel.view(), shared);
                }
            }
        }
    }

    /// Publishes what a channel says now; whether two readings agreed.
    fn tell(&self, number: usize, view: View, shared: &Mutex<Shared>) -> bool {
        let mut shared = shared.lock();
        let digest = merge(std::slice::from_ref(&view), false).snapshot.digest;
        let now = Instant::now();
        let settled = view.state.fresh
            && match shared.agreed[number] {
                Some((agreed, since)) if agreed == digest => now.duration_since(since) >= SETTLE,
                _ => {
                    shared.agreed[number] = Some((digest, now));
                    false
                }
            };
        // What cannot be read need not be looked at again at once.
        let patient = settled || !view.state.fresh;
        if !view.state.fresh {
            shared.agreed[number] = None;
        }
        shared.views[number] = view;
        shared.settled[number] = settled;
        let all_settled = shared.settled.iter().all(|settled| *settled);
        let reading = merge(&shared.views, all_settled);
        for (state, told) in reading.channels.iter().zip(&mut shared.told) {
            for problem in state.problems.iter().filter(|problem| !told.contains(problem)) {
                tracing::warn!(channel = %state.channel, problem, "in a channel");
            }
            told.clone_from(&state.problems);
        }
        // Under the lock, so that readings are published in their order.
        (self.publish)(reading);
        patient
    }
}

impl Worker for ChannelWatch {
    async fn run(&self, stop: CancellationToken) {
        if self.config.channels.is_empty() {
            return stop.cancelled().await;
        }
        let unread =
            self.config.channels.iter().map(|(text, location)| {
                Channel::new(text, location.clone(), self.config.repair_drift, self.limits).view()
            });
        let count = self.config.channels.len();
        let views: Vec<View> = unread.collect();
        let told = views.iter().map(|view| view.state.problems.clone()).collect();
        let shared = Mutex::new(Shared { views, agreed: vec![None; count], settled: vec![false; count], told });
        let all = futures::future::join_all((0..count).map(|number| self.follow(number, &shared)));
        tokio::select! {
            () = stop.cancelled() => {}
            _ = all => {}
        }
    }
}

/// Replicas that start together do not ask together for ever.
fn jittered(interval: Duration) -> Duration {
    let random = std::hash::RandomState::new().build_hasher().finish() % 1024;
    interval.mul_f64(0.9 + 0.2 * (random as f64 / 1024.0))
}

/// Waits for ever once nobody can tell a version any more.
async fn version_changed(kubernetes: &mut watch::Receiver<Option<Version>>) {
    if kubernetes.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Waits for ever where nobody looks.
async fn more_was_found(found: &mut Option<watch::Receiver<u64>>) {
    let changed = match found {
        Some(found) => found.changed().await.is_ok(),
        None => false,
    };
    if !changed {
        std::future::pending::<()>().await;
    }
}

/// The inotify watch on the folders of local files.
#[derive(Default)]
struct Eyes {
    watcher: Option<RecommendedWatcher>,
    folders: BTreeSet<PathBuf>,
    /// Whether the log says that they cannot be watched.
    told: bool,
}

impl Eyes {
    fn look_at(&mut self, files: &BTreeSet<PathBuf>, changed: &Arc<Notify>) {
        let folders: BTreeSet<PathBuf> = files
            .iter()
            .filter_map(|file| file.parent())
            .map(Path::to_owned)
            .filter(|folder| folder.is_dir())
            .collect();
        if folders == self.folders && self.watcher.is_some() {
            return;
        }
        self.watcher = None;
        if folders.is_empty() {
            return;
        }
        self.watcher = watch_folders(&folders, changed)
            .inspect_err(|error| {
                if !std::mem::replace(&mut self.told, true) {
                    tracing::warn!(%error, "cannot watch the channels' files; they are read at the interval");
                }
            })
            .ok();
        self.folders = folders;
    }
}

fn watch_folders(folders: &BTreeSet<PathBuf>, changed: &Arc<Notify>) -> notify::Result<RecommendedWatcher> {
    let changed = Arc::clone(changed);
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
        if event.is_ok_and(|event| !is_only_reading(event.kind)) {
            changed.notify_one();
        }
    })?;
    for folder in folders {
        watcher.watch(folder, RecursiveMode::NonRecursive)?;
    }
    Ok(watcher)
}

#[cfg(test)]
#[path = "watch_tests.rs"]
mod tests;
