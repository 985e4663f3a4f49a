//! The metadata of an object of any kind.

use std::sync::Arc;

use serde::{Deserialize, Deserializer};

use super::common::{Labels, Text, each, key, or_default, present, text_bytes};
use super::intern;
use crate::object::{Cached, ObjectKey};

/// The metadata of an object of any kind, read with `as=PartialObjectMetadata`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// Namespace and name.
    pub key: ObjectKey,
    /// `metadata.uid`.
    pub uid: Arc<str>,
    /// `metadata.resourceVersion`.
    pub resource_version: Box<str>,
    /// `metadata.generation`, 0 where the kind has none.
    pub generation: i64,
    /// `metadata.labels`.
    pub labels: Labels,
    /// `metadata.annotations`.
    pub annotations: Labels,
    /// Whether `metadata.deletionTimestamp` is set.
    pub deleting: bool,
    /// `metadata.finalizers`.
    pub finalizers: Box<[Arc<str>]>,
    /// uid of each owner, the controlling one first.
    pub owners: Box<[Arc<str>]>,
    /// Whether an owner is the managing controller.
    pub controlled: bool,
}

impl Metadata {
    pub(super) fn heap_bytes(&self) -> usize {
        let texts = text_bytes(self.key.name()) + text_bytes(&self.uid) + self.resource_version.len();
        let lists = 16 * (self.finalizers.len() + self.owners.len()) + 36 * self.owners.len();
        let annotations: usize = self.annotations.iter().map(|(_, value)| 32 + text_bytes(value)).sum();
        texts + lists + annotations
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Wire<'a> {
    #[serde(borrow, deserialize_with = "or_default")]
    metadata: WireMetadata<'a>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct WireMetadata<'a> {
    #[serde(borrow)]
    name: Text<'a>,
    #[serde(borrow)]
    namespace: Text<'a>,
    #[serde(borrow)]
    uid: Text<'a>,
    #[serde(borrow)]
    resource_version: Text<'a>,
    #[serde(deserialize_with = "or_default")]
    generation: i64,
    labels: Labels,
    annotations: Labels,
    #[serde(deserialize_with = "present")]
    deletion_timestamp: bool,
    finalizers: Finalizers,
    owner_references: Owners,
}

#[derive(Default)]
struct Finalizers(Vec<Arc<str>>);

impl<'de> Deserialize<'de> for Finalizers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut all = Vec::new();
        each(deserializer, |finalizer: Text<'de>| all.push(intern(&finalizer)))?;
        Ok(Self(all))
    }
}

/// The owners' uids, the controlling one first.
#[derive(Default)]
struct Owners {
    uids: Vec<Arc<str>>,
    controlled: bool,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct WireOwner<'a> {
    #[serde(borrow)]
    uid: Text<'a>,
    #[serde(deserialize_with = "or_default")]
    controller: bool,
}

impl<'de> Deserialize<'de> for Owners {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut owners = Self::default();
        each(deserializer, |owner: WireOwner<'de>| {
            let uid = intern(&owner.uid);
            if owner.controller && !owners.controlled {
                owners.controlled = true;
                owners.uids.insert(0, uid);
            } else {
                owners.uids.push(uid);
            }
        })?;
        Ok(owners)
    }
}

impl<'de> Deserialize<'de> for Metadata {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let meta = Wire::deserialize(deserializer)?.metadata;
        Ok(Self {
            key: key(&meta.namespace, &meta.name)?,
            uid: (*meta.uid).into(),
            resource_version: (*meta.resource_version).into(),
            generation: meta.generation,
            labels: meta.labels,
            annotations: meta.annotations,
            deleting: meta.deletion_timestamp,
            finalizers: meta.finalizers.0.into(),
            owners: meta.owner_references.uids.into(),
            controlled: meta.owner_references.controlled,
        })
    }
}

impl Cached for Metadata {
    fn key(&self) -> ObjectKey {
        self.key.clone()
    }

    fn uid(&self) -> &str {
        &self.uid
    }

    fn resource_version(&self) -> &str {
        &self.resource_version
    }

    fn is_deleting(&self) -> bool {
        self.deleting
    }

    fn each_label(&self, visit: &mut dyn FnMut(&str, &str)) {
        for (key, value) in self.labels.iter() {
            visit(key, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_metadata_of_any_kind() {
        let read: Metadata = serde_json::from_str(
            r#"{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":{"name":"web","namespace":"a",
            "uid":"u","resourceVersion":"7","generation":3,"deletionTimestamp":"2026-01-02T03:04:05Z",
            "labels":{"app":"x"},"annotations":{"note":"y"},"finalizers":["f1","f2"],
            "ownerReferences":[{"uid":"o1","kind":"A","name":"a","apiVersion":"v1"},
            {"uid":"o2","controller":true,"kind":"B","name":"b","apiVersion":"v1"}],
            "managedFields":[{"manager":"kubectl","fieldsV1":{"f:metadata":{"f:labels":{}}}}]},"spec":{"a":[1,2]}}"#,
        )
        .unwrap();
        let expected = Metadata {
            key: ObjectKey::new("a", "web"),
            uid: "u".into(),
            resource_version: "7".into(),
            generation: 3,
            labels: [("app", "x")].into_iter().collect(),
            annotations: [("note", "y")].into_iter().collect(),
            deleting: true,
            finalizers: ["f1".into(), "f2".into()].into(),
            owners: ["o2".into(), "o1".into()].into(),
            controlled: true,
        };
        assert_eq!(read, expected);
    }

    #[test]
    fn little_is_required_but_a_name() {
        let read: Metadata = serde_json::from_str(r#"{"metadata":{"name":"n","labels":null}}"#).unwrap();
        assert_eq!((read.generation, read.deleting, read.controlled), (0, false, false));
        let error = serde_json::from_str::<Metadata>(r#"{"metadata":{"uid":"u"}}"#).unwrap_err();
        assert!(error.to_string().starts_with("metadata.name is missing"), "{error}");
    }
}
