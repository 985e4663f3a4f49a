//! What stands in a channel's file.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::fields::Fields;
use super::prune::{Prune, PruneKind};
use super::rolling::RollingUpdate;
use super::{ANNOTATION_PREFIX, DEFAULT_NAMESPACE};
use crate::version::Range;

/// Something wrong in a channel's file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The field: `spec.addons[3].manifest`.
    pub field: String,
    /// What.
    pub message: String,
    /// Only worth a warning: what is meant could be read all the same.
    pub warning: bool,
}

impl Problem {
    pub(super) fn error(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: field.into(), message: message.into(), warning: false }
    }

    pub(super) fn warning(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: field.into(), message: message.into(), warning: true }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "field {}: {}", self.field, self.message)
    }
}

/// Why a whole file is of no use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IndexError {
    /// A field that everything else hangs on.
    #[error("{0}")]
    Field(Problem),
    /// More entries than are read.
    #[error("field spec.addons: {found} entries; at most {most} are read")]
    TooMany {
        /// How many there are.
        found: usize,
        /// How many may be there.
        most: usize,
    },
}

impl From<Problem> for IndexError {
    fn from(problem: Problem) -> Self {
        Self::Field(problem)
    }
}

/// What a channel's file turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Nothing, or only comments: no addons, and no fault.
    Empty,
    /// A list of addons.
    Index(Index),
    /// Objects: the whole file is the manifest of one addon, whose one entry names the file's own
    /// location.
    Direct(Box<Entry>),
}

/// A list of addons.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Index {
    /// `metadata.name`; entries without a name have this one.
    pub name: String,
    /// The entries that could be read, in the file's order.
    pub entries: Vec<Entry>,
    /// What was wrong.
    pub problems: Vec<Problem>,
}

impl Index {
    /// Whether every entry could be read: only then does the absence of an addon mean something.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.problems.iter().all(|problem| problem.warning)
    }
}

/// A manifest's hash as an index names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestHash(String);

impl ManifestHash {
    /// As written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a manifest has it: over the text without the white space around it, as kOps'
    /// builder computes it, or over the file as it is, as `sha256sum` does.
    ///
    /// # Errors
    /// The hash that the manifest has.
    pub fn verify(&self, manifest: &[u8]) -> Result<(), String> {
        let actual = content_hash(manifest);
        if actual.eq_ignore_ascii_case(&self.0) || hex(&Sha256::digest(manifest)).eq_ignore_ascii_case(&self.0) {
            Ok(())
        } else {
            Err(actual)
        }
    }
}

/// Hexadecimal SHA-256 of a manifest without the white space around it
/// (kops:upup/pkg/fi/cloudup/bootstrapchannelbuilder).
#[must_use]
pub fn content_hash(manifest: &[u8]) -> String {
    match std::str::from_utf8(manifest) {
        Ok(text) => hex(&Sha256::digest(text.trim())),
        Err(_) => hex(&Sha256::digest(manifest.trim_ascii())),
    }
}

fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A `kubernetesVersion` as written and as understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KubernetesRange {
    /// As written.
    pub text: String,
    /// What it holds; the error says why it could not be read.
    pub range: Result<Range, String>,
}

/// One version of an addon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where it stands: `spec.addons[3]`; empty for a file that is a manifest.
    pub path: String,
    /// The addon's name.
    pub name: String,
    /// Namespace whose annotation says what is installed.
    pub namespace: String,
    /// Labels that the addon's objects carry.
    pub selector: BTreeMap<String, String>,
    /// Where the manifest is, as written: relative to the index, or not.
    pub manifest: String,
    /// The manifest's hash.
    pub manifest_hash: Option<ManifestHash>,
    /// Which Kubernetes it is for.
    pub kubernetes_version: Option<KubernetesRange>,
    /// What tells entries of one version apart.
    pub id: String,
    /// Its version.
    pub version: Option<String>,
    /// Which nodes need a rolling update after it changed.
    pub needs_rolling_update: Option<RollingUpdate>,
    /// Whether a CA and an issuer are made for it.
    pub needs_pki: bool,
    /// Which objects of earlier versions are removed.
    pub prune: Option<Prune>,
    /// Whether what people change of its objects is put back before the next version (`drift: repair`
    /// or `drift: report`; kOps knows no such field and passes over it).
    pub repair_drift: Option<bool>,
    /// What is done about its revisions: `rollback: off`, `manual` or `auto`; no field of kOps' either.
    pub rollback: Option<String>,
}

