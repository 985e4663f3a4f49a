//! Names of kinds and objects, independent of the API version.

use std::fmt;
use std::sync::Arc;

use quarterdeck_runtime::object::{Kind, ObjectKey};

/// A kind within its group; versions of one group kind are one thing.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupKind {
    /// API group; empty for the core group.
    pub group: Arc<str>,
    /// Kind, such as `Deployment`.
    pub kind: Arc<str>,
}

impl GroupKind {
    /// A kind within a group.
    pub fn new(group: impl Into<Arc<str>>, kind: impl Into<Arc<str>>) -> Self {
        Self { group: group.into(), kind: kind.into() }
    }

    /// Reads `Kind.group`, or a bare `Kind` of the core group.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (kind, group) = text.split_once('.').unwrap_or((text, ""));
        let plain = |c: char| c.is_ascii_alphanumeric();
        (!kind.is_empty() && kind.chars().all(plain)).then(|| Self::new(group, kind))
    }

    /// Whether it is this kind of this group.
    #[must_use]
    pub fn is(&self, group: &str, kind: &str) -> bool {
        &*self.group == group && &*self.kind == kind
    }
}

impl From<&Kind> for GroupKind {
    fn from(kind: &Kind) -> Self {
        Self::new(&*kind.group, &*kind.kind)
    }
}

/// Prints `Deployment.apps`, or `ConfigMap` for the core group, as an ApplySet names a kind.
impl fmt::Display for GroupKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.kind)?;
        if self.group.is_empty() { Ok(()) } else { write!(f, ".{}", self.group) }
    }
}

impl fmt::Debug for GroupKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One object of the cluster, whatever version it is read in.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ident {
    /// Its kind.
    pub kind: GroupKind,
    /// Namespace; empty for a cluster-scoped object, and for one whose file names none while its
    /// scope is not known yet.
    pub namespace: Arc<str>,
    /// Name.
    pub name: Arc<str>,
}

impl Ident {
    /// An object.
    pub fn new(kind: GroupKind, namespace: impl Into<Arc<str>>, name: impl Into<Arc<str>>) -> Self {
        Self { kind, namespace: namespace.into(), name: name.into() }
    }

    /// Namespace and name.
    #[must_use]
    pub fn key(&self) -> ObjectKey {
        ObjectKey::new(Arc::clone(&self.namespace), Arc::clone(&self.name))
    }

    /// Reads what [`Display`](fmt::Display) prints.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, '/');
        let kind = GroupKind::parse(parts.next()?)?;
        let namespace = parts.next()?;
        let name = parts.next()?;
        (!name.is_empty()).then(|| Self::new(kind, namespace, name))
    }

    /// Whether `written`, as a file names it, may mean this object: a file that names no namespace
    /// may mean any.
    #[must_use]
    pub fn may_be(&self, written: &Self) -> bool {
        self.kind == written.kind
            && self.name == written.name
            && (self.namespace == written.namespace || written.namespace.is_empty() || self.namespace.is_empty())
    }
}

/// Prints `Deployment.apps/kube-system/dns`; a cluster-scoped object has an empty middle part.
impl fmt::Display for Ident {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.kind, self.namespace, self.name)
    }
}

impl fmt::Debug for Ident {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_is_read_back() {
        for text in [
            "Deployment.apps/kube-system/dns",
            "ConfigMap/a/b",
            "Namespace//n",
            "ClusterRole.rbac.authorization.k8s.io//system:x",
        ] {
            assert_eq!(Ident::parse(text).expect("an ident").to_string(), text);
        }
        for bad in ["", "ConfigMap", "ConfigMap/a", "ConfigMap/a/", ".apps/a/b", "Con fig/a/b"] {
            assert_eq!(Ident::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_file_without_a_namespace_may_mean_any() {
        let live = Ident::parse("ConfigMap/default/a").expect("an ident");
        assert!(live.may_be(&Ident::parse("ConfigMap//a").expect("an ident")));
        assert!(live.may_be(&Ident::parse("ConfigMap/default/a").expect("an ident")));
        assert!(!live.may_be(&Ident::parse("ConfigMap/other/a").expect("an ident")));
        assert!(!live.may_be(&Ident::parse("Secret//a").expect("an ident")));
    }
}
