//! Machines: what is asked about them, and what tests do with them.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use super::faults::Twist;
use super::state::{Machine, Power, State};
use crate::error::{CloudError, Result};
use crate::model::{AddressKind, Answers, Instance, Lookup, NodeAddress, NodeRef, Proof};

/// What stands before `://` in its providerIDs, unless it was told otherwise.
pub const SCHEME: &str = "sim";

/// A machine to be made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NewInstance {
    /// Its name; has to be free.
    pub name: String,
    /// Its type; `sim.small` if empty.
    pub instance_type: String,
    /// Its zone; `sim-1a` if empty.
    pub zone: String,
    /// Its region; `sim-1` if empty.
    pub region: String,
    /// Its addresses; one of 10.240.0.0/16 and its name if empty.
    pub addresses: Vec<NodeAddress>,
    /// Labels for its Node.
    pub labels: BTreeMap<String, String>,
    /// Whether it runs.
    pub power: Power,
}

impl NewInstance {
    /// A running machine with this name, and the rest made up.
    #[must_use]
    pub fn named(name: &str) -> Self {
        Self { name: name.to_owned(), ..Self::default() }
    }
}

fn or(text: String, default: &str) -> String {
    if text.is_empty() { default.to_owned() } else { text }
}

/// Whether Kubernetes keeps this label to itself.
fn is_reserved(key: &str) -> bool {
    let domain = key.split_once('/').map_or("", |(domain, _)| domain);
    ["kubernetes.io", "k8s.io"].iter().any(|own| domain == *own || domain.ends_with(&format!(".{own}")))
}

impl Machine {
    /// Its providerID in a cloud whose own begin [so](State::id_prefix).
    #[must_use]
    pub fn provider_id(&self, prefix: &str) -> String {
        format!("{prefix}{}/{}", self.zone, self.id)
    }

    fn instance(&self, prefix: &str) -> Instance {
        Instance {
            provider_id: self.provider_id(prefix),
            instance_type: self.instance_type.clone(),
            addresses: self.addresses.clone(),
            zone: self.zone.clone(),
            region: self.region.clone(),
            labels: self.labels.clone().into_iter().filter(|(key, _)| !is_reserved(key)).collect(),
            shutdown: self.power == Power::Stopped,
        }
    }
}

impl State {
    /// What its providerIDs begin with: `sim://<account>/`.
    #[must_use]
    pub fn id_prefix(&self) -> String {
        format!("{}://{}/", self.settings.scheme, self.account)
    }

    /// Makes a machine, and returns its providerID.
    ///
    /// # Errors
    /// When there is one of this name.
    pub fn add_instance(&mut self, new: NewInstance) -> Result<String> {
        if new.name.is_empty() {
            return Err(CloudError::Invalid("an instance needs a name".to_owned()));
        }
        if self.machine(&new.name).is_ok() {
            return Err(CloudError::Conflict(format!("there is an instance {} already", new.name)));
        }
        let id = self.next_id("i");
        let [high, low] = u16::try_from(self.last_id % 65_000).unwrap_or_default().to_be_bytes();
        let addresses = if new.addresses.is_empty() {
            let internal = Ipv4Addr::new(10, 240, high, low).to_string();
            vec![
                NodeAddress { kind: AddressKind::InternalIp, address: internal },
                NodeAddress { kind: AddressKind::Hostname, address: new.name.clone() },
            ]
        } else {
            new.addresses
        };
        let machine = Machine {
            id: id.clone(),
            name: new.name,
            instance_type: or(new.instance_type, "sim.small"),
            zone: or(new.zone, "sim-1a"),
            region: or(new.region, "sim-1"),
            addresses,
            labels: new.labels,
            power: new.power,
        };
        let provider_id = machine.provider_id(&self.id_prefix());
        self.instances.insert(id, machine);
        self.touch();
        Ok(provider_id)
    }

