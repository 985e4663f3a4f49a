//! Pools: backends with their slots, shared by all ports that have the same ones.
//!
//! A pool is a map in the kernel. Ports with the same backends share one, so that a node that fails changes a few
//! elements of one map, whatever the number of load balancers. A pool keeps its name while its backends change, as
//! long as most of its ports stay together, so that their rules stay too.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::Check;

/// Slots a backend, of pools.
const PER_BACKEND: usize = 16;

/// A backend of a pool.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Member {
    /// Its address.
    pub(super) address: IpAddr,
    /// How it is checked.
    pub(super) check: Option<Check>,
}

/// What makes two ports share a pool: the same backends, checked the same way.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Content {
    /// Whether its addresses are of IPv6.
    pub(super) ipv6: bool,
    /// Whether all members get traffic if none is well.
    pub(super) fail_open: bool,
    /// All that could get traffic, in order.
    pub(super) members: Vec<Member>,
}

impl Content {
    /// Number of slots. A function of all members, so that it is the same on every gateway.
    pub(super) fn slots(&self) -> u32 {
        crate::slots::slots_for(self.members.len(), PER_BACKEND)
    }

    /// Addresses that get traffic.
    pub(super) fn serving(&self, health: &BTreeMap<Check, bool>) -> Vec<IpAddr> {
        let well = |member: &&Member| match &member.check {
            Some(check) => health.get(check).copied().unwrap_or(self.fail_open),
            None => true,
        };
        let serving: Vec<IpAddr> = self.members.iter().filter(well).map(|member| member.address).collect();
        if serving.is_empty() && self.fail_open {
            return self.members.iter().map(|member| member.address).collect();
        }
        serving
    }
}

/// Names the pools of these ports, by port. `before` is what the last naming returned.
pub(super) fn name(ports: &BTreeMap<String, Content>, before: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let mut groups: BTreeMap<&Content, Vec<&String>> = BTreeMap::new();
    for (port, content) in ports {
        groups.entry(content).or_default().push(port);
    }
    // Large groups choose first: theirs are the most rules.
    let mut groups: Vec<(&Content, Vec<&String>)> = groups.into_iter().collect();
    groups.sort_by_key(|(_, ports)| std::cmp::Reverse(ports.len()));
    let mut taken: BTreeSet<String> = BTreeSet::new();
    let mut chosen: Vec<Option<String>> = Vec::new();
    for (content, ports) in &groups {
        let mut votes: BTreeMap<&String, usize> = BTreeMap::new();
        let family = prefix(content.ipv6);
        for name in ports.iter().filter_map(|port| before.get(*port)).filter(|name| name.starts_with(family)) {
            *votes.entry(name).or_default() += 1;
        }
        let best = votes.into_iter().filter(|(name, _)| !taken.contains(*name)).max_by_key(|(_, count)| *count);
        let best = best.map(|(name, _)| name.clone());
        taken.extend(best.clone());
        chosen.push(best);
    }
    let mut names = BTreeMap::new();
    let mut next = 1;
    for ((content, ports), chosen) in groups.into_iter().zip(chosen) {
        let name = chosen.unwrap_or_else(|| {
            loop {
                let name = format!("{}{next}", prefix(content.ipv6));
                next += 1;
                // A name in use before may still be pointed to by other rules' chains: it is not given away at once.
                if !taken.contains(&name) && !before.values().any(|other| *other == name) {
                    return name;
                }
            }
        });
        taken.insert(name.clone());
        names.extend(ports.into_iter().map(|port| (port.clone(), name.clone())));
    }
    names
}

fn prefix(ipv6: bool) -> &'static str {
    if ipv6 { "pool6-" } else { "pool4-" }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(addresses: &[&str]) -> Content {
        let members = addresses.iter().map(|address| Member { address: address.parse().unwrap(), check: None });
        Content { ipv6: false, fail_open: true, members: members.collect() }
    }

    fn ports(of: &[(&str, &[&str])]) -> BTreeMap<String, Content> {
        of.iter().map(|(port, addresses)| ((*port).to_owned(), content(addresses))).collect()
    }

    #[test]
    fn a_pool_keeps_its_name_while_its_backends_change() {
        let first = name(&ports(&[("a", &["10.0.0.1"]), ("b", &["10.0.0.1"]), ("c", &["10.0.0.2"])]), &BTreeMap::new());
        assert_eq!(first["a"], first["b"]);
        assert_ne!(first["a"], first["c"]);
        // All change together.
        let second = name(&ports(&[("a", &["10.0.0.3"]), ("b", &["10.0.0.3"]), ("c", &["10.0.0.2"])]), &first);
        assert_eq!(second, first);
        // One leaves: it goes to another pool, the others stay.
        let third = name(
            &ports(&[("a", &["10.0.0.9"]), ("b", &["10.0.0.3"]), ("b2", &["10.0.0.3"]), ("c", &["10.0.0.2"])]),
            &first,
        );
        assert_eq!((&third["b"], &third["b2"], &third["c"]), (&first["b"], &first["b"], &first["c"]));
        assert!(!first.values().any(|name| *name == third["a"]));
    }
}
