//! Folders of plug-ins: a plug-in NAME listens at NAME.sock. What is there at the start is taken then; afterwards the
//! folder is watched.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};

use super::client::Plugin;
use super::uri::PluginUri;
use crate::plugins::{Folder, Providers, Reason};

/// How the sockets in a folder of plug-ins end.
pub(super) const ENDING: &str = "sock";
/// How often a folder is read without an event: some file systems have none.
const RESCAN: Duration = Duration::from_secs(30);

/// What is in a folder.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    /// Sockets by the names of their plug-ins.
    pub(crate) sockets: BTreeMap<String, PathBuf>,
    /// Files that end like sockets and have no name that can be said.
    nameless: Vec<PathBuf>,
}

impl Folder {
    /// Reads it.
    pub(crate) fn read(&self) -> io::Result<Contents> {
        let mut contents = Contents::default();
        for item in std::fs::read_dir(&self.path)? {
            let path = item?.path();
            if path.extension().is_none_or(|ending| ending != ENDING) {
                continue;
            }
            match (path.file_stem().and_then(|stem| stem.to_str()), path.to_str()) {
                (Some(name), Some(_)) => {
                    let name =
                        self.prefix.as_ref().map_or_else(|| name.to_owned(), |prefix| format!("{prefix}-{name}"));
                    contents.sockets.insert(name, path);
                }
                _ => contents.nameless.push(path),
            }
        }
        Ok(contents)
    }
}

/// Watches folders until it is dropped.
pub(crate) struct Watched {
    wake: mpsc::Sender<Wake>,
}

enum Wake {
    Changed,
    Stop,
}

impl Drop for Watched {
    fn drop(&mut self) {
        // It has ended if nobody listens.
        let _ = self.wake.send(Wake::Stop);
    }
}

impl Watched {
    /// Begins to watch, on a thread of its own. `known` are the plug-ins that were there at the start, with their
    /// sockets.
    pub(crate) fn start(
        folders: Vec<Folder>,
        known: BTreeMap<String, PathBuf>,
        providers: Arc<Providers>,
    ) -> io::Result<Self> {
        let (wake, woken) = mpsc::channel();
        let (changes, mut looker) = (wake.clone(), Looker { folders, taken: known, gone: BTreeSet::new(), providers });
        std::thread::Builder::new().name("cloud-plugins".to_owned()).spawn(move || {
            let (mut watcher, mut told) = (None, false);
            loop {
                // Watched first, read second: what changes in between is an event.
                watcher = watcher.or_else(|| watch(&looker.folders, &changes, &mut told));
                looker.look();
                match woken.recv_timeout(RESCAN) {
                    Ok(Wake::Changed) | Err(mpsc::RecvTimeoutError::Timeout) => {}
                    Ok(Wake::Stop) | Err(mpsc::RecvTimeoutError::Disconnected) => return,
                }
            }
        })?;
        Ok(Self { wake })
    }
}

fn watch(folders: &[Folder], changes: &mpsc::Sender<Wake>, told: &mut bool) -> Option<RecommendedWatcher> {
    let changes = changes.clone();
    let start = || {
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // Our own readings are events, too.
            if event.is_ok_and(|event| !matches!(event.kind, notify::EventKind::Access(_))) {
                let _ = changes.send(Wake::Changed);
            }
        })?;
        for folder in folders {
            watcher.watch(&folder.path, RecursiveMode::NonRecursive)?;
        }
        notify::Result::Ok(watcher)
    };
    start()
        .inspect_err(|error| {
            if !std::mem::replace(told, true) {
                tracing::warn!(%error, "cannot watch the folders of plug-ins; they are read now and then");
            }
        })
        .ok()
}

/// Compares folders with the plug-ins there are.
struct Looker {
    folders: Vec<Folder>,
    /// Plug-ins that were taken from the folders, and their sockets.
    taken: BTreeMap<String, PathBuf>,
    /// Those of them whose socket is gone.
    gone: BTreeSet<String>,
    providers: Arc<Providers>,
}

impl Looker {
    fn look(&mut self) {
        let (mut refused, mut unread) = (BTreeSet::new(), Vec::new());
        let mut there = BTreeSet::new();
        for folder in &self.folders {
            let contents = match folder.read() {
                Ok(contents) => contents,
                Err(error) => {
                    let message = format!("Folder {} of cloud plug-ins cannot be read: {error}", folder.path.display());
                    refused.insert((Reason::Folder, message));
                    unread.push(folder.path.clone());
                    continue;
                }
            };
            for path in contents.nameless {
                let message = format!("Cloud plug-in at {} is not taken: that is no name", path.display());
                refused.insert((Reason::NoName, message));
            }
            for (name, path) in contents.sockets {
                let refusal = match self.taken.get(&name) {
                    Some(own) if *own == path => {
                        there.insert(name);
                        continue;
                    }
                    Some(other) => Some((Reason::NameTaken, format!("{} has that name", other.display()))),
                    None if self.providers.all().iter().any(|provider| provider.name() == name) => {
                        Some((Reason::NameTaken, "a provider of --cloud-provider has that name".to_owned()))
                    }
                    None => {
                        match self.providers.join(&name, Arc::new(Plugin::new(PluginUri::Unix(path.clone()), None))) {
                            Ok(()) => {
                                self.taken.insert(name.clone(), path.clone());
                                there.insert(name.clone());
                                None
                            }
                            Err(refusal) => Some(refusal),
                        }
                    }
                };
                if let Some((reason, why)) = refusal {
                    let message = format!("Cloud plug-in {name} at {} is not taken: {why}", path.display());
                    refused.insert((reason, message));
                }
            }
        }
        self.note_gone(&there, &unread);
        self.providers.refuse(refused);
    }

    /// Says once of each socket that it went, and that it came back. Nothing is known of folders that cannot be read.
    fn note_gone(&mut self, there: &BTreeSet<String>, unread: &[PathBuf]) {
        for (name, path) in &self.taken {
            let is_unread = path.parent().is_some_and(|folder: &Path| unread.iter().any(|one| one == folder));
            if there.contains(name) {
                if self.gone.remove(name) {
                    tracing::info!(provider = name, "the socket of the plug-in is there again");
                }
            } else if !is_unread && self.gone.insert(name.clone()) {
                tracing::warn!(
                    provider = name,
                    "the socket of the plug-in is gone; it is unavailable until it is back"
                );
            }
        }
    }
}
