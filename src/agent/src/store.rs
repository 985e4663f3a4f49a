//! What the agent keeps on disk, so that it knows it all after its own restart, with no control plane.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::desired::Accepted;
use crate::plan::{Check, Memory};

/// Name of the file in the state directory.
const FILE: &str = "applied.json";

/// What is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Kept {
    /// What is in force.
    pub accepted: Accepted,
    /// Names and numbers that must not change.
    pub memory: Memory,
    /// Verdicts of checks, as pairs.
    health: Vec<(Check, bool)>,
}

impl Kept {
    /// Verdicts of checks.
    #[must_use]
    pub fn health(&self) -> BTreeMap<Check, bool> {
        self.health.iter().cloned().collect()
    }

    /// Takes over verdicts.
    pub fn set_health(&mut self, health: &BTreeMap<Check, bool>) {
        self.health = health.iter().map(|(check, healthy)| (check.clone(), *healthy)).collect();
    }
}

/// Why the state could not be kept or read.
#[derive(Debug, thiserror::Error)]
#[error("{}: {source}", path.display())]
pub struct StoreError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub source: std::io::Error,
}

/// The state directory.
#[derive(Clone, Debug)]
pub struct Store {
    folder: PathBuf,
}

impl Store {
    /// A store in this folder, which is made if it is missing.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        let failed = |source| StoreError { path: folder.to_owned(), source };
        std::fs::create_dir_all(folder).map_err(failed)?;
        Ok(Self { folder: folder.to_owned() })
    }

    /// Reads what was kept; nothing if there is no file.
    ///
    /// # Errors
    /// When there is one that cannot be read: that is not taken for "nothing".
    pub fn load(&self) -> Result<Kept, StoreError> {
        let path = self.folder.join(FILE);
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Kept::default()),
            Err(source) => return Err(StoreError { path, source }),
        };
        serde_json::from_slice(&text).map_err(|error| StoreError { path, source: error.into() })
    }

    /// Keeps a state: whole, or as it was before, whenever the machine stops.
    ///
    /// # Errors
    /// When it could not be written.
    pub fn save(&self, kept: &Kept) -> Result<(), StoreError> {
        let path = self.folder.join(FILE);
        let temporary = self.folder.join(format!("{FILE}.new"));
        let write = || {
            let mut file = std::fs::File::create(&temporary)?;
            file.write_all(&serde_json::to_vec(kept)?)?;
            file.sync_all()?;
            std::fs::rename(&temporary, &path)?;
            std::fs::File::open(&self.folder)?.sync_all()
        };
        write().map_err(|source| StoreError { path: path.clone(), source })
    }

    /// Forgets everything.
    ///
    /// # Errors
    /// When the file is still there.
    pub fn clear(&self) -> Result<(), StoreError> {
        let path = self.folder.join(FILE);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(StoreError { path, source: error }),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desired::Versioned;

    #[test]
    fn what_is_kept_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("state")).unwrap();
        assert_eq!(store.load().unwrap(), Kept::default());
        let mut kept = Kept::default();
        kept.accepted.desired.balancers.insert("a".to_owned(), Versioned::default());
        kept.memory.marks.insert("gw1".to_owned(), 1);
        let check = Check { address: "10.0.0.1:80".parse().unwrap(), path: None };
        kept.set_health(&BTreeMap::from([(check, false)]));
        store.save(&kept).unwrap();
        assert_eq!(store.load().unwrap(), kept);
    }

    #[test]
    fn a_broken_file_is_an_error_that_names_it() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(FILE), "{").unwrap();
        let error = Store::open(folder.path()).unwrap().load().unwrap_err();
        assert!(error.to_string().contains("applied.json: EOF"), "{error}");
    }
}
