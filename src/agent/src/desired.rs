//! What the manager wants, and which of it is accepted.

use std::collections::BTreeMap;

use quarterdeck_api::cloud::metal::{LoadBalancerSpec, RouteSpec};
use serde::{Deserialize, Serialize};

/// Removed objects whose epochs are remembered.
const REMEMBERED: usize = 10_000;

/// A spec, and which one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Versioned<T> {
    /// `metadata.generation` of the object; 0 where there is none.
    pub generation: i64,
    /// The spec.
    pub spec: T,
}

/// Everything that is wanted of all hosts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Desired {
    /// Load balancers, by name.
    pub balancers: BTreeMap<String, Versioned<LoadBalancerSpec>>,
    /// Routes, by the name of their node.
    pub routes: BTreeMap<String, Versioned<RouteSpec>>,
}

/// A complete state as somebody told it, with what could not be understood.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// What was understood.
    pub desired: Desired,
    /// Objects that were not, by `balancer/name` or `route/name`, and why. They are there, and stay as they were.
    pub broken: BTreeMap<String, String>,
}

/// What is accepted: the last good state of each object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Accepted {
    /// The state.
    pub desired: Desired,
    /// Epochs of removed objects by `kind/name`, so that a past manager cannot bring one back.
    pub removed: BTreeMap<String, u64>,
}

/// An object of a past tenure; what was accepted before stays in force.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kind} {name}: epoch {epoch} is older than {accepted}, which is in force")]
pub struct Stale {
    /// `balancer` or `route`.
    pub kind: &'static str,
    /// Its name.
    pub name: String,
    /// Its epoch.
    pub epoch: u64,
    /// The epoch in force.
    pub accepted: u64,
}

/// An epoch that a spec carries.
trait Epoch {
    fn epoch(&self) -> u64;
}

impl Epoch for LoadBalancerSpec {
    fn epoch(&self) -> u64 {
        self.epoch
    }
}

impl Epoch for RouteSpec {
    fn epoch(&self) -> u64 {
        self.epoch
    }
}

impl Accepted {
    /// Takes over a complete state, but for what is older than what is in force or could not be understood. Whatever
    /// is missing in it is gone.
    pub fn admit(&mut self, snapshot: Snapshot) -> Vec<Stale> {
        let Snapshot { desired: mut incoming, broken } = snapshot;
        for (name, there) in &self.desired.balancers {
            if broken.contains_key(&format!("balancer/{name}")) {
                incoming.balancers.insert(name.clone(), there.clone());
            }
        }
        for (name, there) in &self.desired.routes {
            if broken.contains_key(&format!("route/{name}")) {
                incoming.routes.insert(name.clone(), there.clone());
            }
        }
        let mut stale = Vec::new();
        admit("balancer", &mut self.desired.balancers, incoming.balancers, &mut self.removed, &mut stale);
        admit("route", &mut self.desired.routes, incoming.routes, &mut self.removed, &mut stale);
        // The smallest epochs go first: they are the least likely to come back.
        if self.removed.len() > REMEMBERED {
            let mut epochs: Vec<u64> = self.removed.values().copied().collect();
            epochs.sort_unstable();
            let least = epochs[epochs.len() - REMEMBERED];
            self.removed.retain(|_, epoch| *epoch >= least);
        }
        stale
    }

    /// The largest epoch of all in force.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        let balancers = self.desired.balancers.values().map(|balancer| balancer.spec.epoch);
        balancers.chain(self.desired.routes.values().map(|route| route.spec.epoch)).max().unwrap_or(0)
    }
}

fn admit<T: Epoch>(
    kind: &'static str,
    accepted: &mut BTreeMap<String, Versioned<T>>,
    incoming: BTreeMap<String, Versioned<T>>,
    removed: &mut BTreeMap<String, u64>,
    stale: &mut Vec<Stale>,
) {
    accepted.retain(|name, there| {
        let stays = incoming.contains_key(name);
        if !stays {
            removed.insert(format!("{kind}/{name}"), there.spec.epoch());
        }
        stays
    });
    for (name, new) in incoming {
        let key = format!("{kind}/{name}");
        let in_force = accepted.get(&name).map(|there| there.spec.epoch()).or_else(|| removed.get(&key).copied());
        let epoch = new.spec.epoch();
        match in_force {
            Some(in_force) if epoch < in_force => stale.push(Stale { kind, name, epoch, accepted: in_force }),
            _ => {
                removed.remove(&key);
                accepted.insert(name, new);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn desired(balancers: &[(&str, u64, i64)]) -> Desired {
        let balancers = balancers.iter().map(|(name, epoch, generation)| {
            let spec = LoadBalancerSpec { epoch: *epoch, ..LoadBalancerSpec::default() };
            ((*name).to_owned(), Versioned { generation: *generation, spec })
        });
        Desired { balancers: balancers.collect(), routes: BTreeMap::new() }
    }

    fn told(balancers: &[(&str, u64, i64)]) -> Snapshot {
        Snapshot { desired: desired(balancers), broken: BTreeMap::new() }
    }

    #[test]
    fn what_is_not_understood_stays() {
        let mut accepted = Accepted::default();
        accepted.admit(told(&[("a", 5, 1), ("b", 5, 1)]));
        let broken = BTreeMap::from([("balancer/a".to_owned(), "no port".to_owned())]);
        accepted.admit(Snapshot { desired: Desired::default(), broken });
        assert_eq!(accepted.desired, desired(&[("a", 5, 1)]));
    }

    #[test]
    fn an_older_epoch_changes_nothing_and_does_not_revive() {
        let mut accepted = Accepted::default();
        assert!(accepted.admit(told(&[("a", 5, 1), ("b", 5, 1)])).is_empty());
        let stale = accepted.admit(told(&[("a", 4, 2), ("b", 6, 2)]));
        assert_eq!(stale.len(), 1);
        assert_eq!(stale[0].to_string(), "balancer a: epoch 4 is older than 5, which is in force");
        assert_eq!(accepted.desired, desired(&[("a", 5, 1), ("b", 6, 2)]));
        assert_eq!(accepted.epoch(), 6);

        assert!(accepted.admit(told(&[("b", 6, 2)])).is_empty());
        assert_eq!(accepted.admit(told(&[("a", 4, 3), ("b", 6, 2)])).len(), 1);
        assert_eq!(accepted.desired, desired(&[("b", 6, 2)]));
        assert!(accepted.admit(told(&[("a", 5, 3), ("b", 6, 2)])).is_empty(), "of the same tenure");
        assert_eq!(accepted.desired.balancers["a"].generation, 3);
    }
}
