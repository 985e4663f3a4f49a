//! Load balancers on a gateway: addresses to announce, and the way from each port to its backends.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use quarterdeck_api::cloud::metal::{
    ExternalTraffic, LoadBalancerPort, LoadBalancerReport, LoadBalancerSpec, Protocol,
};

use super::pools::{self, Content, Member};
use super::{Check, ClusterCheck, Memory, Plan, PlannedAddress, Settings, affinity};
use crate::desired::{Desired, ObjectId};
use crate::host::Host;
use crate::nft::Ruleset;
use crate::slots::table;

/// Before kube-proxy's, which stands at -100 and would take addresses of Services for its own.
const PREROUTING: &str = "type nat hook prerouting priority -110; policy accept;";
/// What nobody takes in at our addresses.
const INPUT: &str = "type filter hook input priority -10; policy accept;";
/// Path at which a node tells whether it has endpoints.
const HEALTH_PATH: &str = "/healthz";
/// So that slots are not those of somebody else's hash of the same packet. The same on all gateways.
const SEED: u32 = 0x5eed;

/// One port of one load balancer in one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Way {
    /// Name of its load balancer.
    pub balancer: String,
    /// Protocol.
    pub protocol: Protocol,
    /// Port on every node.
    pub node_port: u16,
    /// What it is found by: address, protocol and port.
    pub keys: Vec<String>,
    /// Which form its rules have.
    pub form: Form,
    /// Who could get its traffic.
    pub content: Content,
}

/// How packets of a way reach its backends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Straight to its pool.
    Plain,
    /// By a chain of its own that keeps some clients out, then to its pool.
    Ranged,
    /// By a chain of its own that keeps everybody out.
    Closed,
    /// By chains and sets of its own that remember clients.
    Sticky,
}

pub(super) fn plan(
    plan: &mut Plan,
    desired: &Desired,
    health: &BTreeMap<Check, bool>,
    host: &Host,
    settings: &Settings,
    memory: &mut Memory,
) {
    // Of two that claim the same, the later decision counts; and one that is there, before one that is held.
    let mut newest_first: Vec<_> = desired.balancers.iter().collect();
    newest_first.sort_by_key(|(name, balancer)| {
        let held = !desired.held.is_empty() && desired.held.contains(&ObjectId::balancer(name));
        (held, std::cmp::Reverse(balancer.spec.epoch), *name)
    });
    let mut claimed: BTreeMap<(IpAddr, Protocol, u16), &str> = BTreeMap::new();
    let mut announcers: BTreeMap<IpAddr, &str> = BTreeMap::new();
    for (name, balancer) in newest_first {
        let spec = &balancer.spec;
        let announces = |address: &quarterdeck_api::cloud::metal::AnnouncedAddress| {
            address.gateway.as_deref() == Some(settings.name.as_str())
        };
        if !spec.gateways.iter().any(|gateway| gateway.name == settings.name) && !spec.addresses.iter().any(announces) {
            continue;
        }
        plan.gateway = true;
        let mut errors = Vec::new();
        for address in &spec.addresses {
            let gateway = address.gateway.as_deref().unwrap_or_default();
            let announcer = *announcers.entry(address.address).or_insert(gateway);
            plan.contested |= announcer != gateway;
            if announcer == settings.name && announces(address) {
                announce(plan, name, address.address, host, settings, &mut errors);
            }
            let set = set_name("addresses", address.address.is_ipv6());
            let declaration = format!("type {};", address_type(address.address.is_ipv6()));
            let set = plan.ruleset.declare(set, false, &declaration);
            set.elements.insert(address.address.to_string(), String::new());
        }
        for port in &spec.ports {
            if port.node_port == 0 {
                errors.push(format!("port {}/{} has no node port", port.port, word(port.protocol)));
                continue;
            }
            for ipv6 in [false, true] {
                let addresses: Vec<IpAddr> =
                    spec.addresses.iter().map(|one| one.address).filter(|one| one.is_ipv6() == ipv6).collect();
                let mut free = Vec::new();
                for address in addresses {
                    match claimed.get(&(address, port.protocol, port.port)) {
                        Some(other) => errors.push(format!(
                            "{address}, port {}/{}, belongs to {other} already",
                            port.port,
                            word(port.protocol)
                        )),
                        None => {
                            claimed.insert((address, port.protocol, port.port), name);
                            free.push(address);
                        }
                    }
                    plan.contested |= claimed[&(address, port.protocol, port.port)] != name;
                }
                if !free.is_empty() {
                    let way = way(name, spec, port, &free, ipv6, settings);
                    plan.ways.insert(way_name(name, port, ipv6), way);
                }
            }
        }
        plan.balancers.push(LoadBalancerReport {
            name: name.clone(),
            generation: balancer.generation,
            epoch: spec.epoch,
            healthy: 0,
            backends: u32::try_from(spec.backends.len()).unwrap_or(u32::MAX),
            error: errors.join("; "),
        });
    }
    plan.balancers.sort_by(|a, b| a.name.cmp(&b.name));

    let to_pools = plan.ways.iter().filter(|(_, way)| matches!(way.form, Form::Plain | Form::Ranged));
    let contents = to_pools.map(|(name, way)| (name.clone(), way.content.clone())).collect();
    plan.pools = pools::name(&contents, memory);
    let names: Vec<String> = plan.pools.keys().chain(&memory.spares).cloned().collect();
    for name in names {
        let serving = plan.pools.get(&name).map(|pool| pool.content.serving(health)).unwrap_or_default();
        declare_pool(plan, &name, &serving, host);
    }
    for name in plan.ways.keys().cloned().collect::<Vec<_>>() {
        program(plan, &name, desired, memory, health, host);
    }
    if plan.gateway {
        entrance(plan);
    }
    refresh(plan, desired, health, None);
}

