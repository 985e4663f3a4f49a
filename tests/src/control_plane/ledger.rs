//! The processes of a detached control plane, written down for the next caller.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::ControlPlane;
use super::layout::{self, Layout};
use super::server::Server;
use crate::binaries::Binaries;
use crate::pki::{self, Pki};
use crate::process::{Launch, Process};

/// One process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Entry {
    launch: Launch,
    url: String,
    pid: i32,
    /// Start time in clock ticks since boot.
    started: u64,
}

/// The list of processes; kept on disk only for a detached control plane.
pub(super) struct Ledger {
    file: PathBuf,
    detached: bool,
    entries: Mutex<Vec<Entry>>,
}

impl Ledger {
    pub(super) fn new(file: PathBuf, detached: bool) -> Self {
        Self { file, detached, entries: Mutex::default() }
    }

    /// Writes down a process that was just started; it takes the place of an
    /// earlier one of that name.
    pub(super) fn add(&self, launch: &Launch, url: &str, process: &Process) -> Result<()> {
        if !self.detached {
            return Ok(());
        }
        let mut entries = self.entries.lock();
        entries.retain(|entry| entry.launch.name() != launch.name());
        entries.push(Entry {
            launch: launch.clone(),
            url: url.to_owned(),
            pid: process.pid(),
            started: process.started(),
        });
        pki::write(&self.file, &serde_json::to_string_pretty(&*entries)?)
    }

    /// Kills every process that is written down.
    pub(super) async fn end_all(&self) -> Result<()> {
        let entries = self.entries.lock().clone();
        for entry in entries {
            entry.process().kill().await?;
        }
        Ok(())
    }
}

impl Entry {
    fn process(&self) -> Process {
        Process::attach(self.launch.clone(), self.pid, self.started)
    }
}

fn read(folder: &Path) -> Result<Vec<Entry>> {
    let file = layout::ledger(folder);
    if !file.exists() {
        bail!("{} holds no control plane (no {})", folder.display(), file.display());
    }
    let text = std::fs::read(&file).with_context(|| format!("reading {}", file.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("in {}", file.display()))
}

impl ControlPlane {
    /// Takes over a control plane that another program started in `folder`
    /// with `Builder::detached`.
    ///
    /// # Errors
    /// When the folder holds none, or only a part of one.
    pub async fn attach(folder: &Path) -> Result<Self> {
        let folder = std::path::absolute(folder)?;
        let entries = read(&folder)?;
        let layout = Layout {
            binaries: Binaries::ensure(&[]).await?,
            pki: Pki::open(&folder.join("pki"))?,
            detached: true,
            folder,
        };
        let ledger = Arc::new(Ledger::new(layout.ledger(), true));
        ledger.entries.lock().clone_from(&entries);
        let (mut etcd, mut apiservers, mut peers) = (None, Vec::new(), Vec::new());
        for entry in &entries {
            let plan = layout.plan(entry.launch.clone(), entry.url.clone())?;
            let server = Server::attach(plan, entry.process(), &ledger);
            match server.name() {
                "etcd" => etcd = Some(server),
                name if name.starts_with("kube-apiserver") => apiservers.push(server),
                _ => peers.push(server),
            }
        }
        apiservers.sort_by(|a, b| a.name().cmp(b.name()));
        let etcd = etcd.context("no etcd is written down: the start was interrupted")?;
        Ok(Self { peers, node: None, apiservers, etcd, layout, ledger, keep_folder: true })
    }

    /// Is there a control plane in `folder` (running or not)?
    pub fn exists(folder: &Path) -> bool {
        layout::ledger(folder).exists()
    }
}

impl ControlPlane {
    /// Ends every process that is written down in `folder`, peers first and
    /// etcd last, and removes the folder unless `keep`; works on what an
    /// interrupted start left, too.
    ///
    /// # Errors
    /// When the ledger cannot be read, or a process survives.
    pub async fn remove(folder: &Path, keep: bool) -> Result<()> {
        let entries = read(folder)?;
        for entry in entries.iter().rev() {
            entry.process().stop(Duration::from_secs(10)).await?;
        }
        let gone = if keep {
            let file = layout::ledger(folder);
            std::fs::remove_file(file)
        } else {
            std::fs::remove_dir_all(folder)
        };
        gone.with_context(|| format!("removing {}", folder.display()))
    }
}
