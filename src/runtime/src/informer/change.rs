//! What is read, how it is found, and what handlers are told.

use std::sync::Arc;

use crate::object::ObjectKey;

/// Which objects of a kind an informer holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Selection {
    /// One namespace, or all.
    pub namespace: Option<String>,
    /// Label selector as in a list request.
    pub labels: Option<String>,
    /// Field selector as in a list request.
    pub fields: Option<String>,
}

impl Selection {
    /// Whether an object of this name could be selected; labels and most fields cannot be judged
    /// by the name, so that `true` means maybe.
    #[must_use]
    pub fn may_hold(&self, key: &ObjectKey) -> bool {
        if self.namespace.as_deref().is_some_and(|namespace| namespace != key.namespace()) {
            return false;
        }
        let fields = self.fields.as_deref().unwrap_or_default();
        fields.split(',').filter_map(|term| term.split_once('=')).all(|(field, value)| {
            let value = value.strip_prefix('=').unwrap_or(value);
            match field {
                "metadata.name" => value == key.name(),
                "metadata.namespace" => value == key.namespace(),
                _ => true,
            }
        })
    }
}

/// Calls its second argument with each key of an object.
pub type IndexKeys<K> = fn(&K, &mut dyn FnMut(&str));

/// An index: the function gives every key under which an object is found.
pub struct Index<K> {
    /// Name, unique within the informer; the same name must always mean the same function.
    pub name: &'static str,
    /// Calls its second argument with each key of the object.
    pub keys: IndexKeys<K>,
}

/// A change of one object as a handler sees it. For one key, a handler is told `Added`, any number
/// of `Updated` each of whose `old` is what it was told last, then `Deleted`, and so on. An object
/// that was replaced by another of the same name is told as `Deleted` and `Added`, even when the
/// deletion itself went unseen.
#[derive(Debug)]
pub enum Change<'a, K> {
    /// The object is new to the cache.
    Added(&'a Arc<K>),
    /// The object changed; also delivered with `old` and `new` equal after a re-list.
    Updated {
        /// The cached object before.
        old: &'a Arc<K>,
        /// The cached object now.
        new: &'a Arc<K>,
    },
    /// The object is gone; found by a watch event or by a complete list.
    Deleted {
        /// Its last known state.
        last: &'a Arc<K>,
        /// Whether `last` is its final state (false when a re-list found it missing).
        is_final: bool,
    },
}

impl<K> Change<'_, K> {
    /// The newest known state.
    #[must_use]
    pub fn object(&self) -> &Arc<K> {
        match self {
            Self::Added(object) | Self::Updated { new: object, .. } | Self::Deleted { last: object, .. } => object,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selection_judges_names() {
        let fields = |fields: &str| Selection { fields: Some(fields.to_owned()), ..Selection::default() };
        let key = ObjectKey::new("a", "x");
        let cases = [
            (Selection::default(), true),
            (Selection { namespace: Some("a".into()), ..Selection::default() }, true),
            (Selection { namespace: Some("b".into()), ..Selection::default() }, false),
            (fields("metadata.name=x"), true),
            (fields("metadata.name==x"), true),
            (fields("metadata.name=y"), false),
            (fields("metadata.name!=x"), true),
            (fields("spec.nodeName=n,metadata.namespace=b"), false),
        ];
        for (selection, expected) in cases {
            assert_eq!(selection.may_hold(&key), expected, "{selection:?}");
        }
    }
}
