//! What the manager wants, and which of it is accepted.

use std::collections::{BTreeMap, BTreeSet};

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
    /// Those of them that are in the cluster no more, and stay in force all the same (see [`crate::brake`]). Whatever
    /// they claim, one that is there has it.
    pub held: BTreeSet<ObjectId>,
}

/// Kinds of objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ObjectKind {
    /// A `MetalLoadBalancer`.
    Balancer,
    /// A `MetalRoute`.
    Route,
}

/// An object, by kind and name. Written `balancer/name`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct ObjectId {
    /// Its kind.
    pub kind: ObjectKind,
    /// Its name.
    pub name: String,
}

impl ObjectId {
    /// A load balancer.
    #[must_use]
    pub fn balancer(name: &str) -> Self {
        Self { kind: ObjectKind::Balancer, name: name.to_owned() }
    }

    /// A node's routes.
    #[must_use]
    pub fn route(name: &str) -> Self {
        Self { kind: ObjectKind::Route, name: name.to_owned() }
    }
}

impl std::fmt::Display for ObjectKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Balancer => "balancer",
            Self::Route => "route",
        })
    }
}

impl std::fmt::Display for ObjectId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.kind, self.name)
    }
}

impl From<ObjectId> for String {
    fn from(id: ObjectId) -> Self {
        id.to_string()
    }
}

impl TryFrom<String> for ObjectId {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.split_once('/') {
            Some(("balancer", name)) => Ok(Self::balancer(name)),
            Some(("route", name)) => Ok(Self::route(name)),
            _ => Err(format!("{text:?} is neither balancer/NAME nor route/NAME")),
        }
    }
}

/// An object as it is now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Now {
    /// A load balancer.
    Balancer(Versioned<LoadBalancerSpec>),
    /// A node's routes.
    Route(Versioned<RouteSpec>),
    /// It is there and could not be understood, and why: it stays as it was.
    Broken(String),
    /// It was deleted.
    Gone,
    /// A complete list lacks it.
    Missing,
}

/// A complete state as somebody told it, with what could not be understood.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// What was understood.
    pub desired: Desired,
    /// Objects that were not, and why. They are there, and stay as they were.
    pub broken: BTreeMap<ObjectId, String>,
}

/// What is accepted: the last good state of each object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Accepted {
    /// The state.
    pub desired: Desired,
    /// Epochs of removed objects, so that a past manager cannot bring one back.
    pub removed: BTreeMap<ObjectId, u64>,
    /// Id of the cluster whose objects these are; empty until one said.
    pub cluster: String,
}

/// Why an object was not accepted; what was accepted before stays in force.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It is of a past tenure.
    #[error("{kind} {name}: epoch {epoch} is older than {accepted}, which is in force", kind = .id.kind, name = .id.name)]
    Stale {
        /// Which.
        id: ObjectId,
        /// Its epoch.
        epoch: u64,
        /// The epoch in force.
        accepted: u64,
    },
    /// It is of another cluster.
    #[error("{kind} {name} is of the cluster {cluster}, and this host serves {ours}", kind = .id.kind, name = .id.name)]
    Foreign {
        /// Which.
        id: ObjectId,
        /// Its cluster.
        cluster: String,
        /// The cluster that this host serves.
        ours: String,
    },
    /// It could not be understood.
    #[error("{1}")]
    Broken(ObjectId, String),
}

impl Refusal {
    /// Which object.
    #[must_use]
    pub fn id(&self) -> &ObjectId {
        match self {
            Self::Stale { id, .. } | Self::Foreign { id, .. } | Self::Broken(id, _) => id,
        }
    }
}

/// What one object's change did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing: it is as it was.
    None,
    /// A load balancer that was there has another spec; this is the one before.
    Respecified(Box<Versioned<LoadBalancerSpec>>),
    /// Something came, went, or is a route.
    Other,
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

impl Desired {
    /// Whether an object is a load balancer that the manager withdrew, before it deletes it: without addresses and
    /// gateways it claims nothing.
    #[must_use]
    pub fn is_withdrawn(&self, id: &ObjectId) -> bool {
        let own = Some(&id.name).filter(|_| id.kind == ObjectKind::Balancer).and_then(|name| self.balancers.get(name));
        own.is_some_and(|own| own.spec.addresses.is_empty() && own.spec.gateways.is_empty())
    }
}

