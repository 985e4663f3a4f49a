//! Small changes of a plan: what one load balancer's backends, or one node's health, change in it.
//!
//! Planning everything for one changed backend costs more than the change itself. What is patched here must come out as
//! [`super::plan`] would have it (a test says so); whatever is not simple is left to that.

use std::collections::{BTreeMap, BTreeSet};

use quarterdeck_api::cloud::metal::LoadBalancerSpec;

use super::balancers::{Form, content, elements, refresh, set_name, target};
use super::pools::{Content, Pool, fixed, form_of};
use super::{Check, Memory, Plan, Settings, returns};
use crate::desired::{Desired, Versioned};
use crate::host::Host;
use crate::nft::{ElementChange, ElementChanges};

/// With more load balancers changed at once, everything is planned.
const FEW: usize = 16;

/// What changed since a plan was made.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    /// Load balancers that were there before and have another spec now; the specs before.
    pub balancers: BTreeMap<String, Versioned<LoadBalancerSpec>>,
    /// Checks with another verdict.
    pub checks: BTreeSet<Check>,
}

/// What a patch did to the plan.
#[derive(Clone, Debug, Default)]
pub struct Patch {
    /// Elements that changed in the plan's ruleset.
    pub elements: ElementChanges,
    /// Ways that use another pool now, and which.
    pub moved: BTreeMap<String, String>,
    /// Load balancers whose reports have to be made anew: see [`settle`].
    pub balancers: BTreeSet<String>,
    /// Whether spares were used or came free: the next plan of everything puts that right.
    pub untidy: bool,
}

/// Changes a plan in place; `before` and `health` are the verdicts that it was made with, and those now. `None` if
/// everything has to be planned: then the plan's ruleset is as it was, and the rest of it of no use any more.
pub fn patch(
    plan: &mut Plan,
    changes: &Changes,
    desired: &Desired,
    before: &BTreeMap<Check, bool>,
    health: &BTreeMap<Check, bool>,
    (host, settings, memory): (&Host, &Settings, &mut Memory),
) -> Option<Patch> {
    if plan.contested || changes.balancers.len() > FEW {
        return None;
    }
    let mut patch = Patch::default();
    let spares = memory.spares.clone();
    let mut touched = judged(plan, &changes.checks, before, health, &mut patch)?;
    for (name, old) in &changes.balancers {
        let spec = &desired.balancers.get(name)?.spec;
        if !only_backends(&old.spec, spec) || (!memory.served && returns::serves(spec, host, settings)) {
            return None;
        }
        if plan.balancers.binary_search_by(|report| report.name.as_str().cmp(name)).is_err() {
            continue; // It is other hosts'.
        }
        patch.balancers.insert(name.clone());
        let prefix = format!("lb-{name}-");
        let ways: Vec<String> = plan
            .ways
            .range(prefix.clone()..)
            .take_while(|(way, _)| way.starts_with(&prefix))
            .filter(|(_, way)| way.balancer == *name)
            .map(|(way, _)| way.clone())
            .collect();
        for way in ways {
            let new = content(spec, plan.ways[&way].content.ipv6, settings);
            if new != plan.ways[&way].content {
                lead(plan, &way, new, (before, health), memory, &mut touched, &mut patch)?;
            }
        }
    }
    for name in touched {
        let (_, slots) = fixed(&name)?;
        let serving = plan.pools.get(&name).map(|pool| pool.content.serving(health)).unwrap_or_default();
        let new = elements(slots, &serving, host);
        let there = &plan.ruleset.sets.get(&name)?.elements;
        let differs =
            |other: &BTreeMap<String, String>, (key, data): &(&String, &String)| other.get(*key) != Some(*data);
        let owned = |(key, data): (&String, &String)| (key.clone(), data.clone());
        let change = ElementChange {
            delete: there.iter().filter(|element| differs(&new, element)).map(owned).collect(),
            add: new.iter().filter(|element| differs(there, element)).map(owned).collect(),
        };
        if change != ElementChange::default() {
            patch.elements.insert(name, change);
        }
    }
    for (name, change) in &patch.elements {
        let set = plan.ruleset.sets.get_mut(name).expect("changes are of sets that are there");
        change.delete.keys().for_each(|key| drop(set.elements.remove(key)));
        set.elements.extend(change.add.clone());
    }
    patch.untidy = spares != memory.spares;
    Some(patch)
}

/// Brings the rest of a patched plan up to date: what no packet waits for.
pub fn settle(plan: &mut Plan, desired: &Desired, health: &BTreeMap<Check, bool>, of: &BTreeSet<String>) {
    refresh(plan, desired, health, Some(of));
}

