//! Pools: backends with their slots, shared by all ports that have the same ones.
//!
//! A pool is a map in the kernel, from slot to backend, and a chain that leads there. Ports with the same backends share
//! one, so that a node that fails changes a few elements of one map, whatever the number of load balancers. A pool keeps
//! its name while its backends change, as long as most of its ports stay together.
//!
//! A name says all that is fixed: family and number of slots. So a port that gets other backends changes elements alone,
//! if there is an unused pool to be filled. A few of each form are kept for that: *spares*.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::{Check, Memory};

/// Slots a backend, of pools.
const PER_BACKEND: usize = 16;
/// Spares of each form that is in use.
const SPARES: usize = 4;

/// A backend of a pool.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Member {
    /// Its address.
    pub address: IpAddr,
    /// How it is checked.
    pub check: Option<Check>,
}

/// What makes two ports share a pool: the same backends, checked the same way.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Content {
    /// Whether its addresses are of IPv6.
    pub ipv6: bool,
    /// Whether all members get traffic if none is well.
    pub fail_open: bool,
    /// All that could get traffic, in order.
    pub members: Vec<Member>,
}

/// A pool in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// Its backends.
    pub content: Content,
    /// The ports that use it.
    pub ports: BTreeSet<String>,
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
        let healthy: Vec<IpAddr> = self.members.iter().filter(well).map(|member| member.address).collect();
        if healthy.is_empty() && self.fail_open {
            // Likelier than all nodes being down: the checks are wrong.
            return self.members.iter().map(|member| member.address).collect();
        }
        healthy
    }

    /// What names of such pools begin with: `pool4-512-`.
    pub(super) fn form(&self) -> String {
        format!("pool{}-{}-", if self.ipv6 { 6 } else { 4 }, self.slots())
    }
}

/// The form of a pool's name.
pub(super) fn form_of(name: &str) -> &str {
    name.rfind('-').map_or(name, |end| &name[..=end])
}

/// Family and number of slots that a name stands for.
pub(super) fn fixed(name: &str) -> Option<(bool, u32)> {
    let (ipv6, rest) = match name.strip_prefix("pool4-") {
        Some(rest) => (false, rest),
        None => (true, name.strip_prefix("pool6-")?),
    };
    let (slots, _) = rest.split_once('-')?;
    Some((ipv6, slots.parse().ok()?))
}

/// A name for a pool that is new: a spare's, or one that nobody has.
pub(super) fn fresh(form: &str, memory: &mut Memory, taken: impl Fn(&str) -> bool) -> String {
    if let Some(spare) = memory.spares.iter().find(|name| form_of(name) == form && !taken(name)).cloned() {
        memory.spares.remove(&spare);
        return spare;
    }
    let free = (1..).map(|number| format!("{form}{number}")).find(|name| !taken(name) && !memory.spares.contains(name));
    free.expect("numbers do not end")
}

/// Names the pools of all ports and notes which are spare. What `memory` has of earlier names is kept, as far as it can
/// be.
pub(super) fn name(ports: &BTreeMap<String, Content>, memory: &mut Memory) -> BTreeMap<String, Pool> {
    let mut groups: BTreeMap<&Content, BTreeSet<String>> = BTreeMap::new();
    for (port, content) in ports {
        groups.entry(content).or_default().insert(port.clone());
    }
    let before = std::mem::take(&mut memory.pools);
    memory.spares.extend(before.values().filter(|name| fixed(name).is_some()).cloned());
    // Large groups choose first: theirs are the most elements.
    let mut groups: Vec<(&Content, BTreeSet<String>)> = groups.into_iter().collect();
    groups.sort_by_key(|(_, ports)| std::cmp::Reverse(ports.len()));
    let mut chosen: Vec<Option<String>> = Vec::new();
    for (content, ports) in &groups {
        let mut votes: BTreeMap<&String, usize> = BTreeMap::new();
        let form = content.form();
        for name in ports.iter().filter_map(|port| before.get(port)).filter(|name| form_of(name) == form) {
            *votes.entry(name).or_default() += 1;
        }
        let best = votes.into_iter().filter(|(name, _)| memory.spares.contains(*name)).max_by_key(|(_, count)| *count);
        let best = best.map(|(name, _)| name.clone());
        if let Some(best) = &best {
            memory.spares.remove(best);
        }
        chosen.push(best);
    }
    let mut pools: BTreeMap<String, Pool> = BTreeMap::new();
    let kept: BTreeSet<String> = chosen.iter().flatten().cloned().collect();
    for ((content, ports), chosen) in groups.into_iter().zip(chosen) {
        let taken = |name: &str| pools.contains_key(name) || kept.contains(name);
        let name = chosen.unwrap_or_else(|| fresh(&content.form(), memory, taken));
        memory.pools.extend(ports.iter().map(|port| (port.clone(), name.clone())));
        pools.insert(name, Pool { content: content.clone(), ports });
    }
    spare(&pools, memory);
    pools
}

