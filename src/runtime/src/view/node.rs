//! What controllers read of a Node.

use std::sync::Arc;

use super::Labels;
use crate::object::{Cached, Kind, ObjectKey, Typed};

/// What controllers read of a Node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeView {
    /// Name; nodes have no namespace.
    pub key: ObjectKey,
    /// `metadata.uid`.
    pub uid: Arc<str>,
    /// `metadata.resourceVersion`.
    pub resource_version: Box<str>,
    /// `metadata.labels`.
    pub labels: Labels,
    /// Whether `metadata.deletionTimestamp` is set.
    pub deleting: bool,
    /// Whether the condition `Ready` is `True`.
    pub ready: bool,
    /// `status.allocatable.cpu` in millicores, 0 if unset; topology hints weigh zones by it.
    pub allocatable_cpu_milli: u64,
}

impl<'de> serde::Deserialize<'de> for NodeView {
    fn deserialize<D: serde::Deserializer<'de>>(_deserializer: D) -> Result<Self, D::Error> {
        todo!()
    }
}

impl Cached for NodeView {
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

impl Typed for NodeView {
    fn kind() -> Kind {
        Kind::of::<k8s_openapi::api::core::v1::Node>()
    }
}
