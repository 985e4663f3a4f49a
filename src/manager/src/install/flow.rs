//! The FlowSchema that puts the elector's requests into the `leader-election` priority level;
//! upstream's own schema matches only upstream's users
//! (`apiserver:pkg/apis/flowcontrol/bootstrap/default.go`, v0.36.3).

use serde_json::{Value, json};

use super::Target;

/// Just before upstream's `system-leader-election` (100), so that both decide alike.
const PRECEDENCE: u32 = 99;

pub(super) fn objects(target: &Target) -> Vec<Value> {
    vec![json!({
        "apiVersion": "flowcontrol.apiserver.k8s.io/v1",
        "kind": "FlowSchema",
        "metadata": { "name": format!("quarterdeck-leader-election-{}", target.lease_name) },
        "spec": {
            "priorityLevelConfiguration": { "name": "leader-election" },
            "matchingPrecedence": PRECEDENCE,
            "distinguisherMethod": { "type": "ByUser" },
            "rules": [{
                "subjects": [{ "kind": "User", "user": { "name": target.user } }],
                "resourceRules": [{
                    "verbs": ["get", "watch", "create", "update"],
                    "apiGroups": ["coordination.k8s.io"],
                    "resources": ["leases"],
                    "namespaces": [target.lease_namespace],
                }],
            }],
        },
    })]
}