    /// Starts, stops or terminates a machine.
    ///
    /// # Errors
    /// When there is none of this name.
    pub fn set_power(&mut self, name: &str, power: Power) -> Result<()> {
        let id = self.machine(name)?.id.clone();
        if let Some(machine) = self.instances.get_mut(&id) {
            machine.power = power;
        }
        self.touch();
        Ok(())
    }

    /// Forgets a machine; it is as if there had never been one.
    ///
    /// # Errors
    /// When there is none of this name.
    pub fn forget_instance(&mut self, name: &str) -> Result<()> {
        let id = self.machine(name)?.id.clone();
        self.instances.remove(&id);
        self.touch();
        Ok(())
    }

    /// Gives a machine other addresses.
    ///
    /// # Errors
    /// When there is none of this name.
    pub fn set_addresses(&mut self, name: &str, addresses: Vec<NodeAddress>) -> Result<()> {
        let id = self.machine(name)?.id.clone();
        if let Some(machine) = self.instances.get_mut(&id) {
            machine.addresses = addresses;
        }
        self.touch();
        Ok(())
    }

    /// The machine of this name that is not terminated.
    ///
    /// # Errors
    /// When there is none.
    pub fn machine(&self, name: &str) -> Result<&Machine> {
        let mut alive = self.instances.values().filter(|one| one.name == name && one.power != Power::Terminated);
        alive.next().ok_or_else(|| CloudError::NotFound(format!("no instance is named {name}")))
    }

    /// Answers a question about many nodes.
    ///
    /// # Errors
    /// When it is about too many, or about one that the twist has no batch survive.
    pub(super) fn look_up(&self, nodes: &[NodeRef], twist: &Twist) -> Result<Answers> {
        if nodes.len() > self.settings.max_batch {
            let (asked, most) = (nodes.len(), self.settings.max_batch);
            return Err(CloudError::Invalid(format!("{asked} nodes in one call, {most} at most")));
        }
        if let Some(poison) = nodes.iter().find(|node| twist.poison.iter().any(|name| **name == *node.name)) {
            return Err(CloudError::Invalid(format!("the id of {} is malformed", poison.name)));
        }
        if let Some(account) = &twist.account {
            let evidence = format!("no such instance in account {account}");
            let absent = |node: &NodeRef| (node.clone(), Ok(Lookup::Absent(Proof { evidence: evidence.clone() })));
            return Ok(Answers { account: account.clone(), nodes: nodes.iter().map(absent).collect() });
        }
        let visible: Vec<&Machine> = self.instances.values().take(twist.keep.unwrap_or(usize::MAX)).collect();
        let prefix = self.id_prefix();
        let answers = nodes.iter().map(|node| (node.clone(), Ok(find(&visible, &self.account, &prefix, node))));
        Ok(Answers { account: self.account.clone(), nodes: answers.collect() })
    }
}

fn find(visible: &[&Machine], account: &str, prefix: &str, node: &NodeRef) -> Lookup {
    let absent = |evidence: String| Lookup::Absent(Proof { evidence });
    let Some(provider_id) = &node.provider_id else {
        let named = visible.iter().find(|one| one.name == *node.name && one.power != Power::Terminated);
        return match named {
            Some(machine) => Lookup::Found(Box::new(machine.instance(prefix))),
            None => absent(format!("no instance of account {account} is named {}", node.name)),
        };
    };
    let Some(id) = id_of(provider_id, prefix) else { return Lookup::NotMine };
    match visible.iter().find(|one| one.id == id) {
        Some(machine) if machine.power == Power::Terminated => absent(format!("instance {id} is terminated")),
        Some(machine) => Lookup::Found(Box::new(machine.instance(prefix))),
        None => absent(format!("account {account} has no instance {id}")),
    }
}

/// The id in a providerID of this account: `sim://<account>/<zone>/<id>`.
fn id_of<'a>(provider_id: &'a str, prefix: &str) -> Option<&'a str> {
    let (zone, id) = provider_id.strip_prefix(prefix)?.split_once('/')?;
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    (!zone.is_empty() && id.strip_prefix("i-").is_some_and(is_number)).then_some(id)
}
