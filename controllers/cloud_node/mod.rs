//! The cloud node controller: gives new nodes what their cloud knows of them, and keeps their addresses.
//!
//! Behaviour: k8s.io/cloud-provider:controllers/node/node_controller.go v0.36.3. What differs, and why, stands in
//! `docs/controllers/cloud-node-controller.md`.

mod find;
mod lanes;
mod metrics;
mod plan;
#[cfg(test)]
mod plan_tests;
pub mod reasons;
#[cfg(test)]
mod upstream_tests;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use jiff::SignedDuration;
use k8s_openapi::api::core::v1::Node;
use parking_lot::Mutex;
use quarterdeck_cloud::guard::Seen;
use quarterdeck_cloud::model::{Instance, Lookup};
use quarterdeck_cloud::nodes::{about, node_ref, scheme};
use quarterdeck_cloud::{Cloud, CloudError, Guarded};
use quarterdeck_runtime::client::{ApiError, Class, PatchPrecondition, Written};
use quarterdeck_runtime::controller::{
    Action, ClientShare, Controller, Cx, Descriptor, Error, Predecessor, Setup, SetupError,
};
use quarterdeck_runtime::events::Reason;
use quarterdeck_runtime::informer::{Change, Lister, Selection};
use quarterdeck_runtime::object::{Cached as _, Kind, ObjectKey};
use quarterdeck_runtime::ongoing::Ongoing;
use quarterdeck_runtime::queue::{Enqueue, Retry};
use quarterdeck_runtime::view::{Address, NodeView};
use serde_json::json;

use find::{Found, find};
use lanes::Lanes;
use metrics::Metrics;
use plan::{addresses, initialise, is_compared, is_uninitialized, stale_labels};

/// Answers of the clouds that all their controllers share may be this old.
const SHARED_AGE: Duration = Duration::from_secs(30);
/// How failures are retried: a cloud often learns of an instance a little later than the cluster does.
const RETRY: Retry = Retry { base: Duration::from_millis(200), max: Duration::from_secs(60), tries: None };

/// Flags of the cloud node controller.
#[derive(clap::Args, Clone, Debug)]
pub struct CloudNodeConfig {
    /// How often the addresses of all nodes are compared with what their cloud says.
    #[arg(long, value_name = "DURATION", default_value = "5m", help_heading = "Cloud node controller")]
    pub node_status_update_frequency: SignedDuration,
    /// Number of nodes of one cloud that are initialised at once; they share the questions to the cloud.
    #[arg(long, value_name = "COUNT", default_value_t = 16, help_heading = "Cloud node controller")]
    pub concurrent_node_syncs: usize,
    /// Number of nodes of one cloud whose addresses are written at once; 0: as many as are initialised at once.
    #[arg(long, value_name = "COUNT", default_value_t = 0, help_heading = "Cloud node controller")]
    pub concurrent_node_status_updates: usize,
}

/// What one reconcile is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Task {
    /// One node: its initialisation, or its labels.
    Node(ObjectKey),
    /// The addresses of all nodes of one cloud, by its place in `--cloud-provider`.
    Refresh(usize),
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(key) => key.fmt(f),
            Self::Refresh(index) => write!(f, "addresses of cloud {index}"),
        }
    }
}

/// Initialises nodes, and keeps their addresses; without a cloud it stands aside.
pub struct CloudNodeController(Option<Keeper>);

/// What looks after the nodes.
struct Keeper {
    cloud: Arc<Cloud>,
    nodes: Lister<NodeView>,
    queue: Enqueue<Task>,
    lanes: Lanes,
    /// What was told of nodes that did not get what their cloud has, until they do.
    told: Mutex<HashMap<ObjectKey, HashSet<&'static str>>>,
    /// Nodes whose addresses the cloud does not tell.
    silent: Ongoing<ObjectKey>,
    /// How often addresses are compared.
    period: Duration,
    /// How many addresses are written at once.
    at_once: usize,
    metrics: Metrics,
}

impl Controller for CloudNodeController {
    const DESCRIPTOR: Descriptor = Descriptor {
        name: "cloud-node-controller",
        aliases: &["cloud-node"],
        enabled_by_default: true,
        account: "node-controller",
        upstream_role: true,
        writes_anything: false,
        predecessor: Some(Predecessor::CloudControllerManager),
        queue: "Nodes",
        share: ClientShare::ONE,
    };
    type Config = CloudNodeConfig;
    type Key = Task;

