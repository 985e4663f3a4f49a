//! The state on disk: one file, replaced whole, so that it is whole whenever the process is killed.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use quarterdeck_cloud::sim::{Sim, State};

/// Where the state of a cloud is kept.
pub struct Folder {
    path: PathBuf,
    _lock: File,
}

impl Folder {
    /// Takes a folder, and makes it if it is not there.
    ///
    /// # Errors
    /// When it cannot be used, or another server has it.
    pub fn take(path: &Path) -> Result<Self> {
        std::fs::create_dir_all(path).with_context(|| format!("creating {}", path.display()))?;
        let file = path.join("lock");
        let lock = File::create(&file).with_context(|| format!("opening {}", file.display()))?;
        if lock.try_lock().is_err() {
            bail!("another server keeps its state in {}", path.display());
        }
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    fn file(&self) -> PathBuf {
        self.path.join("state.json")
    }

    /// The state that was kept; `None` if none was. One that cannot be read is an error, never an empty cloud.
    ///
    /// # Errors
    /// When it cannot be read; the message names the file and the line.
    pub fn load(&self) -> Result<Option<State>> {
        let file = self.file();
        let text = match std::fs::read(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("reading {}", file.display())),
        };
        serde_json::from_slice(&text).map(Some).with_context(|| format!("reading {}", file.display()))
    }

    fn write(&self, state: &State) -> Result<()> {
        let (file, fresh) = (self.file(), self.path.join("state.json.new"));
        std::fs::write(&fresh, serde_json::to_vec(state)?).with_context(|| format!("writing {}", fresh.display()))?;
        std::fs::rename(&fresh, &file).with_context(|| format!("writing {}", file.display()))
    }

    /// Keeps the state from now on, each change before the call that made it is answered. Calls that come while it is
    /// written are kept together.
    ///
    /// # Errors
    /// When it can no longer be kept.
    pub async fn keep(self: Arc<Self>, sim: Arc<Sim>) -> Result<()> {
        let mut versions = sim.versions();
        loop {
            let (folder, state) = (Arc::clone(&self), sim.state());
            let version = state.version;
            tokio::task::spawn_blocking(move || folder.write(&state)).await??;
            sim.keep(version);
            versions.changed().await?;
        }
    }
}

#[cfg(test)]
mod tests {
    use quarterdeck_cloud::sim::{Command, NewInstance};

    use super::*;

    #[tokio::test]
    async fn what_is_kept_is_read_again_by_the_next_one() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Arc::new(Folder::take(dir.path()).unwrap());
        assert!(folder.load().unwrap().is_none());
        assert!(Folder::take(dir.path()).is_err(), "one server a folder");
        let sim = Arc::new(Sim::kept(State::new("x")));
        let keeping = tokio::spawn(Arc::clone(&folder).keep(Arc::clone(&sim)));
        sim.command(Command::AddInstance(NewInstance::named("n"))).unwrap();
        sim.until_kept().await;
        assert_eq!(folder.load().unwrap(), Some(sim.state()));
        keeping.abort();
    }

    #[test]
    fn a_state_that_cannot_be_read_is_no_empty_cloud() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::take(dir.path()).unwrap();
        std::fs::write(folder.file(), "{\n\"account\": 1}").unwrap();
        let error = format!("{:#}", folder.load().unwrap_err());
        assert!(error.contains("state.json") && error.contains("line 2"), "{error}");
    }
}
