//! Session affinity: a set of clients a backend, filled by the packets themselves.

use std::net::IpAddr;

use super::balancers::{Way, address_type, protocol, word};
use crate::host::Host;
use crate::nft::Ruleset;
use crate::slots::{hash, table};

/// Clients that are remembered for one backend of one port.
const CLIENTS: u32 = 65_536;
/// As that of pools.
const SEED: u32 = 0x5eed;

/// Leads clients to the backend that they were led to before, others to one by a hash of their address.
pub(super) fn program(
    rules: &mut Ruleset,
    chain: &str,
    way: &Way,
    seconds: u32,
    mut serving: Vec<IpAddr>,
    host: &Host,
) {
    let ipv6 = way.content.ipv6;
    let (ip, word, slots) = (protocol(ipv6), word(way.protocol), way.content.slots());
    // A host's own node has no way of its own to stick to: it serves only if there is no other.
    if serving.iter().any(|address| !host.is_own(*address)) {
        serving.retain(|address| !host.is_own(*address));
    }
    let stick = format!("stick-{chain}");
    rules.declare(&stick, true, "typeof numgen inc mod 2 : verdict;");
    for address in serving.iter().filter(|address| !host.is_own(**address)) {
        let id = format!("{:012x}", hash(address.to_string().as_bytes()) & 0xffff_ffff_ffff);
        let (clients, to) = (format!("clients-{chain}-{id}"), format!("to-{chain}-{id}"));
        let kind = address_type(ipv6);
        let declaration = format!("type {kind}; flags dynamic, timeout; timeout {seconds}s; size {CLIENTS};");
        rules.declare(&clients, false, &declaration).dynamic = true;
        rules.rule(&to, format!("update @{clients} {{ {ip} saddr }}"));
        let target = if ipv6 { format!("[{address}]") } else { address.to_string() };
        rules.rule(&to, format!("meta l4proto {word} dnat {ip} to {target}:{}", way.node_port));
        rules.rule(chain, format!("{ip} saddr @{clients} goto {to}"));
    }
    // By service too, so that not all of a client's services are at one node.
    let seed = SEED ^ (hash(way.balancer.as_bytes()) as u32);
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