/// Name of a way, and of its chain if it has one.
fn way_name(balancer: &str, port: &LoadBalancerPort, ipv6: bool) -> String {
    format!("lb-{balancer}-{}-{}-{}", word(port.protocol), port.port, if ipv6 { 6 } else { 4 })
}

fn way(
    name: &str,
    spec: &LoadBalancerSpec,
    port: &LoadBalancerPort,
    addresses: &[IpAddr],
    ipv6: bool,
    settings: &Settings,
) -> Way {
    let form = match ranges(&spec.source_ranges, ipv6) {
        Ranges::Nobody => Form::Closed,
        _ if spec.affinity_seconds.is_some_and(|seconds| seconds > 0) => Form::Sticky,
        Ranges::These(_) => Form::Ranged,
        Ranges::Everybody => Form::Plain,
    };
    let key = |address: &IpAddr| format!("{address} . {} . {}", word(port.protocol), port.port);
    Way {
        balancer: name.to_owned(),
        protocol: port.protocol,
        node_port: port.node_port,
        keys: addresses.iter().map(key).collect(),
        form,
        content: content(spec, ipv6, settings),
    }
}

/// Brings up to date what follows from ways and checks, and no packet depends on: reports, checks to make, and who gets
/// datagrams. `of`: reports of these alone.
pub(super) fn refresh(
    plan: &mut Plan,
    desired: &Desired,
    health: &BTreeMap<Check, bool>,
    of: Option<&BTreeSet<String>>,
) {
    let mut checks = BTreeMap::new();
    let sticky =
        plan.ways.values().filter(|way| matches!(way.form, Form::Sticky | Form::Closed)).map(|way| &way.content);
    for content in plan.pools.values().map(|pool| &pool.content).chain(sticky) {
        for member in &content.members {
            checks.extend(member.check.clone().map(|check| (check, content.fail_open)));
        }
    }
    plan.checks = checks;
    let mut datagrams = BTreeSet::new();
    for way in plan.ways.values().filter(|way| way.protocol == Protocol::Udp) {
        datagrams
            .extend(way.content.serving(health).into_iter().map(|address| SocketAddr::new(address, way.node_port)));
    }
    plan.datagrams = datagrams;
    for report in &mut plan.balancers {
        if of.is_some_and(|of| !of.contains(&report.name)) {
            continue;
        }
        let Some(balancer) = desired.balancers.get(&report.name) else { continue };
        let prefix = format!("lb-{}-", report.name);
        let ways = plan.ways.range(prefix.clone()..).take_while(|(name, _)| name.starts_with(&prefix));
        let mut serving: BTreeSet<IpAddr> = BTreeSet::new();
        for (_, way) in ways.filter(|(_, way)| way.balancer == report.name) {
            serving.extend(way.content.serving(health));
        }
        let backends = &balancer.spec.backends;
        let well: BTreeSet<&str> = backends
            .iter()
            .filter(|backend| backend.addresses.iter().any(|address| serving.contains(address)))
            .map(|backend| backend.name.as_str())
            .collect();
        report.healthy = u32::try_from(well.len()).unwrap_or(u32::MAX);
        report.backends = u32::try_from(backends.len()).unwrap_or(u32::MAX);
        report.generation = balancer.generation;
        report.epoch = balancer.spec.epoch;
    }
}

