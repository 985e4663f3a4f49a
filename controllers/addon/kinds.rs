//! Which resource serves a kind: a table of the server's own kinds, the CRDs that the addons bring
//! themselves, and what discovery says of the rest.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::RwLock;
use quarterdeck_runtime::client::{Api, ApiError};
use quarterdeck_runtime::object::Kind;
use serde::Deserialize;
use serde_json::Value;

use super::ident::GroupKind;
use super::manifest::Desired;

/// Kinds that every server has: no question is asked about them, and followers watch them before
/// they lead.
const BUILT_IN: &[Kind] = &[
    Kind::new("", "v1", "ConfigMap", "configmaps", true),
    Kind::new("", "v1", "Endpoints", "endpoints", true),
    Kind::new("", "v1", "LimitRange", "limitranges", true),
    Kind::new("", "v1", "Namespace", "namespaces", false),
    Kind::new("", "v1", "Node", "nodes", false),
    Kind::new("", "v1", "PersistentVolume", "persistentvolumes", false),
    Kind::new("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims", true),
    Kind::new("", "v1", "Pod", "pods", true),
    Kind::new("", "v1", "PodTemplate", "podtemplates", true),
    Kind::new("", "v1", "ReplicationController", "replicationcontrollers", true),
    Kind::new("", "v1", "ResourceQuota", "resourcequotas", true),
    Kind::new("", "v1", "Secret", "secrets", true),
    Kind::new("", "v1", "Service", "services", true),
    Kind::new("", "v1", "ServiceAccount", "serviceaccounts", true),
    Kind::new(
        "admissionregistration.k8s.io",
        "v1",
        "MutatingWebhookConfiguration",
        "mutatingwebhookconfigurations",
        false,
    ),
    Kind::new("admissionregistration.k8s.io", "v1", "ValidatingAdmissionPolicy", "validatingadmissionpolicies", false),
    Kind::new(
        "admissionregistration.k8s.io",
        "v1",
        "ValidatingAdmissionPolicyBinding",
        "validatingadmissionpolicybindings",
        false,
    ),
    Kind::new(
        "admissionregistration.k8s.io",
        "v1",
        "ValidatingWebhookConfiguration",
        "validatingwebhookconfigurations",
        false,
    ),
    Kind::new("apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions", false),
    Kind::new("apiregistration.k8s.io", "v1", "APIService", "apiservices", false),
    Kind::new("apps", "v1", "DaemonSet", "daemonsets", true),
    Kind::new("apps", "v1", "Deployment", "deployments", true),
    Kind::new("apps", "v1", "ReplicaSet", "replicasets", true),
    Kind::new("apps", "v1", "StatefulSet", "statefulsets", true),
    Kind::new("autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers", true),
    Kind::new("batch", "v1", "CronJob", "cronjobs", true),
    Kind::new("batch", "v1", "Job", "jobs", true),
    Kind::new("coordination.k8s.io", "v1", "Lease", "leases", true),
    Kind::new("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices", true),
    Kind::new("flowcontrol.apiserver.k8s.io", "v1", "FlowSchema", "flowschemas", false),
    Kind::new("flowcontrol.apiserver.k8s.io", "v1", "PriorityLevelConfiguration", "prioritylevelconfigurations", false),
    Kind::new("networking.k8s.io", "v1", "Ingress", "ingresses", true),
    Kind::new("networking.k8s.io", "v1", "IngressClass", "ingressclasses", false),
    Kind::new("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies", true),
    Kind::new("node.k8s.io", "v1", "RuntimeClass", "runtimeclasses", false),
    Kind::new("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets", true),
    Kind::new("rbac.authorization.k8s.io", "v1", "ClusterRole", "clusterroles", false),
    Kind::new("rbac.authorization.k8s.io", "v1", "ClusterRoleBinding", "clusterrolebindings", false),
    Kind::new("rbac.authorization.k8s.io", "v1", "Role", "roles", true),
    Kind::new("rbac.authorization.k8s.io", "v1", "RoleBinding", "rolebindings", true),
    Kind::new("scheduling.k8s.io", "v1", "PriorityClass", "priorityclasses", false),
    Kind::new("storage.k8s.io", "v1", "CSIDriver", "csidrivers", false),
    Kind::new("storage.k8s.io", "v1", "StorageClass", "storageclasses", false),
];

/// The kind of CustomResourceDefinitions.
#[must_use]
pub fn crd_kind() -> GroupKind {
    GroupKind::new("apiextensions.k8s.io", "CustomResourceDefinition")
}

/// A server's own kind in this version.
#[must_use]
pub fn built_in(group_kind: &GroupKind, version: &str) -> Option<Kind> {
    BUILT_IN.iter().find(|kind| group_kind.is(&kind.group, &kind.kind) && kind.version == version).cloned()
}

/// What a CRD's manifest declares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declared {
    /// The kind it brings.
    pub kind: GroupKind,
    /// Name of the CRD.
    pub crd: Arc<str>,
}

