//! Which routes a cloud should have, and what to do about those it has. Pure.
//!
//! Behaviour: k8s.io/cloud-provider:controllers/route/route_controller.go v0.36.3; what differs stands in
//! `docs/controllers/node-route-controller.md`.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use quarterdeck_cloud::model::Route;
use quarterdeck_runtime::object::Cached as _;
use quarterdeck_runtime::view::NodeView;

/// What is wrong with a CIDR of a node.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Wrong {
    /// It cannot be read.
    #[error("spec.podCIDRs: {0:?} is not a CIDR")]
    Unreadable(String),
    /// It is not within the cluster's.
    #[error("spec.podCIDRs: {0} is not within --cluster-cidr; no route is made for it, as none could be removed again")]
    Outside(IpNet),
    /// The cluster has no range of its family.
    #[error("spec.podCIDRs: {0} is {family}, and --cluster-cidr has no such range; no route is made for it", family = family(.0))]
    Family(IpNet),
    /// It is part of another node's, or the other way round.
    #[error("spec.podCIDRs: {cidr} overlaps {other} of node {holder}")]
    Overlaps {
        /// The CIDR.
        cidr: IpNet,
        /// The one that is kept.
        other: IpNet,
        /// The node that has that one.
        holder: String,
    },
    /// Another node has it.
    #[error("spec.podCIDRs: {cidr} is that of node {holder}, too")]
    Taken {
        /// The CIDR.
        cidr: IpNet,
        /// The node that keeps it.
        holder: String,
    },
}

fn family(cidr: &IpNet) -> &'static str {
    match cidr {
        IpNet::V4(_) => "IPv4",
        IpNet::V6(_) => "IPv6",
    }
}

impl Wrong {
    /// All values of the label `reason` of the metrics.
    pub(super) const REASONS: [&'static str; 5] = ["unreadable", "outside", "family", "overlaps", "taken"];

    /// Value of the label `reason` of the metrics.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::Unreadable(_) => "unreadable",
            Self::Outside(_) => "outside",
            Self::Family(_) => "family",
            Self::Overlaps { .. } => "overlaps",
            Self::Taken { .. } => "taken",
        }
    }
}

/// A pod network and the node it belongs to.
#[derive(Clone, Debug)]
pub(super) struct Claim {
    pub(super) node: Arc<NodeView>,
    /// Which of the node's networks it is.
    index: usize,
}

/// The pod networks of all nodes of a cluster, whatever cloud they are in.
#[derive(Debug, Default)]
pub(super) struct Claims {
    by_cidr: BTreeMap<IpNet, Claim>,
    /// What is wrong, and with which node.
    pub(super) wrong: Vec<(Arc<NodeView>, Wrong)>,
}

/// One change of a cloud's routes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Op {
    /// A node lacks a route.
    Create(Route),
    /// A network's route leads elsewhere.
    Replace {
        /// The route there is.
        old: Route,
        /// As it should be.
        new: Route,
    },
    /// A route leads nowhere, or to a network that nobody has.
    Delete(Route),
}

/// What to do in one cloud.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Changes in groups, one for each destination: those of a group one after the other.
    pub(super) changes: BTreeMap<IpNet, Vec<Op>>,
    /// Whether each node's routes will all be there, once the changes of these destinations are made; `None` if they
    /// cannot be.
    pub(super) nodes: Vec<(Arc<NodeView>, Option<BTreeSet<IpNet>>)>,
}

