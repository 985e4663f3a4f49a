//! The form in which caches keep objects that have a status.

use quarterdeck_runtime::object::{Cached, ObjectKey};
use quarterdeck_runtime::view::Metadata;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::{Health, of};
use crate::addon::ident::GroupKind;

/// An object's metadata and health; its content is read and dropped.
#[derive(Clone, Debug, PartialEq)]
pub struct Observed {
    /// Its metadata.
    pub metadata: Metadata,
    /// Its health.
    pub health: Health,
}

impl Observed {
    /// Whether objects of this kind have no status that tells anything: their metadata is enough.
    #[must_use]
    pub fn is_idle(kind: &GroupKind) -> bool {
        match &*kind.group {
            "" => !matches!(&*kind.kind, "PersistentVolumeClaim" | "Pod" | "ReplicationController" | "Service"),
            "admissionregistration.k8s.io"
            | "coordination.k8s.io"
            | "discovery.k8s.io"
            | "node.k8s.io"
            | "rbac.authorization.k8s.io"
            | "scheduling.k8s.io"
            | "storage.k8s.io" => true,
            "networking.k8s.io" => matches!(&*kind.kind, "NetworkPolicy" | "IngressClass" | "Ingress"),
            _ => false,
        }
    }
}

impl<'de> Deserialize<'de> for Observed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let object = Value::deserialize(deserializer)?;
        let metadata = Metadata::deserialize(&object).map_err(D::Error::custom)?;
        Ok(Self { metadata, health: of(&object) })
    }
}

impl Cached for Observed {
    fn key(&self) -> ObjectKey {
        self.metadata.key()
    }

    fn uid(&self) -> &str {
        self.metadata.uid()
    }

    fn resource_version(&self) -> &str {
        self.metadata.resource_version()
    }

    fn is_deleting(&self) -> bool {
        self.metadata.is_deleting()
    }

    fn each_label(&self, visit: &mut dyn FnMut(&str, &str)) {
        self.metadata.each_label(visit);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn content_is_dropped_and_health_kept() {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "p", "namespace": "a", "uid": "u", "resourceVersion": "7"},
            "status": {"phase": "Failed", "message": "evicted"},
        });
        let observed: Observed = serde_json::from_value(pod).expect("a pod");
        assert_eq!((observed.key(), observed.uid()), (ObjectKey::new("a", "p"), "u"));
        assert_eq!(observed.health, Health::Degraded("evicted".into()));
    }

    #[test]
    fn kinds_without_a_status_are_read_by_metadata() {
        for (kind, idle) in [
            ("ConfigMap", true),
            ("Secret", true),
            ("Pod", false),
            ("PersistentVolumeClaim", false),
            ("ClusterRole.rbac.authorization.k8s.io", true),
            ("Deployment.apps", false),
            ("Widget.example.com", false),
        ] {
            assert_eq!(Observed::is_idle(&GroupKind::parse(kind).expect("a kind")), idle, "{kind}");
        }
    }
}
