//! Pieces shared by the views: interned text and labels.

use std::sync::Arc;

/// One shared copy of a text that many objects repeat: node names, label keys, namespaces.
#[must_use]
pub fn intern(text: &str) -> Arc<str> {
    text.into()
}

/// Labels as a sorted list of shared pairs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels(pub(crate) Box<[(Arc<str>, Arc<str>)]>);

impl Labels {
    /// The value of a label.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.binary_search_by(|(k, _)| (**k).cmp(key)).ok().map(|at| &*self.0[at].1)
    }

    /// All pairs, sorted by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(k, v)| (&**k, &**v))
    }
}

impl<K: AsRef<str>, V: AsRef<str>> FromIterator<(K, V)> for Labels {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Self {
        let mut pairs: Vec<_> = pairs.into_iter().map(|(k, v)| (intern(k.as_ref()), intern(v.as_ref()))).collect();
        pairs.sort();
        pairs.dedup_by(|a, b| a.0 == b.0);
        Self(pairs.into())
    }
}
