//! The metal controller: gives each address of a load balancer to one gateway that lives, and says so.
//!
//! Gateways are the machines of the inventory that have the role; that one lives is told by its agent's Lease, that it
//! works by its agent's report. What is decided stands in the `MetalLoadBalancer`, so that a new leader finds it there
//! and changes nothing.

mod plan;
mod pulse;
pub mod reasons;
mod report;
mod sweep;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::{FutureExt as _, StreamExt as _};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::ObjectReference;
use parking_lot::Mutex;
use quarterdeck_api::cloud::GROUP;
use quarterdeck_api::cloud::metal::{AGENTS_NAMESPACE, LoadBalancerStatus, MetalAgent, MetalLoadBalancer};
use quarterdeck_cloud::Cloud;
use quarterdeck_cloud::metal::Shared;
use quarterdeck_cloud::metal::inventory::{Contents, Inventory, Machine, Role, View};
use quarterdeck_cloud::model::AddressKind;
use quarterdeck_runtime::client::{ApiError, PatchPrecondition};
use quarterdeck_runtime::controller::{
    Action, ClientShare, Controller, Cx, Descriptor, Error, Grant, Setup, SetupError, Worker,
};
use quarterdeck_runtime::informer::{Change, Lister, Selection};
use quarterdeck_runtime::object::{Cached as _, Kind, ObjectKey};
use quarterdeck_runtime::queue::Enqueue;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use plan::{Balancer, Gateway, Snapshot, plan};
use pulse::{Life, Pulses};
use report::Reports;
pub use sweep::MetalConfig;
use sweep::Sweeper;

/// Load balancers that are written at once.
const AT_ONCE: usize = 16;
/// How long until the gateways are looked at again although nothing happened.
const RESYNC: Duration = Duration::from_secs(300);

/// The one key: addresses are spread over all load balancers at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct All;

impl fmt::Display for All {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("all")
    }
}

/// Gives addresses to gateways. Without the provider metal it stands aside.
pub struct MetalController(Option<Desk>);

struct Desk {
    inventory: Arc<Inventory>,
    balancers: Lister<MetalLoadBalancer>,
    agents: Lister<MetalAgent>,
    leases: Lister<Lease>,
    pulses: Arc<Pulses>,
    moves: prometheus::IntCounter,
    sweeper: Sweeper,
    /// What was said last of the inventory's trouble.
    told: Mutex<Option<String>>,
}

impl Controller for MetalController {
    const DESCRIPTOR: Descriptor = Descriptor {
        name: "metal-controller",
        aliases: &["metal"],
        enabled_by_default: true,
        account: "metal-controller",
        upstream_role: false,
        writes_anything: false,
        predecessor: None,
        queue: "metal",
        // A gateway that fails may mean a write for each of a thousand load balancers.
        share: ClientShare { qps: 10.0, burst: 10 },
    };
    type Config = MetalConfig;
    type Key = All;

    fn setup(config: &MetalConfig, setup: &mut Setup<All>) -> Result<Self, SetupError> {
        let sweeper = Sweeper::new(config.retention()?);
        let Some(cloud) = Cloud::join(setup)? else { return Ok(Self(None)) };
        let Some(shared) = cloud.shared::<Shared>() else {
            setup.stand_aside("it needs --cloud-provider=metal");
            return Ok(Self(None));
        };
        let Some(inventory) = shared.inventory.clone() else {
            setup.stand_aside("it needs --cloud-config: gateways are listed there");
            return Ok(Self(None));
        };
        let balancers = setup.informer::<MetalLoadBalancer>(Selection::default());
        let agents = setup.informer::<MetalAgent>(Selection::default());
        let own = Selection { namespace: Some(AGENTS_NAMESPACE.to_owned()), ..Selection::default() };
        let leases = setup.informer::<Lease>(own);
        let pulses = Arc::new(Pulses::default());
        setup.watch(&balancers, |_, queue| queue.add(All));
        setup.watch(&agents, |_, queue| queue.add(All));
        let (seen, read) = (Arc::clone(&pulses), leases.clone());
        setup.watch(&leases, move |change, queue| {
            let news = match change {
                Change::Deleted { last, .. } => {
                    seen.lost(last.key().name());
                    true
                }
                Change::Added(lease) => seen.saw(lease, read.has_synced(), Instant::now()),
                Change::Updated { new, .. } => seen.saw(new, false, Instant::now()),
            };
            if news {
                queue.add(All);
            }
        });
        shared.answer_holders(holders(agents.clone(), Arc::clone(&pulses)));
        setup.run_always(FollowInventory { inventory: Arc::clone(&inventory), queue: setup.queue() });
        setup.grant(Grant { group: GROUP, resource: "metalloadbalancers", verbs: &["update"] });
        setup.grant(Grant { group: GROUP, resource: "metalloadbalancers/status", verbs: &["patch"] });
        setup.grant(Grant { group: "", resource: "events", verbs: &["create", "patch"] });
        // What is left of hosts that are gone; of Leases, the agents' own.
        setup.grant(Grant { group: "", resource: "nodes", verbs: &["get"] });
        setup.grant(Grant { group: GROUP, resource: "metalagents", verbs: &["delete"] });
        setup.grant(Grant { group: "coordination.k8s.io", resource: "leases", verbs: &["delete"] });
        let moves = moves(setup.metrics())
            .map_err(|error| SetupError { flag: "controllers", reason: format!("metal-controller: {error}") })?;
        Ok(Self(Some(Desk { inventory, balancers, agents, leases, pulses, moves, sweeper, told: Mutex::default() })))
    }