/// Keeps so many spares of each form in use, and no others.
fn spare(pools: &BTreeMap<String, Pool>, memory: &mut Memory) {
    let mut spares = BTreeSet::new();
    let forms: BTreeSet<&str> = pools.keys().map(|name| form_of(name)).collect();
    for form in forms {
        for _ in 0..SPARES {
            let taken = |name: &str| pools.contains_key(name) || spares.contains(name);
            let name = fresh(form, memory, taken);
            spares.insert(name);
        }
    }
    memory.spares = spares;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(addresses: &[&str]) -> Content {
        let members = addresses.iter().map(|address| Member { address: address.parse().unwrap(), check: None });
        Content { ipv6: false, fail_open: true, members: members.collect() }
    }

    fn named(of: &[(&str, &[&str])], memory: &mut Memory) -> BTreeMap<String, String> {
        let ports = of.iter().map(|(port, addresses)| ((*port).to_owned(), content(addresses))).collect();
        name(&ports, memory);
        memory.pools.clone()
    }

    #[test]
    fn a_pool_keeps_its_name_while_its_backends_change() {
        let mut memory = Memory::default();
        let first = named(&[("a", &["10.0.0.1"]), ("b", &["10.0.0.1"]), ("c", &["10.0.0.2"])], &mut memory);
        assert_eq!(first["a"], first["b"]);
        assert_ne!(first["a"], first["c"]);
        // All change together.
        let second = named(&[("a", &["10.0.0.3"]), ("b", &["10.0.0.3"]), ("c", &["10.0.0.2"])], &mut memory);
        assert_eq!(second, first);
        // One leaves: it goes to another pool, the others stay.
        let ports: [(&str, &[&str]); 4] =
            [("a", &["10.0.0.9"]), ("b", &["10.0.0.3"]), ("b2", &["10.0.0.3"]), ("c", &["10.0.0.2"])];
        let third = named(&ports, &mut memory);
        assert_eq!((&third["b"], &third["b2"], &third["c"]), (&first["b"], &first["b"], &first["c"]));
        assert!(!first.values().any(|name| *name == third["a"]));
    }

    #[test]
    fn spares_are_used_first_and_made_up_for() {
        let mut memory = Memory::default();
        named(&[("a", &["10.0.0.1"])], &mut memory);
        let spares = memory.spares.clone();
        assert_eq!(spares.len(), SPARES);
        assert!(spares.iter().all(|name| form_of(name) == "pool4-32-"), "{spares:?}");
        let names = named(&[("a", &["10.0.0.1"]), ("b", &["10.0.0.2"])], &mut memory);
        assert!(spares.contains(&names["b"]));
        assert_eq!(memory.spares.len(), SPARES);
        assert_eq!(fixed(&names["b"]), Some((false, 32)));
        // What is used no more is a spare itself, before a new one is made.
        named(&[("a", &["10.0.0.1"])], &mut memory);
        assert!(memory.spares.contains(&names["b"]) && memory.spares.len() == SPARES);
        named(&[], &mut memory);
        assert!(memory.spares.is_empty() && memory.pools.is_empty());
    }
}
