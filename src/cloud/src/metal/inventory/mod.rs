//! The inventory: which machines there are, by a file that is read again when it changes.
//!
//! A file that cannot be read, or makes no sense, changes nothing: the last good one counts, and nothing is said to be
//! absent until it is good again. Neither is it while a new content has not settled: a copy that is being written may
//! look like a shorter inventory.

mod parse;
mod reader;
mod watch;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde::Deserialize;

use crate::model::{Instance, NodeAddress};

pub use parse::{Fault, parse};
pub use reader::{Inventory, SETTLE, View};

/// What stands before the id in a providerID.
pub const SCHEME: &str = "metal";

/// What a machine is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Runs pods.
    #[default]
    Node,
    /// Announces load balancers' addresses; may run pods, too.
    Gateway,
}

/// A machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// Name of its Node, or of the gateway's agent.
    pub name: String,
    /// What identifies it for its whole life.
    pub id: String,
    /// Its addresses, in order of preference.
    pub addresses: Vec<NodeAddress>,
    /// Its zone; may be empty.
    pub zone: String,
    /// Its region; may be empty.
    pub region: String,
    /// Its type; may be empty.
    pub instance_type: String,
    /// Labels for its Node.
    pub labels: BTreeMap<String, String>,
    /// Whether somebody shut it down on purpose; a gateway is then given no addresses.
    pub shutdown: bool,
    /// What it is for.
    pub role: Role,
    /// The line at which it stands.
    pub line: u64,
}

impl Machine {
    /// `metal://<id>`.
    #[must_use]
    pub fn provider_id(&self) -> String {
        format!("{SCHEME}://{}", self.id)
    }

    /// As a provider tells of it.
    #[must_use]
    pub fn instance(&self) -> Instance {
        Instance {
            provider_id: self.provider_id(),
            instance_type: self.instance_type.clone(),
            addresses: self.addresses.clone(),
            zone: self.zone.clone(),
            region: self.region.clone(),
            labels: self.labels.clone(),
            shutdown: self.shutdown,
        }
    }
}

/// A good inventory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contents {
    /// What stands for the account id of a cloud: which site, or which set of machines.
    pub cluster: String,
    /// Hash of the file.
    pub digest: String,
    /// The machines, in the file's order.
    pub machines: Vec<Arc<Machine>>,
    by_id: HashMap<String, Arc<Machine>>,
    by_name: HashMap<String, Arc<Machine>>,
}

impl Contents {
    /// The machine with this id.
    #[must_use]
    pub fn by_id(&self, id: &str) -> Option<&Arc<Machine>> {
        self.by_id.get(id)
    }

    /// The machine with this name.
    #[must_use]
    pub fn by_name(&self, name: &str) -> Option<&Arc<Machine>> {
        self.by_name.get(name)
    }
}