/// Which node each pod network belongs to. One that several nodes have stays with the node that its route leads to, or
/// goes to the oldest.
pub(super) fn claims(nodes: &[Arc<NodeView>], routes: &[Route], cluster: &[IpNet]) -> Claims {
    let mut nodes: Vec<_> = nodes.to_vec();
    nodes.sort_by_key(|node| (node.created, node.key()));
    let routed: HashSet<(IpNet, &str)> = routes.iter().map(|route| (route.destination, &*route.node)).collect();
    let mut wanting: BTreeMap<IpNet, Vec<Claim>> = BTreeMap::new();
    let mut claims = Claims::default();
    for node in &nodes {
        for (index, text) in node.pod_cidrs.iter().enumerate() {
            let Ok(cidr) = text.parse::<IpNet>() else {
                claims.wrong.push((Arc::clone(node), Wrong::Unreadable(text.to_string())));
                continue;
            };
            let cidr = cidr.trunc();
            if !is_within(cluster, &cidr) {
                let has_family = cluster.iter().any(|own| family(own) == family(&cidr));
                let wrong = if has_family { Wrong::Outside(cidr) } else { Wrong::Family(cidr) };
                claims.wrong.push((Arc::clone(node), wrong));
                continue;
            }
            let wanting = wanting.entry(cidr).or_default();
            // Said twice by one node it is still its own.
            if wanting.last().is_none_or(|last| last.node.uid != node.uid) {
                wanting.push(Claim { node: Arc::clone(node), index });
            }
        }
    }
    for (cidr, mut wanting) in wanting {
        let holder = wanting.iter().position(|claim| routed.contains(&(cidr, claim.node.key.name()))).unwrap_or(0);
        let holder = wanting.swap_remove(holder);
        for other in wanting {
            let wrong = Wrong::Taken { cidr, holder: holder.node.key.name().to_owned() };
            claims.wrong.push((other.node, wrong));
        }
        claims.by_cidr.insert(cidr, holder);
    }
    let is_routed = |cidr: &IpNet, claim: &Claim| routed.contains(&(*cidr, claim.node.key.name()));
    for (cidr, other) in overlapping(&claims.by_cidr, is_routed) {
        let Some(loser) = claims.by_cidr.remove(&cidr) else { continue };
        let holder = claims.by_cidr.get(&other).map(|claim| claim.node.key.name().to_owned()).unwrap_or_default();
        claims.wrong.push((loser.node, Wrong::Overlaps { cidr, other, holder }));
    }
    claims
}

/// Networks that are part of another node's, or contain one: each that loses, and the one that is kept. Who is routed
/// keeps it, then the older node. Networks lie within each other or apart, never half.
fn overlapping(by_cidr: &BTreeMap<IpNet, Claim>, is_routed: impl Fn(&IpNet, &Claim) -> bool) -> BTreeMap<IpNet, IpNet> {
    let mut lost = BTreeMap::new();
    // Those that contain the one that is looked at; a wider one comes before what it contains.
    let mut around: Vec<(&IpNet, &Claim)> = Vec::new();
    for (cidr, claim) in by_cidr {
        while around.last().is_some_and(|(outer, _)| !outer.contains(cidr)) {
            around.pop();
        }
        for (outer, other) in &around {
            if lost.contains_key(*outer) || other.node.uid == claim.node.uid {
                continue;
            }
            let rank = |cidr: &IpNet, claim: &Claim| (!is_routed(cidr, claim), claim.node.created, claim.node.key());
            if rank(outer, other) <= rank(cidr, claim) {
                lost.insert(*cidr, **outer);
                break;
            }
            lost.insert(**outer, *cidr);
        }
        around.push((cidr, claim));
    }
    lost
}

/// Whether all of a network is within one of these.
pub(super) fn is_within(cluster: &[IpNet], cidr: &IpNet) -> bool {
    cluster.iter().any(|own| own.contains(cidr))
}

