//! What a provider is.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::error::{CloudError, Result};
use crate::model::{
    Answers, ClusterId, Deletion, Handle, LbOutcome, LoadBalancerSpec, NodeRef, OwnedLoadBalancer, Owner, Page, Route,
};

/// One call, as a provider is told of it.
#[derive(Clone, Debug)]
pub struct CallCtx {
    /// When the caller stops waiting. A provider that can pass it on should.
    pub deadline: Instant,
    /// Cancelled when the caller stopped waiting, or the process stops.
    pub cancel: CancellationToken,
    /// Number of the tenure in which the call was made, growing; 0 in calls that change nothing. A cloud that can
    /// remember should refuse calls of a tenure before the latest it has seen ([`CloudError::Superseded`]).
    pub lease_epoch: u64,
    /// Same in each try of one operation, so that a cloud can tell a repetition.
    pub op_id: Uuid,
    /// The cluster on whose behalf it is made.
    pub cluster: ClusterId,
}

/// What a provider says of itself.
#[derive(Clone, Debug, PartialEq)]
pub struct ProviderInfo {
    /// Its name, for logs, metrics and events.
    pub name: String,
    /// Schemes of the providerIDs that are its own, without `://`.
    pub schemes: Vec<String>,
    /// How many nodes one [`Instances::get_many`] may ask for.
    pub max_batch: usize,
    /// Whether it can be asked for instances.
    pub instances: bool,
    /// Whether it makes load balancers.
    pub load_balancers: bool,
    /// Whether it makes routes.
    pub routes: bool,
    /// Whether its load balancers need addresses that somebody else chose
    /// ([`LoadBalancerSpec::addresses`]); they then come from an `AddressPool`.
    pub needs_addresses: bool,
}

/// A cloud. Its calls are made by a [`Guarded`](crate::Guarded) on a runtime of the provider's own.
#[async_trait]
pub trait Provider: Send + Sync + 'static {
    /// What it is and can do.
    async fn info(&self, call: &CallCtx) -> Result<ProviderInfo>;

    /// Whether the cloud answers and accepts the credentials.
    async fn probe(&self, call: &CallCtx) -> Result<()>;

    /// Changes whenever the other side may have become another one, as when a plug-in was restarted: what it said of
    /// itself is then asked for anew.
    fn incarnation(&self) -> u64 {
        0
    }

    /// Its instances, if it has such.
    fn instances(&self) -> Option<&dyn Instances> {
        None
    }

    /// Its load balancers, if it has such.
    fn load_balancers(&self) -> Option<&dyn LoadBalancers> {
        None
    }

    /// Its routes, if it has such.
    fn routes(&self) -> Option<&dyn Routes> {
        None
    }
}

/// A provider that is shared.
pub type SharedProvider = Arc<dyn Provider>;

/// Machines.
#[async_trait]
pub trait Instances: Send + Sync {
    /// Looks for these nodes, at most [`ProviderInfo::max_batch`] of them, at one moment.
    async fn get_many(&self, call: &CallCtx, nodes: &[NodeRef]) -> Result<Answers>;
}

/// Load balancers. Each is identified by the owner tags it carries.
#[async_trait]
pub trait LoadBalancers: Send + Sync {
    /// All load balancers with this owner's uid and cluster: none, one, or duplicates.
    async fn get(&self, call: &CallCtx, owner: &Owner) -> Result<Vec<OwnedLoadBalancer>>;

    /// Makes or changes the owner's load balancer; changes nothing if it is as it should be. `known` is what it was
    /// called when it was last seen.
    async fn ensure(&self, call: &CallCtx, spec: &LoadBalancerSpec, known: Option<&Handle>) -> Result<LbOutcome>;

    /// Changes which nodes get traffic, and nothing else.
    async fn update_backends(&self, call: &CallCtx, spec: &LoadBalancerSpec, known: &Handle) -> Result<LbOutcome>;

    /// Removes everything that belongs to the owner's load balancer, also leftovers of a half-made one, and duplicates.
    async fn ensure_deleted(&self, call: &CallCtx, owner: &Owner, known: Option<&Handle>) -> Result<Deletion>;

    /// Load balancers of this cluster, a page at a time.
    async fn list_owned(&self, call: &CallCtx, page: Option<&str>) -> Result<Page<OwnedLoadBalancer>>;
}

/// Routes to the pods' networks.
#[async_trait]
pub trait Routes: Send + Sync {
    /// Routes of this cluster, a page at a time; never those of anybody else.
    async fn list(&self, call: &CallCtx, page: Option<&str>) -> Result<Page<Route>>;

    /// Makes a route; one that is there already and leads to the same node is as good.
    async fn create(&self, call: &CallCtx, route: &Route) -> Result<()>;

    /// Has `old`'s destination lead where `new` says, without a moment in which it leads nowhere, if the cloud can.
    async fn replace(&self, call: &CallCtx, old: &Route, new: &Route) -> Result<()> {
        match self.delete(call, old).await {
            Ok(()) | Err(CloudError::NotFound(_)) => self.create(call, new).await,
            Err(error) => Err(error),
        }
    }

    /// Removes a route; one that is not there is removed.
    async fn delete(&self, call: &CallCtx, route: &Route) -> Result<()>;
}

/// The kinds of calls, each with a deadline and a number of places of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CallClass {
    /// Reads of one thing or one page.
    Read,
    /// Reads of many nodes.
    Batch,
    /// Changes of routes.
    Route,
    /// Changes of load balancers.
    LoadBalancer,
}

impl CallClass {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Read, Self::Batch, Self::Route, Self::LoadBalancer];

    /// Its name in flags and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Batch => "batch",
            Self::Route => "route",
            Self::LoadBalancer => "loadbalancer",
        }
    }

    /// How long a call may take unless a flag says otherwise.
    #[must_use]
    pub fn default_deadline(self) -> Duration {
        Duration::from_secs(match self {
            Self::Read => 10,
            Self::Batch => 20,
            Self::Route => 30,
            Self::LoadBalancer => 60,
        })
    }

    /// How many calls may run at once.
    #[must_use]
    pub fn places(self) -> usize {
        match self {
            Self::Read => 8,
            Self::Batch => 4,
            Self::Route => 16,
            // Enough for 500 Services of 2 s each within a minute.
            Self::LoadBalancer => 20,
        }
    }

    /// Whether calls of it change something.
    #[must_use]
    pub fn changes(self) -> bool {
        matches!(self, Self::Route | Self::LoadBalancer)
    }
}
