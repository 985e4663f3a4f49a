//! Which nodes get traffic: cloud-provider:controllers/service/controller.go v0.36.3 (stableNodeSetPredicates).

use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Node;
use quarterdeck_cloud::model::Backend;
use quarterdeck_runtime::object::{Cached, Kind, ObjectKey, Typed};
use serde::{Deserialize, Deserializer};

/// Label of nodes that load balancers leave out, unless its value reads as false.
const EXCLUDE: &str = "node.kubernetes.io/exclude-from-external-load-balancers";
/// Taint by which the cluster autoscaler says that a node is going.
const GOING: &str = "ToBeDeletedByClusterAutoscaler";

/// What load balancers have to know of a Node; whether it is ready is none of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BackendNode {
    name: Arc<str>,
    uid: Box<str>,
    resource_version: Box<str>,
    deleting: bool,
    /// Whether [`EXCLUDE`] keeps it out.
    excluded: bool,
    /// Whether [`GOING`] keeps it out.
    going: bool,
    provider_id: Box<str>,
    /// Internal addresses, in the order of the status.
    addresses: Box<[IpAddr]>,
}

impl BackendNode {
    /// Whether it gets traffic.
    pub(super) fn serves(&self) -> bool {
        !self.deleting && !self.excluded && !self.going
    }

    /// As a load balancer is told of it.
    pub(super) fn backend(&self) -> Backend {
        Backend {
            name: self.name.to_string(),
            provider_id: self.provider_id.to_string(),
            addresses: self.addresses.to_vec(),
        }
    }

    /// Whether the change from `before` wakes all Services. As upstream, a node that begins to go does not: it is
    /// left out of what is written next. Addresses count besides.
    pub(super) fn matters_after(&self, before: &Self) -> bool {
        self.excluded != before.excluded
            || self.provider_id != before.provider_id
            || self.addresses != before.addresses
            || self.uid != before.uid
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Wire {
    metadata: WireMeta,
    spec: WireSpec,
    status: WireStatus,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct WireMeta {
    name: String,
    uid: String,
    resource_version: String,
    deletion_timestamp: Option<serde::de::IgnoredAny>,
    labels: Option<Labels>,
}

/// The one label that is looked at.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Labels {
    #[serde(rename = "node.kubernetes.io/exclude-from-external-load-balancers")]
    exclude: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct WireSpec {
    #[serde(rename = "providerID")]
    provider_id: Option<String>,
    taints: Option<Vec<Taint>>,
}

#[derive(Deserialize)]
struct Taint {
    key: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct WireStatus {
    addresses: Option<Vec<Address>>,
}

#[derive(Deserialize)]
struct Address {
    #[serde(rename = "type")]
    kind: String,
    address: String,
}

impl<'de> Deserialize<'de> for BackendNode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Wire { metadata, spec, status } = Wire::deserialize(deserializer)?;
        let internal = status.addresses.into_iter().flatten().filter(|address| address.kind == "InternalIP");
        let exclude = metadata.labels.and_then(|labels| labels.exclude);
        Ok(Self {
            name: metadata.name.into(),
            uid: metadata.uid.into(),
            resource_version: metadata.resource_version.into(),
            deleting: metadata.deletion_timestamp.is_some(),
            excluded: exclude.is_some_and(|value| !is_false(&value)),
            going: spec.taints.into_iter().flatten().any(|taint| taint.key == GOING),
            provider_id: spec.provider_id.unwrap_or_default().into(),
            addresses: internal.filter_map(|address| address.address.parse().ok()).collect(),
        })
    }
}

/// Whether Go's `strconv.ParseBool` reads it as false.
fn is_false(text: &str) -> bool {
    matches!(text, "0" | "f" | "F" | "false" | "FALSE" | "False")
}

impl Cached for BackendNode {
    fn key(&self) -> ObjectKey {
        ObjectKey::cluster(Arc::clone(&self.name))
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
        if self.excluded {
            visit(EXCLUDE, "");
        }
    }
}

impl Typed for BackendNode {
    fn kind() -> Kind {
        Kind::of::<Node>()
    }
}

/// The nodes that get traffic, in the order of their names.
pub(super) fn backends<'a>(nodes: impl IntoIterator<Item = &'a Arc<BackendNode>>) -> Vec<Backend> {
    let mut all: Vec<Backend> = nodes.into_iter().filter(|node| node.serves()).map(|node| node.backend()).collect();
    all.sort_unstable();
    all
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn node(name: &str, metadata: Value, spec: Value) -> Arc<BackendNode> {
        let mut meta = json!({ "name": name, "uid": "u", "resourceVersion": "1" });
        meta.as_object_mut().unwrap().extend(metadata.as_object().unwrap().clone());
        let status = json!({
            "addresses": [
                { "type": "Hostname", "address": name },
                { "type": "InternalIP", "address": "10.0.0.1" },
                { "type": "ExternalIP", "address": "192.0.2.1" },
                { "type": "InternalIP", "address": "fd00::1" },
            ],
            "conditions": [{ "type": "Ready", "status": "False" }],
        });
        Arc::new(serde_json::from_value(json!({ "metadata": meta, "spec": spec, "status": status })).unwrap())
    }

    #[test]
    fn nodes_are_left_out_as_upstream_leaves_them_out() {
        let excluded = |value: &str| json!({ "labels": { EXCLUDE: value } });
        let cases = [
            ("plain, not ready", json!({}), json!({}), true),
            ("deleting", json!({ "deletionTimestamp": "2026-01-01T00:00:00Z" }), json!({}), false),
            ("excluded", excluded("true"), json!({}), false),
            ("excluded, empty", excluded(""), json!({}), false),
            ("excluded, nonsense", excluded("no"), json!({}), false),
            ("not excluded", excluded("false"), json!({}), true),
            ("going", json!({}), json!({ "taints": [{ "key": GOING, "effect": "NoSchedule" }] }), false),
            ("tainted otherwise", json!({}), json!({ "taints": [{ "key": "x", "effect": "NoExecute" }] }), true),
        ];
        for (what, metadata, spec, expected) in cases {
            assert_eq!(!backends([&node("n", metadata, spec)]).is_empty(), expected, "{what}");
        }
    }

    #[test]
    fn backends_are_in_order_and_have_internal_addresses() {
        let nodes = ["b", "a"].map(|name| node(name, json!({}), json!({ "providerID": format!("sim://{name}") })));
        let all = backends(&nodes);
        assert_eq!(all.iter().map(|backend| &*backend.provider_id).collect::<Vec<_>>(), ["sim://a", "sim://b"]);
        assert_eq!(all[0].addresses, ["10.0.0.1".parse::<IpAddr>().unwrap(), "fd00::1".parse().unwrap()]);
    }

    #[test]
    fn what_load_balancers_are_told_wakes_them() {
        let plain = node("n", json!({}), json!({}));
        let matters = |now: &BackendNode| now.matters_after(&plain);
        assert!(!matters(&plain));
        assert!(matters(&node("n", json!({ "labels": { EXCLUDE: "" } }), json!({}))));
        assert!(matters(&node("n", json!({}), json!({ "providerID": "sim://n" }))));
        assert!(!matters(&node("n", json!({}), json!({ "taints": [{ "key": GOING }] }))), "as upstream");
    }
}
