//! Which replicas run, written down for a program that comes later to end them.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::{Deck, Replica};
use crate::{Launch, Process};

#[derive(Serialize, Deserialize)]
struct Entry {
    launch: Launch,
    pid: i32,
    started: u64,
}

impl Deck {
    /// Writes down which processes these replicas are.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write_down(&self, file: &Path) -> Result<()> {
        let processes: Vec<_> = self.replicas().iter().map(Replica::process).collect();
        write_down(&processes, file)
    }

    /// Ends the replicas that [`Self::write_down`] wrote into `file`, and removes it; without such a
    /// file there is nothing to end.
    ///
    /// # Errors
    /// When the file cannot be read, or a process survives.
    pub async fn end_written_down(file: &Path) -> Result<()> {
        end_written_down(file).await
    }
}

/// Writes down which processes these are.
pub(crate) fn write_down(processes: &[Process], file: &Path) -> Result<()> {
    let entry =
        |process: &Process| Entry { launch: process.launch().clone(), pid: process.pid(), started: process.started() };
    let entries: Vec<_> = processes.iter().map(entry).collect();
    std::fs::write(file, serde_json::to_vec_pretty(&entries)?).with_context(|| format!("writing {}", file.display()))
}

/// Ends the processes that were written down into `file`, and removes it.
pub(crate) async fn end_written_down(file: &Path) -> Result<()> {
    if !file.exists() {
        return Ok(());
    }
    let entries: Vec<Entry> = serde_json::from_slice(&std::fs::read(file)?)?;
    for entry in entries {
        Process::attach(entry.launch, entry.pid, entry.started).stop(Duration::from_secs(15)).await?;
    }
    std::fs::remove_file(file).with_context(|| format!("removing {}", file.display()))
}
