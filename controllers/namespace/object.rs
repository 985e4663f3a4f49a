//! The namespace object itself: what a step of its deletion makes of it. Pure.

use k8s_openapi::api::core::v1::{Namespace, NamespaceCondition, ObjectReference};

/// The finalizer in `spec.finalizers` that this controller removes.
const FINALIZER: &str = "kubernetes";
/// The phase of a namespace that is being deleted.
const TERMINATING: &str = "Terminating";

/// Whether the namespace is being deleted.
pub(super) fn deleting(namespace: &Namespace) -> bool {
    namespace.metadata.deletion_timestamp.is_some()
}

/// uid, empty if the server sent none.
pub(super) fn uid(namespace: &Namespace) -> &str {
    namespace.metadata.uid.as_deref().unwrap_or_default()
}

/// Whether its content is still ours to remove.
pub(super) fn is_ours(namespace: &Namespace) -> bool {
    finalizers(namespace).iter().any(|name| name == FINALIZER)
}

/// The namespace with the phase it should have; none if it has it.
pub(super) fn terminating(namespace: &Namespace) -> Option<Namespace> {
    let phase = namespace.status.as_ref().and_then(|status| status.phase.as_deref());
    if !deleting(namespace) || phase == Some(TERMINATING) {
        return None;
    }
    let mut next = namespace.clone();
    next.status.get_or_insert_default().phase = Some(TERMINATING.to_owned());
    Some(next)
}

/// The namespace without our finalizer; none if it has none of ours.
pub(super) fn finalized(namespace: &Namespace) -> Option<Namespace> {
    if !is_ours(namespace) {
        return None;
    }
    let mut next = namespace.clone();
    if let Some(list) = next.spec.as_mut().and_then(|spec| spec.finalizers.as_mut()) {
        list.retain(|name| name != FINALIZER);
    }
    Some(next)
}

/// Whether the server removes the namespace once our finalizer is gone.
pub(super) fn goes_with_ours(namespace: &Namespace) -> bool {
    finalizers(namespace).iter().all(|name| name == FINALIZER)
        && namespace.metadata.finalizers.as_deref().unwrap_or_default().is_empty()
}

/// `status.conditions`.
pub(super) fn conditions(namespace: &Namespace) -> &[NamespaceCondition] {
    namespace.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default()
}

/// The namespace with these conditions.
pub(super) fn with_conditions(namespace: &Namespace, conditions: Vec<NamespaceCondition>) -> Namespace {
    let mut next = namespace.clone();
    next.status.get_or_insert_default().conditions = Some(conditions);
    next
}

/// The namespace as an event names it.
pub(super) fn reference(namespace: &Namespace) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Namespace".to_owned()),
        name: namespace.metadata.name.clone(),
        uid: namespace.metadata.uid.clone(),
        resource_version: namespace.metadata.resource_version.clone(),
        ..ObjectReference::default()
    }
}

fn finalizers(namespace: &Namespace) -> &[String] {
    namespace.spec.as_ref().and_then(|spec| spec.finalizers.as_deref()).unwrap_or_default()
}