    async fn reconcile(&self, cx: &Cx, _: All) -> Result<Action, Error> {
        match &self.0 {
            Some(desk) => desk.reconcile(cx).await,
            None => Ok(Action::Done),
        }
    }
}

fn moves(registry: &prometheus::Registry) -> prometheus::Result<prometheus::IntCounter> {
    let moves = prometheus::IntCounter::new(
        "quarterdeck_metal_address_moves_total",
        "Addresses of load balancers that were given to another gateway.",
    )?;
    registry.register(Box::new(moves.clone()))?;
    Ok(moves)
}

/// Which agents, of those that may live, still have a load balancer; `None` before they have been read.
fn holders(agents: Lister<MetalAgent>, pulses: Arc<Pulses>) -> impl Fn(&str) -> Option<Vec<String>> + Send + Sync {
    move |balancer| {
        if !agents.has_synced() {
            return None;
        }
        let now = Instant::now();
        let has = |agent: &MetalAgent| {
            agent.status.as_ref().is_some_and(|status| {
                status.load_balancers.iter().any(|own| own.name == balancer)
                    || status.announces.iter().any(|own| own.load_balancer == balancer)
            })
        };
        let all = agents.all();
        let holding = all.iter().filter(|agent| has(agent) && !pulses.of(agent.name(), now).is_over());
        Some(holding.map(|agent| agent.name().to_owned()).collect())
    }
}

/// Wakes the controller when the inventory changes.
struct FollowInventory {
    inventory: Arc<Inventory>,
    queue: Enqueue<All>,
}

impl Worker for FollowInventory {
    async fn run(&self, stop: CancellationToken) {
        self.inventory.watch();
        let mut views = self.inventory.follow();
        loop {
            self.queue.add(All);
            tokio::select! {
                () = stop.cancelled() => return,
                changed = views.changed() => if changed.is_err() { return },
            }
        }
    }
}

impl Desk {
    async fn reconcile(&self, cx: &Cx) -> Result<Action, Error> {
        let view = self.inventory.follow().borrow().clone();
        self.tell_trouble(cx, &view);
        // Without an inventory, who is a gateway is not known: what is decided stands.
        let Some(inventory) = &view.good else { return Ok(Action::RequeueAfter(RESYNC)) };
        let now = Instant::now();
        let balancers = self.balancers.all();
        let agents = self.agents.all();
        let reports: Reports<'_> =
            agents.iter().filter_map(|agent| Some((agent.name(), agent.status.as_ref()?))).collect();
        let snapshot = Snapshot {
            gateways: self.gateways(inventory, &reports, now),
            balancers: balancers.iter().filter(|own| !own.is_deleting()).map(|own| as_balancer(own)).collect(),
        };
        let changes: BTreeMap<String, plan::Change> =
            plan(&snapshot).into_iter().map(|change| (change.balancer.clone(), change)).collect();
        let at = Timestamp::now();
        let mut writes = Vec::new();
        for own in balancers.iter().filter(|own| !own.is_deleting() && !own.spec.addresses.is_empty()) {
            let change = changes.get(own.name());
            // What is said of it follows when its new spec has been seen.
            let status = if change.is_none() { report::status(own, &reports, at) } else { None };
            if change.is_some() || status.is_some() {
                writes.push(self.write(cx, own, change, status).boxed());
            }
        }
        let results: Vec<Result<(), Error>> = futures::stream::iter(writes).buffer_unordered(AT_ONCE).collect().await;
        results.into_iter().collect::<Result<(), Error>>()?;
        let due = self.pulses.next(now).into_iter().chain(self.sweep(cx, &view).await?).min();
        let next = due.map_or(RESYNC, |next| next.saturating_duration_since(now));
        Ok(Action::RequeueAfter(next.min(RESYNC)))
    }

