//! Port sets: slices are grouped by the ports that their endpoints serve.

use k8s_openapi::api::core::v1::{Service, ServicePort};
use k8s_openapi::api::discovery::v1::EndpointPort;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use quarterdeck_runtime::view::{PodView, Protocol};

/// The distinct port sets of a service's pods. Pods differ only where a named target port resolves
/// to different numbers, or to none.
pub(super) struct PortSets<'a> {
    ports: &'a [ServicePort],
    /// Whether any target port is a name, so that sets may differ between pods.
    named: bool,
    /// For each set, the number of each service port; none where the name does not resolve.
    sets: Vec<Vec<Option<i32>>>,
}

impl<'a> PortSets<'a> {
    /// No sets yet.
    pub(super) fn new(service: &'a Service) -> Self {
        let ports = service.spec.as_ref().and_then(|spec| spec.ports.as_deref()).unwrap_or_default();
        let named = ports.iter().any(|port| matches!(port.target_port, Some(IntOrString::String(_))));
        Self { ports, named, sets: Vec::new() }
    }

    /// The number of the set that a pod belongs to.
    pub(super) fn of(&mut self, pod: &PodView) -> usize {
        if !self.named && !self.sets.is_empty() {
            return 0;
        }
        let known = self
            .sets
            .iter()
            .position(|set| self.ports.iter().zip(set).all(|(port, number)| resolve(port, pod) == *number));
        known.unwrap_or_else(|| {
            self.sets.push(self.ports.iter().map(|port| resolve(port, pod)).collect());
            self.sets.len() - 1
        })
    }

    /// How many sets there are.
    pub(super) fn len(&self) -> usize {
        self.sets.len()
    }

    /// The set that a slice's ports are, in any order.
    pub(super) fn matching(&self, existing: Option<&[EndpointPort]>) -> Option<usize> {
        let existing = existing.unwrap_or_default();
        (0..self.sets.len()).find(|&set| {
            self.resolved(set).count() == existing.len()
                && self.resolved(set).all(|(port, number)| existing.iter().any(|e| is_same(e, port, number)))
        })
    }

    /// A set as it stands in a slice.
    pub(super) fn build(&self, set: usize) -> Vec<EndpointPort> {
        self.resolved(set)
            .map(|(port, number)| EndpointPort {
                name: Some(port.name.clone().unwrap_or_default()),
                port: Some(number),
                protocol: Some(protocol(port).to_owned()),
                app_protocol: port.app_protocol.clone(),
            })
            .collect()
    }

    fn resolved(&self, set: usize) -> impl Iterator<Item = (&'a ServicePort, i32)> + '_ {
        self.ports.iter().zip(&self.sets[set]).filter_map(|(port, number)| Some((port, (*number)?)))
    }
}

/// The number of a service port on a pod: its target port, or the port of that name and protocol
/// on the first container that has one (k8s.io/endpointslice:utils.go FindPort v0.36.3).
fn resolve(port: &ServicePort, pod: &PodView) -> Option<i32> {
    match &port.target_port {
        None => Some(port.port),
        Some(IntOrString::Int(number)) => Some(*number),
        Some(IntOrString::String(name)) => {
            let found = pod.ports.iter().find(|p| *p.name == **name && protocol_name(p.protocol) == protocol(port));
            found.map(|p| i32::from(p.port))
        }
    }
}

fn protocol(port: &ServicePort) -> &str {
    port.protocol.as_deref().unwrap_or("TCP")
}

fn protocol_name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "TCP",
        Protocol::Udp => "UDP",
        Protocol::Sctp => "SCTP",
    }
}

fn is_same(existing: &EndpointPort, port: &ServicePort, number: i32) -> bool {
    existing.port == Some(number)
        && existing.name.as_deref().unwrap_or_default() == port.name.as_deref().unwrap_or_default()
        && existing.protocol.as_deref().unwrap_or("TCP") == protocol(port)
        && existing.app_protocol == port.app_protocol
}