impl Accepted {
    /// The changes that lead from what is accepted to a complete state: whatever is missing in it is gone.
    #[must_use]
    pub fn changes_to(&self, snapshot: Snapshot) -> Vec<(ObjectId, Now)> {
        let Snapshot { desired, broken } = snapshot;
        let mut changes = Vec::new();
        for name in self.desired.balancers.keys().filter(|name| !desired.balancers.contains_key(*name)) {
            changes.push((ObjectId::balancer(name), Now::Missing));
        }
        for name in self.desired.routes.keys().filter(|name| !desired.routes.contains_key(*name)) {
            changes.push((ObjectId::route(name), Now::Missing));
        }
        changes.retain(|(id, _)| !broken.contains_key(id));
        for (name, new) in desired.balancers {
            if self.desired.balancers.get(&name) != Some(&new) || !self.desired.held.is_empty() {
                changes.push((ObjectId::balancer(&name), Now::Balancer(new)));
            }
        }
        for (name, new) in desired.routes {
            if self.desired.routes.get(&name) != Some(&new) || !self.desired.held.is_empty() {
                changes.push((ObjectId::route(&name), Now::Route(new)));
            }
        }
        changes.extend(broken.into_iter().map(|(id, error)| (id, Now::Broken(error))));
        changes
    }

    /// Takes over one object, but for what is older than what is in force, another cluster's, or could not be
    /// understood.
    ///
    /// # Errors
    /// Why it was not accepted.
    pub fn admit(&mut self, id: &ObjectId, now: Now) -> Result<Effect, Refusal> {
        match now {
            Now::Balancer(new) => {
                let cluster = &new.spec.owner.cluster;
                if !cluster.is_empty() && self.cluster.is_empty() {
                    self.cluster.clone_from(cluster);
                }
                if !cluster.is_empty() && *cluster != self.cluster {
                    let (cluster, ours) = (cluster.clone(), self.cluster.clone());
                    return Err(Refusal::Foreign { id: id.clone(), cluster, ours });
                }
                let was_held = self.desired.held.contains(id);
                let Some(old) = admit(id, &mut self.desired.balancers, new, &mut self.removed)? else {
                    return Ok(Effect::Other);
                };
                self.desired.held.remove(id);
                let same = self.desired.balancers.get(&id.name) == Some(&old);
                Ok(match same {
                    _ if was_held => Effect::Other,
                    true => Effect::None,
                    false => Effect::Respecified(Box::new(old)),
                })
            }
            Now::Route(new) => {
                let old = admit(id, &mut self.desired.routes, new, &mut self.removed)?;
                let was_held = self.desired.held.remove(id);
                let same = old.is_some() && self.desired.routes.get(&id.name) == old.as_ref() && !was_held;
                Ok(if same { Effect::None } else { Effect::Other })
            }
            Now::Broken(error) => Err(Refusal::Broken(id.clone(), error)),
            Now::Gone | Now::Missing => Ok(self.remove(id)),
        }
    }

    fn remove(&mut self, id: &ObjectId) -> Effect {
        let epoch = match id.kind {
            ObjectKind::Balancer => self.desired.balancers.remove(&id.name).map(|old| old.spec.epoch),
            ObjectKind::Route => self.desired.routes.remove(&id.name).map(|old| old.spec.epoch),
        };
        self.desired.held.remove(id);
        let Some(epoch) = epoch else { return Effect::None };
        self.removed.insert(id.clone(), epoch);
        // The smallest epochs go first: they are the least likely to come back.
        if self.removed.len() > REMEMBERED {
            let mut epochs: Vec<u64> = self.removed.values().copied().collect();
            epochs.sort_unstable();
            let least = epochs[epochs.len() - REMEMBERED];
            self.removed.retain(|_, epoch| *epoch >= least);
        }
        Effect::Other
    }

    /// The largest epoch of all in force.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        let balancers = self.desired.balancers.values().map(|balancer| balancer.spec.epoch);
        balancers.chain(self.desired.routes.values().map(|route| route.spec.epoch)).max().unwrap_or(0)
    }

    /// Lets objects of smaller epochs, and of another cluster, in again.
    pub fn forget(&mut self) {
        self.removed.clear();
        self.cluster.clear();
        for balancer in self.desired.balancers.values_mut() {
            balancer.spec.epoch = 0;
        }
        for route in self.desired.routes.values_mut() {
            route.spec.epoch = 0;
        }
    }
}

