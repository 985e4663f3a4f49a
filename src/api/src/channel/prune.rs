//! Which objects of earlier versions an entry wants removed.

use std::collections::BTreeSet;

/// `prune` of an entry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prune {
    /// Kinds to look through.
    pub kinds: Vec<PruneKind>,
}

/// Objects of one kind that go if the manifest does not name them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PruneKind {
    /// API group; empty for the core group.
    pub group: String,
    /// Kind.
    pub kind: String,
    /// Namespaces to look in; none means all.
    pub namespaces: Vec<String>,
    /// Label selector in the server's own syntax.
    pub label_selector: String,
    /// Field selector in the server's own syntax.
    pub field_selector: String,
}

/// One list to ask the server for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PruneList<'a> {
    /// The namespace; `None` for all.
    pub namespace: Option<&'a str>,
    /// Label selector; empty for none.
    pub label_selector: &'a str,
    /// Field selector; empty for none.
    pub field_selector: &'a str,
}

impl PruneKind {
    /// Lists that together hold what may go. Never one without a selector: reading an index leaves
    /// such kinds out.
    pub fn lists(&self) -> impl Iterator<Item = PruneList<'_>> {
        let everywhere = self.namespaces.is_empty().then_some(None);
        everywhere.into_iter().chain(self.namespaces.iter().map(|namespace| Some(namespace.as_str()))).map(
            |namespace| PruneList {
                namespace,
                label_selector: &self.label_selector,
                field_selector: &self.field_selector,
            },
        )
    }

    /// Of what those lists held, what the manifest does not name, by namespace and name. `named` has
    /// the manifest's objects of the same kind (kops:channels/pkg/channels/prune.go).
    pub fn superfluous<'a, T>(
        &'a self,
        live: impl IntoIterator<Item = T> + 'a,
        key: impl Fn(&T) -> (&str, &str) + 'a,
        named: &'a BTreeSet<(String, String)>,
    ) -> impl Iterator<Item = T> + 'a
    where
        T: 'a,
    {
        live.into_iter().filter(move |object| {
            let (namespace, name) = key(object);
            let looked_in = self.namespaces.is_empty() || self.namespaces.iter().any(|wanted| wanted == namespace);
            looked_in && !named.iter().any(|(space, other)| space == namespace && other == name)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(namespaces: &[&str]) -> PruneKind {
        PruneKind {
            group: "apps".into(),
            kind: "Deployment".into(),
            namespaces: namespaces.iter().map(|&namespace| namespace.to_owned()).collect(),
            label_selector: "addon.kops.k8s.io/name=x,app.kubernetes.io/managed-by=kops".into(),
            field_selector: String::new(),
        }
    }

    #[test]
    fn namespaces_become_lists() {
        let all = kind(&[]);
        assert_eq!(all.lists().map(|list| list.namespace).collect::<Vec<_>>(), [None]);
        let some = kind(&["a", "b"]);
        assert_eq!(some.lists().map(|list| list.namespace).collect::<Vec<_>>(), [Some("a"), Some("b")]);
        assert!(some.lists().all(|list| list.label_selector == some.label_selector));
    }

    #[test]
    fn what_the_manifest_names_stays() {
        let named = BTreeSet::from([("a".to_owned(), "x".to_owned())]);
        let live = [("a", "x"), ("a", "y"), ("b", "x")];
        let all = kind(&[]);
        let gone: Vec<_> = all.superfluous(live, |&(namespace, name)| (namespace, name), &named).collect();
        assert_eq!(gone, [("a", "y"), ("b", "x")]);
        let one = kind(&["a"]);
        let gone: Vec<_> = one.superfluous(live, |&(namespace, name)| (namespace, name), &named).collect();
        assert_eq!(gone, [("a", "y")]);
    }
}