const ENTRY_FIELDS: &[&str] = &[
    "name",
    "namespace",
    "selector",
    "manifest",
    "manifestHash",
    "kubernetesVersion",
    "id",
    "version",
    "needsRollingUpdate",
    "needsPKI",
    "prune",
    "drift",
    "rollback",
    // Until kOps 1.22.
    "replaceBeforeVersion",
];

/// Reads a channel's file. Only its first document counts; `first` is that, `None` if there is none.
/// `location` is what the file was read from and `bytes` what was read. At most `most` entries are
/// taken.
///
/// # Errors
/// When nothing can be said about any addon: the file then says nothing.
pub fn read(first: Option<&Value>, location: &str, bytes: &[u8], most: usize) -> Result<Content, IndexError> {
    let Some(first) = first.filter(|first| !first.is_null()) else { return Ok(Content::Empty) };
    let root = Fields::new("", first).map_err(|problem| Problem::error("(document 1)", problem.message))?;
    match root.text("kind")? {
        Some("Addons") => index(&root, most).map(Content::Index),
        Some(_) => Ok(Content::Direct(Box::new(direct(location, bytes)))),
        None => Err(Problem::error("kind", "missing; expected kind: Addons, or objects to apply").into()),
    }
}

/// The one entry of a file of objects: named by its location, so that its content may change.
fn direct(location: &str, bytes: &[u8]) -> Entry {
    const NAME_DIGITS: usize = 12;
    let digits = hex(&Sha256::digest(location));
    Entry {
        path: String::new(),
        name: format!("manifest-{}", &digits[..NAME_DIGITS]),
        namespace: DEFAULT_NAMESPACE.to_owned(),
        selector: BTreeMap::new(),
        manifest: location.to_owned(),
        manifest_hash: Some(ManifestHash(content_hash(bytes))),
        kubernetes_version: None,
        id: String::new(),
        version: None,
        needs_rolling_update: None,
        needs_pki: false,
        prune: None,
        repair_drift: None,
        rollback: None,
    }
}

fn index(root: &Fields<'_>, most: usize) -> Result<Index, IndexError> {
    let name = match root.mapping("metadata")? {
        Some(metadata) => metadata.text("name")?.unwrap_or_default().to_owned(),
        None => String::new(),
    };
    let mut problems = root.unknown(&["apiVersion", "kind", "metadata", "spec"]);
    let Some(spec) = root.mapping("spec")? else { return Ok(Index { name, entries: Vec::new(), problems }) };
    problems.extend(spec.unknown(&["addons"]));
    let addons = spec.list("addons")?;
    if addons.len() > most {
        return Err(IndexError::TooMany { found: addons.len(), most });
    }
    let mut entries = Vec::new();
    for (number, value) in addons.iter().enumerate() {
        let path = format!("spec.addons[{number}]");
        // kOps' list has pointers in it: null is no addon.
        if value.is_null() {
            problems.push(Problem::warning(path, "null; it is passed over"));
            continue;
        }
        match entry(path, value, &name, &mut problems) {
            Ok(entry) => entries.push(entry),
            Err(problem) => problems.push(problem),
        }
    }
    Ok(Index { name, entries, problems })
}

