//! `metal`: machines without a vendor. Instances come from an inventory file; load balancers and routes are objects in
//! the cluster, which agents on gateways and nodes put into their kernels.
//!
//! ```text
//! inventory.yaml → instances
//! service controller → MetalLoadBalancer ← metal-controller (which gateway has which address) → agents
//! route controller   → MetalRoute                                                             → agents
//! ```
//! The manager decides and writes it down; nothing an agent does depends on a manager that is alive.

mod balancers;
mod cluster;
mod instances;
pub mod inventory;
pub mod objects;
mod routes;
mod turns;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use parking_lot::Mutex;
use quarterdeck_api::cloud::GROUP;
use quarterdeck_api::cloud::metal::MetalLoadBalancer;
use quarterdeck_runtime::controller::{Grant, SetupError};
use tokio::time::Instant;

use crate::error::{CloudError, Result};
use crate::facility::{MakeProvider, ProviderKind};
use crate::provider::{CallCtx, Instances, LoadBalancers, Provider, ProviderInfo, Routes, SharedProvider};
use cluster::Account;
use inventory::Inventory;

/// Name in `--cloud-provider`.
pub const NAME: &str = "metal";
/// Account as which load balancers are written.
pub const LOAD_BALANCER_ACCOUNT: &str = "service-controller";
/// Account as which routes are written.
pub const ROUTE_ACCOUNT: &str = "route-controller";
/// Nodes of one question; the answer is in memory.
const BATCH: usize = 20_000;
/// Objects of one page of a list.
const PAGE: u32 = 250;

/// Says which live agents still have a load balancer of this name; `None` if that is not known.
pub type Holders = dyn Fn(&str) -> Option<Vec<String>> + Send + Sync;

/// What the provider and the metal controller of a process share.
pub struct Shared {
    /// The machines; `None` if there is no file.
    pub inventory: Option<Arc<Inventory>>,
    holders: OnceLock<Box<Holders>>,
    page: AtomicU32,
}

impl Shared {
    fn of(inventory: Option<Arc<Inventory>>) -> Self {
        Self { inventory, holders: OnceLock::new(), page: AtomicU32::new(PAGE) }
    }

    /// Has lists come in pages of at most so many from now on; for tests, which have few.
    pub fn set_page(&self, size: u32) {
        self.page.store(size.max(1), Ordering::Relaxed);
    }

    fn page(&self) -> u32 {
        self.page.load(Ordering::Relaxed)
    }

    /// Tells the provider whom to ask for the agents that still have a load balancer; the first one counts.
    pub fn answer_holders(&self, holders: impl Fn(&str) -> Option<Vec<String>> + Send + Sync + 'static) {
        let _ = self.holders.set(Box::new(holders));
    }

    fn holders(&self, name: &str) -> Option<Vec<String>> {
        self.holders.get().and_then(|holders| holders(name))
    }
}

/// The provider.
pub struct Metal {
    shared: Arc<Shared>,
    balancers: Account,
    routers: Account,
    /// Load balancers and routes that are being written, by what they are and their names.
    turns: turns::Turns,
    /// Since when load balancers are being deleted, by name.
    going: Mutex<HashMap<String, Instant>>,
}

/// The provider as it can be asked for.
#[must_use]
pub fn kind() -> ProviderKind {
    ProviderKind { name: NAME, make, load_balancer_grants, route_grants }
}

fn load_balancer_grants() -> Vec<Grant> {
    vec![Grant { group: GROUP, resource: "metalloadbalancers", verbs: &["list", "create", "update", "delete"] }]
}

fn route_grants() -> Vec<Grant> {
    vec![Grant { group: GROUP, resource: "metalroutes", verbs: &["list", "create", "update", "delete"] }]
}

fn make(make: &MakeProvider<'_>) -> std::result::Result<SharedProvider, SetupError> {
    let file = make.uri.unwrap_or(&make.config.cloud_config);
    let inventory = match file {
        "" => {
            tracing::warn!("--cloud-provider=metal without --cloud-config: it knows no machines, and so no gateways");
            None
        }
        file => Some(Inventory::new(file, &make.ground.registry).map_err(|error| SetupError {
            flag: "cloud-provider",
            reason: format!("metal is given twice: {error}"),
        })?),
    };
    let shared = Arc::new(Shared::of(inventory));
    make.shared.lock().put(Arc::clone(&shared));
    let account = |name| Account::new(Arc::clone(&make.ground.clients), name);
    Ok(Arc::new(Metal {
        shared,
        balancers: account(LOAD_BALANCER_ACCOUNT),
        routers: account(ROUTE_ACCOUNT),
        turns: turns::Turns::default(),
        going: Mutex::default(),
    }))
}

#[async_trait]
impl Provider for Metal {
    async fn info(&self, _: &CallCtx) -> Result<ProviderInfo> {
        if let Some(inventory) = &self.shared.inventory {
            inventory.watch();
        }
        Ok(ProviderInfo {
            name: NAME.to_owned(),
            schemes: vec![inventory::SCHEME.to_owned()],
            max_batch: BATCH,
            instances: self.shared.inventory.is_some(),
            load_balancers: true,
            routes: true,
            needs_addresses: true,
        })
    }

    async fn probe(&self, _: &CallCtx) -> Result<()> {
        if let Some(inventory) = &self.shared.inventory
            && let Some(trouble) = inventory.look().await?.trouble
        {
            // Not a fault that should keep anybody from making load balancers.
            return Err(CloudError::Invalid(trouble));
        }
        self.balancers.serves::<MetalLoadBalancer>().await
    }

    fn instances(&self) -> Option<&dyn Instances> {
        self.shared.inventory.is_some().then_some(self)
    }

    fn load_balancers(&self) -> Option<&dyn LoadBalancers> {
        Some(self)
    }

    fn routes(&self) -> Option<&dyn Routes> {
        Some(self)
    }
}