/// Whether a spec differs from another in nothing but its backends and its tenure.
fn only_backends(old: &LoadBalancerSpec, new: &LoadBalancerSpec) -> bool {
    // Every field is named: a new one has to be thought of here.
    let LoadBalancerSpec {
        epoch: _,
        backends: _,
        owner,
        addresses,
        gateways,
        ports,
        source_ranges,
        affinity_seconds,
        external_traffic,
        health_check_node_port,
    } = old;
    *owner == new.owner
        && *addresses == new.addresses
        && *gateways == new.gateways
        && *ports == new.ports
        && *source_ranges == new.source_ranges
        && *affinity_seconds == new.affinity_seconds
        && *external_traffic == new.external_traffic
        && *health_check_node_port == new.health_check_node_port
}

/// The pools whose nodes were judged anew.
fn judged(
    plan: &Plan,
    checks: &BTreeSet<Check>,
    before: &BTreeMap<Check, bool>,
    health: &BTreeMap<Check, bool>,
    patch: &mut Patch,
) -> Option<BTreeSet<String>> {
    let mut touched = BTreeSet::new();
    if checks.is_empty() {
        return Some(touched);
    }
    let concerns = |content: &Content| {
        content.members.iter().any(|member| member.check.as_ref().is_some_and(|check| checks.contains(check)))
    };
    if plan.ways.values().any(|way| way.form == Form::Sticky && concerns(&way.content)) {
        return None;
    }
    for (name, pool) in plan.pools.iter().filter(|(_, pool)| concerns(&pool.content)) {
        if pool.content.serving(before).is_empty() != pool.content.serving(health).is_empty() {
            return None;
        }
        touched.insert(name.clone());
        let balancers = pool.ports.iter().filter_map(|way| plan.ways.get(way));
        patch.balancers.extend(balancers.map(|way| way.balancer.clone()));
    }
    Some(touched)
}

