//! From what is wanted, and how things are, to what this host's kernel should hold. Pure.

mod affinity;
mod balancers;
mod marks;
mod patch;
mod pools;
mod returns;
mod routes;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use quarterdeck_api::cloud::metal::{LoadBalancerReport, RouteReport};
use serde::{Deserialize, Serialize};

use crate::desired::Desired;
use crate::host::{Host, Mac};
use crate::nft::Ruleset;

pub use balancers::{Form, Way};
pub use marks::MarkMask;
pub use patch::{Changes, Patch, patch, settle};
pub use pools::{Content, Member, Pool};

/// How nodes of load balancers with `externalTrafficPolicy: Cluster` are checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClusterCheck {
    /// They are not: each gets traffic.
    None,
    /// By a TCP connection to this port of the node.
    Tcp(u16),
    /// By this port and path of the node, over HTTP; 200 is well.
    Http(u16, String),
    /// By a TCP connection to the load balancer's first TCP port on the node.
    NodePort,
}

/// What does not change while the agent runs.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Name of this host.
    pub name: String,
    /// Links to announce on, in order of preference; empty: found by network and default route.
    pub links: Vec<String>,
    /// Whether addresses are announced by BGP: they are put on the loopback link then.
    pub bgp: bool,
    /// How nodes are checked.
    pub cluster_check: ClusterCheck,
    /// Bits of packet and connection marks that are ours.
    pub mask: MarkMask,
    /// First of the routing tables that are ours; gateways' numbers are added to it. Also the rules' priority.
    pub tables: u32,
    /// Whether routes to pods are programmed.
    pub routes: bool,
    /// Routing table of the routes to pods.
    pub route_table: u32,
}

/// One check of one address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Check {
    /// What is connected to.
    pub address: SocketAddr,
    /// Path that is asked for over HTTP; `None` if a connection is enough.
    pub path: Option<String>,
}

impl std::fmt::Display for Check {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.path {
            Some(path) => write!(f, "http://{}{path}", self.address),
            None => write!(f, "tcp://{}", self.address),
        }
    }
}

/// What is kept from plan to plan, so that names and numbers stay what they are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Memory {
    /// Number of each gateway: its mark and its routing table.
    pub marks: BTreeMap<String, u32>,
    /// Whether this host was ever a backend.
    pub served: bool,
    /// Gateways' link-layer addresses: the kernel forgets those that it does not need for a while.
    pub macs: BTreeMap<IpAddr, Mac>,
    /// Pool that each way uses.
    pub pools: BTreeMap<String, String>,
    /// Pools that nobody uses and that are there all the same.
    pub spares: BTreeSet<String>,
}

/// A route of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KernelRoute {
    /// Destination; `0.0.0.0/0` or `::/0` is the default route.
    pub destination: IpNet,
    /// Next hop.
    pub via: IpAddr,
    /// Routing table.
    pub table: u32,
}

/// A routing rule of ours: packets with this mark are looked up in this table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KernelRule {
    /// Whether it is for IPv6.
    pub ipv6: bool,
    /// The mark.
    pub mark: u32,
    /// Bits of the mark that count.
    pub mask: u32,
    /// The table.
    pub table: u32,
    /// Its place among the rules.
    pub priority: u32,
}

/// An address that this host announces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedAddress {
    /// Load balancer it belongs to, the first of several.
    pub balancer: String,
    /// Index of the link it is put on; `None` if there is none.
    pub link: Option<u32>,
}

/// What this host's kernel should hold, and what is to be told of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Our table of nftables; empty if nothing is needed.
    pub ruleset: Ruleset,
    /// Addresses to announce.
    pub addresses: BTreeMap<IpAddr, PlannedAddress>,
    /// Our routes.
    pub routes: BTreeSet<KernelRoute>,
    /// Our routing rules.
    pub rules: BTreeSet<KernelRule>,
    /// What is to be checked, and whether it counts as well until it is known.
    pub checks: BTreeMap<Check, bool>,
    /// Gateways' addresses whose link-layer address has to be found out.
    pub unresolved: BTreeSet<IpAddr>,
    /// Backends, with their node ports, that datagrams are led to.
    pub datagrams: BTreeSet<SocketAddr>,
    /// Whether this host takes in traffic.
    pub gateway: bool,
    /// Ports of load balancers, by name.
    pub ways: BTreeMap<String, Way>,
    /// Pools in use, by name.
    pub pools: BTreeMap<String, Pool>,
    /// Whether two load balancers claim the same: then one's change may be another's.
    pub contested: bool,
    /// Reports of the load balancers.
    pub balancers: Vec<LoadBalancerReport>,
    /// Reports of the nodes' routes.
    pub node_routes: Vec<RouteReport>,
    /// Node of each route to pods, for errors.
    pub route_of: BTreeMap<IpNet, String>,
    /// What is wrong with the host as a whole.
    pub problems: Vec<String>,
}

/// Makes a plan. `health` holds what is known of checks.
#[must_use]
pub fn plan(
    desired: &Desired,
    health: &BTreeMap<Check, bool>,
    host: &Host,
    settings: &Settings,
    memory: &mut Memory,
) -> Plan {
    let mut plan = Plan::default();
    balancers::plan(&mut plan, desired, health, host, settings, memory);
    returns::plan(&mut plan, desired, host, settings, memory);
    routes::plan(&mut plan, desired, host, settings);
    if plan.gateway {
        plan.problems.extend(host.gateway_problems.iter().cloned());
    }
    plan
}
