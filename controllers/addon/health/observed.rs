//! The form in which caches keep objects that have a status.

use serde_json::Value;

use super::{Health, of};
use crate::addon::ident::GroupKind;
use crate::addon::projection::{Content, Projection};

/// An object's metadata and health; its content is read and dropped.
pub type Observed = Projection<Health>;

impl Content for Health {
    const FORM: &'static str = "Observed";

    fn of(object: Value) -> Self {
        of(&object)
    }
}

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

#[cfg(test)]
mod tests {
    use quarterdeck_runtime::object::{Cached as _, ObjectKey};
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
        assert_eq!(observed.content, Health::Degraded("evicted".into()));
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
            assert_eq!(is_idle(&GroupKind::parse(kind).expect("a kind")), idle, "{kind}");
        }
    }
}
