//! What is said to and by clouds. Plain data; no type of Kubernetes.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::error::Result;

/// Which cluster owns something in a cloud: the uid of its namespace `kube-system`, so that two clusters of one name
/// never share anything.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ClusterId(pub Arc<str>);

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A Node, as a provider is asked for it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeRef {
    /// `metadata.name`.
    pub name: Arc<str>,
    /// `spec.providerID`; asked for by name where it is not known yet.
    pub provider_id: Option<Arc<str>>,
}

/// What a provider knows of one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// There is such an instance, running or not.
    Found(Box<Instance>),
    /// There is none, and the provider is sure: it looked in the right account and was told so.
    Absent(Proof),
    /// The providerID is not of this provider, or of another account, region or form: nothing is known.
    NotMine,
}

/// Why an instance is said to be absent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// What the cloud answered, for the operator.
    pub evidence: String,
}

/// An instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// `scheme://…`, never empty, the same for the instance's whole life.
    pub provider_id: String,
    /// Its type, as the cloud calls it; may be empty.
    pub instance_type: String,
    /// Its addresses, in order of preference.
    pub addresses: Vec<NodeAddress>,
    /// Its zone; may be empty.
    pub zone: String,
    /// Its region; may be empty.
    pub region: String,
    /// Labels for the Node; keys of Kubernetes' own domains are refused.
    pub labels: BTreeMap<String, String>,
    /// Whether it is shut down (and exists).
    pub shutdown: bool,
}

/// One address of an instance.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct NodeAddress {
    /// Its type.
    pub kind: AddressKind,
    /// An IP address or a name.
    pub address: String,
}

/// Types of node addresses, as in `status.addresses`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the words are the API's")]
pub enum AddressKind {
    Hostname,
    #[serde(rename = "InternalIP")]
    InternalIp,
    #[serde(rename = "ExternalIP")]
    ExternalIp,
    #[serde(rename = "InternalDNS")]
    InternalDns,
    #[serde(rename = "ExternalDNS")]
    ExternalDns,
}

impl AddressKind {
    /// The word in `status.addresses[].type`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hostname => "Hostname",
            Self::InternalIp => "InternalIP",
            Self::ExternalIp => "ExternalIP",
            Self::InternalDns => "InternalDNS",
            Self::ExternalDns => "ExternalDNS",
        }
    }
}

/// The answer to one question about many nodes, at one moment.
#[derive(Clone, Debug, Default)]
pub struct Answers {
    /// Id of the account or project that was asked. An absence counts only while this is the one that was recorded
    /// for the cluster.
    pub account: String,
    /// An answer for each node that was asked for; one that is missing counts as an error.
    pub nodes: HashMap<NodeRef, Result<Lookup>>,
}

/// Who owns a load balancer: written into the cloud as tags. It is found by them, never by its name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Owner {
    /// The cluster.
    pub cluster: ClusterId,
    /// Namespace of the Service.
    pub namespace: String,
    /// Name of the Service; changes of nothing but this keep the load balancer.
    pub name: String,
    /// uid of the Service: what identifies the load balancer.
    pub uid: String,
}

/// What a provider calls a load balancer: opaque to others.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Handle(pub String);

/// Transport protocols of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the words are the API's")]
pub enum Protocol {
    #[serde(rename = "TCP")]
    Tcp,
    #[serde(rename = "UDP")]
    Udp,
    #[serde(rename = "SCTP")]
    Sctp,
}

/// One port of a load balancer.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Port {
    /// `ports[].name`; may be empty.
    pub name: String,
    /// Protocol.
    pub protocol: Protocol,
    /// Port at which clients call.
    pub port: u16,
    /// Port on every node; 0 if the Service allocates none.
    pub node_port: u16,
    /// `ports[].appProtocol`; may be empty.
    pub app_protocol: String,
}

