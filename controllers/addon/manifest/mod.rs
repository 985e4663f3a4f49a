//! From the bytes of a file to the objects it wants, within limits.
//!
//! Text is split into documents first, as kubectl does, so that one bad document does not take its
//! neighbours with it. Each document becomes a JSON value under a budget of depth and nodes that
//! aliases count against, and then one or more objects. Whatever is wrong is a [`Problem`] that
//! says where.

mod decode;
mod split;
mod value;

use std::fmt;
use std::sync::Arc;

use serde_json::Value;

use super::ident::Ident;

pub(in crate::addon) use decode::read_object;
pub use decode::{Decoded, Format, Labels, decode, decode_with, first_document};
pub(in crate::addon) use split::documents;
pub(in crate::addon) use value::{from_yaml, patch_from_yaml};

/// Label that says how an object is managed.
pub const MODE_LABEL: &str = "addonmanager.kubernetes.io/mode";
/// Older label; `true` means [`Mode::Reconcile`].
pub const LEGACY_LABEL: &str = "kubernetes.io/cluster-service";

/// How an object is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// It is kept as the file says; changes are reverted, and it goes when the file goes.
    Reconcile,
    /// It is created when it is not there, and otherwise left alone.
    EnsureExists,
}

/// An object that a source wants in the cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct Desired {
    /// Which object; its namespace is as the file says, possibly empty.
    pub ident: Ident,
    /// API version the file is written in, without the group.
    pub version: Arc<str>,
    /// How it is kept.
    pub mode: Mode,
    /// The object as written, without null fields.
    pub body: Body,
    /// Where it stands, for messages: `document 2 (line 14)`.
    pub place: Place,
}

/// The content of an object, as text: a tree of it would take ten times the memory, and is asked for
/// only when an object is looked at.
#[derive(Clone, PartialEq, Eq)]
pub struct Body(Arc<str>);

impl Body {
    /// Keeps a tree.
    #[must_use]
    pub fn new(tree: &Value) -> Self {
        Self(tree.to_string().into())
    }

    /// The tree.
    #[must_use]
    pub fn tree(&self) -> Value {
        serde_json::from_str(&self.0).expect("it was written as JSON")
    }

    /// The same in one line of JSON.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where something stands in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Place {
    /// Document in the file, counted from 1; 0 for the file as a whole.
    pub document: usize,
    /// Line, counted from 1; 0 when it is not known.
    pub line: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.document, self.line) {
            (0, 0) => f.write_str("file"),
            (0, line) => write!(f, "line {line}"),
            (document, 0) => write!(f, "document {document}"),
            (document, line) => write!(f, "document {document}, line {line}"),
        }
    }
}

/// Something wrong in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where.
    pub place: Place,
    /// The object, as far as it could be read: `Deployment a/b`.
    pub object: Option<String>,
    /// The field: `metadata.labels.app`.
    pub field: Option<String>,
    /// What.
    pub message: String,
    /// Only worth a warning: the object was read all the same.
    pub warning: bool,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.place)?;
        if let Some(object) = &self.object {
            write!(f, ", {object}")?;
        }
        if let Some(field) = &self.field {
            write!(f, ", field {field}")?;
        }
        write!(f, ": {}", self.message)
    }
}

/// Bounds on input. Whoever writes the directory is trusted with the cluster, not with this
/// process' memory.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Largest file, bytes.
    pub file_bytes: usize,
    /// Largest document, bytes: about what a server takes (etcd's request limit is 1.5 MiB).
    pub document_bytes: usize,
    /// Deepest nesting.
    pub depth: usize,
    /// Most values in a document, those that aliases repeat included.
    pub nodes: usize,
    /// Most bytes of text in a document, those that aliases repeat included.
    pub text_bytes: usize,
    /// Most objects in a file: what an inventory in one ConfigMap holds.
    pub objects: usize,
    /// Most files.
    pub files: usize,
    /// Most bytes of all files together.
    pub total_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            file_bytes: 16 << 20,
            document_bytes: 3 << 20,
            depth: 64,
            nodes: 100_000,
            text_bytes: 8 << 20,
            objects: 4_000,
            files: 10_000,
            total_bytes: 256 << 20,
        }
    }
}
