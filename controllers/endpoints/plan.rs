//! From what the caches show of a service to the writes that bring its Endpoints where they should
//! be. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    EndpointAddress, EndpointPort, EndpointSubset, Endpoints, ObjectReference, Service, ServicePort, ServiceSpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use quarterdeck_runtime::view::{PodPhase, PodView, Protocol};

use super::canonical::{Packer, repack, same_subsets, truncate};

/// Label that marks Endpoints as written by this controller.
pub(super) const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
/// Value of [`MANAGED_BY`]; upstream's, so that the two can hand over to each other.
pub(super) const MANAGER: &str = "endpoint-controller";
/// Label of the Endpoints of services without a cluster IP.
pub(super) const HEADLESS: &str = "service.kubernetes.io/headless";
/// Annotation with the time of the oldest change that these Endpoints are the first to show.
pub(super) const TRIGGER_TIME: &str = "endpoints.kubernetes.io/last-change-trigger-time";
/// Annotation that says addresses were left out.
pub(super) const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
/// Annotation of Endpoints that serve as a lock for an election: nobody's service.
const LEADER_RECORD: &str = "control-plane.alpha.kubernetes.io/leader";

/// What the caches show of one service.
#[derive(Clone, Debug, Default)]
pub(super) struct Snapshot {
    /// The service, none when it is gone.
    pub service: Option<Arc<Service>>,
    /// The Endpoints of the same name.
    pub endpoints: Option<Arc<Endpoints>>,
    /// The pods that the selector matches.
    pub pods: Vec<Arc<PodView>>,
    /// Trigger time to show, whole seconds since 1970.
    pub trigger: Option<i64>,
}

/// One write.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Op {
    /// The Endpoints do not exist yet.
    Create(Box<Endpoints>),
    /// PUT with the resourceVersion that was read.
    Replace(Box<Endpoints>),
    /// The service is gone.
    Delete {
        /// uid of the Endpoints that were read.
        uid: String,
        /// resourceVersion of the Endpoints that were read.
        resource_version: String,
    },
}

/// Whether a service's Endpoints are this controller's business: it has a selector and is no alias
/// for an external name.
pub(super) fn wants_endpoints(service: &Service) -> bool {
    service.spec.as_ref().is_some_and(|spec| {
        spec.type_.as_deref() != Some("ExternalName") && spec.selector.as_ref().is_some_and(|s| !s.is_empty())
    })
}

/// Whether Endpoints serve as the lock of an election.
pub(super) fn holds_leader_record(endpoints: &Endpoints) -> bool {
    endpoints.metadata.annotations.as_ref().is_some_and(|a| a.contains_key(LEADER_RECORD))
}

/// The writes that one service needs; none when all is as it should be.
pub(super) fn plan(snapshot: &Snapshot) -> Vec<Op> {
    let current = snapshot.endpoints.as_deref();
    let Some(service) = snapshot.service.as_deref() else {
        return current.and_then(delete_orphan).into_iter().collect();
    };
    if !wants_endpoints(service) {
        return Vec::new();
    }
    let mut subsets = subsets_of(service, &snapshot.pods);
    let truncated = truncate(&mut subsets);
    let labels = labels_of(service);
    let Some(current) = current else {
        return vec![Op::Create(Box::new(fresh(service, subsets, labels, truncated, snapshot.trigger)))];
    };
    if is_current(current, &subsets, &labels, truncated) {
        return Vec::new();
    }
    let mut next = current.clone();
    next.subsets = some_unless_empty(subsets);
    next.metadata.labels = Some(labels);
    let annotations = next.metadata.annotations.get_or_insert_default();
    annotate(annotations, truncated, snapshot.trigger);
    vec![Op::Replace(Box::new(next))]
}

/// Endpoints whose service is gone. Those that are an election's lock stay, and those already on
/// their way out need no second delete.
fn delete_orphan(current: &Endpoints) -> Option<Op> {
    let meta = &current.metadata;
    if holds_leader_record(current) || meta.deletion_timestamp.is_some() {
        return None;
    }
    Some(Op::Delete {
        uid: meta.uid.clone().unwrap_or_default(),
        resource_version: meta.resource_version.clone().unwrap_or_default(),
    })
}

fn is_current(
    current: &Endpoints,
    subsets: &[EndpointSubset],
    labels: &BTreeMap<String, String>,
    truncated: bool,
) -> bool {
    let meta = &current.metadata;
    let mark = meta.annotations.as_ref().and_then(|a| a.get(OVER_CAPACITY)).map(String::as_str);
    if mark != truncated.then_some("truncated") || meta.labels.as_ref() != Some(labels) {
        return false;
    }
    let now = current.subsets.as_deref().unwrap_or_default();
    // Another manager orders subsets and ports differently: that alone is no reason to write.
    same_subsets(now, subsets) || same_subsets(&repack(now), subsets)
}

fn fresh(
    service: &Service,
    subsets: Vec<EndpointSubset>,
    labels: BTreeMap<String, String>,
    truncated: bool,
    trigger: Option<i64>,
) -> Endpoints {
    let mut annotations = BTreeMap::new();
    annotate(&mut annotations, truncated, trigger);
    Endpoints {
        metadata: ObjectMeta {
            namespace: service.metadata.namespace.clone(),
            name: service.metadata.name.clone(),
            labels: Some(labels),
            annotations: Some(annotations).filter(|a| !a.is_empty()),
            ..ObjectMeta::default()
        },
        subsets: some_unless_empty(subsets),
    }
}