/// What to do about the routes of one cloud. `is_own` tells its nodes from those of others; `gone`: nodes that are
/// proven to be gone, in a cluster that has none.
pub(super) fn plan(
    nodes: &[Arc<NodeView>],
    is_own: impl Fn(&NodeView) -> bool,
    routes: &[Route],
    claims: &Claims,
    cluster: &[IpNet],
    gone: &BTreeSet<String>,
) -> Plan {
    let mut plan = Plan::default();
    let mut by_destination: BTreeMap<IpNet, Vec<&Route>> = BTreeMap::new();
    for route in routes {
        by_destination.entry(route.destination.trunc()).or_default().push(route);
    }
    for (cidr, claim) in claims.by_cidr.iter().filter(|(_, claim)| is_own(&claim.node)) {
        let present = by_destination.get(cidr).map(Vec::as_slice).unwrap_or_default();
        let ops = settle(cidr, claim, present);
        if !ops.is_empty() {
            plan.changes.insert(*cidr, ops);
        }
    }
    let troubled: HashSet<&str> = claims.wrong.iter().map(|(node, _)| node.key.name()).collect();
    let is_stale = |route: &Route| {
        if nodes.is_empty() {
            // An empty cluster is more likely a mistake than the end.
            return gone.contains(&route.node);
        }
        // What a node's networks are cannot be told while they are wrong: its routes stay.
        route.blackhole || !troubled.contains(&*route.node)
    };
    for (cidr, present) in &by_destination {
        if claims.by_cidr.contains_key(cidr) || !is_within(cluster, cidr) {
            continue;
        }
        let stale = present.iter().filter(|route| is_stale(route));
        let ops: Vec<Op> = stale.map(|route| Op::Delete((*route).clone())).collect();
        if !ops.is_empty() {
            plan.changes.insert(*cidr, ops);
        }
    }
    let mut needed: HashMap<&str, BTreeSet<IpNet>> = HashMap::new();
    for (cidr, claim) in claims.by_cidr.iter().filter(|(cidr, _)| plan.changes.contains_key(cidr)) {
        needed.entry(claim.node.key.name()).or_default().insert(*cidr);
    }
    let routed: HashSet<&str> = routes.iter().map(|route| &*route.node).collect();
    for node in nodes.iter().filter(|node| is_own(node)) {
        let name = node.key.name();
        if !node.pod_cidrs.is_empty() {
            let needed = Some(needed.remove(name).unwrap_or_default()).filter(|_| !troubled.contains(name));
            plan.nodes.push((Arc::clone(node), needed));
        } else if routed.contains(name) {
            plan.nodes.push((Arc::clone(node), None));
        }
    }
    plan
}

/// What to do about the routes to one network, given that a node has it.
fn settle(cidr: &IpNet, claim: &Claim, present: &[&Route]) -> Vec<Op> {
    let wanted = wanted(cidr, claim);
    let (good, bad): (Vec<&Route>, Vec<&Route>) = present.iter().partition(|route| fits(route, &claim.node));
    let mut bad = bad.into_iter();
    let mut ops = Vec::new();
    if good.is_empty() {
        ops.push(match bad.next() {
            Some(old) => Op::Replace { old: old.clone(), new: wanted },
            None => Op::Create(wanted),
        });
    }
    ops.extend(bad.map(|route| Op::Delete(route.clone())));
    ops
}

/// The route to a node's network.
fn wanted(cidr: &IpNet, claim: &Claim) -> Route {
    let node = &claim.node;
    let name = match claim.index {
        0 => node.uid.to_string(),
        index => format!("{}-{index}", node.uid),
    };
    Route {
        name,
        destination: *cidr,
        node: node.key.name().to_owned(),
        provider_id: node.provider_id.as_deref().unwrap_or_default().to_owned(),
        next_hops: addresses(node, &["InternalIP"]),
        blackhole: false,
    }
}

/// A node's IP addresses of these types.
fn addresses(node: &NodeView, kinds: &[&str]) -> Vec<IpAddr> {
    let of_kinds = node.addresses.iter().filter(|address| kinds.contains(&&*address.kind));
    of_kinds.filter_map(|address| address.address.parse().ok()).collect()
}

/// Whether a route leads to this node, as far as the cloud tells.
fn fits(route: &Route, node: &NodeView) -> bool {
    let same_instance = match node.provider_id.as_deref() {
        Some(id) => route.provider_id.is_empty() || route.provider_id == id,
        None => true,
    };
    let own = addresses(node, &["InternalIP", "ExternalIP"]);
    let hops_are_its = own.is_empty() || route.next_hops.iter().all(|hop| own.contains(hop));
    !route.blackhole && route.node == node.key.name() && same_instance && hops_are_its
}
