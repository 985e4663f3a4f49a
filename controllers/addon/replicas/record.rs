//! What a replica says of its reading of one source, as it stands in an annotation of its Lease.

use std::collections::BTreeMap;

use quarterdeck_runtime::notes::{NOTE_BYTES, NOTE_PREFIX};
use serde::{Deserialize, Serialize};

use crate::addon::source::Snapshot;

/// What the annotation of a source is called, before the source's name.
const NAME: &str = "source.";
/// Letters of a file's hash: enough to tell two contents apart, and no more is told of them.
const HASH_LETTERS: usize = 16;
/// Longest reason why a directory could not be read, bytes.
const PROBLEM_BYTES: usize = 300;
/// Most bytes of the list of files; beyond it only digest and count are told.
const LIST_BYTES: usize = 48 * 1024;
/// Most files that are read of somebody else's record.
const MOST_FILES: usize = 20_000;

/// One replica's reading of one source.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// A digest of names and contents, hexadecimal.
    pub digest: String,
    /// Number of files.
    pub count: usize,
    /// Why the source could not be read whole, if so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// A hash of each file, if they are few enough to be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<BTreeMap<String, String>>,
}

/// An annotation that is not a record.
#[derive(Debug, thiserror::Error)]
pub enum BadRecord {
    /// It is longer than a record is.
    #[error("{0} bytes; a record has at most {NOTE_BYTES}")]
    TooLong(usize),
    /// It names more files than may be.
    #[error("{0} files; at most {MOST_FILES} are read")]
    TooMany(usize),
    /// It is something else.
    #[error("not a record: {0}")]
    Form(#[from] serde_json::Error),
}

impl Record {
    /// What there is to say of a reading.
    #[must_use]
    pub fn of(snapshot: &Snapshot) -> Self {
        let files: BTreeMap<String, String> = snapshot
            .addons
            .iter()
            .map(|(name, addon)| (name.to_string(), addon.version.chars().take(HASH_LETTERS).collect()))
            .collect();
        // A name may need escapes: twice its length is more than it takes nearly always, and the board
        // refuses what is too long all the same.
        let bytes: usize = files.keys().map(|name| name.len() * 2 + HASH_LETTERS + 8).sum();
        let short = |text: &String| text.chars().take(PROBLEM_BYTES / 4).collect();
        Self {
            digest: snapshot.digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect(),
            count: files.len(),
            problem: snapshot.problem.as_ref().map(short),
            files: (bytes <= LIST_BYTES).then_some(files),
        }
    }

    /// As an annotation.
    #[must_use]
    pub fn to_text(&self) -> String {
        serde_json::to_string(self).expect("texts and numbers are JSON")
    }

    /// Reads an annotation, whoever wrote it.
    ///
    /// # Errors
    /// Says why it is no record.
    pub fn read(text: &str) -> Result<Self, BadRecord> {
        if text.len() > NOTE_BYTES {
            return Err(BadRecord::TooLong(text.len()));
        }
        let record: Self = serde_json::from_str(text)?;
        match record.files.as_ref().map_or(0, BTreeMap::len) {
            count if count > MOST_FILES => Err(BadRecord::TooMany(count)),
            _ => Ok(record),
        }
    }
}

/// Name of the note about a source.
#[must_use]
pub fn note(source: &str) -> String {
    format!("{NAME}{source}")
}

/// The annotation about a source.
#[must_use]
pub fn annotation(source: &str) -> String {
    format!("{NOTE_PREFIX}{}", note(source))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::addon::source::{Addon, AddonId, Policy};

    fn snapshot(files: usize) -> Snapshot {
        let addon = |name: String| {
            let name: Arc<str> = name.into();
            let addon = Addon {
                id: AddonId { source: "directory", name: Arc::clone(&name) },
                version: "0123456789abcdef0123456789abcdef".into(),
                objects: Vec::new(),
                policy: Policy::default(),
                dependencies: Vec::new(),
                package: None,
                description: "".into(),
                account: None,
                lifecycle: None,
                skipped: Vec::new(),
                problems: Vec::new(),
                complete: true,
            };
            (name, Arc::new(addon))
        };
        let addons = (0..files).map(|n| addon(format!("folder/{n}.yaml"))).collect();
        Snapshot { addons, complete: true, settled: true, ..Snapshot::default() }
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let record = Record::of(&snapshot(3));
        assert_eq!(Record::read(&record.to_text()).expect("its own text"), record);
        assert_eq!(record.files.expect("few")["folder/1.yaml"], "0123456789abcdef");
    }

    #[test]
    fn many_files_are_told_by_digest_and_count() {
        let record = Record::of(&snapshot(5000));
        assert!(record.files.is_none() && record.count == 5000 && record.to_text().len() < 200);
        let sizes: Vec<usize> = (0..5000).collect();
        let most = sizes.partition_point(|size| Record::of(&snapshot(*size)).files.is_some()) - 1;
        assert!(Record::of(&snapshot(most)).to_text().len() <= NOTE_BYTES);
    }

    #[test]
    fn garbage_is_refused() {
        for text in ["", "x", "[]", "null", "{}", r#"{"digest":1,"count":0}"#, r#"{"digest":"","count":-1}"#] {
            assert!(Record::read(text).is_err(), "{text}");
        }
        assert!(matches!(Record::read(&" ".repeat(NOTE_BYTES + 1)), Err(BadRecord::TooLong(_))));
        let deep = format!(r#"{{"digest":"","count":0,"files":{}{}}}"#, "[".repeat(20_000), "]".repeat(20_000));
        assert!(Record::read(&deep).is_err());
    }
}
