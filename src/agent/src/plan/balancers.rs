//! Load balancers on a gateway: addresses to announce, and the way from each port to its backends.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use quarterdeck_api::cloud::metal::{
    ExternalTraffic, LoadBalancerPort, LoadBalancerReport, LoadBalancerSpec, Protocol,
};

use super::pools::{self, Content, Member};
use super::{Check, ClusterCheck, Memory, Plan, PlannedAddress, Settings};
use crate::desired::Desired;
use crate::host::Host;
use crate::slots::{hash, table};

/// Before kube-proxy's, which stands at -100 and would take addresses of Services for its own.
const PREROUTING: &str = "type nat hook prerouting priority -110; policy accept;";
/// What nobody takes in at our addresses.
const INPUT: &str = "type filter hook input priority -10; policy accept;";
/// Path at which a node tells whether it has endpoints.
const HEALTH_PATH: &str = "/healthz";
/// Clients that are remembered for one backend of one port.
const CLIENTS: u32 = 65_536;

/// One port of one load balancer in one family.
struct Way<'a> {
    balancer: &'a str,
    spec: &'a LoadBalancerSpec,
    port: &'a LoadBalancerPort,
    ipv6: bool,
    content: Content,
}

pub(super) fn plan(
    plan: &mut Plan,
    desired: &Desired,
    health: &BTreeMap<Check, bool>,
    host: &Host,
    settings: &Settings,
    memory: &mut Memory,
) {
    // Of two that claim the same, the later decision counts.
    let mut newest_first: Vec<_> = desired.balancers.iter().collect();
    newest_first.sort_by_key(|(name, balancer)| (std::cmp::Reverse(balancer.spec.epoch), *name));
    let mut claimed: BTreeMap<(IpAddr, Protocol, u16), &str> = BTreeMap::new();
    let mut announcers: BTreeMap<IpAddr, &str> = BTreeMap::new();
    let mut ways: BTreeMap<String, Way<'_>> = BTreeMap::new();
    let mut elements: [BTreeMap<String, String>; 2] = Default::default();
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
            if *announcers.entry(address.address).or_insert(gateway) == settings.name && announces(address) {
                announce(plan, name, address.address, host, settings, &mut errors);
            }
            let set = set_name("addresses", address.address.is_ipv6());
            let declaration = format!("type {};", address_type(address.address.is_ipv6()));
            let set = plan.ruleset.declare(set, false, &declaration);
            set.elements.insert(address.address.to_string(), String::new());
        }
        let (mut well, mut ids) = (BTreeSet::new(), Vec::new());
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
                }
                if free.is_empty() {
                    continue;
                }
                let content = content(spec, ipv6, settings);
                for member in &content.members {
                    plan.checks.extend(member.check.clone().map(|check| (check, content.fail_open)));
                }
                let serving = content.serving(health);
                well.extend(
                    spec.backends
                        .iter()
                        .filter(|backend| backend.addresses.iter().any(|address| serving.contains(address)))
                        .map(|backend| backend.name.as_str()),
                );
                if port.protocol == Protocol::Udp {
                    plan.datagrams.extend(serving.iter().map(|address| SocketAddr::new(*address, port.node_port)));
                }
                if serving.is_empty() {
                    continue;
                }
                let chain = format!("lb-{name}-{}-{}-{}", word(port.protocol), port.port, if ipv6 { 6 } else { 4 });
                for address in free {
                    let key = format!("{address} . {} . {}", word(port.protocol), port.port);
                    elements[usize::from(ipv6)].insert(key, format!("goto {chain}"));
                }
                ids.push(chain.clone());
                ways.insert(chain, Way { balancer: name, spec, port, ipv6, content });
            }
        }
        plan.balancers.push(LoadBalancerReport {
            name: name.clone(),
            generation: balancer.generation,
            epoch: spec.epoch,
            healthy: u32::try_from(well.len()).unwrap_or(u32::MAX),
            backends: u32::try_from(spec.backends.len()).unwrap_or(u32::MAX),
            error: errors.join("; "),
        });
    }
    plan.balancers.sort_by(|a, b| a.name.cmp(&b.name));

    let contents = ways.iter().map(|(chain, way)| (chain.clone(), way.content.clone())).collect();
    memory.pools = pools::name(&contents, &memory.pools);
    for (chain, way) in &ways {
        program(plan, chain, way, &memory.pools[chain], health, host);
    }
    if plan.gateway {
        entrance(plan, elements);
    }
}

/// What every packet of ours passes first.
fn entrance(plan: &mut Plan, elements: [BTreeMap<String, String>; 2]) {
    let rules = &mut plan.ruleset;
    rules.chains.entry("prerouting".to_owned()).or_default().hook = Some(PREROUTING);
    rules.chains.entry("input".to_owned()).or_default().hook = Some(INPUT);
    for (ipv6, elements) in [false, true].into_iter().zip(elements) {
        let (ip, kind) = (protocol(ipv6), address_type(ipv6));
        let (services, addresses) = (set_name("services", ipv6), set_name("addresses", ipv6));
        let declaration = format!("type {kind} . inet_proto . inet_service : verdict;");
        rules.declare(services, true, &declaration).elements = elements;
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
        // The host's own services do not answer at these addresses.
        rules.rule("input", format!("{ip} daddr @{addresses} ct state new meta l4proto tcp reject with tcp reset"));
        rules.rule(
            "input",
            format!("{ip} daddr @{addresses} ct state new meta l4proto != tcp reject with icmpx port-unreachable"),
        );
    }
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
    plan.addresses.entry(address).or_insert(planned);
}

