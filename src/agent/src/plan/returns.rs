//! Replies leave through the gateway that a packet came from.
//!
//! Gateways keep the client's address, so a node cannot tell by addresses which of them to reply through. It tells by
//! the link-layer address from which a connection's packets come, keeps that in the connection's mark, and routes
//! replies by the mark. Looked at in every packet, not the first alone: a connection lives on when its address moves
//! to another gateway.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use quarterdeck_api::cloud::metal::{LoadBalancerSpec, Protocol};

use super::{KernelRoute, KernelRule, Memory, Plan, Settings, marks};
use crate::desired::Desired;
use crate::host::{Host, Mac};

/// Before NAT, so that ports are still those on the node.
const MARK_IN: &str = "type filter hook prerouting priority -150; policy accept;";
/// Routes anew what changes its mark.
const MARK_OUT: &str = "type route hook output priority -150; policy accept;";

/// Whether this host is a backend.
pub(super) fn serves(spec: &LoadBalancerSpec, host: &Host, settings: &Settings) -> bool {
    let mut backends = spec.backends.iter();
    backends.any(|backend| backend.name == settings.name || backend.addresses.iter().any(|own| host.is_own(*own)))
}

pub(super) fn plan(plan: &mut Plan, desired: &Desired, host: &Host, settings: &Settings, memory: &mut Memory) {
    let mut ports: BTreeSet<(Protocol, u16)> = BTreeSet::new();
    let mut gateways: BTreeMap<String, BTreeSet<IpAddr>> = BTreeMap::new();
    memory.served |= desired.balancers.values().any(|balancer| serves(&balancer.spec, host, settings));
    for balancer in desired.balancers.values() {
        let spec = &balancer.spec;
        // Also where this host is no backend any more: connections that it has go on. Only a host that never was one,
        // and takes in traffic itself, needs none of it.
        if !memory.served && spec.gateways.iter().any(|gateway| gateway.name == settings.name) {
            continue;
        }
        ports.extend(spec.ports.iter().map(|port| (port.protocol, port.node_port)));
        for gateway in &spec.gateways {
            if gateway.name == settings.name || gateway.addresses.iter().any(|address| host.is_own(*address)) {
                continue;
            }
            let mut addresses: Vec<IpAddr> = Vec::new();
            for ipv6 in [false, true] {
                addresses.extend(gateway.addresses.iter().find(|address| address.is_ipv6() == ipv6));
            }
            gateways.entry(gateway.name.clone()).or_default().extend(addresses);
        }
    }
    let wanted: BTreeSet<IpAddr> = gateways.values().flatten().copied().collect();
    memory.macs.retain(|address, _| wanted.contains(address));
    for address in wanted {
        match host.neighbours.get(&address) {
            Some(mac) => drop(memory.macs.insert(address, *mac)),
            None => drop(plan.unresolved.insert(address)),
        }
    }
    let names: BTreeSet<String> = gateways.keys().cloned().collect();
    let left_out = marks::number(&mut memory.marks, &names, settings.mask);
    if !left_out.is_empty() {
        let (count, mask) = (left_out.len(), settings.mask);
        plan.problems.push(format!(
            "{count} gateways have no mark, the mask {mask} has too few bits: replies to {} may go astray",
            left_out.join(", ")
        ));
    }
    if ports.is_empty() || memory.marks.is_empty() {
        return;
    }

    let mask = settings.mask.bits();
    let rules = &mut plan.ruleset;
    let set = rules.declare("nodeports", false, "type inet_proto . inet_service;");
    set.elements = ports
        .iter()
        .map(|(protocol, port)| (format!("{} . {port}", super::balancers::word(*protocol)), String::new()))
        .collect();
    rules.chains.entry("mark-in".to_owned()).or_default().hook = Some(MARK_IN);
    rules.chains.entry("mark-out".to_owned()).or_default().hook = Some(MARK_OUT);
    rules.chains.entry("from-gateway".to_owned()).or_default();
    rules.chains.entry("to-gateway".to_owned()).or_default();
    let reply = format!("ct direction reply ct mark and {mask:#010x} != 0 goto to-gateway");
    rules.rule("mark-in", "ct direction original meta l4proto . th dport @nodeports goto from-gateway");
    rules.rule("mark-in", reply.clone());
    rules.rule("mark-out", reply);
    for (name, addresses) in &gateways {
        let Some(number) = memory.marks.get(name).copied() else { continue };
        let mark = settings.mask.mark(number).expect("numbers are given within the mask");
        let keep = !mask;
        let macs: BTreeSet<Mac> = addresses.iter().filter_map(|address| memory.macs.get(address).copied()).collect();
        for mac in macs {
            rules.rule(
                "from-gateway",
                format!("ether saddr {mac} ct mark set ct mark and {keep:#010x} or {mark:#010x}"),
            );
        }
        rules.rule(
            "to-gateway",
            format!(
                "ct mark and {mask:#010x} == {mark:#010x} meta mark set meta mark and {keep:#010x} or {mark:#010x}"
            ),
        );
        let table = settings.tables + number;
        for ipv6 in [false, true] {
            let Some(via) = addresses.iter().find(|address| address.is_ipv6() == ipv6).copied() else { continue };
            let any: IpAddr = if ipv6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
            plan.routes.insert(KernelRoute { destination: IpNet::new(any, 0).expect("0 is a length"), via, table });
            plan.rules.insert(KernelRule { ipv6, mark, mask, table, priority: settings.tables });
        }
    }
}
