//! The node route controller: has each cloud route the pods' networks to their nodes.
//!
//! Behaviour: k8s.io/cloud-provider:controllers/route/route_controller.go v0.36.3. What differs, and why, stands in
//! `docs/controllers/node-route-controller.md`.

mod config;
mod departed;
mod metrics;
mod pass;
mod plan;
#[cfg(test)]
mod plan_tests;
pub mod reasons;
mod tries;
#[cfg(test)]
mod upstream_tests;

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use quarterdeck_cloud::Cloud;
use quarterdeck_runtime::controller::{
    Action, ClientShare, Controller, Cx, Descriptor, Error, Grant, Predecessor, Setup, SetupError,
};
use quarterdeck_runtime::informer::{Change, Lister, Selection};
use quarterdeck_runtime::queue::Retry;
use quarterdeck_runtime::view::NodeView;
use tokio::sync::Mutex;

pub use config::NodeRouteConfig;
use departed::Departed;
use metrics::Metrics;
use pass::{Memory, Told};

/// How long a change of a node waits for others.
const BATCH: Duration = Duration::from_millis(500);
/// First delay after a cloud did not list its routes.
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// Longest such delay.
const LONGEST_RETRY: Duration = Duration::from_secs(60);

/// The routes of one cloud, by its place in `--cloud-provider`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OfCloud(usize);

impl fmt::Display for OfCloud {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "routes of cloud {}", self.0)
    }
}

/// Keeps the routes of clouds; without a cloud it stands aside.
pub struct NodeRouteController(Option<Router>);

/// What keeps the routes.
struct Router {
    cloud: Arc<Cloud>,
    nodes: Lister<NodeView>,
    cluster: Vec<IpNet>,
    period: Duration,
    metrics: Metrics,
    departed: Arc<Departed>,
    /// Wrong networks that were told, of all clouds.
    told: parking_lot::Mutex<HashSet<Told>>,
    /// What is remembered of each cloud; only its own pass has it.
    memories: Vec<Mutex<Memory>>,
}

impl Controller for NodeRouteController {
    const DESCRIPTOR: Descriptor = Descriptor {
        name: "node-route-controller",
        aliases: &["route"],
        enabled_by_default: true,
        account: "route-controller",
        upstream_role: true,
        writes_anything: false,
        predecessor: Some(Predecessor::CloudControllerManager),
        queue: "Routes",
        share: ClientShare::ONE,
    };
    type Config = NodeRouteConfig;
    type Key = OfCloud;

    fn setup(config: &NodeRouteConfig, setup: &mut Setup<OfCloud>) -> Result<Self, SetupError> {
        let period = config.period()?;
        let Some(cloud) = Cloud::join(setup)? else { return Ok(Self(None)) };
        if !config.configure_cloud_routes {
            setup.stand_aside("it needs --configure-cloud-routes");
            return Ok(Self(None));
        }
        let cluster = config.cluster()?;
        if cluster.is_empty() {
            setup.stand_aside("it needs --cluster-cidr");
            return Ok(Self(None));
        }
        let nodes = setup.informer::<NodeView>(Selection::default());
        // A worker for each cloud: none waits for another.
        let clouds = cloud.most();
        setup.workers(clouds);
        setup.retry(Retry { base: FIRST_RETRY, max: LONGEST_RETRY, tries: None });
        // A node that is in the way of a write is read, and the last one of a cluster when it is gone.
        setup.grant(Grant { group: "", resource: "nodes", verbs: &["get"] });
        cloud.route_grants().for_each(|grant| setup.grant(grant));
        let departed: Arc<Departed> = Arc::default();
        let seen = Arc::clone(&departed);
        setup.watch(&nodes, move |change, queue| {
            seen.saw(&change);
            if matters(&change) {
                (0..clouds).for_each(|index| queue.add_after(OfCloud(index), BATCH));
            }
        });
        let queue = setup.queue();
        (0..clouds).for_each(|index| queue.add(OfCloud(index)));
        cloud.on_join(move |index| queue.add(OfCloud(index)));
        let memories = (0..clouds).map(|_| Mutex::default()).collect();
        let metrics = Metrics::new(setup.metrics());
        Ok(Self(Some(Router {
            cloud,
            nodes,
            cluster,
            period,
            metrics,
            departed,
            told: parking_lot::Mutex::default(),
            memories,
        })))
    }

    async fn reconcile(&self, cx: &Cx, key: OfCloud) -> Result<Action, Error> {
        let Some(router) = &self.0 else { return Ok(Action::Done) };
        router.cloud.report_trouble(&cx.recorder);
        let (Some(provider), Some(memory)) = (router.cloud.providers().get(key.0), router.memories.get(key.0)) else {
            return Ok(Action::Done);
        };
        // Never contended: a key is in one worker's hands at a time.
        let mut memory = memory.lock().await;
        let again = router.pass(cx, provider, &mut memory).await?;
        Ok(Action::RequeueAfter(again.min(router.period)))
    }
}

/// Whether a change of a node may change routes.
fn matters(change: &Change<'_, NodeView>) -> bool {
    match change {
        Change::Added(_) | Change::Deleted { .. } => true,
        Change::Updated { old, new } => {
            old.uid != new.uid
                || old.pod_cidrs != new.pod_cidrs
                || old.addresses != new.addresses
                || old.provider_id != new.provider_id
        }
    }
}
