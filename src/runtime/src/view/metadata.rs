//! The metadata of an object of any kind.

use std::sync::Arc;

use super::Labels;
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

impl<'de> serde::Deserialize<'de> for Metadata {
    fn deserialize<D: serde::Deserializer<'de>>(_deserializer: D) -> Result<Self, D::Error> {
        todo!()
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
