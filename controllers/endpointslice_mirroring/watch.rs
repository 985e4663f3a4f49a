//! What wakes the controller. Handlers look at what matters, and enqueue
//! (pkg/controller/endpointslicemirroring/endpointslicemirroring_controller.go v1.36.3).

use k8s_openapi::api::core::v1::{Endpoints, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use quarterdeck_runtime::informer::{Change, Index};
use quarterdeck_runtime::object::{Cached as _, ObjectKey};

use super::{MANAGED_BY, MANAGER, SERVICE_NAME};

/// Index of mirrored slices by `namespace/service`.
pub(super) const BY_SERVICE: &str = "endpointslicemirroring-service";

/// The index [`BY_SERVICE`].
pub(super) fn by_service() -> Index<EndpointSlice> {
    Index {
        name: BY_SERVICE,
        keys: |slice, add| {
            if let Some(key) = mirrored(slice) {
                add(&key.to_string());
            }
        },
    }
}

/// The Endpoints object that a slice under our management mirrors.
fn mirrored(slice: &EndpointSlice) -> Option<ObjectKey> {
    let labels = slice.metadata.labels.as_ref()?;
    labels.get(MANAGED_BY).filter(|manager| *manager == MANAGER)?;
    let name = labels.get(SERVICE_NAME).filter(|name| !name.is_empty())?;
    Some(ObjectKey::new(slice.metadata.namespace.as_deref().unwrap_or_default(), name.as_str()))
}

/// Whether an object may be mirrored at all: it does not ask to be left alone, and is no lock of a
/// leader election.
pub(super) fn may_be_mirrored(endpoints: &Endpoints) -> bool {
    let metadata = &endpoints.metadata;
    let skip = metadata.labels.as_ref().and_then(|labels| labels.get("endpointslice.kubernetes.io/skip-mirror"));
    let lock =
        metadata.annotations.as_ref().is_some_and(|all| all.contains_key("control-plane.alpha.kubernetes.io/leader"));
    skip.is_none_or(|skip| skip != "true") && !lock
}

/// Whether a service has its slices made from pods.
pub(super) fn has_selector(service: &Service) -> bool {
    let selector = service.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    selector.is_some_and(|selector| !selector.is_empty())
}

/// Whether a change of an Endpoints object is worth a look. Those of services with a selector are
/// not: they change with every pod, and are never mirrored. Slices that were mirrored before the
/// selector came are found by the service's change and by their own arrival in the cache.
pub(super) fn endpoints_matter(
    change: &Change<'_, Endpoints>,
    service: impl FnOnce(&ObjectKey) -> Option<bool>,
) -> bool {
    let may = match change {
        Change::Added(endpoints) | Change::Deleted { last: endpoints, .. } => may_be_mirrored(endpoints),
        Change::Updated { old, new } => may_be_mirrored(old) || may_be_mirrored(new),
    };
    may && service(&change.object().key()) != Some(true)
}

/// Whether a service's change may start or end the mirroring of the Endpoints of its name.
pub(super) fn service_matters(change: &Change<'_, Service>) -> bool {
    match change {
        Change::Added(service) | Change::Deleted { last: service, .. } => !has_selector(service),
        Change::Updated { old, new } => has_selector(old) != has_selector(new),
    }
}

/// Calls `enqueue` for the Endpoints that a slice mirrors or mirrored.
pub(super) fn on_slice(change: &Change<'_, EndpointSlice>, mut enqueue: impl FnMut(ObjectKey)) {
    match change {
        Change::Added(slice) | Change::Deleted { last: slice, .. } => mirrored(slice).into_iter().for_each(enqueue),
        Change::Updated { old, new } => {
            if old.resource_version() == new.resource_version() {
                return;
            }
            let (was, is) = (mirrored(old), mirrored(new));
            if was != is {
                was.into_iter().for_each(&mut enqueue);
            }
            is.into_iter().for_each(enqueue);
        }
    }
}