/// Puts one in place of what is there, and returns that.
fn admit<T: Epoch>(
    id: &ObjectId,
    accepted: &mut BTreeMap<String, Versioned<T>>,
    new: Versioned<T>,
    removed: &mut BTreeMap<ObjectId, u64>,
) -> Result<Option<Versioned<T>>, Refusal> {
    let there = accepted.get(&id.name).map(|there| there.spec.epoch());
    let in_force = there.or_else(|| removed.get(id).copied()).unwrap_or(0);
    let epoch = new.spec.epoch();
    if epoch < in_force {
        return Err(Refusal::Stale { id: id.clone(), epoch, accepted: in_force });
    }
    removed.remove(id);
    Ok(accepted.insert(id.name.clone(), new))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(balancers: &[(&str, u64, i64)]) -> Snapshot {
        let balancers = balancers.iter().map(|(name, epoch, generation)| {
            let spec = LoadBalancerSpec { epoch: *epoch, ..LoadBalancerSpec::default() };
            ((*name).to_owned(), Versioned { generation: *generation, spec })
        });
        let desired = Desired { balancers: balancers.collect(), ..Desired::default() };
        Snapshot { desired, broken: BTreeMap::new() }
    }

    fn desired(balancers: &[(&str, u64, i64)]) -> Desired {
        told(balancers).desired
    }

    fn admit_all(accepted: &mut Accepted, snapshot: Snapshot) -> Vec<Refusal> {
        let changes = accepted.changes_to(snapshot);
        changes.into_iter().filter_map(|(id, now)| accepted.admit(&id, now).err()).collect()
    }

    #[test]
    fn without_addresses_and_gateways_it_is_withdrawn() {
        let mut known = desired(&[("a", 5, 1)]);
        assert!(known.is_withdrawn(&ObjectId::balancer("a")));
        assert!(!known.is_withdrawn(&ObjectId::balancer("b")) && !known.is_withdrawn(&ObjectId::route("a")));
        let own = known.balancers.get_mut("a").expect("it is there");
        own.spec.gateways.push(quarterdeck_api::cloud::metal::Gateway { name: "gw".to_owned(), addresses: Vec::new() });
        assert!(!known.is_withdrawn(&ObjectId::balancer("a")));
    }

    #[test]
    fn what_is_not_understood_stays() {
        let mut accepted = Accepted::default();
        admit_all(&mut accepted, told(&[("a", 5, 1), ("b", 5, 1)]));
        let broken = BTreeMap::from([(ObjectId::balancer("a"), "no port".to_owned())]);
        let refused = admit_all(&mut accepted, Snapshot { desired: Desired::default(), broken });
        assert_eq!(refused[0].to_string(), "no port");
        assert_eq!(accepted.desired, desired(&[("a", 5, 1)]));
    }

    #[test]
    fn an_older_epoch_changes_nothing_and_does_not_revive() {
        let mut accepted = Accepted::default();
        assert!(admit_all(&mut accepted, told(&[("a", 5, 1), ("b", 5, 1)])).is_empty());
        let stale = admit_all(&mut accepted, told(&[("a", 4, 2), ("b", 6, 2)]));
        assert_eq!(stale.len(), 1);
        assert_eq!(stale[0].to_string(), "balancer a: epoch 4 is older than 5, which is in force");
        assert_eq!(accepted.desired, desired(&[("a", 5, 1), ("b", 6, 2)]));
        assert_eq!(accepted.epoch(), 6);

        assert!(admit_all(&mut accepted, told(&[("b", 6, 2)])).is_empty());
        assert_eq!(admit_all(&mut accepted, told(&[("a", 4, 3), ("b", 6, 2)])).len(), 1);
        assert_eq!(accepted.desired, desired(&[("b", 6, 2)]));
        assert!(admit_all(&mut accepted, told(&[("a", 5, 3), ("b", 6, 2)])).is_empty(), "of the same tenure");
        assert_eq!(accepted.desired.balancers["a"].generation, 3);
    }

    #[test]
    fn objects_of_another_cluster_are_refused_until_the_first_is_forgotten() {
        let of = |cluster: &str| {
            let mut snapshot = told(&[("a", 5, 1)]);
            let spec = &mut snapshot.desired.balancers.get_mut("a").unwrap().spec;
            cluster.clone_into(&mut spec.owner.cluster);
            snapshot
        };
        let mut accepted = Accepted::default();
        assert!(admit_all(&mut accepted, of("one")).is_empty());
        let refused = admit_all(&mut accepted, of("two"));
        assert_eq!(refused[0].to_string(), "balancer a is of the cluster two, and this host serves one");
        assert_eq!(accepted.desired, of("one").desired);
        accepted.forget();
        assert!(admit_all(&mut accepted, of("two")).is_empty());
    }

    #[test]
    fn what_a_change_does_is_told() {
        let mut accepted = Accepted::default();
        let a = ObjectId::balancer("a");
        let new = |generation| Now::Balancer(told(&[("a", 5, generation)]).desired.balancers["a"].clone());
        assert_eq!(accepted.admit(&a, new(1)), Ok(Effect::Other));
        assert_eq!(accepted.admit(&a, new(1)), Ok(Effect::None));
        let before = accepted.desired.balancers["a"].clone();
        assert_eq!(accepted.admit(&a, new(2)), Ok(Effect::Respecified(Box::new(before))));
        assert_eq!(accepted.admit(&a, Now::Gone), Ok(Effect::Other));
        assert_eq!(accepted.admit(&a, Now::Gone), Ok(Effect::None));
    }
}
