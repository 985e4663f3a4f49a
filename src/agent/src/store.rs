//! What the agent keeps on disk, so that it knows it all after its own restart, with no control plane.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::desired::{Accepted, Now, ObjectId};
use crate::plan::{Check, Memory};

/// Name of the file in the state directory.
const FILE: &str = "applied.json";
/// Name of the file that holds what changed since, a line a change.
const JOURNAL: &str = "applied.log";
/// With so many lines in the journal, the state is written whole again.
const LONG: usize = 1000;

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
    /// Which of the states kept so far this is: a journal belongs to one.
    number: u64,
}

/// A small change of what is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Line {
    /// The journal begins; it belongs to the state of this number.
    Follows(u64),
    /// An object was accepted.
    Object(ObjectId, Box<Now>),
    /// Ways use other pools; and all spares.
    Pools(BTreeMap<String, String>, BTreeSet<String>),
    /// A check has another verdict.
    Check(Check, bool),
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

    fn apply(&mut self, line: Line) {
        match line {
            Line::Follows(_) => {}
            // What was accepted once is not refused now.
            Line::Object(id, now) => drop(self.accepted.admit(&id, *now)),
            Line::Pools(pools, spares) => {
                self.memory.pools.extend(pools);
                self.memory.spares = spares;
            }
            Line::Check(check, healthy) => match self.health.iter_mut().find(|(known, _)| *known == check) {
                Some((_, known)) => *known = healthy,
                None => self.health.push((check, healthy)),
            },
        }
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
#[derive(Debug)]
pub struct Store {
    folder: PathBuf,
    /// The journal, once something was written to it, and how many lines it has.
    journal: Option<(File, usize)>,
    /// The number of the state that was written last.
    number: u64,
    /// Whether nothing may be added before a state was written whole.
    whole_first: bool,
}

impl Store {
    /// A store in this folder, which is made if it is missing.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        let failed = |source| StoreError { path: folder.to_owned(), source };
        std::fs::create_dir_all(folder).map_err(failed)?;
        Ok(Self { folder: folder.to_owned(), journal: None, number: 0, whole_first: true })
    }

    /// Reads what was kept; nothing if there is no file.
    ///
    /// # Errors
    /// When there is one that cannot be read: that is not taken for "nothing".
    pub fn load(&mut self) -> Result<Kept, StoreError> {
        let path = self.folder.join(FILE);
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Kept::default()),
            Err(source) => return Err(StoreError { path, source }),
        };
        let mut kept: Kept =
            serde_json::from_slice(&text).map_err(|error| StoreError { path, source: error.into() })?;
        let path = self.folder.join(JOURNAL);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
            Err(source) => return Err(StoreError { path, source }),
        };
        // A last line without an end was being written when the process ended: it was in no kernel yet.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        for (number, line) in (1..).zip(whole.lines()) {
            let line: Line = serde_json::from_str(line).map_err(|error| {
                let text = format!("line {number}: {error}");
                StoreError { path: path.clone(), source: std::io::Error::new(ErrorKind::InvalidData, text) }
            })?;
            if matches!(line, Line::Follows(other) if other != kept.number) {
                // All of it is in the state already.
                break;
            }
            kept.apply(line);
        }
        self.number = kept.number;
        Ok(kept)
    }

    /// Keeps a state: whole, or as it was before, whenever the machine stops.
    ///
    /// # Errors
    /// When it could not be written.
    pub fn save(&mut self, kept: &mut Kept) -> Result<(), StoreError> {
        let path = self.folder.join(FILE);
        let temporary = self.folder.join(format!("{FILE}.new"));
        kept.number = self.number + 1;
        let write = || {
            let mut file = File::create(&temporary)?;
            file.write_all(&serde_json::to_vec(kept)?)?;
            file.sync_all()?;
            std::fs::rename(&temporary, &path)?;
            File::open(&self.folder)?.sync_all()
        };
        write().map_err(|source| StoreError { path: path.clone(), source })?;
        self.number = kept.number;
        self.journal = None;
        self.whole_first = false;
        Ok(())
    }

    /// Adds to what is kept. After a crash of the agent it is there. A machine that stops may lose it, if [`Store::sync`]
    /// did not follow, but its kernel loses all it has then.
    ///
    /// # Errors
    /// When it could not be written.
    pub fn append(&mut self, lines: &[Line]) -> Result<(), StoreError> {
        let path = self.folder.join(JOURNAL);
        let mut write = || {
            let mut text = Vec::new();
            let (mut file, length) = match self.journal.take() {
                Some(journal) => journal,
                None => {
                    line(&mut text, &Line::Follows(self.number))?;
                    (File::create(&path)?, 1)
                }
            };
            lines.iter().try_for_each(|one| line(&mut text, one))?;
            file.write_all(&text)?;
            self.journal = Some((file, length + lines.len()));
            Ok(())
        };
        // Half a line may be there where it could not be written.
        let written = write();
        self.whole_first |= written.is_err();
        written.map_err(|source: std::io::Error| StoreError { path: path.clone(), source })
    }

    /// Has the disk keep what was added.
    ///
    /// # Errors
    /// When it does not.
    pub fn sync(&self) -> Result<(), StoreError> {
        let path = self.folder.join(JOURNAL);
        self.journal.as_ref().map_or(Ok(()), |(file, _)| file.sync_data()).map_err(|source| StoreError { path, source })
    }

    /// Whether nothing can be added any more, and the state has to be written whole.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.whole_first || self.journal.as_ref().is_some_and(|(_, lines)| *lines > LONG)
    }

    /// Forgets everything.
    ///
    /// # Errors
    /// When a file is still there.
    pub fn clear(&mut self) -> Result<(), StoreError> {
        self.journal = None;
        self.whole_first = true;
        for name in [JOURNAL, FILE] {
            let path = self.folder.join(name);
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(StoreError { path, source: error }),
                _ => {}
            }
        }
        Ok(())
    }
}

