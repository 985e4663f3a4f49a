//! What exists in the tested cloud.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use quarterdeck_cloud::model::NodeAddress;
use serde::{Deserialize, Serialize};

/// What exists in the tested cloud, and what may be made in it. Read from a file in YAML; what is left out makes the
/// cases not applicable that need it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Known {
    /// Id of the cluster on whose behalf calls are made; nothing of it may exist in the cloud.
    pub cluster: String,
    /// Id of another cluster in the same cloud; empty if a cloud belongs to one cluster alone.
    pub other_cluster: String,
    /// Running machines; two are needed for all cases.
    pub running: Vec<Machine>,
    /// A machine that is shut down.
    pub stopped: Option<Machine>,
    /// A machine that is gone for good; the name may be empty.
    pub terminated: Option<Machine>,
    /// providerIDs of the right scheme that are of another account or region, or malformed.
    pub foreign: Vec<String>,
    /// A machine with addresses of both families, and the addresses in their order.
    pub dual_stack: Option<DualStack>,
    /// A machine, and labels for its Node that the provider has to tell.
    pub labelled: Option<Labelled>,
    /// What load balancers may be made; absent: none.
    pub load_balancers: Option<Balancers>,
    /// What routes may be made; absent: none.
    pub routes: Option<Paths>,
    /// How to stop and start the provider, as shell commands.
    pub restart: Option<Restart>,
}

/// A machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    /// Its name, which is the Node's.
    #[serde(default)]
    pub name: String,
    /// Its providerID.
    pub provider_id: String,
    /// Its internal addresses, for providers whose routes and load balancers lead to addresses.
    #[serde(default)]
    pub addresses: Vec<IpAddr>,
}

/// A machine with addresses of both families.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DualStack {
    /// The machine.
    pub machine: Machine,
    /// Its addresses, in the order in which they have to be told; more of other types may follow.
    pub addresses: Vec<NodeAddress>,
}

/// A machine with labels.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Labelled {
    /// The machine.
    pub machine: Machine,
    /// Labels that have to be told, among others.
    pub labels: BTreeMap<String, String>,
}

/// What load balancers may be made.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Balancers {
    /// Annotations that each of them needs.
    pub annotations: BTreeMap<String, String>,
    /// Annotations with which the provider says that a load balancer is implemented elsewhere.
    pub elsewhere: BTreeMap<String, String>,
    /// Addresses that are reserved for them, one each, for providers that do not choose addresses themselves.
    pub addresses: Option<IpNet>,
    /// How many are made to see the list paged; 3 if 0.
    pub many: usize,
}

/// What routes may be made.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Paths {
    /// Nothing else may have routes into it; its first /24 networks are used.
    pub within: IpNet,
    /// Destination of a route of somebody else, in the same table.
    #[serde(default)]
    pub foreign: Option<IpNet>,
    /// How many are made to see the list paged; 201 if 0.
    #[serde(default)]
    pub many: usize,
    /// Whether the cloud can only delete a route and make another, so that for a moment nothing leads there.
    #[serde(default)]
    pub in_two_steps: bool,
}

/// How to stop and start the provider.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Restart {
    /// Returns when it is down.
    pub stop: String,
    /// Returns when it is up.
    pub start: String,
}

impl Default for Known {
    fn default() -> Self {
        Self {
            cluster: "conformance-a".to_owned(),
            other_cluster: "conformance-b".to_owned(),
            running: Vec::new(),
            stopped: None,
            terminated: None,
            foreign: Vec::new(),
            dual_stack: None,
            labelled: None,
            load_balancers: None,
            routes: None,
            restart: None,
        }
    }
}
