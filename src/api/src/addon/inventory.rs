//! An object as the inventory of an addon names it.

use std::fmt;
use std::str::FromStr;

/// One object: `Kind.group/namespace/name uid mark`. Core kinds have no group (`ConfigMap/a/x 12…`), objects
/// without a namespace an empty one (`Namespace//n`); the uid may be missing. The mark, which may be missing too, is
/// the manager's own: by it a manager that has just started knows an object as it was left.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InventoryEntry {
    /// Kind, such as `Deployment`.
    pub kind: String,
    /// API group; empty for the core group.
    pub group: String,
    /// Namespace; empty for a cluster-scoped object.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// `metadata.uid`; empty if it is not known.
    pub uid: String,
}

/// A text that names no object.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no inventory entry; such read Kind.group/namespace/name uid")]
pub struct InventoryError(String);

impl fmt::Display for InventoryEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.kind)?;
        if !self.group.is_empty() {
            write!(f, ".{}", self.group)?;
        }
        write!(f, "/{}/{}", self.namespace, self.name)?;
        if self.uid.is_empty() { Ok(()) } else { write!(f, " {}", self.uid) }
    }
}

impl FromStr for InventoryEntry {
    type Err = InventoryError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || InventoryError(text.to_owned());
        let (object, uid) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
        let mut parts = object.splitn(3, '/');
        let (kind, namespace, name) = (parts.next(), parts.next(), parts.next());
        let (Some(kind), Some(namespace), Some(name)) = (kind, namespace, name) else { return Err(wrong()) };
        let (kind, group) = kind.split_once('.').unwrap_or((kind, ""));
        if kind.is_empty() || name.is_empty() {
            return Err(wrong());
        }
        Ok(Self {
            kind: kind.to_owned(),
            group: group.to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            uid: uid.split_whitespace().next().unwrap_or_default().to_owned(),
        })
    }
}
