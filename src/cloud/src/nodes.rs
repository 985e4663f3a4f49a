//! Nodes, as controllers of clouds refer to them.

use k8s_openapi::api::core::v1::ObjectReference;
use quarterdeck_runtime::events::Recorder;
use quarterdeck_runtime::view::NodeView;

use crate::Guarded;
use crate::model::{ClusterId, NodeRef};
use crate::reasons;

/// The scheme of a providerID: what stands before `://`, or all of it.
#[must_use]
pub fn scheme(provider_id: &str) -> &str {
    provider_id.split_once("://").map_or(provider_id, |(scheme, _)| scheme)
}

/// A Node, as a provider is asked for it.
#[must_use]
pub fn node_ref(node: &NodeView) -> NodeRef {
    NodeRef { name: node.key.name().into(), provider_id: node.provider_id.clone() }
}

/// A Node, as an event names it.
#[must_use]
pub fn about(node: &NodeView) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Node".to_owned()),
        name: Some(node.key.name().to_owned()),
        uid: Some(node.uid.to_string()),
        ..ObjectReference::default()
    }
}

/// The namespace whose uid names the cluster, as an event names it.
pub(crate) fn about_cluster(cluster: Option<&ClusterId>) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Namespace".to_owned()),
        name: Some("kube-system".to_owned()),
        uid: cluster.map(ToString::to_string),
        ..ObjectReference::default()
    }
}

/// Makes an event of what is wrong with a provider as a whole, or became different, if nobody did so yet.
pub(crate) fn tell_trouble_about(provider: &Guarded, recorder: &Recorder, about: impl Fn() -> ObjectReference) {
    let name = provider.name();
    if let Some(trouble) = provider.take_trouble() {
        let message = format!("Cloud provider {name}: {}", trouble.message);
        recorder.event(&about(), trouble.kind.reason(), message);
    }
    if provider.take_recovery() {
        recorder.event(&about(), reasons::RECOVERED, format!("Cloud provider {name} is well again"));
    }
    if let Some(change) = provider.take_change() {
        let message = format!("Cloud provider {name} is another one than before: {change}");
        recorder.event(&about(), reasons::CHANGED, message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scheme_is_what_stands_before_the_slashes() {
        for (id, expected) in [("sim://a/b", "sim"), ("sim", "sim"), ("", ""), ("aws:///eu-1a/i-1", "aws")] {
            assert_eq!(scheme(id), expected, "{id:?}");
        }
    }
}
