//! Channels: files of `kind: Addons` that list addons in versions, and what a cluster notes of what
//! it installed of them. No I/O, and no YAML: values come in as JSON.
//!
//! [`read`] takes a file apart into [`Entry`]s, [`choose`] picks the one of each addon that the
//! cluster's version wants, [`decide`] compares it to the [`Installed`] note.
//!
//! Formats and rules: `kops:channels/pkg/{api,channels}` 268927e, and 2f3bad6^ for those that compare
//! versions.

mod choice;
mod decide;
mod fields;
mod index;
mod installed;
mod prune;
mod required;
mod rolling;

pub use choice::{Choice, Held, choose};
pub use decide::{Decision, Form, Keep, Offer, decide, decide_as};
pub use index::{Content, Entry, Index, IndexError, KubernetesRange, ManifestHash, Problem, content_hash, read};
pub use installed::{ANNOTATION_PREFIX, Found, Installed, InstalledError, SYSTEM_GENERATION, annotation, find};
pub use prune::{Prune, PruneKind, PruneList};
pub use required::{Required, pki_issuer, pki_secret, required};
pub use rolling::{NEEDS_UPDATE, RollingUpdate};

/// Namespace of an entry that names none.
pub const DEFAULT_NAMESPACE: &str = "kube-system";