fn annotate(annotations: &mut BTreeMap<String, String>, truncated: bool, trigger: Option<i64>) {
    match trigger.and_then(|second| Timestamp::from_second(second).ok()) {
        Some(time) => annotations.insert(TRIGGER_TIME.to_owned(), time.to_string()),
        None => annotations.remove(TRIGGER_TIME),
    };
    if truncated {
        annotations.insert(OVER_CAPACITY.to_owned(), "truncated".to_owned());
    } else {
        annotations.remove(OVER_CAPACITY);
    }
}

/// The service's labels, our mark, and the headless mark where there is no cluster IP.
fn labels_of(service: &Service) -> BTreeMap<String, String> {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    let cluster_ip = service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref()).unwrap_or_default();
    if cluster_ip.is_empty() || cluster_ip == "None" {
        labels.insert(HEADLESS.to_owned(), String::new());
    } else {
        labels.remove(HEADLESS);
    }
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    labels
}

/// The subsets of a service in canonical order, not yet cut to size.
pub(super) fn subsets_of(service: &Service, pods: &[Arc<PodView>]) -> Vec<EndpointSubset> {
    let Some(spec) = service.spec.as_ref() else { return Vec::new() };
    let name = service.metadata.name.as_deref().unwrap_or_default();
    let publish_not_ready = spec.publish_not_ready_addresses.unwrap_or_default();
    let ports = spec.ports.as_deref().unwrap_or_default();
    if ports.is_empty() && spec.cluster_ip.as_deref() != Some("None") {
        return Vec::new();
    }
    let mut packer = Packer::with_capacity(pods.len());
    for pod in pods {
        let Some(ip) = address_of(spec, pod).filter(|_| belongs(pod, publish_not_ready)) else { continue };
        let ready = publish_not_ready || pod.ready;
        let entry = packer.address(address(pod, ip, name));
        if ports.is_empty() {
            packer.offer(entry, None, ready);
        }
        for port in ports {
            if let Some(number) = resolve(pod, port) {
                packer.offer(entry, Some(endpoint_port(port, number)), ready);
            }
        }
    }
    packer.pack()
}

/// Whether a pod is an endpoint at all: it runs or may run, has an address, and is not on its way
/// out unless the service wants such pods too
/// (kubernetes/endpointslice:util/controller_utils.go `ShouldPodBeInEndpoints`).
pub(super) fn belongs(pod: &PodView, publish_not_ready: bool) -> bool {
    !matches!(pod.phase, PodPhase::Succeeded | PodPhase::Failed)
        && !pod.ips.is_empty()
        && (!pod.deleting || publish_not_ready)
}

/// The pod's first address of the service's first family; where the service names no family, that
/// of its cluster IP, else that of the pod.
fn address_of(spec: &ServiceSpec, pod: &PodView) -> Option<IpAddr> {
    let wants_v6 = match spec.ip_families.as_deref().and_then(<[String]>::first) {
        Some(family) => family == "IPv6",
        None => match spec.cluster_ip.as_deref() {
            Some(ip) if !ip.is_empty() && ip != "None" => ip.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv6()),
            _ => pod.ips.first().is_some_and(IpAddr::is_ipv6),
        },
    };
    pod.ips.iter().copied().find(|ip| ip.is_ipv6() == wants_v6)
}

/// The host name that DNS publishes for a pod under this service, none for most.
pub(super) fn hostname<'a>(pod: &'a PodView, service: &str) -> Option<&'a str> {
    pod.hostname.as_deref().filter(|_| pod.subdomain.as_deref() == Some(service))
}

fn address(pod: &PodView, ip: IpAddr, service: &str) -> EndpointAddress {
    EndpointAddress {
        ip: ip.to_string(),
        hostname: hostname(pod, service).map(str::to_owned),
        node_name: pod.node.as_deref().map(str::to_owned),
        target_ref: Some(ObjectReference {
            kind: Some("Pod".to_owned()),
            namespace: Some(pod.key.namespace().to_owned()),
            name: Some(pod.key.name().to_owned()),
            uid: Some(pod.uid.as_ref().to_owned()),
            ..ObjectReference::default()
        }),
    }
}

/// The port number behind a service port on one pod; none when the pod has no port of that name
/// and protocol.
fn resolve(pod: &PodView, port: &ServicePort) -> Option<i32> {
    match port.target_port.as_ref() {
        Some(IntOrString::String(name)) => {
            let protocol = protocol(port.protocol.as_deref());
            let found = pod.ports.iter().find(|p| *p.name == **name && Some(p.protocol) == protocol)?;
            Some(i32::from(found.port))
        }
        Some(IntOrString::Int(number)) if *number > 0 => Some(*number),
        // The server fills in the service's own port where none is given.
        _ => Some(port.port),
    }
}

fn protocol(name: Option<&str>) -> Option<Protocol> {
    match name {
        None | Some("" | "TCP") => Some(Protocol::Tcp),
        Some("UDP") => Some(Protocol::Udp),
        Some("SCTP") => Some(Protocol::Sctp),
        Some(_) => None,
    }
}

fn endpoint_port(port: &ServicePort, number: i32) -> EndpointPort {
    EndpointPort {
        name: port.name.clone().filter(|name| !name.is_empty()),
        port: number,
        protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".to_owned())),
        app_protocol: port.app_protocol.clone(),
    }
}

fn some_unless_empty(subsets: Vec<EndpointSubset>) -> Option<Vec<EndpointSubset>> {
    Some(subsets).filter(|s| !s.is_empty())
}