/// A node that may get traffic.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Backend {
    /// Name of the Node.
    pub name: String,
    /// `spec.providerID`; may be empty.
    pub provider_id: String,
    /// Its internal addresses, in the order of its status.
    pub addresses: Vec<IpAddr>,
}

/// Which nodes serve traffic from outside: `externalTrafficPolicy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum ExternalTraffic {
    /// All of them, by a second hop.
    #[default]
    Cluster,
    /// Those that have an endpoint, which the health check node port tells; the client's address is kept.
    Local,
}

/// A load balancer as it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadBalancerSpec {
    /// Who owns it.
    pub owner: Owner,
    /// Its ports.
    pub ports: Vec<Port>,
    /// `spec.ipFamilies`: `false` for IPv4, `true` for IPv6, the first one preferred.
    pub ipv6: Vec<bool>,
    /// Addresses it has to have: asked for by the user, or reserved from a pool. Empty: the cloud chooses.
    pub addresses: Vec<IpAddr>,
    /// Who may connect; empty: everybody.
    pub source_ranges: Vec<IpNet>,
    /// Which nodes serve.
    pub external_traffic: ExternalTraffic,
    /// Port at which nodes tell whether they have endpoints, for [`ExternalTraffic::Local`]; 0 if there is none.
    pub health_check_node_port: u16,
    /// For how long a client sticks to a backend, if it does.
    pub affinity: Option<Duration>,
    /// Annotations of the Service, for the provider's own settings.
    pub annotations: BTreeMap<String, String>,
    /// Nodes that may get traffic; with none the load balancer stays, and keeps its addresses.
    pub backends: Vec<Backend>,
}

/// What came of a call that makes or changes a load balancer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LbOutcome {
    /// It is as it should be.
    Ready {
        /// What goes into `status.loadBalancer.ingress`.
        ingress: Vec<Ingress>,
        /// What the provider calls it.
        handle: Handle,
        /// What [`OwnedLoadBalancer::fingerprint`] says while nobody changes it; empty if the provider cannot tell.
        fingerprint: String,
    },
    /// It is being made: ask again.
    Provisioning {
        /// After this time.
        poll_after: Duration,
        /// What the provider calls it, if it has a name already.
        handle: Option<Handle>,
    },
}

/// What came of a call that deletes a load balancer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deletion {
    /// Nothing of it is left, or never was.
    Gone,
    /// It is going: ask again after this time.
    InProgress(Duration),
}

/// One address of a load balancer, as in `status.loadBalancer.ingress`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Ingress {
    /// Where clients call.
    pub at: IngressPoint,
    /// Whether packets arrive with the node's address (`Proxy`) or with this one (`VIP`).
    pub proxy_mode: bool,
}

/// Where clients call.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum IngressPoint {
    /// An address.
    Ip(IpAddr),
    /// A name.
    Hostname(String),
}

/// A load balancer that carries an owner tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnedLoadBalancer {
    /// Whose it is.
    pub owner: Owner,
    /// What the provider calls it.
    pub handle: Handle,
    /// What it is configured as, in a form of the provider's own that changes with every change, whoever made it.
    pub fingerprint: String,
    /// How long ago it was made, if the provider knows.
    pub age: Option<Duration>,
}

/// One page of a list.
#[derive(Clone, Debug)]
pub struct Page<T> {
    /// The items.
    pub items: Vec<T>,
    /// What to ask the next page with; `None` on the last.
    pub next: Option<String>,
}

/// A route for a pod network.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Route {
    /// What the provider calls it; in a request, a hint that is unique in the cluster.
    pub name: String,
    /// The pods' network.
    pub destination: IpNet,
    /// Name of the Node it leads to; empty if the target is none of ours any more.
    pub node: String,
    /// `spec.providerID` of that Node; may be empty.
    pub provider_id: String,
    /// Addresses of that Node; the next hop is one of its family.
    pub next_hops: Vec<IpAddr>,
    /// Whether it leads nowhere: its target is gone.
    pub blackhole: bool,
}