fn line(text: &mut Vec<u8>, line: &Line) -> std::io::Result<()> {
    serde_json::to_writer(&mut *text, line)?;
    text.push(b'\n');
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desired::Versioned;

    #[test]
    fn what_is_kept_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = Store::open(&folder.path().join("state")).unwrap();
        assert_eq!(store.load().unwrap(), Kept::default());
        let mut kept = Kept::default();
        kept.accepted.desired.balancers.insert("a".to_owned(), Versioned::default());
        kept.memory.marks.insert("gw1".to_owned(), 1);
        let check = Check { address: "10.0.0.1:80".parse().unwrap(), path: None };
        kept.set_health(&BTreeMap::from([(check, false)]));
        store.save(&mut kept).unwrap();
        assert_eq!(store.load().unwrap(), kept);
    }

    #[test]
    fn what_is_added_is_read_again_and_a_journal_belongs_to_one_state() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = Store::open(folder.path()).unwrap();
        assert!(store.is_full());
        let mut kept = Kept::default();
        store.save(&mut kept).unwrap();
        let object = Line::Object(ObjectId::balancer("a"), Box::new(Now::Balancer(Versioned::default())));
        let pools = Line::Pools(BTreeMap::from([("w".to_owned(), "p".to_owned())]), BTreeSet::new());
        let check = Check { address: "10.0.0.1:80".parse().unwrap(), path: None };
        store.append(std::slice::from_ref(&object)).unwrap();
        store.append(&[pools.clone(), Line::Check(check.clone(), false)]).unwrap();
        store.sync().unwrap();
        for line in [object, pools, Line::Check(check, false)] {
            kept.apply(line);
        }
        assert_eq!(Store::open(folder.path()).unwrap().load().unwrap(), kept);
        // Cut off in the middle of a line: what was whole counts.
        let path = folder.path().join(JOURNAL);
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, [&whole[..], b"{\"object\""].concat()).unwrap();
        assert_eq!(Store::open(folder.path()).unwrap().load().unwrap(), kept);
        // A broken line is not taken for nothing.
        std::fs::write(&path, [&whole[..], b"{}\n"].concat()).unwrap();
        let error = Store::open(folder.path()).unwrap().load().unwrap_err().to_string();
        assert!(error.contains("applied.log: line 5: "), "{error}");
        // One of an earlier state says nothing any more.
        std::fs::write(&path, whole).unwrap();
        let mut later = Kept::default();
        store.save(&mut later).unwrap();
        assert_eq!(Store::open(folder.path()).unwrap().load().unwrap(), later);
    }

    #[test]
    fn a_broken_file_is_an_error_that_names_it() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(FILE), "{").unwrap();
        let error = Store::open(folder.path()).unwrap().load().unwrap_err();
        assert!(error.to_string().contains("applied.json: EOF"), "{error}");
    }
}
