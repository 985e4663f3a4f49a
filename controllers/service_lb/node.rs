//! Which nodes get traffic: cloud-provider:controllers/service/controller.go v0.36.3 (stableNodeSetPredicates).

use std::sync::Arc;

use quarterdeck_cloud::model::Backend;
use quarterdeck_runtime::view::NodeView;

/// Label of nodes that load balancers leave out, unless its value reads as false.
const EXCLUDE: &str = "node.kubernetes.io/exclude-from-external-load-balancers";
/// Taint by which the cluster autoscaler says that a node is going.
const GOING: &str = "ToBeDeletedByClusterAutoscaler";
/// Type of the addresses that load balancers are told of.
const INTERNAL: &str = "InternalIP";

/// Whether a node gets traffic; whether it is ready does not count.
fn serves(node: &NodeView) -> bool {
    !node.deleting && !excluded(node) && !node.taints.iter().any(|taint| &*taint.key == GOING)
}

/// Whether its label keeps a node out.
fn excluded(node: &NodeView) -> bool {
    node.labels.get(EXCLUDE).is_some_and(|value| !is_false(value))
}

/// Whether Go's `strconv.ParseBool` reads it as false.
fn is_false(text: &str) -> bool {
    matches!(text, "0" | "f" | "F" | "false" | "FALSE" | "False")
}

/// As a load balancer is told of a node.
fn backend(node: &NodeView) -> Backend {
    let internal = node.addresses.iter().filter(|address| &*address.kind == INTERNAL);
    Backend {
        name: node.key.name().to_owned(),
        provider_id: node.provider_id.as_deref().unwrap_or_default().to_owned(),
        addresses: internal.filter_map(|address| address.address.parse().ok()).collect(),
    }
}

/// Whether the change of a node wakes all Services. As upstream, a node that begins to go does not: it is left out of
/// what is told next. Addresses count besides.
pub(super) fn matters(old: &NodeView, new: &NodeView) -> bool {
    excluded(old) != excluded(new)
        || old.provider_id != new.provider_id
        || old.uid != new.uid
        || (old.addresses != new.addresses && backend(old) != backend(new))
}

/// The nodes that get traffic, in the order of their names.
pub(super) fn backends<'a>(nodes: impl IntoIterator<Item = &'a Arc<NodeView>>) -> Vec<Backend> {
    let mut all: Vec<Backend> = nodes.into_iter().filter(|node| serves(node)).map(|node| backend(node)).collect();
    all.sort_unstable();
    all
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use serde_json::{Value, json};

    use super::*;

    #[expect(clippy::needless_pass_by_value, reason = "json! makes values")]
    fn node(name: &str, metadata: Value, spec: Value) -> Arc<NodeView> {
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
        let matters = |now: &NodeView| matters(&plain, now);
        assert!(!matters(&plain));
        assert!(matters(&node("n", json!({ "labels": { EXCLUDE: "" } }), json!({}))));
        assert!(matters(&node("n", json!({}), json!({ "providerID": "sim://n" }))));
        assert!(!matters(&node("n", json!({}), json!({ "taints": [{ "key": GOING }] }))), "as upstream");
    }
}
