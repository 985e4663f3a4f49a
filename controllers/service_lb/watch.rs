//! What wakes whom.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Service;
use parking_lot::Mutex;
use quarterdeck_runtime::controller::Setup;
use quarterdeck_runtime::informer::{Change, Index, Lister};
use quarterdeck_runtime::object::{Cached as _, ObjectKey};
use quarterdeck_runtime::view::NodeView;
use tokio::time::Instant;

use super::address::Addresses;
use super::key::Key;
use super::node::matters;
use super::record::{RECORD, has_finalizer};

/// Index of the Services that have, or may have, a load balancer of ours, under [`YES`].
pub(super) const BALANCED: &str = "balanced";
/// The one key of [`BALANCED`].
pub(super) const YES: &str = "yes";
/// How long a change of nodes waits for others: nodes come and go in crowds.
const CROWD: Duration = Duration::from_millis(500);
/// How long a change of reservations waits for others before a pool's status is written.
const POOL_CROWD: Duration = Duration::from_secs(1);

/// When nodes changed last, as load balancers see them.
pub(super) type NodesChanged = Arc<Mutex<Option<Instant>>>;

/// The index [`BALANCED`].
pub(super) fn balanced() -> Index<Service> {
    Index {
        name: BALANCED,
        keys: |service, visit| {
            if concerns(service) {
                visit(YES);
            }
        },
    }
}

/// Whether a Service has, should have or may have a load balancer.
pub(super) fn concerns(service: &Service) -> bool {
    service.spec.as_ref().is_some_and(|spec| spec.type_.as_deref() == Some("LoadBalancer"))
        || has_finalizer(service)
        || service.metadata.annotations.as_ref().is_some_and(|annotations| annotations.contains_key(RECORD))
}

/// Wakes a Service when anything changes that its load balancer depends on, its own status among it.
pub(super) fn watch_services(setup: &mut Setup<Key>, services: &Lister<Service>) {
    setup.watch(services, |change, queue| {
        let relevant = match &change {
            Change::Added(service) | Change::Deleted { last: service, .. } => concerns(service),
            Change::Updated { old, new } => (concerns(old) || concerns(new)) && differs(old, new),
        };
        if relevant {
            queue.add(Key::Service(change.object().key()));
        }
    });
}

/// Whether anything differs that is looked at. Services have no generation; specs are compared whole.
pub(super) fn differs(old: &Service, new: &Service) -> bool {
    let ingress = |service: &Service| service.status.as_ref().and_then(|status| status.load_balancer.clone());
    let (before, after) = (&old.metadata, &new.metadata);
    old.spec != new.spec
        || before.annotations != after.annotations
        || before.labels != after.labels
        || before.finalizers != after.finalizers
        || before.deletion_timestamp != after.deletion_timestamp
        || ingress(old) != ingress(new)
}

/// Wakes every Service with a load balancer when the nodes that it is told of change: a key each, so that none waits for
/// another.
pub(super) fn watch_nodes(
    setup: &mut Setup<Key>,
    nodes: &Lister<NodeView>,
    services: &Lister<Service>,
    changed: &NodesChanged,
) {
    let (services, changed) = (services.clone(), Arc::clone(changed));
    setup.watch(nodes, move |change, queue| {
        let wakes = match &change {
            Change::Added(_) | Change::Deleted { .. } => true,
            Change::Updated { old, new } => matters(old, new),
        };
        if wakes {
            *changed.lock() = Some(Instant::now());
            for service in services.indexed(BALANCED, YES) {
                queue.add_after(Key::Service(service.key()), CROWD);
            }
        }
    });
}

/// Wakes pools whose use changed, and the Services that wait for an address.
pub(super) fn watch_addresses(setup: &mut Setup<Key>, addresses: &Arc<Addresses>) {
    let all = Arc::clone(addresses);
    setup.watch(&addresses.pools, move |change, queue| {
        let spec_differs = match &change {
            Change::Updated { old, new } => old.spec != new.spec || old.is_deleting() != new.is_deleting(),
            _ => true,
        };
        // A status of somebody else's making is put right, too.
        if !matches!(change, Change::Deleted { .. }) {
            queue.add(Key::Pool(change.object().key().name().into()));
        }
        if spec_differs {
            all.waiting().into_iter().for_each(|key| queue.add(Key::Service(key)));
        }
    });
    let all = Arc::clone(addresses);
    setup.watch(&addresses.reservations, move |change, queue| {
        let Some(address) = change.object().spec.ip() else { return };
        all.seen(address);
        for pool in all.pools_of(address) {
            queue.add_after(Key::Pool(pool.name().into()), POOL_CROWD);
        }
        if !matches!(change, Change::Added(_)) {
            all.waiting().into_iter().for_each(|key| queue.add(Key::Service(key)));
        }
    });
    let all = Arc::clone(addresses);
    setup.watch(&addresses.namespaces, move |change, queue| {
        if let Change::Updated { old, new } = &change
            && old.metadata.labels == new.metadata.labels
        {
            return;
        }
        let namespace: ObjectKey = change.object().key();
        let waiting = all.waiting().into_iter().filter(|key| key.namespace() == namespace.name());
        waiting.for_each(|key| queue.add(Key::Service(key)));
    });
}
