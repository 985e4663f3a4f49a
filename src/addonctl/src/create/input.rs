//! Files and directories as they are given to `--prereqs` and `--install`.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};

use super::documents::{self, Document};

/// Largest input of one step, bytes: an object of the API cannot be much larger.
const LARGEST: u64 = 1 << 20;

/// A part of a step, in the order of its files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Objects to apply, of one file.
    Documents(Vec<Document>),
    /// A Python script to run.
    Script {
        /// Name of the file.
        file: String,
        /// Its text.
        source: String,
    },
}

/// Reads a file, or the files of a directory by name. An empty path is no parts.
pub(super) fn read(flag: &str, path: &str) -> anyhow::Result<Vec<Part>> {
    if path.is_empty() {
        return Ok(Vec::new());
    }
    let path = Path::new(path);
    let of_flag = || format!("{flag} {}", path.display());
    let mut parts = Vec::new();
    let mut size = 0;
    if path.metadata().with_context(of_flag)?.is_dir() {
        for file in files(path).with_context(of_flag)? {
            parts.extend(part(&file, &mut size)?);
        }
        ensure!(!parts.is_empty(), "{}: there is no .yaml, .yml, .json or .py file with anything in it", of_flag());
    } else {
        ensure!(wanted(path), "{}: not a .yaml, .yml, .json or .py file", of_flag());
        parts.extend(part(path, &mut size)?);
        ensure!(!parts.is_empty(), "{}: there is nothing in it", of_flag());
    }
    Ok(parts)
}

/// Whether a file is one that a step can be made of.
fn wanted(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    matches!(extension, "yaml" | "yml" | "json" | "py")
}

/// The files of a directory, not of those within, sorted by name. Hidden files are passed over.
fn files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let hidden = entry.file_name().to_string_lossy().starts_with('.');
        if !hidden && wanted(&entry.path()) && entry.path().is_file() {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

fn part(path: &Path, size: &mut u64) -> anyhow::Result<Option<Part>> {
    let of_file = || path.display().to_string();
    *size += path.metadata().with_context(of_file)?.len();
    if *size > LARGEST {
        bail!("{}: the files of a step are larger than {LARGEST} bytes together; no object could hold them", of_file());
    }
    let text = std::fs::read_to_string(path).with_context(of_file)?;
    // Workflows hold it as a block of YAML, which knows one kind of line end.
    let text = text.trim_start_matches('\u{feff}').replace("\r\n", "\n");
    if text.trim().is_empty() {
        return Ok(None);
    }
    if path.extension().is_some_and(|extension| extension == "py") {
        let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        return Ok(Some(Part::Script { file, source: text }));
    }
    let documents = documents::read(&of_file(), &text)?;
    Ok((!documents.is_empty()).then_some(Part::Documents(documents)))
}
