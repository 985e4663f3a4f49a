//! The taint of nodes whose instance is shut down. Pure.

use quarterdeck_runtime::view::{NodeView, Taint, intern};
use serde_json::{Value, json};

/// Taint of a node whose instance is shut down (k8s.io/cloud-provider:api/well_known_taints.go v0.36.3).
const KEY: &str = "node.cloudprovider.kubernetes.io/shutdown";
const EFFECT: &str = "NoSchedule";

fn is_it(taint: &Taint) -> bool {
    &*taint.key == KEY && &*taint.effect == EFFECT
}

/// Whether the node has it.
pub(super) fn is_shut(node: &NodeView) -> bool {
    node.taints.iter().any(is_it)
}

/// Merge patch that sets or takes the taint, whole as taints are written; `None` if it is so already.
pub(super) fn patch(node: &NodeView, shut: bool) -> Option<Value> {
    if is_shut(node) == shut {
        return None;
    }
    let mut taints: Vec<Taint> = node.taints.iter().filter(|taint| !is_it(taint)).cloned().collect();
    if shut {
        taints.push(Taint { key: intern(KEY), value: intern(""), effect: intern(EFFECT), time_added: None });
    }
    Some(json!({ "spec": { "taints": taints } }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_set_and_taken_and_others_stay() {
        let other = Taint { key: KEY.into(), value: "v".into(), effect: "NoExecute".into(), time_added: None };
        let node = NodeView { taints: [other.clone()].into(), ..NodeView::named("n1") };
        let set = patch(&node, true).unwrap();
        let kept = json!({ "key": KEY, "value": "v", "effect": "NoExecute" });
        assert_eq!(set, json!({ "spec": { "taints": [kept, { "key": KEY, "effect": "NoSchedule" }] } }));
        let own = Taint { key: KEY.into(), value: "x".into(), effect: EFFECT.into(), time_added: None };
        let shut = NodeView { taints: [own, other].into(), ..NodeView::named("n1") };
        assert_eq!(patch(&shut, false).unwrap(), json!({ "spec": { "taints": [kept] } }));
        assert_eq!((patch(&shut, true), patch(&node, false)), (None, None), "nothing to write");
    }
}
