//! Nodes, as controllers of clouds refer to them.

use k8s_openapi::api::core::v1::ObjectReference;
use quarterdeck_runtime::events::{EventType, Recorder};
use quarterdeck_runtime::view::NodeView;

use crate::Guarded;
use crate::model::NodeRef;

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

/// Makes an event of what is wrong with a provider as a whole, about the namespace `kube-system`, if no controller did
/// so yet.
pub fn tell_trouble(provider: &Guarded, recorder: &Recorder) {
    let Some(trouble) = provider.take_trouble() else { return };
    let about = ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Namespace".to_owned()),
        name: Some("kube-system".to_owned()),
        ..ObjectReference::default()
    };
    let message = format!("Cloud {}: {}", provider.name(), trouble.message);
    recorder.event(&about, EventType::Warning, trouble.kind.reason(), message);
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
