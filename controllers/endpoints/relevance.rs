//! Which changes can make a difference to Endpoints. Handlers run in the informer's task, so the
//! common irrelevant change (a pod's status, an annotation) must cost a few comparisons.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::Service;
use quarterdeck_runtime::informer::{Change, Lister};
use quarterdeck_runtime::object::{Cached, ObjectKey};
use quarterdeck_runtime::select;
use quarterdeck_runtime::view::{PodView, PortView};

use super::plan::{belongs, hostname};

/// Whether a change of a service can change its Endpoints: not its status, not its annotations.
pub(super) fn service_changed(change: &Change<'_, Service>) -> bool {
    match change {
        Change::Added(_) | Change::Deleted { .. } => true,
        Change::Updated { old, new } => {
            old.spec != new.spec || old.metadata.labels != new.metadata.labels || old.metadata.uid != new.metadata.uid
        }
    }
}

/// Calls `each` with the key of every service whose Endpoints a pod's change can alter.
pub(super) fn services_of_change(
    services: &Lister<Service>,
    change: &Change<'_, PodView>,
    mut each: impl FnMut(ObjectKey),
) {
    match change {
        Change::Added(pod) | Change::Deleted { last: pod, .. } => {
            if !belongs(pod, true) {
                return;
            }
            for service in select::selecting(services, &***pod) {
                if shown(&service, pod).is_some() {
                    each(service.key());
                }
            }
        }
        Change::Updated { old, new } => {
            if alike(old, new) {
                return;
            }
            let now = select::selecting(services, &***new);
            if old.labels == new.labels {
                for service in now {
                    if shown(&service, old) != shown(&service, new) {
                        each(service.key());
                    }
                }
                return;
            }
            let before = select::selecting(services, &***old);
            let holds = |list: &[std::sync::Arc<Service>], service: &Service| {
                list.iter().any(|other| other.metadata.name == service.metadata.name)
            };
            for service in &now {
                let was = holds(&before, service).then(|| shown(service, old)).flatten();
                if was != shown(service, new) {
                    each(service.key());
                }
            }
            for service in before.iter().filter(|service| !holds(&now, service)) {
                if shown(service, old).is_some() {
                    each(service.key());
                }
            }
        }
    }
}

/// What the Endpoints of one service show of a pod.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct Shown<'a> {
    uid: &'a str,
    ready: bool,
    ips: &'a [IpAddr],
    hostname: Option<&'a str>,
    node: Option<&'a str>,
    ports: &'a [PortView],
}

/// What the Endpoints of a service show of a pod that its selector matches; nothing for a pod that
/// is no endpoint.
pub(super) fn shown<'a>(service: &Service, pod: &'a PodView) -> Option<Shown<'a>> {
    let spec = service.spec.as_ref()?;
    let publish_not_ready = spec.publish_not_ready_addresses.unwrap_or_default();
    belongs(pod, publish_not_ready).then(|| Shown {
        uid: &pod.uid,
        ready: publish_not_ready || pod.ready,
        ips: &pod.ips,
        hostname: hostname(pod, service.metadata.name.as_deref().unwrap_or_default()),
        node: pod.node.as_deref(),
        ports: &pod.ports,
    })
}

/// Whether two versions of a pod are the same to every service. Looks at no service.
pub(super) fn alike(old: &PodView, new: &PodView) -> bool {
    if old.resource_version == new.resource_version {
        return true;
    }
    let both_out = !belongs(old, true) && !belongs(new, true);
    both_out
        || (old.uid == new.uid
            && old.phase == new.phase
            && old.ready == new.ready
            && old.deleting == new.deleting
            && old.ips == new.ips
            && old.labels == new.labels
            && old.node == new.node
            && old.hostname == new.hostname
            && old.subdomain == new.subdomain
            && old.ports == new.ports)
}
