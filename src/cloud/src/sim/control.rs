//! What tests do to a made-up cloud, in memory and over the control socket alike.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::faults::{Held, Rule};
use super::instances::NewInstance;
use super::journal::Call;
use super::provider::Sim;
use super::state::{Power, Settings, State};
use crate::error::Result;
use crate::model::{ClusterId, NodeAddress};

/// One thing to do to a made-up cloud.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Command {
    /// Makes a machine; the reply is its providerID.
    AddInstance(NewInstance),
    /// Starts, stops or terminates a machine.
    SetPower {
        /// Its name.
        name: String,
        /// What it should be.
        power: Power,
    },
    /// Forgets a machine, as if there had never been one.
    ForgetInstance {
        /// Its name.
        name: String,
    },
    /// Gives a machine other addresses.
    SetAddresses {
        /// Its name.
        name: String,
        /// The addresses, in order of preference.
        addresses: Vec<NodeAddress>,
    },
    /// Adds a fault; the reply is its number.
    AddFault(Rule),
    /// Takes a fault away, or all; calls that it held go on.
    ClearFaults {
        /// Its number; all if absent.
        #[serde(default)]
        id: Option<u64>,
    },
    /// Makes a second load balancer with an owner's tags; the reply is its id.
    DuplicateLoadBalancer {
        /// uid of the Service.
        uid: String,
    },
    /// Removes an owner's load balancers behind everybody's back.
    LoseLoadBalancer {
        /// uid of the Service.
        uid: String,
    },
    /// Changes an owner's load balancers behind everybody's back: takes their ports.
    SpoilLoadBalancer {
        /// uid of the Service.
        uid: String,
    },
    /// Puts a route of somebody else into a cluster's table; the reply is its id.
    AddForeignRoute {
        /// The cluster.
        cluster: ClusterId,
        /// Its destination.
        destination: IpNet,
    },
    /// Removes the routes to a destination behind everybody's back; the reply is their number.
    LoseRoutes {
        /// The destination.
        destination: IpNet,
    },
    /// Changes how the cloud behaves; what is not said is as by default.
    SetSettings(Settings),
    /// Moves everything to another account.
    SetAccount {
        /// Its id.
        account: String,
    },
    /// Forgets which tenures were seen.
    ForgetEpochs,
    /// Forgets the calls that came so far.
    ClearCalls,
}

/// What came of a command.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// Id or number of what was made; empty if nothing was.
    pub id: String,
}

/// All there is to know of a made-up cloud.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Dump {
    /// What it consists of.
    pub state: State,
    /// The calls that came, oldest first.
    pub calls: Vec<Call>,
    /// The faults in force, by number.
    pub faults: Vec<(u64, Rule)>,
    /// The calls that stand still.
    pub held: Vec<Held>,
}

impl Sim {
    /// Does one thing to the cloud.
    ///
    /// # Errors
    /// When it cannot be done; nothing was done then.
    pub fn command(&self, command: Command) -> Result<Reply> {
        match command {
            Command::AddInstance(new) => self.making(|state| state.add_instance(new)),
            Command::SetPower { name, power } => self.changing(|state| state.set_power(&name, power)),
            Command::ForgetInstance { name } => self.changing(|state| state.forget_instance(&name)),
            Command::SetAddresses { name, addresses } => self.changing(|state| state.set_addresses(&name, addresses)),
            Command::AddFault(rule) => Ok(Reply { id: self.add_fault(rule).to_string() }),
            Command::ClearFaults { id } => {
                self.clear_faults(id);
                Ok(Reply::default())
            }
            Command::DuplicateLoadBalancer { uid } => self.making(|state| state.duplicate_balancer(&uid)),
            Command::LoseLoadBalancer { uid } => self.changing(|state| state.lose_balancer(&uid)),
            Command::SpoilLoadBalancer { uid } => self.changing(|state| state.spoil_balancer(&uid)),
            Command::AddForeignRoute { cluster, destination } => {
                self.making(|state| Ok(state.add_foreign_route(&cluster, destination)))
            }
            Command::LoseRoutes { destination } => self.making(|state| Ok(state.lose_routes(destination).to_string())),
            Command::SetSettings(settings) => self.setting(|state| state.settings = settings),
            Command::SetAccount { account } => self.setting(|state| state.account = account),
            Command::ForgetEpochs => self.setting(|state| state.epochs.clear()),
            Command::ClearCalls => {
                self.clear_calls();
                Ok(Reply::default())
            }
        }
    }

    fn making(&self, make: impl FnOnce(&mut State) -> Result<String>) -> Result<Reply> {
        self.change(make).map(|id| Reply { id })
    }

    fn changing(&self, change: impl FnOnce(&mut State) -> Result<()>) -> Result<Reply> {
        self.change(change).map(|()| Reply::default())
    }

    fn setting(&self, set: impl FnOnce(&mut State)) -> Result<Reply> {
        self.changing(|state| {
            set(state);
            state.touch();
            Ok(())
        })
    }
}
