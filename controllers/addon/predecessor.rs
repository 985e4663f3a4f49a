//! kube-addon-manager: while one of its pods is alive, addons are only looked at.

use quarterdeck_runtime::view::{PodPhase, PodView};

/// Namespace of its pods.
pub(super) const NAMESPACE: &str = "kube-system";

/// Whether a pod is one of kube-addon-manager's
/// (`kubernetes:cluster/gce/manifests/kube-addon-manager.yaml`), by label or by name: static pods
/// are called after their node.
#[must_use]
pub(super) fn is_predecessor(pod: &PodView) -> bool {
    pod.key.namespace() == NAMESPACE
        && (pod.labels.get("component") == Some("kube-addon-manager")
            || pod.key.name().starts_with("kube-addon-manager"))
}

/// Whether it may still write: until it is gone, a pod that is being deleted may.
#[must_use]
pub(super) fn is_alive(pod: &PodView) -> bool {
    is_predecessor(pod) && !matches!(pod.phase, PodPhase::Succeeded | PodPhase::Failed)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn its_pods_are_known_by_label_or_name() {
        let pod = |namespace: &str, name: &str, component: &str, phase: &str| {
            serde_json::from_value::<PodView>(json!({
                "metadata": {"namespace": namespace, "name": name, "uid": "u", "resourceVersion": "1", "labels": {"component": component}, "creationTimestamp": "2026-01-01T00:00:00Z"},
                "spec": {"containers": []}, "status": {"phase": phase},
            }))
            .expect("a pod")
        };
        for (pod, alive) in [
            (pod("kube-system", "kube-addon-manager", "kube-addon-manager", "Running"), true),
            (pod("kube-system", "kube-addon-manager-master-1", "", "Pending"), true),
            (pod("kube-system", "x", "kube-addon-manager", "Unknown"), true),
            (pod("kube-system", "kube-addon-manager", "kube-addon-manager", "Failed"), false),
            (pod("kube-system", "kube-addon-manager", "kube-addon-manager", "Succeeded"), false),
            (pod("default", "kube-addon-manager", "kube-addon-manager", "Running"), false),
            (pod("kube-system", "addon-manager", "etcd", "Running"), false),
        ] {
            assert_eq!(is_alive(&pod), alive, "{pod:?}");
        }
    }
}