/// The kind that a manifest declares, if it is a CRD.
#[must_use]
pub fn declared(desired: &Desired) -> Option<Declared> {
    if desired.ident.kind != crd_kind() {
        return None;
    }
    let body = desired.body.tree();
    let group = body.pointer("/spec/group")?.as_str()?;
    let kind = body.pointer("/spec/names/kind")?.as_str()?;
    Some(Declared { kind: GroupKind::new(group, kind), crd: Arc::clone(&desired.ident.name) })
}

/// Whether a CRD, as the server has it, serves its kinds.
#[must_use]
pub fn is_established(crd: &Value) -> bool {
    let conditions = crd.pointer("/status/conditions").and_then(Value::as_array);
    conditions
        .into_iter()
        .flatten()
        .any(|condition| condition["type"] == "Established" && condition["status"] == "True")
}

/// What is known about kinds. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Kinds {
    found: Arc<RwLock<Found>>,
}

/// Resources by kind and version.
type Found = HashMap<(GroupKind, Box<str>), Kind>;

#[derive(Deserialize)]
struct Resources {
    #[serde(default)]
    resources: Vec<Resource>,
}

#[derive(Deserialize)]
struct Resource {
    name: String,
    kind: String,
    namespaced: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Group {
    preferred_version: GroupVersion,
}

#[derive(Deserialize)]
struct GroupVersion {
    version: String,
}

impl Kinds {
    /// A kind that needs no question.
    #[must_use]
    pub fn known(&self, group_kind: &GroupKind, version: &str) -> Option<Kind> {
        let found = || self.found.read().get(&(group_kind.clone(), version.into())).cloned();
        built_in(group_kind, version).or_else(found)
    }

    /// The resource of a kind in a version, asked of the server if need be; `None` if it serves none.
    ///
    /// # Errors
    /// When the server cannot be asked: that says nothing about the kind.
    pub async fn find(&self, api: &Api, group_kind: &GroupKind, version: &str) -> Result<Option<Kind>, ApiError> {
        if let Some(kind) = self.known(group_kind, version) {
            return Ok(Some(kind));
        }
        let root = if group_kind.group.is_empty() { "/api".to_owned() } else { format!("/apis/{}", group_kind.group) };
        let Some(listed) = some::<Resources>(api.read(&format!("{root}/{version}")).await)? else { return Ok(None) };
        let mut found = self.found.write();
        for resource in listed.resources.into_iter().filter(|resource| !resource.name.contains('/')) {
            let id = GroupKind::new(Arc::clone(&group_kind.group), &*resource.kind);
            let kind = Kind {
                group: group_kind.group.to_string().into(),
                version: version.to_owned().into(),
                kind: resource.kind.into(),
                plural: resource.name.into(),
                namespaced: resource.namespaced,
            };
            found.insert((id, version.into()), kind);
        }
        Ok(found.get(&(group_kind.clone(), version.into())).cloned())
    }

    /// The resource of a kind in the version that the server prefers; `None` if it serves none. For
    /// kinds other than the server's own it is always asked: what is to be deleted must be there.
    ///
    /// # Errors
    /// When the server cannot be asked: that says nothing about the kind.
    pub async fn find_any(&self, api: &Api, group_kind: &GroupKind) -> Result<Option<Kind>, ApiError> {
        if let Some(kind) = BUILT_IN.iter().find(|kind| group_kind.is(&kind.group, &kind.kind)) {
            return Ok(Some(kind.clone()));
        }
        self.forget(group_kind);
        if group_kind.group.is_empty() {
            return self.find(api, group_kind, "v1").await;
        }
        let Some(group) = some::<Group>(api.read(&format!("/apis/{}", group_kind.group)).await)? else {
            return Ok(None);
        };
        self.find(api, group_kind, &group.preferred_version.version).await
    }

    /// Has the server asked again about a kind.
    pub fn forget(&self, group_kind: &GroupKind) {
        self.found.write().retain(|(known, _), _| known != group_kind);
    }
}

/// A 404 is an answer.
fn some<T>(read: Result<T, ApiError>) -> Result<Option<T>, ApiError> {
    match read {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_table_is_that_of_the_types() {
        use k8s_openapi::api::{
            apps::v1::Deployment, core::v1::Namespace, policy::v1::PodDisruptionBudget, rbac::v1::ClusterRole,
        };
        for kind in [
            Kind::of::<Deployment>(),
            Kind::of::<Namespace>(),
            Kind::of::<PodDisruptionBudget>(),
            Kind::of::<ClusterRole>(),
        ] {
            assert_eq!(built_in(&GroupKind::from(&kind), &kind.version), Some(kind));
        }
        assert_eq!(built_in(&GroupKind::new("apps", "Deployment"), "v1beta1"), None);
    }

    #[test]
    fn established_is_a_condition() {
        for (status, expected) in [("True", true), ("False", false)] {
            assert_eq!(
                is_established(
                    &json!({"status": {"conditions": [{"type": "NamesAccepted", "status": "True"}, {"type": "Established", "status": status}]}})
                ),
                expected
            );
        }
        assert!(!is_established(&json!({})));
    }
}
