//! What is written for a load balancer and for routes. Pure.

use std::net::IpAddr;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use quarterdeck_api::cloud::metal::{
    AnnouncedAddress, Backend, ExternalTraffic, LoadBalancerOwner, LoadBalancerPort, LoadBalancerSpec,
    MetalLoadBalancer, MetalRoute, Protocol, RouteSpec,
};
use sha2::{Digest as _, Sha256};

use crate::error::{CloudError, Result};
use crate::model::{self, ClusterId, Owner, Route};

/// Label of everything that is written, with the cluster's id.
pub const CLUSTER_LABEL: &str = "cloud.quarterdeck.dev/cluster";

/// What to do about an object.
#[derive(Clone, Debug, PartialEq)]
pub enum Plan<T> {
    /// It is as it should be.
    Keep(T),
    /// It is not there.
    Create(T),
    /// It is there, and differs.
    Replace(T),
    /// It is there, and nothing is left of it.
    Delete(T),
    /// It is not there, and need not be.
    Nothing,
}

/// The spec for a load balancer, without epoch, gateways and who announces what.
///
/// # Errors
/// When it lacks what metal needs.
pub fn wanted(spec: &model::LoadBalancerSpec) -> Result<LoadBalancerSpec> {
    if spec.addresses.is_empty() {
        return Err(CloudError::Invalid(
            "no address is reserved for it: metal takes addresses from an AddressPool".into(),
        ));
    }
    if let Some(port) = spec.ports.iter().find(|port| port.node_port == 0) {
        return Err(CloudError::Invalid(format!(
            "port {} has no node port, by which metal reaches nodes: set spec.allocateLoadBalancerNodePorts",
            port.port
        )));
    }
    let affinity = spec.affinity.map(|affinity| u32::try_from(affinity.as_secs()).unwrap_or(u32::MAX));
    Ok(LoadBalancerSpec {
        owner: LoadBalancerOwner {
            cluster: spec.owner.cluster.to_string(),
            namespace: spec.owner.namespace.clone(),
            name: spec.owner.name.clone(),
            uid: spec.owner.uid.clone(),
        },
        addresses: distinct(&spec.addresses).map(|address| AnnouncedAddress { address, gateway: None }).collect(),
        ports: spec
            .ports
            .iter()
            .map(|port| LoadBalancerPort {
                name: port.name.clone(),
                protocol: match port.protocol {
                    model::Protocol::Tcp => Protocol::Tcp,
                    model::Protocol::Udp => Protocol::Udp,
                    model::Protocol::Sctp => Protocol::Sctp,
                },
                port: port.port,
                node_port: port.node_port,
            })
            .collect(),
        backends: backends(&spec.backends),
        source_ranges: spec.source_ranges.clone(),
        affinity_seconds: affinity.filter(|seconds| *seconds > 0),
        external_traffic: match spec.external_traffic {
            model::ExternalTraffic::Cluster => ExternalTraffic::Cluster,
            model::ExternalTraffic::Local => ExternalTraffic::Local,
        },
        health_check_node_port: Some(spec.health_check_node_port).filter(|port| *port > 0),
        ..LoadBalancerSpec::default()
    })
}

fn distinct(addresses: &[IpAddr]) -> impl Iterator<Item = IpAddr> + '_ {
    addresses
        .iter()
        .enumerate()
        .filter(|(at, address)| !addresses[..*at].contains(address))
        .map(|(_, address)| *address)
}

/// Backends in the order of their names, so that the order of a list changes nothing.
fn backends(all: &[model::Backend]) -> Vec<Backend> {
    let mut all: Vec<Backend> = all
        .iter()
        .map(|backend| Backend { name: backend.name.clone(), addresses: backend.addresses.clone() })
        .collect();
    all.sort_by(|a, b| a.name.cmp(&b.name));
    all.dedup_by(|a, b| a.name == b.name);
    all
}

