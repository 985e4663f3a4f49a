//! What the manager decides for machines without a cloud, and what the agents on them report: the cluster-scoped
//! kinds `MetalLoadBalancer`, `MetalRoute` and `MetalAgent` of `cloud.quarterdeck.dev/v1alpha1`.
//!
//! The manager alone writes the first two, each agent its own object of the third. An agent also holds a Lease of its
//! own in [`AGENTS_NAMESPACE`], by which the manager tells whether it lives.

use std::net::IpAddr;

use ipnet::IpNet;
use k8s_openapi::ClusterResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta, Time};
use serde::ser::SerializeStruct as _;
use serde::{Deserialize, Serialize, Serializer};

use super::{API_VERSION, GROUP, VERSION};

/// The custom resource definitions of the three kinds, as YAML.
pub const CRDS: [&str; 3] = [
    include_str!("../../../../deploy/crds/metalloadbalancers.cloud.quarterdeck.dev.yaml"),
    include_str!("../../../../deploy/crds/metalroutes.cloud.quarterdeck.dev.yaml"),
    include_str!("../../../../deploy/crds/metalagents.cloud.quarterdeck.dev.yaml"),
];
/// Condition of a [`MetalLoadBalancer`]: each of its addresses has a gateway.
pub const ASSIGNED: &str = "Assigned";
/// Condition of a [`MetalLoadBalancer`]: the gateways say that they announce its addresses.
pub const ANNOUNCED: &str = "Announced";
/// Namespace of the agents' Leases; a Lease has the name of its host's Node.
pub const AGENTS_NAMESPACE: &str = "quarterdeck-agents";

/// A load balancer; its name is the uid of its Service.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct MetalLoadBalancer {
    /// Standard metadata.
    pub metadata: ObjectMeta,
    /// How it should be.
    pub spec: LoadBalancerSpec,
    /// What came of it; `None` until the manager has looked. Left out where the object is written whole: the server
    /// takes it as a subresource alone.
    pub status: Option<LoadBalancerStatus>,
}

/// `status` of a [`MetalLoadBalancer`]; written by the manager.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LoadBalancerStatus {
    /// `metadata.generation` of the spec that was looked at.
    pub observed_generation: i64,
    /// [`ASSIGNED`] and [`ANNOUNCED`].
    pub conditions: Vec<Condition>,
}

/// `spec` of a [`MetalLoadBalancer`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LoadBalancerSpec {
    /// Number of the tenure in which the manager wrote this, growing. An agent refuses a spec with a smaller one than
    /// that of the spec it has applied under the same name.
    pub epoch: u64,
    /// Whose it is.
    pub owner: LoadBalancerOwner,
    /// Its addresses, and who announces each.
    pub addresses: Vec<AnnouncedAddress>,
    /// Hosts that take in traffic for it, whether they announce an address at present or not: each is programmed, so
    /// that an address can move without delay, and nodes send replies through the one that a packet came from.
    pub gateways: Vec<Gateway>,
    /// Its ports.
    pub ports: Vec<LoadBalancerPort>,
    /// Nodes that may get traffic; with none, connections are refused and the addresses stay.
    pub backends: Vec<Backend>,
    /// Who may connect; empty: everybody.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub source_ranges: Vec<IpNet>,
    /// For how long a client sticks to a backend after its last connection, in seconds; absent or 0: it does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub affinity_seconds: Option<u32>,
    /// Which nodes serve.
    pub external_traffic: ExternalTraffic,
    /// Port at which nodes tell whether they have endpoints, for [`ExternalTraffic::Local`]; absent or 0 otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health_check_node_port: Option<u16>,
}

/// Whose a load balancer is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LoadBalancerOwner {
    /// Id of the cluster: the uid of its namespace `kube-system`.
    pub cluster: String,
    /// Namespace of the Service.
    pub namespace: String,
    /// Name of the Service.
    pub name: String,
    /// uid of the Service.
    pub uid: String,
}

/// One address of a load balancer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AnnouncedAddress {
    /// The address.
    pub address: IpAddr,
    /// Name of the gateway that announces it; absent while there is none that could.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<String>,
}