    fn gateways(&self, inventory: &Contents, reports: &Reports<'_>, now: Instant) -> Vec<Gateway> {
        // While Leases are refused, nothing is known of anybody's life.
        let readable = self.leases.has_synced() && self.leases.refusal().is_none();
        let machines = inventory.machines.iter().filter(|machine| machine.role == Role::Gateway);
        machines
            .map(|machine| {
                let report = reports.get(&*machine.name);
                let programmed = |failed: bool| -> BTreeSet<String> {
                    let all = report.iter().flat_map(|report| &report.load_balancers);
                    all.filter(|own| own.error.is_empty() != failed).map(|own| own.name.clone()).collect()
                };
                Gateway {
                    name: machine.name.clone(),
                    addresses: internal(machine),
                    life: if readable { self.pulses.of(&machine.name, now) } else { Life::Unsure },
                    ready: report.map(|report| report.ready),
                    shutdown: machine.shutdown,
                    failing: programmed(true),
                    working: programmed(false),
                }
            })
            .collect()
    }

    async fn write(
        &self,
        cx: &Cx,
        stored: &MetalLoadBalancer,
        change: Option<&plan::Change>,
        status: Option<LoadBalancerStatus>,
    ) -> Result<(), Error> {
        if let Some(change) = change {
            if cx.authority.epoch > 0 && stored.spec.epoch > cx.authority.epoch {
                return Err(Error::Stale(format!("{} was written by a later leader", stored.name())));
            }
            let mut next = stored.clone();
            next.spec.addresses.clone_from(&change.addresses);
            next.spec.gateways.clone_from(&change.gateways);
            next.spec.epoch = next.spec.epoch.max(cx.authority.epoch);
            settle(cx.api.replace(&next).await.map(drop))?;
            for moved in &change.moves {
                self.moves.inc();
                let about = report::service(&stored.spec.owner);
                cx.recorder.event(&about, reasons::ADDRESS_MOVED, report::moved(moved));
                tracing::info!(
                    load_balancer = stored.name(), address = %moved.address, from = moved.from, to = moved.to,
                    why = moved.why, "moved an address"
                );
            }
        }
        if let Some(status) = status {
            let (kind, key) = (Kind::of::<MetalLoadBalancer>(), ObjectKey::cluster(stored.name()));
            let patch = serde_json::json!({ "status": status });
            let same = PatchPrecondition::Uid(stored.uid().to_owned());
            settle(cx.api.merge_patch(&kind, &key, Some("status"), &patch, &same).await.map(drop))?;
        }
        Ok(())
    }

    /// One event when the inventory stops making sense, and one when it does again.
    fn tell_trouble(&self, cx: &Cx, view: &View) {
        let mut told = self.told.lock();
        if *told == view.trouble {
            return;
        }
        let about = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Namespace".to_owned()),
            namespace: Some("kube-system".to_owned()),
            name: Some("kube-system".to_owned()),
            ..ObjectReference::default()
        };
        match &view.trouble {
            Some(trouble) => {
                let text = format!("The inventory of machines does not count, the last good one does: {trouble}");
                cx.recorder.event(&about, reasons::INVENTORY_INVALID, text);
            }
            None => cx.recorder.event(&about, reasons::INVENTORY_VALID, "The inventory of machines is good again"),
        }
        told.clone_from(&view.trouble);
    }
}

/// A load balancer that is gone needs nothing.
fn settle(result: Result<(), ApiError>) -> Result<(), Error> {
    match result {
        Err(error) if !error.is_not_found() => Err(error.into()),
        _ => Ok(()),
    }
}

fn as_balancer(stored: &MetalLoadBalancer) -> Balancer {
    Balancer {
        name: stored.name().to_owned(),
        addresses: stored.spec.addresses.clone(),
        gateways: stored.spec.gateways.clone(),
    }
}

/// A machine's addresses in the nodes' network.
fn internal(machine: &Machine) -> Vec<IpAddr> {
    let internal = machine.addresses.iter().filter(|address| address.kind == AddressKind::InternalIp);
    internal.filter_map(|address| address.address.parse().ok()).collect()
}
