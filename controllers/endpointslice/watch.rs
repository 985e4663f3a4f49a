//! What wakes the controller. Handlers look at the fields that matter, and enqueue.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use parking_lot::Mutex;
use quarterdeck_runtime::informer::{Change, Index};
use quarterdeck_runtime::object::{Cached as _, ObjectKey, parse_version};
use quarterdeck_runtime::queue::Enqueue;
use quarterdeck_runtime::view::{NodeView, PodView};

use super::Key;
use super::endpoint::is_terminal;
use super::own_writes::OwnWrites;
use super::slice::{self, SERVICE_NAME};
use super::topology::ZONE;

/// Index of our slices by `namespace/service`.
pub(super) const BY_SERVICE: &str = "endpointslice-service";
/// How long a foreign change of our slices waits, so that a fight with another writer stays slow
/// (pkg/controller/endpointslice/endpointslice_controller.go v1.36.3).
const FOREIGN_CHANGE_DELAY: Duration = Duration::from_secs(1);

/// The index [`BY_SERVICE`].
pub(super) fn by_service() -> Index<EndpointSlice> {
    Index {
        name: BY_SERVICE,
        keys: |slice, add| {
            if let Some(service) = service_of(slice).filter(|_| slice::is_ours(slice)) {
                add(&service.to_string());
            }
        },
    }
}

fn service_of(slice: &EndpointSlice) -> Option<ObjectKey> {
    let name = slice::label(slice, SERVICE_NAME).filter(|name| !name.is_empty())?;
    Some(ObjectKey::new(slice.metadata.namespace.as_deref().unwrap_or_default(), name))
}

/// Enqueues a service that changed; one that a re-list merely confirms goes behind.
pub(super) fn on_service(change: &Change<'_, Service>, queue: &Enqueue<Key>) {
    let key = Key::Service(change.object().key());
    match change {
        Change::Updated { old, new } if old.resource_version() == new.resource_version() => queue.resync(key),
        _ => queue.add(key),
    }
}

/// The states of a pod whose services a change concerns: the services that select the pod now, and
/// those that selected it before its labels changed.
pub(super) fn concerned<'a>(change: &Change<'a, PodView>) -> impl Iterator<Item = &'a PodView> + use<'a> {
    let (now, before) = match *change {
        Change::Added(pod) | Change::Deleted { last: pod, .. } => (Some(pod), None),
        Change::Updated { old, new } if old.labels != new.labels => (Some(new), Some(old)),
        Change::Updated { old, new } => (Some(new).filter(|new| alters_endpoint(old, new)), None),
    };
    now.into_iter().chain(before).map(AsRef::as_ref)
}

/// Whether an update of a pod alters its endpoints. Most updates do not.
fn alters_endpoint(old: &PodView, new: &PodView) -> bool {
    old.ready != new.ready
        || old.deleting != new.deleting
        || is_terminal(old) != is_terminal(new)
        || old.ips != new.ips
        || old.uid != new.uid
        || old.node != new.node
        || old.hostname != new.hostname
        || old.subdomain != new.subdomain
}

/// Enqueues the service of a slice of ours that someone else changed.
pub(super) fn on_slice(
    change: &Change<'_, EndpointSlice>,
    own: &OwnWrites,
    mut enqueue: impl FnMut(ObjectKey, Duration),
) {
    let mut put_right = |slice: &EndpointSlice| {
        if let Some(service) = service_of(slice) {
            enqueue(service, FOREIGN_CHANGE_DELAY);
        }
    };
    match change {
        Change::Added(new) => {
            if slice::is_ours(new) && !own.shows(&new.key(), parse_version(new.resource_version())) {
                put_right(new);
            }
        }
        Change::Updated { old, new } => {
            let was_ours = slice::is_ours(old);
            if !(was_ours || slice::is_ours(new)) || old.resource_version() == new.resource_version() {
                return;
            }
            if own.shows(&new.key(), parse_version(new.resource_version())) {
                return;
            }
            put_right(new);
            if was_ours && slice::label(old, SERVICE_NAME) != slice::label(new, SERVICE_NAME) {
                put_right(old);
            }
        }
        Change::Deleted { last, .. } => {
            if !own.shows_deleted(&last.key()) && slice::is_ours(last) {
                put_right(last);
            }
        }
    }
}

/// What a node's change means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NodeNews {
    /// Nothing.
    None,
    /// The zones' shares of CPUs changed.
    Shares,
    /// So they did, and pods may have waited for the node.
    Appeared,
}

/// Tells what a node's change means (updateNode in
/// pkg/controller/endpointslice/endpointslice_controller.go v1.36.3; CPUs count here as well).
pub(super) fn on_node(change: &Change<'_, NodeView>) -> NodeNews {
    match change {
        Change::Added(_) => NodeNews::Appeared,
        Change::Deleted { .. } => NodeNews::Shares,
        Change::Updated { old, new } => {
            let same = old.ready == new.ready
                && old.allocatable_cpu_milli == new.allocatable_cpu_milli
                && old.labels.get(ZONE) == new.labels.get(ZONE);
            if same { NodeNews::None } else { NodeNews::Shares }
        }
    }
}

/// Services that left pods out because their nodes were not known yet.
#[derive(Default)]
pub(super) struct Waiting(Mutex<HashMap<ObjectKey, HashSet<Arc<str>>>>);

impl Waiting {
    /// Sets the nodes that a service waits for.
    pub(super) fn set(&self, service: &ObjectKey, nodes: impl Iterator<Item = Arc<str>>) {
        let nodes: HashSet<Arc<str>> = nodes.collect();
        let mut waiting = self.0.lock();
        if nodes.is_empty() {
            waiting.remove(service)
        } else {
            waiting.insert(service.clone(), nodes)
        };
    }

    /// The services that wait for a node.
    pub(super) fn for_node(&self, node: &str) -> Vec<ObjectKey> {
        let waiting = self.0.lock();
        waiting.iter().filter(|(_, nodes)| nodes.contains(node)).map(|(service, _)| service.clone()).collect()
    }
}