fn entry(path: String, value: &Value, index_name: &str, problems: &mut Vec<Problem>) -> Result<Entry, Problem> {
    let fields = Fields::new(path, value)?;
    problems.extend(fields.unknown(ENTRY_FIELDS));
    let name = fields.text("name")?.unwrap_or(index_name);
    if !is_annotation_name(name) {
        let message = match name {
            "" => "missing, and metadata.name names none either".to_owned(),
            name => format!(
                "{name:?} cannot stand in an annotation {ANNOTATION_PREFIX}<name>: at most 63 letters, digits, - _ and ."
            ),
        };
        return Err(Problem::error(fields.at("name"), message));
    }
    let namespace = fields.text("namespace")?.unwrap_or(DEFAULT_NAMESPACE);
    if !is_namespace(namespace) {
        return Err(Problem::error(fields.at("namespace"), format!("{namespace:?} is not a namespace's name")));
    }
    let manifest =
        fields.text("manifest")?.ok_or_else(|| Problem::error(fields.at("manifest"), "missing: where is it?"))?;
    let manifest_hash = fields.text("manifestHash")?.map(|text| manifest_hash(&fields, text)).transpose()?;
    let rolling = |text: &str| {
        RollingUpdate::parse(text).ok_or_else(|| {
            Problem::error(
                fields.at("needsRollingUpdate"),
                format!("{text:?} is none of control-plane, workers and all"),
            )
        })
    };
    let repair = |text: &str| match text {
        "repair" => Ok(true),
        "report" => Ok(false),
        _ => Err(Problem::error(fields.at("drift"), format!("{text:?} is neither repair nor report"))),
    };
    let rollback = |text: &str| match text {
        "off" | "manual" | "auto" => Ok(text.to_owned()),
        _ => Err(Problem::error(fields.at("rollback"), format!("{text:?} is none of off, manual and auto"))),
    };
    Ok(Entry {
        name: name.to_owned(),
        namespace: namespace.to_owned(),
        selector: fields.labels("selector")?,
        manifest: manifest.to_owned(),
        manifest_hash,
        kubernetes_version: fields.text("kubernetesVersion")?.map(|text| kubernetes_range(&fields, text, problems)),
        id: fields.text("id")?.unwrap_or_default().to_owned(),
        version: fields.text("version")?.map(str::to_owned),
        needs_rolling_update: fields.text("needsRollingUpdate")?.map(rolling).transpose()?,
        needs_pki: fields.flag("needsPKI")?,
        prune: fields.mapping("prune")?.map(|prune| self::prune(&prune, problems)).transpose()?,
        repair_drift: fields.text("drift")?.map(repair).transpose()?,
        rollback: fields.text("rollback")?.map(rollback).transpose()?,
        path: fields.path,
    })
}

fn manifest_hash(fields: &Fields<'_>, text: &str) -> Result<ManifestHash, Problem> {
    const DIGITS: usize = 64;
    if text.len() == DIGITS && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(ManifestHash(text.to_owned()));
    }
    let shown: String = text.chars().take(DIGITS).collect();
    Err(Problem::error(
        fields.at("manifestHash"),
        format!("{shown:?} is not the 64 hexadecimal digits of a SHA-256, so the manifest cannot be verified"),
    ))
}

/// A range that cannot be read leaves out the entry, not the file.
fn kubernetes_range(fields: &Fields<'_>, text: &str, problems: &mut Vec<Problem>) -> KubernetesRange {
    let range = Range::parse(text).map_err(|error| error.to_string());
    if let Err(message) = &range {
        problems.push(Problem::warning(fields.at("kubernetesVersion"), format!("{message}; the entry is left out")));
    }
    KubernetesRange { text: text.to_owned(), range }
}

fn prune(fields: &Fields<'_>, problems: &mut Vec<Problem>) -> Result<Prune, Problem> {
    problems.extend(fields.unknown(&["kinds"]));
    let mut kinds = Vec::new();
    for (number, value) in fields.list("kinds")?.iter().enumerate() {
        let fields = Fields::new(format!("{}[{number}]", fields.at("kinds")), value)?;
        problems.extend(fields.unknown(&["group", "kind", "namespaces", "labelSelector", "fieldSelector"]));
        let owned = |text: Option<&str>| text.unwrap_or_default().to_owned();
        let kind = PruneKind {
            group: owned(fields.text("group")?),
            kind: owned(fields.text("kind")?),
            namespaces: fields.texts("namespaces")?,
            label_selector: owned(fields.text("labelSelector")?),
            field_selector: owned(fields.text("fieldSelector")?),
        };
        if kind.kind.is_empty() {
            return Err(Problem::error(fields.at("kind"), "missing"));
        }
        if kind.label_selector.is_empty() && kind.field_selector.is_empty() {
            let message =
                "missing: without a selector everybody's objects of this kind would be removed; the kind is left out";
            problems.push(Problem::warning(fields.at("labelSelector"), message));
            continue;
        }
        kinds.push(kind);
    }
    Ok(Prune { kinds })
}

/// The part of an annotation's key behind the slash.
fn is_annotation_name(name: &str) -> bool {
    let end = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
    name.len() <= 63
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
        && end(name.bytes().next())
        && end(name.bytes().last())
}

fn is_namespace(name: &str) -> bool {
    let end = |byte: Option<u8>| byte.is_some_and(|byte| byte != b'-');
    name.len() <= 63
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        && end(name.bytes().next())
        && end(name.bytes().last())
}

#[cfg(test)]
#[path = "index_tests.rs"]
mod tests;