/// What is done so that the stored load balancer is the wanted one. Who announces an address is left to those who
/// decide that.
///
/// # Errors
/// When the stored one is not ours to change.
pub fn plan_balancer(
    stored: Option<MetalLoadBalancer>,
    mut wanted: LoadBalancerSpec,
    epoch: u64,
) -> Result<Plan<MetalLoadBalancer>> {
    let Some(mut stored) = stored else {
        wanted.epoch = epoch;
        let metadata = metadata(&wanted.owner.uid, &wanted.owner.cluster);
        return Ok(Plan::Create(MetalLoadBalancer { metadata, spec: wanted, status: None }));
    };
    check_balancer(&stored, &wanted.owner.cluster, epoch)?;
    if stored.metadata.deletion_timestamp.is_some() {
        return Err(CloudError::Conflict(format!("MetalLoadBalancer {} is being deleted", stored.name())));
    }
    for address in &mut wanted.addresses {
        let before = stored.spec.addresses.iter().find(|before| before.address == address.address);
        address.gateway = before.and_then(|before| before.gateway.clone());
    }
    wanted.gateways.clone_from(&stored.spec.gateways);
    wanted.epoch = stored.spec.epoch;
    let labelled = has_label(&stored.metadata, &wanted.owner.cluster);
    if stored.spec == wanted && labelled {
        return Ok(Plan::Keep(stored));
    }
    wanted.epoch = epoch.max(stored.spec.epoch);
    set_label(&mut stored.metadata, &wanted.owner.cluster);
    stored.spec = wanted;
    Ok(Plan::Replace(stored))
}

/// The stored load balancer with nothing left to claim: what agents see before it is deleted, so that they can tell a
/// deletion from an object that is lost. `None` if it is withdrawn already.
#[must_use]
pub fn withdrawn(stored: &MetalLoadBalancer, epoch: u64) -> Option<MetalLoadBalancer> {
    if is_withdrawn(&stored.spec) {
        return None;
    }
    let mut next = stored.clone();
    next.spec = LoadBalancerSpec {
        epoch: epoch.max(stored.spec.epoch),
        owner: stored.spec.owner.clone(),
        ..LoadBalancerSpec::default()
    };
    Some(next)
}

/// Whether a load balancer is about to be deleted.
#[must_use]
pub fn is_withdrawn(spec: &LoadBalancerSpec) -> bool {
    spec.addresses.is_empty() && spec.gateways.is_empty()
}

/// Whether the stored load balancer is this cluster's, and of no later tenure than the caller's.
///
/// # Errors
/// When it is not.
pub fn check_balancer(stored: &MetalLoadBalancer, cluster: &str, epoch: u64) -> Result<()> {
    if stored.spec.owner.cluster != cluster {
        return Err(CloudError::Conflict(format!(
            "MetalLoadBalancer {} belongs to the cluster {:?}",
            stored.name(),
            stored.spec.owner.cluster
        )));
    }
    superseded("MetalLoadBalancer", stored.name(), stored.spec.epoch, epoch)
}

/// Without an election the epoch is 0, and says nothing.
fn superseded(kind: &str, name: &str, stored: u64, epoch: u64) -> Result<()> {
    if epoch > 0 && stored > epoch {
        return Err(CloudError::Superseded(format!("{kind} {name} was written in tenure {stored}, ours is {epoch}")));
    }
    Ok(())
}

