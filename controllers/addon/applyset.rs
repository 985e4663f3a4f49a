//! ApplySets: the label on members and the labels and annotations on the parent that kubectl's
//! pruning also knows (`kubernetes/kubectl:pkg/cmd/apply/applyset.go`, KEP-3659), so that the two
//! recognise and refuse each other.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

use super::ident::{GroupKind, Ident};

/// Label on a member: the id of its set.
pub const PART_OF_LABEL: &str = "applyset.kubernetes.io/part-of";
/// Label on the parent: the id of its set.
pub const ID_LABEL: &str = "applyset.kubernetes.io/id";
/// Annotation on the parent: the tool that keeps the set, as `<name>/<version>`.
pub const TOOLING_ANNOTATION: &str = "applyset.kubernetes.io/tooling";
/// Annotation on the parent: kinds of the members, as a sorted list of `Kind.group`.
pub const KINDS_ANNOTATION: &str = "applyset.kubernetes.io/contains-group-kinds";
/// Annotation on the parent: namespaces of the members besides the parent's own.
pub const NAMESPACES_ANNOTATION: &str = "applyset.kubernetes.io/additional-namespaces";
/// What we write as [`TOOLING_ANNOTATION`].
pub const TOOLING: &str = concat!("quarterdeck/v", env!("CARGO_PKG_VERSION"));

/// The id of the set whose parent is this object.
#[must_use]
pub fn id(parent: &Ident) -> String {
    let text = format!("{}.{}.{}.{}", parent.name, parent.namespace, parent.kind.kind, parent.kind.group);
    format!("applyset-{}-v1", URL_SAFE_NO_PAD.encode(Sha256::digest(text.as_bytes())))
}

/// Whether a parent's tooling annotation is ours, whatever the version; `None` (no annotation) is not
/// another's.
#[must_use]
pub fn is_ours(tooling: Option<&str>) -> bool {
    tooling.is_none_or(|tooling| base_name(tooling) == base_name(TOOLING))
}

/// The tool's name: all but the version, which stands behind the last slash.
fn base_name(tooling: &str) -> &str {
    tooling.rsplit_once('/').map_or(tooling, |(name, _)| name)
}

/// The value of [`KINDS_ANNOTATION`] for these members.
#[must_use]
pub fn kinds<'a>(members: impl IntoIterator<Item = &'a Ident>) -> String {
    let kinds: BTreeSet<String> = members.into_iter().map(|member| member.kind.to_string()).collect();
    join(kinds)
}

/// The value of [`NAMESPACES_ANNOTATION`] for these members of a parent in `own`.
#[must_use]
pub fn namespaces<'a>(members: impl IntoIterator<Item = &'a Ident>, own: &str) -> String {
    let names = members.into_iter().map(|member| &*member.namespace);
    join(names.filter(|name| !name.is_empty() && *name != own).map(str::to_owned).collect())
}

fn join(words: BTreeSet<String>) -> String {
    words.into_iter().collect::<Vec<_>>().join(",")
}

/// The kind of the parents that we make.
#[must_use]
pub fn parent_kind() -> GroupKind {
    GroupKind::new("", "ConfigMap")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_those_of_kubectl() {
        for (parent, expected) in [
            ("ConfigMap/kube-system/dns", "applyset-8C0IcM3UbSLQhOGs9sDf3Rl6wuh5soWHXJ5YM5rT7fE-v1"),
            ("Addon.example.com//cluster", "applyset-yJn2mBmUb6uec6ksIO5dnqahKBWrvfaXIQbEIHN_41o-v1"),
        ] {
            let parent = Ident::parse(parent).expect("an ident");
            assert_eq!(id(&parent), expected);
            assert_eq!(id(&parent).len(), 55);
        }
    }

    #[test]
    fn another_tool_is_told_by_its_name() {
        for (tooling, ours) in [
            (None, true),
            (Some(TOOLING), true),
            (Some("quarterdeck/v9"), true),
            (Some("kubectl/v1.36.0"), false),
            (Some("quarterdeck/plugin/v1"), false),
            (Some(""), false),
        ] {
            assert_eq!(is_ours(tooling), ours, "{tooling:?}");
        }
    }

    #[test]
    fn annotations_are_sorted_sets() {
        let members: Vec<_> =
            ["Secret/b/x", "ConfigMap/kube-system/x", "Deployment.apps/a/y", "Secret/a/z", "Namespace//n"]
                .iter()
                .filter_map(|text| Ident::parse(text))
                .collect();
        assert_eq!(kinds(&members), "ConfigMap,Deployment.apps,Namespace,Secret");
        assert_eq!(namespaces(&members, "kube-system"), "a,b");
        assert_eq!((kinds([]), namespaces([], "x")), (String::new(), String::new()));
    }
}