/// Leads a way to other backends.
fn lead(
    plan: &mut Plan,
    name: &str,
    new: Content,
    (before, health): (&BTreeMap<Check, bool>, &BTreeMap<Check, bool>),
    memory: &mut Memory,
    touched: &mut BTreeSet<String>,
    patch: &mut Patch,
) -> Option<()> {
    let way = plan.ways.get_mut(name)?;
    let serves = !new.serving(health).is_empty();
    if matches!(way.form, Form::Sticky) || way.content.serving(before).is_empty() == serves {
        return None;
    }
    way.content = new.clone();
    if way.form == Form::Closed {
        return Some(());
    }
    let old = memory.pools.get(name)?.clone();
    let form = new.form();
    let there = plan.pools.iter().find(|(_, pool)| pool.content == new).map(|(pool, _)| pool.clone());
    let is_alone = plan.pools.get(&old)?.ports.len() == 1;
    let to = match there {
        Some(there) => there,
        // Its pool is its own: that changes, and keeps its name.
        None if is_alone && form_of(&old) == form => {
            plan.pools.get_mut(&old)?.content = new;
            touched.insert(old);
            return Some(());
        }
        None => {
            let spare = memory.spares.iter().find(|spare| form_of(spare) == form)?.clone();
            memory.spares.remove(&spare);
            plan.pools.insert(spare.clone(), Pool { content: new, ports: BTreeSet::new() });
            touched.insert(spare.clone());
            spare
        }
    };
    if way.form != Form::Plain {
        return None;
    }
    plan.pools.get_mut(&to)?.ports.insert(name.to_owned());
    let left = plan.pools.get_mut(&old)?;
    left.ports.remove(name);
    if left.ports.is_empty() {
        plan.pools.remove(&old);
        memory.spares.insert(old.clone());
        touched.insert(old.clone());
    }
    memory.pools.insert(name.to_owned(), to.clone());
    patch.moved.insert(name.to_owned(), to.clone());
    if serves {
        let change = patch.elements.entry(set_name("services", way.content.ipv6).to_owned()).or_default();
        for key in &way.keys {
            change.delete.insert(key.clone(), target(name, way.form, &old));
            change.add.insert(key.clone(), target(name, way.form, &to));
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::host::{HostAddress, Link};
    use crate::plan::plan;
    use crate::plan::tests::settings;

    /// A sequence of numbers that is the same in each run.
    struct Dice(u64);

    impl Dice {
        fn throw(&mut self, sides: usize) -> usize {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            usize::try_from(self.0 >> 33).unwrap() % sides
        }
    }

    fn host() -> Host {
        let mut host = Host::default();
        let link = Link { name: "eth0".to_owned(), up: true, loopback: false, mac: None };
        host.links = BTreeMap::from([(2, link)]);
        for network in ["10.0.0.1/24", "192.0.2.1/24"] {
            host.add_address(HostAddress { network: network.parse().unwrap(), link: 2, ours: false });
        }
        host
    }

    fn backends(dice: &mut Dice) -> serde_json::Value {
        // Some subsets come often, so that pools are shared; the host itself is one of them.
        let cut = [3, 4, 5][dice.throw(3)];
        let without = if dice.throw(3) == 0 { dice.throw(5) } else { 9 };
        let nodes = (0..cut).filter(|n| *n != without);
        let address = |n: usize| if n == 4 { "10.0.0.1".to_owned() } else { format!("10.0.0.1{n}") };
        nodes.map(|n| json!({ "name": format!("n{n}"), "addresses": [address(n), format!("fd00::1{n}")] })).collect()
    }

    fn balancer(number: usize, epoch: u64, dice: &mut Dice) -> Versioned<LoadBalancerSpec> {
        let mut spec = json!({
            "epoch": epoch,
            "addresses": [
                { "address": format!("192.0.2.{}", 10 + number), "gateway": (["gw1", "gw2"][number & 1]) },
                { "address": format!("2001:db8::{number}"), "gateway": "gw1" },
            ],
            "gateways": [{ "name": "gw1", "addresses": ["10.0.0.1"] }, { "name": "gw2", "addresses": ["10.0.0.2"] }],
            "ports": [
                { "protocol": "TCP", "port": 80, "nodePort": 30080 + number },
                { "protocol": "UDP", "port": 53, "nodePort": 30080 + number },
            ],
            "backends": backends(dice),
        });
        match number {
            3 => spec["sourceRanges"] = json!(["198.51.100.0/24"]),
            5 => spec["affinitySeconds"] = json!(60),
            6 => {
                spec["externalTraffic"] = json!("Local");
                spec["healthCheckNodePort"] = json!(32000);
            }
            _ => {}
        }
        Versioned { generation: 1, spec: serde_json::from_value(spec).unwrap() }
    }

    /// A plan without what is spare, which plans of everything alone put right.
    fn used(plan: &Plan, memory: &Memory) -> Plan {
        let mut plan = plan.clone();
        for spare in &memory.spares {
            let set = plan.ruleset.sets.remove(spare);
            assert!(set.is_none_or(|set| set.elements.is_empty()), "{spare} is in use");
            plan.ruleset.chains.remove(&format!("to-{spare}"));
        }
        plan
    }

    #[test]
    fn a_patched_plan_is_what_planning_everything_makes() {
        let (settings, host) = (settings("gw1"), host());
        let mut patched = 0;
        for seed in 0..20 {
            let dice = &mut Dice(seed);
            let mut desired = Desired::default();
            for number in 0..8 {
                desired.balancers.insert(format!("b{number}"), balancer(number, 7, dice));
            }
            let (mut health, mut memory) = (BTreeMap::new(), Memory::default());
            let mut now = plan(&desired, &health, &host, &settings, &mut memory);
            for step in 0..12 {
                let (before, old_rules) = (health.clone(), now.ruleset.clone());
                let mut changes = Changes::default();
                if dice.throw(3) == 0 {
                    let checks: Vec<Check> = now.checks.keys().cloned().collect();
                    let check = checks[dice.throw(checks.len())].clone();
                    let well = dice.throw(2) == 0;
                    if health.insert(check.clone(), well) != Some(well) {
                        changes.checks.insert(check);
                    }
                } else {
                    let number = dice.throw(8);
                    let name = format!("b{number}");
                    let new = balancer(number, 7 + dice.throw(2) as u64, dice);
                    let old = desired.balancers.insert(name.clone(), new).unwrap();
                    changes.balancers.insert(name, old);
                }
                let with = (&host, &settings, &mut memory);
                let done = patch(&mut now, &changes, &desired, &before, &health, with);
                let Some(done) = done else {
                    assert_eq!(now.ruleset, old_rules, "what cannot be patched is not half done");
                    now = plan(&desired, &health, &host, &settings, &mut memory);
                    continue;
                };
                patched += 1;
                settle(&mut now, &desired, &health, &done.balancers);
                let mut tidy = memory.clone();
                let whole = plan(&desired, &health, &host, &settings, &mut tidy);
                assert_eq!(tidy.pools, memory.pools, "seed {seed}, step {step}");
                assert_eq!(used(&now, &memory), used(&whole, &tidy), "seed {seed}, step {step}");
                // The elements told are the way from the old rules to the new.
                let mut rules = old_rules;
                for (set, change) in &done.elements {
                    let set = rules.sets.get_mut(set).unwrap();
                    assert!(change.delete.iter().all(|(key, data)| set.elements.remove(key).as_ref() == Some(data)));
                    assert!(
                        change.add.iter().all(|(key, data)| set.elements.insert(key.clone(), data.clone()).is_none())
                    );
                }
                assert_eq!(rules, now.ruleset, "seed {seed}, step {step}");
            }
        }
        assert!(patched > 60, "only {patched} were patched");
    }
}