/// What identifies a configuration, whoever made it; who announces what is no part of it.
#[must_use]
pub fn fingerprint(spec: &LoadBalancerSpec) -> String {
    let mut spec = spec.clone();
    spec.epoch = 0;
    spec.gateways.clear();
    for address in &mut spec.addresses {
        address.gateway = None;
    }
    let text = serde_json::to_vec(&spec).expect("a spec is JSON");
    Sha256::digest(&text).iter().take(16).fold(String::new(), |mut hex, byte| {
        use std::fmt::Write as _;
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

/// Whose a stored load balancer is.
#[must_use]
pub fn owner(spec: &LoadBalancerSpec) -> Owner {
    Owner {
        cluster: ClusterId(spec.owner.cluster.as_str().into()),
        namespace: spec.owner.namespace.clone(),
        name: spec.owner.name.clone(),
        uid: spec.owner.uid.clone(),
    }
}

/// The routes of one object, one for each network.
pub fn routes(stored: &MetalRoute) -> impl Iterator<Item = Route> + '_ {
    stored.spec.destinations.iter().map(|destination| Route {
        name: format!("{}/{destination}", stored.name()),
        destination: *destination,
        node: stored.name().to_owned(),
        provider_id: String::new(),
        next_hops: stored.spec.next_hops.clone(),
        blackhole: false,
    })
}

/// What is done so that a route is there.
///
/// # Errors
/// When the stored object is not ours to change.
pub fn plan_route(stored: Option<MetalRoute>, route: &Route, cluster: &str, epoch: u64) -> Result<Plan<MetalRoute>> {
    if route.node.is_empty() || route.next_hops.is_empty() {
        return Err(CloudError::Invalid(format!("the route to {} leads to no address of a node", route.destination)));
    }
    let destination = route.destination.trunc();
    let Some(mut stored) = stored else {
        let spec = RouteSpec { epoch, destinations: vec![destination], next_hops: route.next_hops.clone() };
        return Ok(Plan::Create(MetalRoute { metadata: metadata(&route.node, cluster), spec }));
    };
    superseded("MetalRoute", stored.name(), stored.spec.epoch, epoch)?;
    let (known, led) = (stored.spec.destinations.contains(&destination), stored.spec.next_hops == route.next_hops);
    if known && led && has_label(&stored.metadata, cluster) {
        return Ok(Plan::Keep(stored));
    }
    if !known {
        stored.spec.destinations.push(destination);
        stored.spec.destinations.sort();
    }
    stored.spec.next_hops.clone_from(&route.next_hops);
    stored.spec.epoch = epoch.max(stored.spec.epoch);
    set_label(&mut stored.metadata, cluster);
    Ok(Plan::Replace(stored))
}

/// What is done so that a route is gone; the node's others stay.
///
/// # Errors
/// When the stored object is not ours to change.
pub fn plan_no_route(stored: Option<MetalRoute>, route: &Route, cluster: &str, epoch: u64) -> Result<Plan<MetalRoute>> {
    let Some(mut stored) = stored.filter(|stored| has_label(&stored.metadata, cluster)) else {
        return Ok(Plan::Nothing);
    };
    superseded("MetalRoute", stored.name(), stored.spec.epoch, epoch)?;
    let destination = route.destination.trunc();
    if stored.spec.destinations.iter().any(|own| *own != destination) {
        let before = stored.spec.destinations.len();
        stored.spec.destinations.retain(|own| *own != destination);
        if stored.spec.destinations.len() == before {
            return Ok(Plan::Keep(stored));
        }
        stored.spec.epoch = epoch.max(stored.spec.epoch);
        return Ok(Plan::Replace(stored));
    }
    Ok(Plan::Delete(stored))
}

/// `label=value` that everything of a cluster has.
#[must_use]
pub fn selector(cluster: &ClusterId) -> String {
    format!("{CLUSTER_LABEL}={cluster}")
}

fn metadata(name: &str, cluster: &str) -> ObjectMeta {
    let mut metadata = ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() };
    set_label(&mut metadata, cluster);
    metadata
}

fn has_label(metadata: &ObjectMeta, cluster: &str) -> bool {
    metadata.labels.as_ref().and_then(|labels| labels.get(CLUSTER_LABEL)).is_some_and(|own| own == cluster)
}

fn set_label(metadata: &mut ObjectMeta, cluster: &str) {
    metadata.labels.get_or_insert_default().insert(CLUSTER_LABEL.to_owned(), cluster.to_owned());
}

#[cfg(test)]
#[path = "objects_tests.rs"]
mod tests;