    fn setup(config: &CloudNodeConfig, setup: &mut Setup<Task>) -> Result<Self, SetupError> {
        let period = Duration::try_from(config.node_status_update_frequency).ok().filter(|period| !period.is_zero());
        let period = period.ok_or_else(|| SetupError {
            flag: "node-status-update-frequency",
            reason: "must be more than zero".to_owned(),
        })?;
        let syncs = config.concurrent_node_syncs;
        if syncs == 0 {
            return Err(SetupError { flag: "concurrent-node-syncs", reason: "must be at least 1".to_owned() });
        }
        let at_once = Some(config.concurrent_node_status_updates).filter(|count| *count > 0).unwrap_or(syncs);
        let Some(cloud) = Cloud::join(setup)? else { return Ok(Self(None)) };
        // One lane a cloud and one for nodes of none, all full, leave a worker for each cloud's addresses.
        let clouds = cloud.most();
        setup.workers(syncs * (clouds + 1) + clouds);
        setup.retry(RETRY);
        let nodes = setup.informer::<NodeView>(Selection::default());
        setup.watch(&nodes, |change, queue| {
            if matters(&change) {
                queue.add(Task::Node(change.object().key()));
            }
        });
        let queue = setup.queue();
        (0..clouds).for_each(|index| queue.add(Task::Refresh(index)));
        let (joined, waiting) = (queue.clone(), nodes.clone());
        cloud.on_join(move |index| {
            joined.add(Task::Refresh(index));
            // Nobody may have known them before.
            waiting
                .all()
                .iter()
                .filter(|node| is_uninitialized(node))
                .for_each(|node| joined.add(Task::Node(node.key())));
        });
        let (lanes, metrics) = (Lanes::new(syncs), Metrics::new(setup.metrics()));
        let told = Mutex::default();
        Ok(Self(Some(Keeper {
            cloud,
            nodes,
            queue,
            lanes,
            told,
            silent: Ongoing::default(),
            period,
            at_once,
            metrics,
        })))
    }

    async fn reconcile(&self, cx: &Cx, task: Task) -> Result<Action, Error> {
        let Some(keeper) = &self.0 else { return Ok(Action::Done) };
        keeper.cloud.report_trouble(&cx.recorder);
        match task {
            Task::Node(key) => keeper.node(cx, &key).await,
            Task::Refresh(index) => match keeper.cloud.providers().get(index) {
                Some(provider) => keeper.refresh(cx, provider).await,
                None => Ok(Action::Done),
            },
        }
    }
}

/// Whether a change asks for a look at the node.
fn matters(change: &Change<'_, NodeView>) -> bool {
    match change {
        Change::Added(_) => true,
        // What is remembered of it is forgotten.
        Change::Deleted { .. } => true,
        Change::Updated { old, new } => {
            old.uid != new.uid
                || old.labels != new.labels
                || (is_uninitialized(new)
                    && (!is_uninitialized(old)
                        || old.provider_id != new.provider_id
                        || old.annotations != new.annotations))
        }
    }
}

impl Keeper {
    async fn node(&self, cx: &Cx, key: &ObjectKey) -> Result<Action, Error> {
        let Some(node) = self.nodes.get(key).filter(|node| !node.deleting) else {
            self.told.lock().remove(key);
            self.silent.ends(key);
            return Ok(Action::Done);
        };
        if !is_uninitialized(&node) {
            self.put_labels_right(cx, &node).await?;
            return Ok(Action::Done);
        }
        let lane = node.provider_id.as_deref().map_or("", scheme);
        let wake = |key| self.queue.add(Task::Node(key));
        let Some(_place) = self.lanes.enter(lane, key, wake) else {
            // Whoever leaves the lane brings the key back.
            return Ok(Action::Done);
        };
        match find(&self.cloud, &node_ref(&node)).await {
            Found::Here(instance) => self.initialise(cx, &node, &instance).await,
            Found::NotOurs => Ok(Action::RequeueAfter(self.period)),
            Found::Ambiguous(clouds) => {
                let message = format!(
                    "Several clouds ({}) have an instance of this name: set the kubelet's --provider-id",
                    clouds.join(", ")
                );
                self.problem(cx, &node, reasons::AMBIGUOUS, message);
                Ok(Action::RequeueAfter(self.period))
            }
            Found::Nowhere(evidence) => Err(Error::Transient(format!("node {key} has no instance: {evidence}"))),
            Found::Unknown(error) => self.later(cx, &node, &error),
        }
    }

    /// Comes back to a node whose cloud could not say anything.
    fn later(&self, cx: &Cx, node: &NodeView, error: &CloudError) -> Result<Action, Error> {
        let message = format!("The cloud could not be asked for this node's instance: {error}");
        self.problem(cx, node, reasons::LOOK_UP_FAILED, message);
        match error.retry_after() {
            Some(after) => Ok(Action::RequeueAfter(after.clamp(RETRY.base, RETRY.max))),
            None => Err(Error::Transient(format!("asking for the instance of node {}: {error}", node.key))),
        }
    }