/// A host that takes in traffic from clients.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Gateway {
    /// Name of the host, as its agent was given it: that of its Node, if it has one.
    pub name: String,
    /// Its addresses in the nodes' network: where nodes send replies to. At most one of a family counts, the first.
    pub addresses: Vec<IpAddr>,
}

/// One port of a load balancer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LoadBalancerPort {
    /// Its name; may be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Protocol.
    pub protocol: Protocol,
    /// Port at which clients call.
    pub port: u16,
    /// Port on every node.
    pub node_port: u16,
}

/// Transport protocols of a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the words are the API's")]
pub enum Protocol {
    #[default]
    #[serde(rename = "TCP")]
    Tcp,
    #[serde(rename = "UDP")]
    Udp,
    #[serde(rename = "SCTP")]
    Sctp,
}

/// A node that may get traffic.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Backend {
    /// Name of the Node.
    pub name: String,
    /// Its internal addresses; the first of each family counts.
    pub addresses: Vec<IpAddr>,
}

/// Which nodes serve traffic from outside: `externalTrafficPolicy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ExternalTraffic {
    /// All of them, by a second hop.
    #[default]
    Cluster,
    /// Those that have an endpoint, which the health check node port tells; the client's address is kept.
    Local,
}

/// Routes to the pods of one Node; its name is that of the Node.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct MetalRoute {
    /// Standard metadata.
    pub metadata: ObjectMeta,
    /// How they should be.
    pub spec: RouteSpec,
}

/// `spec` of a [`MetalRoute`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RouteSpec {
    /// As [`LoadBalancerSpec::epoch`].
    pub epoch: u64,
    /// The pods' networks.
    pub destinations: Vec<IpNet>,
    /// Addresses of the Node; a destination leads to the first of its family.
    pub next_hops: Vec<IpAddr>,
}

/// What the agent of one host reports; its name is that of the host.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct MetalAgent {
    /// Standard metadata.
    pub metadata: ObjectMeta,
    /// What it reports; `None` until it has.
    pub status: Option<AgentStatus>,
}

/// `status` of a [`MetalAgent`]. Written when it changes, at most once a second; that the agent lives is told by its
/// Lease alone.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AgentStatus {
    /// Version of the agent.
    pub version: String,
    /// When this was written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reported_at: Option<Time>,
    /// Largest epoch of all that it has applied.
    pub epoch: u64,
    /// Whether it can take in traffic, were it to announce an address: its programs and kernel settings are in order
    /// and its interfaces are up.
    pub ready: bool,
    /// What is wrong, one sentence each, of the host as a whole; empty if nothing is.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
    /// Addresses that it announces.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub announces: Vec<Announcement>,
    /// Load balancers that it has programmed or could not program, by name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub load_balancers: Vec<LoadBalancerReport>,
    /// Nodes' routes that it has programmed or could not program, by name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<RouteReport>,
    /// Backends that get no traffic because their checks fail. Those that pass are not listed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unhealthy: Vec<UnhealthyBackend>,
}

/// An address that an agent announces.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Announcement {
    /// The address.
    pub address: IpAddr,
    /// Name of the [`MetalLoadBalancer`] it belongs to; of those that share it, the first.
    pub load_balancer: String,
    /// How: an interface's name for ARP and NDP, `bgp` for BIRD.
    pub by: String,
}

/// What an agent did with one load balancer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LoadBalancerReport {
    /// Name of the [`MetalLoadBalancer`].
    pub name: String,
    /// `metadata.generation` of what is applied.
    pub generation: i64,
    /// Epoch of what is applied.
    pub epoch: u64,
    /// Backends that get traffic; of those with several ports or families, the ones that get any.
    pub healthy: u32,
    /// All its backends.
    pub backends: u32,
    /// Why the newest spec is not applied, or not whole; empty if it is.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub error: String,
}

/// What an agent did with the routes to one Node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RouteReport {
    /// Name of the [`MetalRoute`].
    pub name: String,
    /// `metadata.generation` of what is applied.
    pub generation: i64,
    /// Epoch of what is applied.
    pub epoch: u64,
    /// Why the newest spec is not applied, or not whole; empty if it is.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub error: String,
}