/// What every packet of ours passes first.
fn entrance(plan: &mut Plan) {
    let rules = &mut plan.ruleset;
    rules.chains.entry("prerouting".to_owned()).or_default().hook = Some(PREROUTING);
    rules.chains.entry("input".to_owned()).or_default().hook = Some(INPUT);
    for ipv6 in [false, true] {
        let (ip, kind) = (protocol(ipv6), address_type(ipv6));
        let (services, addresses) = (set_name("services", ipv6), set_name("addresses", ipv6));
        declare_services(rules, ipv6);
        if !rules.sets.contains_key(addresses) {
            rules.declare(addresses, false, &format!("type {kind};"));
        }
        rules.rule("prerouting", format!("{ip} daddr . meta l4proto . th dport vmap @{services}"));
        let echo = if ipv6 {
            "icmpv6 type { echo-request, nd-neighbor-solicit, nd-neighbor-advert }"
        } else {
            "icmp type echo-request"
        };
        rules.rule("input", format!("{ip} daddr @{addresses} {echo} accept"));
        // A gateway that comes back with an old memory of a connection, which went on elsewhere: a reset would end it.
        rules.rule("input", format!("{ip} daddr @{addresses} ct state invalid drop"));
        // The host's own services do not answer at these addresses.
        rules.rule("input", format!("{ip} daddr @{addresses} ct state new meta l4proto tcp reject with tcp reset"));
        rules.rule(
            "input",
            format!("{ip} daddr @{addresses} ct state new meta l4proto != tcp reject with icmpx port-unreachable"),
        );
    }
}

/// The map from address, protocol and port to a chain, and the one to the node port.
fn declare_services(rules: &mut Ruleset, ipv6: bool) {
    let kind = address_type(ipv6);
    let (services, ports) = (set_name("services", ipv6), set_name("ports", ipv6));
    rules.declare(services, true, &format!("type {kind} . inet_proto . inet_service : verdict;"));
    rules.declare(ports, true, &format!("type {kind} . inet_proto . inet_service : inet_service;"));
}

fn announce(plan: &mut Plan, name: &str, address: IpAddr, host: &Host, settings: &Settings, errors: &mut Vec<String>) {
    let link = if settings.bgp { host.loopback() } else { host.link_for(address, &settings.links) };
    match link.and_then(|index| host.links.get(&index)) {
        _ if host.is_own(address) => {
            errors.push(format!("{address} is an address of this host itself"));
            return;
        }
        None => errors.push(format!("{address} cannot be announced: no interface leads to its network")),
        Some(link) if !link.up && !link.loopback => {
            errors.push(format!("{address} is announced nowhere: interface {} is down", link.name));
            plan.problems.push(format!("interface {} is down", link.name));
        }
        Some(_) => {}
    }
    let planned = PlannedAddress { balancer: name.to_owned(), link };
    let there = plan.addresses.entry(address).or_insert_with(|| planned.clone());
    // Of several that share it, the first by name is told of.
    if planned.balancer < there.balancer {
        *there = planned;
    }
}

/// Who could get the traffic of a load balancer's ports.
pub(super) fn content(spec: &LoadBalancerSpec, ipv6: bool, settings: &Settings) -> Content {
    let local = spec.external_traffic == ExternalTraffic::Local;
    let check = |address: IpAddr| {
        let check = |port, path: Option<&str>| {
            Some(Check { address: SocketAddr::new(address, port), path: path.map(str::to_owned) })
        };
        if local {
            // Without such a port nobody knows who has endpoints.
            return spec
                .health_check_node_port
                .filter(|port| *port != 0)
                .and_then(|port| check(port, Some(HEALTH_PATH)));
        }
        match &settings.cluster_check {
            ClusterCheck::None => None,
            ClusterCheck::Tcp(port) => check(*port, None),
            ClusterCheck::Http(port, path) => check(*port, Some(path)),
            ClusterCheck::NodePort => {
                let tcp = spec.ports.iter().find(|port| port.protocol == Protocol::Tcp && port.node_port != 0);
                tcp.and_then(|port| check(port.node_port, None))
            }
        }
    };
    let addresses: BTreeSet<IpAddr> = spec
        .backends
        .iter()
        .filter_map(|backend| backend.addresses.iter().find(|address| address.is_ipv6() == ipv6).copied())
        .collect();
    let members = addresses.into_iter().map(|address| Member { address, check: check(address) }).collect();
    Content { ipv6, fail_open: !local, members }
}