/// Who could get the traffic of a load balancer's ports.
fn content(spec: &LoadBalancerSpec, ipv6: bool, settings: &Settings) -> Content {
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

/// The chain of one port.
fn program(plan: &mut Plan, chain: &str, way: &Way<'_>, pool: &str, health: &BTreeMap<Check, bool>, host: &Host) {
    let Way { balancer, spec, port, ipv6, content } = way;
    let (ip, word) = (protocol(*ipv6), word(port.protocol));
    let rules = &mut plan.ruleset;
    rules.chains.entry(chain.to_owned()).or_default();
    let ranges = ranges(&spec.source_ranges, *ipv6);
    match ranges {
        Ranges::Everybody => {}
        Ranges::Nobody => return rules.rule(chain, "drop"),
        Ranges::These(ranges) => {
            let set = format!("sources{}-{balancer}", if *ipv6 { 6 } else { 4 });
            let declaration = format!("type {}; flags interval;", address_type(*ipv6));
            rules.declare(&set, false, &declaration).elements = ranges;
            rules.rule(chain, format!("{ip} saddr != @{set} drop"));
        }
    }
    let mut serving = content.serving(health);
    let slots = content.slots();
    let seed = hash(balancer.as_bytes()) as u32 | 1;
    let Some(seconds) = spec.affinity_seconds.filter(|seconds| *seconds > 0) else {
        declare_pool(plan, pool, *ipv6, slots, &serving, host);
        let to = format!("jhash {ip} saddr . {word} sport mod {slots} seed {seed:#x} map @{pool} : {}", port.node_port);
        return plan.ruleset.rule(chain, format!("meta l4proto {word} dnat {ip} to {to}"));
    };

    // A host's own node has no way of its own to stick to: it serves only if there is no other.
    if serving.iter().any(|address| !host.is_own(*address)) {
        serving.retain(|address| !host.is_own(*address));
    }
    let stick = format!("stick-{chain}");
    rules.declare(&stick, true, "typeof numgen inc mod 2 : verdict;");
    for address in serving.iter().filter(|address| !host.is_own(**address)) {
        let id = format!("{:012x}", hash(address.to_string().as_bytes()) & 0xffff_ffff_ffff);
        let (clients, to) = (format!("clients-{chain}-{id}"), format!("to-{chain}-{id}"));
        let kind = address_type(*ipv6);
        let declaration = format!("type {kind}; flags dynamic, timeout; timeout {seconds}s; size {CLIENTS};");
        rules.declare(&clients, false, &declaration).dynamic = true;
        rules.rule(&to, format!("update @{clients} {{ {ip} saddr }}"));
        let target = if *ipv6 { format!("[{address}]") } else { address.to_string() };
        rules.rule(&to, format!("meta l4proto {word} dnat {ip} to {target}:{}", port.node_port));
        rules.rule(chain, format!("{ip} saddr @{clients} goto {to}"));
    }
    rules.rule(chain, format!("jhash {ip} saddr mod {slots} seed {seed:#x} vmap @{stick}"));
    let names: Vec<String> = serving.iter().map(ToString::to_string).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let map = rules.sets.get_mut(&stick).expect("it was declared above");
    for (slot, index) in table(&names, slots).into_iter().enumerate() {
        if !host.is_own(serving[index]) {
            let id = format!("{:012x}", hash(names[index].as_bytes()) & 0xffff_ffff_ffff);
            map.elements.insert(slot.to_string(), format!("goto to-{chain}-{id}"));
        }
    }
}

fn declare_pool(plan: &mut Plan, pool: &str, ipv6: bool, slots: u32, serving: &[IpAddr], host: &Host) {
    if plan.ruleset.sets.contains_key(pool) {
        return;
    }
    let declaration = format!("typeof numgen inc mod 2 : {} daddr;", protocol(ipv6));
    let map = plan.ruleset.declare(pool, true, &declaration);
    let names: Vec<String> = serving.iter().map(ToString::to_string).collect();
    let texts: Vec<&str> = names.iter().map(String::as_str).collect();
    for (slot, index) in table(&texts, slots).into_iter().enumerate() {
        // A slot of the host itself stays empty: such connections go on to kube-proxy, which knows the address.
        if !host.is_own(serving[index]) {
            map.elements.insert(slot.to_string(), names[index].clone());
        }
    }
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

fn protocol(ipv6: bool) -> &'static str {
    if ipv6 { "ip6" } else { "ip" }
}

fn address_type(ipv6: bool) -> &'static str {
    if ipv6 { "ipv6_addr" } else { "ipv4_addr" }
}

fn set_name(base: &str, ipv6: bool) -> &'static str {
    match (base, ipv6) {
        ("services", false) => "services4",
        ("services", true) => "services6",
        (_, false) => "addresses4",
        (_, true) => "addresses6",
    }
}