/// A backend whose checks fail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UnhealthyBackend {
    /// Its address.
    pub address: IpAddr,
    /// What is asked: `http://10.0.0.1:10256/healthz`, `tcp://10.0.0.1:30080`.
    pub check: String,
    /// What came of it.
    pub reason: String,
    /// Since when it fails.
    pub since: Time,
}

/// Whether a part of an object is written: servers refuse `null`.
trait Body {
    fn is_there(&self) -> bool {
        true
    }
}

impl Body for LoadBalancerSpec {}

impl Body for RouteSpec {}

impl Body for Option<AgentStatus> {
    fn is_there(&self) -> bool {
        self.is_some()
    }
}

macro_rules! cluster_scoped {
    ($type:ident, $plural:literal, $body:ident) => {
        impl $type {
            /// Name, empty if the object has none.
            #[must_use]
            pub fn name(&self) -> &str {
                self.metadata.name.as_deref().unwrap_or_default()
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let body = Some(&self.$body).filter(|body| body.is_there());
                let mut object = serializer.serialize_struct(stringify!($type), 3 + usize::from(body.is_some()))?;
                object.serialize_field("apiVersion", API_VERSION)?;
                object.serialize_field("kind", stringify!($type))?;
                object.serialize_field("metadata", &self.metadata)?;
                if let Some(body) = body {
                    object.serialize_field(stringify!($body), body)?;
                }
                object.end()
            }
        }

        impl k8s_openapi::Resource for $type {
            const API_VERSION: &'static str = API_VERSION;
            const GROUP: &'static str = GROUP;
            const KIND: &'static str = stringify!($type);
            const VERSION: &'static str = VERSION;
            const URL_PATH_SEGMENT: &'static str = $plural;
            type Scope = ClusterResourceScope;
        }

        impl k8s_openapi::Metadata for $type {
            type Ty = ObjectMeta;

            fn metadata(&self) -> &ObjectMeta {
                &self.metadata
            }

            fn metadata_mut(&mut self) -> &mut ObjectMeta {
                &mut self.metadata
            }
        }
    };
}

cluster_scoped!(MetalLoadBalancer, "metalloadbalancers", spec);
cluster_scoped!(MetalRoute, "metalroutes", spec);
cluster_scoped!(MetalAgent, "metalagents", status);

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_load_balancer_reads_and_writes_as_the_crd_has_it() {
        let text = json!({
            "apiVersion": "cloud.quarterdeck.dev/v1alpha1",
            "kind": "MetalLoadBalancer",
            "metadata": { "name": "0b5e" },
            "spec": {
                "epoch": 7,
                "owner": { "cluster": "c", "namespace": "shop", "name": "web", "uid": "0b5e" },
                "addresses": [{ "address": "192.0.2.10", "gateway": "gw1" }, { "address": "2001:db8::10" }],
                "gateways": [{ "name": "gw1", "addresses": ["10.0.0.1"] }],
                "ports": [{ "name": "http", "protocol": "TCP", "port": 80, "nodePort": 30080 }],
                "backends": [{ "name": "n1", "addresses": ["10.0.0.11"] }],
                "sourceRanges": ["198.51.100.0/24"],
                "affinitySeconds": 10800,
                "externalTraffic": "Local",
                "healthCheckNodePort": 32000
            }
        });
        let read: MetalLoadBalancer = serde_json::from_value(text.clone()).unwrap();
        assert_eq!(read.spec.addresses[1].gateway, None);
        assert_eq!(serde_json::to_value(&read).unwrap(), text);
    }

    #[test]
    fn what_is_absent_has_its_default() {
        let read: MetalLoadBalancer = serde_json::from_value(json!({ "metadata": { "name": "a" } })).unwrap();
        assert_eq!(read.spec, LoadBalancerSpec::default());
        let read: MetalAgent = serde_json::from_value(json!({ "metadata": {}, "status": { "epoch": 3 } })).unwrap();
        assert_eq!(read.status.map(|status| status.epoch), Some(3));
        let text = serde_json::to_value(MetalAgent::default()).unwrap();
        assert_eq!(text.get("status"), None);
    }
}