/// What leads packets of one way to its backends.
fn program(
    plan: &mut Plan,
    name: &str,
    desired: &Desired,
    memory: &Memory,
    health: &BTreeMap<Check, bool>,
    host: &Host,
) {
    let way = &plan.ways[name];
    let serving = way.content.serving(health);
    if serving.is_empty() {
        return;
    }
    let ipv6 = way.content.ipv6;
    let (ip, rules) = (protocol(ipv6), &mut plan.ruleset);
    declare_services_once(rules, ipv6);
    let target = target(name, way.form, memory.pools.get(name).map_or("", String::as_str));
    let services = rules.sets.get_mut(set_name("services", ipv6)).expect("it was declared above");
    services.elements.extend(way.keys.iter().map(|key| (key.clone(), target.clone())));
    let ports = rules.sets.get_mut(set_name("ports", ipv6)).expect("it was declared above");
    ports.elements.extend(way.keys.iter().map(|key| (key.clone(), way.node_port.to_string())));
    if way.form == Form::Plain {
        return;
    }
    rules.chains.entry(name.to_owned()).or_default();
    let Some(balancer) = desired.balancers.get(&way.balancer) else { return };
    match ranges(&balancer.spec.source_ranges, ipv6) {
        Ranges::Everybody => {}
        Ranges::Nobody => return rules.rule(name, "drop"),
        Ranges::These(ranges) => {
            let set = format!("sources{}-{}", if ipv6 { 6 } else { 4 }, way.balancer);
            let declaration = format!("type {}; flags interval;", address_type(ipv6));
            rules.declare(&set, false, &declaration).elements = ranges;
            rules.rule(name, format!("{ip} saddr != @{set} drop"));
        }
    }
    if way.form == Form::Sticky {
        let seconds = balancer.spec.affinity_seconds.unwrap_or_default();
        return affinity::program(rules, name, way, seconds, serving, host);
    }
    rules.rule(name, format!("goto to-{}", memory.pools[name]));
}

/// Where a way's element of the map of services leads.
pub(super) fn target(name: &str, form: Form, pool: &str) -> String {
    if form == Form::Plain { format!("goto to-{pool}") } else { format!("goto {name}") }
}

fn declare_services_once(rules: &mut Ruleset, ipv6: bool) {
    if !rules.sets.contains_key(set_name("services", ipv6)) {
        declare_services(rules, ipv6);
    }
}

fn declare_pool(plan: &mut Plan, name: &str, serving: &[IpAddr], host: &Host) {
    let Some((ipv6, slots)) = pools::fixed(name) else { return };
    let (ip, rules) = (protocol(ipv6), &mut plan.ruleset);
    declare_services_once(rules, ipv6);
    let declaration = format!("typeof numgen inc mod 2 : {ip} daddr;");
    rules.declare(name, true, &declaration).elements = elements(slots, serving, host);
    let chain = format!("to-{name}");
    for word in ["tcp", "udp", "sctp"] {
        // The service's address and port are hashed too: one client's calls to several services do not all meet.
        let slot = format!(
            "jhash {ip} saddr . {ip} daddr . {word} sport . {word} dport mod {slots} seed {SEED:#x} map @{name}"
        );
        let port = format!("{ip} daddr . meta l4proto . th dport map @{}", set_name("ports", ipv6));
        rules.rule(&chain, format!("meta l4proto {word} dnat {ip} to {slot} : {port}"));
    }
}

/// The backend of each slot.
pub(super) fn elements(slots: u32, serving: &[IpAddr], host: &Host) -> BTreeMap<String, String> {
    let names: Vec<String> = serving.iter().map(ToString::to_string).collect();
    let texts: Vec<&str> = names.iter().map(String::as_str).collect();
    let slots = table(&texts, slots).into_iter().enumerate();
    // A slot of the host itself stays empty: such connections go on to kube-proxy, which knows the address.
    let others = slots.filter(|(_, index)| !host.is_own(serving[*index]));
    others.map(|(slot, index)| (slot.to_string(), names[index].clone())).collect()
}

enum Ranges {
    Everybody,
    Nobody,
    These(BTreeMap<String, String>),
}

/// Who may connect, in one family.
fn ranges(ranges: &[IpNet], ipv6: bool) -> Ranges {
    if ranges.is_empty() {
        return Ranges::Everybody;
    }
    let of_family: Vec<IpNet> = ranges.iter().map(IpNet::trunc).filter(|net| net.addr().is_ipv6() == ipv6).collect();
    let these = IpNet::aggregate(&of_family);
    if these.iter().any(|net| net.prefix_len() == 0) {
        return Ranges::Everybody;
    }
    if these.is_empty() {
        return Ranges::Nobody;
    }
    let text =
        |net: &IpNet| if net.prefix_len() == net.max_prefix_len() { net.addr().to_string() } else { net.to_string() };
    Ranges::These(these.iter().map(|net| (text(net), String::new())).collect())
}

/// nft's word for a transport protocol.
pub(super) fn word(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::Sctp => "sctp",
    }
}

pub(super) fn protocol(ipv6: bool) -> &'static str {
    if ipv6 { "ip6" } else { "ip" }
}

pub(super) fn address_type(ipv6: bool) -> &'static str {
    if ipv6 { "ipv6_addr" } else { "ipv4_addr" }
}

pub(super) fn set_name(base: &str, ipv6: bool) -> &'static str {
    match (base, ipv6) {
        ("services", false) => "services4",
        ("services", true) => "services6",
        ("ports", false) => "ports4",
        ("ports", true) => "ports6",
        (_, false) => "addresses4",
        (_, true) => "addresses6",
    }
}