    async fn initialise(&self, cx: &Cx, node: &NodeView, instance: &Instance) -> Result<Action, Error> {
        let plan = match initialise(node, instance) {
            Ok(plan) => plan,
            Err(refusal) => {
                self.problem(cx, node, reasons::NOT_INITIALIZED, format!("The node stays tainted: {refusal}"));
                return Err(Error::Transient(format!("node {}: {refusal}", node.key)));
            }
        };
        for discarded in &plan.discarded {
            tracing::warn!(node = node.key.name(), label = discarded, "a label of the cloud is not set");
        }
        let mut precondition = as_read(node);
        // Before the taint goes: nobody is scheduled to a node whose addresses are not known.
        if let Some(addresses) = plan.addresses {
            let Some(written) = write_addresses(cx, node, &addresses, &precondition).await? else {
                return Ok(Action::Done);
            };
            let (uid, resource_version) = (node.uid.to_string(), written.resource_version);
            precondition = PatchPrecondition::ResourceVersion { uid, resource_version };
        }
        match cx.api.merge_patch(&Kind::of::<Node>(), &node.key, None, &plan.patch, &precondition).await {
            Err(error) if error.is_not_found() => return Ok(Action::Done),
            written => written?,
        };
        self.metrics.untainted(node.created);
        self.told.lock().remove(&node.key);
        tracing::info!(node = node.key.name(), "a node has got what its cloud knows of it");
        cx.recorder.event(&about(node), reasons::SYNCED, "Node synced successfully");
        self.metrics.initialised(node.created);
        Ok(Action::Done)
    }

    async fn put_labels_right(&self, cx: &Cx, node: &NodeView) -> Result<(), Error> {
        let stale = stale_labels(node);
        if stale.is_empty() {
            return Ok(());
        }
        let patch = json!({ "metadata": { "labels": stale } });
        match cx.api.merge_patch(&Kind::of::<Node>(), &node.key, None, &patch, &as_read(node)).await {
            Err(error) if !error.is_not_found() => Err(error.into()),
            _ => Ok(()),
        }
    }

    async fn put_addresses_right(&self, cx: &Cx, node: &NodeView, instance: &Instance) -> Result<(), Error> {
        match addresses(node, instance) {
            Ok(addresses) => {
                self.told.lock().remove(&node.key);
                if let Some(addresses) = addresses {
                    write_addresses(cx, node, &addresses, &as_read(node)).await?;
                }
                Ok(())
            }
            Err(refusal) => {
                self.problem(cx, node, reasons::ADDRESSES_KEPT, format!("The node keeps its addresses: {refusal}"));
                Ok(())
            }
        }
    }

    /// Compares the addresses of all initialised nodes of a cloud with what it says; one question for all of them.
    async fn refresh(&self, cx: &Cx, provider: &Guarded) -> Result<Action, Error> {
        let failed = |error: CloudError| {
            Error::Transient(format!("asking cloud {} for the addresses of nodes: {error}", provider.name()))
        };
        let info = provider.info().await.map_err(failed)?;
        let nodes: Vec<_> = self.nodes.all().into_iter().filter(|node| is_compared(node, &info.schemes)).collect();
        if !info.instances || nodes.is_empty() {
            return Ok(Action::RequeueAfter(self.period));
        }
        let refs: Vec<_> = nodes.iter().map(|node| node_ref(node)).collect();
        let seen = provider.look_up(&refs, SHARED_AGE.min(self.period)).await.map_err(failed)?;
        let written = futures::stream::iter(nodes.iter().zip(&seen));
        written.for_each_concurrent(self.at_once, |(node, seen)| self.refresh_one(cx, node, seen)).await;
        Ok(Action::RequeueAfter(self.period))
    }

    async fn refresh_one(&self, cx: &Cx, node: &NodeView, seen: &Seen) {
        let instance = match &seen.lookup {
            Ok(Lookup::Found(instance)) => instance,
            // Whether it is gone is judged by others, with more care.
            Ok(Lookup::Absent(_) | Lookup::NotMine) => return,
            Err(error) => {
                if self.silent.begins(node.key.clone()) {
                    let error = error as &dyn std::error::Error;
                    tracing::warn!(node = node.key.name(), error, "the cloud does not tell the addresses of a node");
                }
                return;
            }
        };
        self.silent.ends(&node.key);
        if let Err(error) = self.put_addresses_right(cx, node, instance).await
            && !matches!(error.class(), Class::Conflict | Class::NotLeader)
        {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(node = node.key.name(), error, "the addresses of a node could not be written");
        }
    }

    /// An event and a count for what somebody should look at: once, until all is well with the node again.
    fn problem(&self, cx: &Cx, node: &NodeView, reason: Reason, message: String) {
        if !self.told.lock().entry(node.key.clone()).or_default().insert(reason.name()) {
            return;
        }
        cx.recorder.event(&about(node), reason, message);
        self.metrics.problem(reason.name());
    }
}

/// The node as it was read.
fn as_read(node: &NodeView) -> PatchPrecondition {
    PatchPrecondition::ResourceVersion {
        uid: node.uid.to_string(),
        resource_version: node.resource_version.to_string(),
    }
}

/// Writes `status.addresses` whole; `None` if the node is gone. A strategic patch would merge them by type, of which a
/// dual-stack node has two alike.
async fn write_addresses(
    cx: &Cx,
    node: &NodeView,
    addresses: &[Address],
    precondition: &PatchPrecondition,
) -> Result<Option<Written>, ApiError> {
    let patch = json!({ "status": { "addresses": addresses } });
    match cx.api.merge_patch(&Kind::of::<Node>(), &node.key, Some("status"), &patch, precondition).await {
        Err(error) if error.is_not_found() => Ok(None),
        written => written.map(Some),
    }
}
