//! What a made-up cloud consists of: plain data, written to disk as it is.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::instances::SCHEME;
use crate::error::{CloudError, Result};
use crate::model::{Backend, ClusterId, ExternalTraffic, NodeAddress, Owner, Port};

/// A cloud at one moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// Id of the account that is asked.
    pub account: String,
    /// How it behaves when nothing goes wrong.
    pub settings: Settings,
    /// Grows with every change of anything below.
    pub version: u64,
    /// Number of the thing that was made last.
    pub last_id: u64,
    /// Latest `lease_epoch` seen, by cluster; calls of an earlier one are refused.
    pub epochs: BTreeMap<ClusterId, u64>,
    /// Machines, by id.
    pub instances: BTreeMap<String, Machine>,
    /// Addresses that are taken, each by an owner; two owners may share one.
    pub reservations: Vec<Reservation>,
    /// Load balancers, by id.
    pub balancers: BTreeMap<String, Balancer>,
    /// Routes, by id.
    pub routes: BTreeMap<String, StoredRoute>,
}

/// How a made-up cloud behaves when nothing goes wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// What stands before `://` in its providerIDs.
    pub scheme: String,
    /// For how long a new load balancer is being made, in ms.
    pub provision_ms: u64,
    /// For how long a load balancer is being deleted, in ms.
    pub delete_ms: u64,
    /// When to ask again about what is being made or deleted, in ms, at most.
    pub poll_ms: u64,
    /// How long each call that changes something takes, in ms.
    pub change_ms: u64,
    /// Items of a page of a list.
    pub page: usize,
    /// Nodes that one call may ask for.
    pub max_batch: usize,
    /// Whether load balancers need addresses that somebody else chose.
    pub needs_addresses: bool,
    /// Whether it has load balancers.
    pub load_balancers: bool,
    /// Whether it has routes.
    pub routes: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            scheme: SCHEME.to_owned(),
            provision_ms: 0,
            delete_ms: 0,
            poll_ms: 500,
            change_ms: 0,
            page: 100,
            max_batch: 500,
            needs_addresses: false,
            load_balancers: true,
            routes: true,
        }
    }
}

/// A machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    /// `i-…`.
    pub id: String,
    /// Its name, which is the Node's.
    pub name: String,
    /// Its type.
    pub instance_type: String,
    /// Its zone.
    pub zone: String,
    /// Its region.
    pub region: String,
    /// Its addresses, in order of preference.
    pub addresses: Vec<NodeAddress>,
    /// Labels for its Node.
    pub labels: BTreeMap<String, String>,
    /// Whether it runs.
    pub power: Power,
}

/// Whether a machine runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Power {
    /// It does.
    #[default]
    Running,
    /// It does not, and can be started again.
    Stopped,
    /// It is gone for good; the cloud still knows that there was one.
    Terminated,
}

/// An address that is taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reservation {
    /// The address.
    pub address: IpAddr,
    /// By whom.
    pub owner: Owner,
}

/// A load balancer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Balancer {
    /// `lb-…`; its handle.
    pub id: String,
    /// Whose it is: its tags.
    pub owner: Owner,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Its ports.
    pub ports: Vec<Port>,
    /// Who may connect; empty: everybody.
    pub source_ranges: Vec<IpNet>,
    /// Which nodes serve.
    pub external_traffic: ExternalTraffic,
    /// Port at which nodes tell whether they have endpoints; 0 if there is none.
    pub health_check_node_port: u16,
    /// For how long a client sticks to a backend, if it does.
    pub affinity: Option<Duration>,
    /// Nodes that get traffic.
    pub backends: Vec<Backend>,
    /// Name that stands for its addresses; may be empty.
    pub hostname: String,
    /// Grows with each of its changes.
    pub revision: u64,
    /// What happens with it.
    pub phase: Phase,
    /// When it was made, in ms since 1970.
    pub made_at: u64,
}

/// What happens with a load balancer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// It is being made until this time, in ms since 1970.
    Pending(u64),
    /// It serves.
    Active,
    /// Making it failed for reasons of the cloud's own.
    Error,
    /// It is being deleted until this time, in ms since 1970.
    Deleting(u64),
}

/// A route in the table of a cluster's network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredRoute {
    /// `rt-…`.
    pub id: String,
    /// The cluster whose network it is in.
    pub table: ClusterId,
    /// Whether that cluster made it; others' routes are never listed nor changed.
    pub owned: bool,
    /// What it was called when it was made.
    pub name: String,
    /// The pods' network.
    pub destination: IpNet,
    /// Name of the Node that it was made for.
    pub node: String,
    /// providerID of the machine that it leads to; may be empty.
    pub provider_id: String,
    /// Addresses that it leads to.
    pub next_hops: Vec<IpAddr>,
}

impl Default for State {
    fn default() -> Self {
        Self::new("sim-account")
    }
}

impl State {
    /// An empty cloud.
    #[must_use]
    pub fn new(account: &str) -> Self {
        Self {
            account: account.to_owned(),
            settings: Settings::default(),
            version: 0,
            last_id: 0,
            epochs: BTreeMap::new(),
            instances: BTreeMap::new(),
            reservations: Vec::new(),
            balancers: BTreeMap::new(),
            routes: BTreeMap::new(),
        }
    }

    /// Says that something changed.
    pub(super) fn touch(&mut self) {
        self.version += 1;
    }

    /// An id that was never used.
    pub(super) fn next_id(&mut self, kind: &str) -> String {
        self.last_id += 1;
        format!("{kind}-{}", self.last_id)
    }

    /// Takes note of the tenure in which a change is asked for.
    ///
    /// # Errors
    /// When a later one was seen already for this cluster.
    pub(super) fn admit(&mut self, cluster: &ClusterId, epoch: u64) -> Result<()> {
        let latest = self.epochs.get(cluster).copied().unwrap_or_default();
        if epoch < latest {
            return Err(CloudError::Superseded(format!(
                "the call is of tenure {epoch}, and cluster {cluster} has called in tenure {latest}"
            )));
        }
        if epoch > latest {
            self.epochs.insert(cluster.clone(), epoch);
            self.touch();
        }
        Ok(())
    }

    /// Ends what has lasted long enough: what was being made is there, what was being deleted is gone.
    pub(super) fn settle(&mut self, now: u64) {
        let before = (self.balancers.len(), self.balancers.values().filter(|one| one.phase == Phase::Active).count());
        let gone: Vec<Owner> = self
            .balancers
            .values()
            .filter(|one| matches!(one.phase, Phase::Deleting(until) if until <= now))
            .map(|one| one.owner.clone())
            .collect();
        self.balancers.retain(|_, one| !matches!(one.phase, Phase::Deleting(until) if until <= now));
        for owner in gone {
            self.release(&owner);
        }
        for one in self.balancers.values_mut() {
            if matches!(one.phase, Phase::Pending(until) if until <= now) {
                one.phase = Phase::Active;
            }
        }
        let after = (self.balancers.len(), self.balancers.values().filter(|one| one.phase == Phase::Active).count());
        if before != after {
            self.touch();
        }
    }

    /// Addresses that are taken for load balancers that are not there.
    #[must_use]
    pub fn leftovers(&self) -> Vec<&Reservation> {
        let has_one = |owner: &Owner| self.balancers.values().any(|one| super::balancers::same(&one.owner, owner));
        self.reservations.iter().filter(|one| !has_one(&one.owner)).collect()
    }
}
