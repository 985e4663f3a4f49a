//! The cloud node lifecycle controller: taints nodes whose instance is shut down, and deletes nodes whose instance is
//! proven to be gone.
//!
//! Behaviour: k8s.io/cloud-provider:controllers/nodelifecycle/node_lifecycle_controller.go v0.36.3. What differs, and
//! why, stands in `docs/controllers/cloud-node-lifecycle-controller.md`.

mod absence;
mod look;
mod metrics;
mod pass;
pub mod reasons;
mod taint;
#[cfg(test)]
mod upstream_tests;
mod verdict;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use quarterdeck_api::cloud;
use quarterdeck_api::cloud::account::CloudAccount;
use quarterdeck_cloud::Cloud;
use quarterdeck_runtime::controller::{
    Action, ClientShare, Controller, Cx, Descriptor, Error, Grant, Predecessor, Setup, SetupError,
};
use quarterdeck_runtime::informer::{Lister, Selection};
use quarterdeck_runtime::queue::Retry;
use quarterdeck_runtime::view::NodeView;
use tokio::sync::Mutex;

use metrics::Metrics;
use pass::Memory;

/// Longest time between two tries at a cloud that does not answer.
const LONGEST_RETRY: Duration = Duration::from_secs(60);

/// Flags of the cloud node lifecycle controller.
#[derive(clap::Args, Clone, Debug)]
pub struct CloudNodeLifecycleConfig {
    /// How often nodes that are not Ready are looked at.
    #[arg(long, value_name = "DURATION", default_value = "5s", help_heading = "Cloud node lifecycle controller")]
    pub node_monitor_period: SignedDuration,
    /// How long after its creation a node is never deleted: clouds learn of a new instance a little later.
    #[arg(long, value_name = "DURATION", default_value = "5m", help_heading = "Cloud node lifecycle controller")]
    pub cloud_node_deletion_grace: SignedDuration,
    /// Of how many nodes in a hundred of a cloud the absence is believed; if more than that, and three at least, seem
    /// to be gone, none is deleted. 100: of all.
    #[arg(long, value_name = "PERCENT", default_value_t = 20, help_heading = "Cloud node lifecycle controller")]
    pub cloud_node_deletion_brake: usize,
}

/// All nodes of one cloud, by its place in `--cloud-provider`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OfCloud(usize);

impl fmt::Display for OfCloud {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "nodes of cloud {}", self.0)
    }
}

/// Watches over the instances of nodes; without a cloud it stands aside.
pub struct CloudNodeLifecycleController(Option<Watch>);

/// What watches over the instances.
struct Watch {
    cloud: Arc<Cloud>,
    nodes: Lister<NodeView>,
    /// In which accounts nodes were found before.
    accounts: Lister<CloudAccount>,
    period: Duration,
    rules: Rules,
    metrics: Metrics,
    /// What is remembered of each cloud; only its own pass has it.
    memories: Vec<Mutex<Memory>>,
}

/// What flags say of deletions.
#[derive(Clone, Copy, Debug)]
struct Rules {
    /// Seconds for which young nodes are kept.
    grace: i64,
    /// Of how many nodes in a hundred the absence is believed.
    percent: usize,
}

impl Controller for CloudNodeLifecycleController {
    const DESCRIPTOR: Descriptor = Descriptor {
        name: "cloud-node-lifecycle-controller",
        aliases: &["cloud-node-lifecycle"],
        enabled_by_default: true,
        account: "node-controller",
        upstream_role: true,
        writes_anything: false,
        predecessor: Some(Predecessor::CloudControllerManager),
        queue: "cloud-node-lifecycle",
        share: ClientShare::ONE,
    };
    type Config = CloudNodeLifecycleConfig;
    type Key = OfCloud;

    fn setup(config: &CloudNodeLifecycleConfig, setup: &mut Setup<OfCloud>) -> Result<Self, SetupError> {
        let refuse = |flag, reason: &str| SetupError { flag, reason: reason.to_owned() };
        let period = Duration::try_from(config.node_monitor_period).ok().filter(|period| !period.is_zero());
        let period = period.ok_or_else(|| refuse("node-monitor-period", "must be more than zero"))?;
        if config.cloud_node_deletion_grace.is_negative() {
            return Err(refuse("cloud-node-deletion-grace", "must not be negative"));
        }
        let percent = config.cloud_node_deletion_brake;
        if percent > 100 {
            return Err(refuse("cloud-node-deletion-brake", "must be a percentage from 0 to 100"));
        }
        let Some(cloud) = Cloud::join(setup)? else { return Ok(Self(None)) };
        let nodes = setup.informer::<NodeView>(Selection::default());
        let accounts = setup.informer::<CloudAccount>(Selection::default());
        // Never changed by us, so that nothing but a person lets another account count.
        setup.grant(Grant { group: cloud::GROUP, resource: "cloudaccounts", verbs: &["create"] });
        // A worker for each cloud: none waits for another.
        let clouds = cloud.most();
        setup.workers(clouds);
        setup.retry(Retry { base: period, max: LONGEST_RETRY.max(period), tries: None });
        let queue = setup.queue();
        (0..clouds).for_each(|index| queue.add(OfCloud(index)));
        cloud.on_join(move |index| queue.add(OfCloud(index)));
        let rules = Rules { grace: config.cloud_node_deletion_grace.as_secs(), percent };
        let memories = (0..clouds).map(|_| Mutex::default()).collect();
        let metrics = Metrics::new(setup.metrics());
        Ok(Self(Some(Watch { cloud, nodes, accounts, period, rules, metrics, memories })))
    }

    async fn reconcile(&self, cx: &Cx, key: OfCloud) -> Result<Action, Error> {
        let Some(watch) = &self.0 else { return Ok(Action::Done) };
        watch.cloud.report_trouble(&cx.recorder);
        let (Some(provider), Some(memory)) = (watch.cloud.providers().get(key.0), watch.memories.get(key.0)) else {
            return Ok(Action::Done);
        };
        // Never contended: a key is in one worker's hands at a time.
        let mut memory = memory.lock().await;
        watch.pass(cx, provider, &mut memory).await?;
        Ok(Action::RequeueAfter(watch.period))
    }
}
