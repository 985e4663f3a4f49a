//! A cluster whose nodes are machines of a made-up cloud, for the tests of the nodes' controllers.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::core::v1::{Event, Node};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use quarterdeck_api::cloud::account::CloudAccount;
use quarterdeck_it::{CloudSim, ControlPlane, Deck, eventually};
use serde_json::{Value, json};

/// Time that anything gets on a loaded machine.
pub(super) const LONG: Duration = Duration::from_secs(90);
/// Name of the cloud in flags and metrics.
pub(super) const CLOUD: &str = "made-up";
/// Taint of a node that waits for its cloud.
pub(super) const UNINITIALIZED: &str = "node.cloudprovider.kubernetes.io/uninitialized";

/// A control plane, a cloud, and one replica.
pub(super) struct World {
    pub(super) cloud: CloudSim,
    pub(super) nodes: Api<Node>,
    pub(super) accounts: Api<CloudAccount>,
    events: Api<Event>,
    deck: Deck,
    pub(super) control_plane: ControlPlane,
}

impl World {
    /// Starts all of it; `clouds` are further providers, asked before the made-up one.
    pub(super) async fn start(controllers: &str, clouds: &[String], args: &[&str]) -> Result<Self> {
        let cloud = CloudSim::start().await?;
        let control_plane = ControlPlane::start().await?;
        let own = format!("{CLOUD}=grpc:{}", cloud.uri());
        let mut flags = vec![format!("--controllers={controllers}")];
        flags.extend(clouds.iter().chain([&own]).map(|cloud| format!("--cloud-provider={cloud}")));
        flags.extend(args.iter().map(|arg| (*arg).to_owned()));
        let deck = Deck::builder(&control_plane).replicas(1).install_args(flags.clone()).args(flags).start().await?;
        let client = control_plane.admin().await?;
        deck.ready(LONG).await?;
        let (nodes, accounts) = (Api::all(client.clone()), Api::all(client.clone()));
        Ok(Self { cloud, nodes, accounts, events: Api::all(client), deck, control_plane })
    }

    /// Makes a Node, and says whether it is Ready.
    pub(super) async fn node(&self, node: Value, ready: bool) -> Result<()> {
        let node: Node = serde_json::from_value(node)?;
        let name = node.metadata.name.clone().context("a name")?;
        self.nodes.create(&PostParams::default(), &node).await?;
        self.ready(&name, ready).await
    }

    /// Makes a machine and the Node of it, which has its providerID.
    pub(super) async fn machine(&self, name: &str, ready: bool) -> Result<()> {
        let id = self.cloud.add_instance(name).await?;
        self.node(json!({ "metadata": { "name": name }, "spec": { "providerID": id } }), ready).await
    }

    /// Has a Node say whether it is Ready.
    pub(super) async fn ready(&self, name: &str, ready: bool) -> Result<()> {
        let status = if ready { "True" } else { "Unknown" };
        let now = jiff::Timestamp::from_second(jiff::Timestamp::now().as_second())?.to_string();
        self.status(name, json!({ "conditions": [{ "type": "Ready", "status": status, "lastTransitionTime": now }] }))
            .await
    }

    /// Changes a Node's status.
    pub(super) async fn status(&self, name: &str, status: Value) -> Result<()> {
        let patch = Patch::Strategic(json!({ "status": status }));
        self.nodes.patch_status(name, &PatchParams::default(), &patch).await?;
        Ok(())
    }

    /// Removes a Node, as a person does.
    pub(super) async fn remove(&self, name: &str) -> Result<()> {
        self.nodes.delete(name, &DeleteParams::default()).await?;
        Ok(())
    }

    /// Waits until a Node is as it should be.
    pub(super) async fn becomes(&self, name: &str, what: &str, is_so: impl Fn(&Value) -> bool) -> Result<Value> {
        let what = format!("node {name}: {what}");
        let waited = eventually(&what, LONG, async || {
            let node = serde_json::to_value(self.nodes.get(name).await?)?;
            ensure!(is_so(&node), "{node:#}");
            Ok(node)
        });
        waited.await.with_context(|| self.log())
    }

    /// Waits until a Node is gone.
    pub(super) async fn is_gone(&self, name: &str) -> Result<()> {
        let what = format!("node {name} is gone");
        let waited = eventually(&what, LONG, async || match self.nodes.get_opt(name).await? {
            None => Ok(()),
            Some(_) => bail!("it is there"),
        });
        waited.await.with_context(|| self.log())
    }

    /// Waits for an event about a Node.
    pub(super) async fn event(&self, name: &str, reason: &str) -> Result<Event> {
        let of_node = ListParams::default().fields(&format!("involvedObject.name={name},reason={reason}"));
        eventually(&format!("event {reason} of node {name}"), LONG, async || {
            self.events.list(&of_node).await?.items.into_iter().next().context("none")
        })
        .await
        .with_context(|| self.log())
    }

    /// Waits until a metric is at least this.
    pub(super) async fn counts(&self, name: &str, labels: &[(&str, &str)], least: f64) -> Result<()> {
        let what = format!("{name} with {labels:?}");
        let waited = eventually(&what, LONG, async || {
            let value = self.deck.replica(0).metric(name, labels).await?;
            ensure!(value >= least, "{value} is less than {least}");
            Ok(())
        });
        waited.await.with_context(|| self.log())
    }

    pub(super) fn log(&self) -> String {
        let log = self.deck.replica(0).process().log_text();
        let lines: Vec<&str> = log.lines().rev().take(40).collect();
        format!("the replica's log ends:\n{}", lines.into_iter().rev().collect::<Vec<_>>().join("\n"))
    }
}

/// Whether a Node has a taint with this key.
pub(super) fn has_taint(node: &Value, key: &str) -> bool {
    node["spec"]["taints"].as_array().is_some_and(|taints| taints.iter().any(|taint| taint["key"] == key))
}
