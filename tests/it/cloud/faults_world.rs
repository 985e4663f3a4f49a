//! A cluster with all the cloud's controllers, whose cloud is made up.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::core::v1::{Node, Service};
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use quarterdeck_it::{CloudSim, ControlPlane, Deck, eventually};
use serde_json::json;

/// Time that anything gets on a loaded machine.
pub(super) const LONG: Duration = Duration::from_secs(120);
/// How many of the flags say what has to be installed.
const INSTALLED: usize = 4;
/// Namespace of the Services.
const NAMESPACE: &str = "storm";
/// Taint of a Node that waits for its cloud.
const UNINITIALIZED: &str = "node.cloudprovider.kubernetes.io/uninitialized";

/// A made-up cloud, a control plane, and two replicas with all the cloud's controllers.
pub(super) struct World {
    // Dropped first: a replica without a server fills its log.
    deck: Deck,
    pub(super) cloud: CloudSim,
    services: Api<Service>,
    nodes: Api<Node>,
    _control_plane: ControlPlane,
}

impl World {
    pub(super) async fn start() -> Result<Self> {
        let cloud = CloudSim::builder().args(["--provision-ms=300"]).start().await?;
        let control_plane = ControlPlane::start().await?;
        control_plane.namespace(NAMESPACE).await?;
        let flags = [
            cloud.flag().as_str(),
            "--controllers=service,cloud-node,cloud-node-lifecycle,route",
            "--configure-cloud-routes=true",
            "--cluster-cidr=10.244.0.0/16",
            "--leader-elect-lease-duration=4s",
            "--leader-elect-renew-deadline=3s",
            "--leader-elect-retry-period=500ms",
            "--load-balancer-audit-period=1s",
            "--route-reconciliation-period=1s",
            "--node-monitor-period=1s",
            "--cloud-node-deletion-grace=1s",
        ]
        .map(str::to_owned);
        let installed = flags[..INSTALLED].to_vec();
        let deck = Deck::builder(&control_plane).replicas(2).install_args(installed).args(flags).start().await?;
        deck.ready(LONG).await?;
        deck.leader(LONG).await?;
        let client = control_plane.admin().await?;
        let (services, nodes) = (Api::namespaced(client.clone(), NAMESPACE), Api::all(client));
        Ok(Self { deck, cloud, services, nodes, _control_plane: control_plane })
    }

    /// Makes a Service that wants a load balancer, and returns its uid.
    pub(super) async fn make_service(&self, name: &str) -> Result<String> {
        let service: Service = serde_json::from_value(json!({
            "metadata": { "name": name },
            "spec": { "type": "LoadBalancer", "ports": [{ "port": 80 }] },
        }))?;
        self.services.create(&PostParams::default(), &service).await?.metadata.uid.context("a uid")
    }

    pub(super) async fn delete_service(&self, name: &str) -> Result<()> {
        self.services.delete(name, &DeleteParams::default()).await?;
        Ok(())
    }

    /// Waits until a Service's status shows the address of its load balancer.
    pub(super) async fn serves(&self, name: &str) -> Result<()> {
        let what = format!("{name} has its address");
        let waited = eventually(&what, LONG, async || {
            let service = self.services.get(name).await?;
            let state = self.cloud.state().await?;
            let own = state.balancers.values().find(|one| Some(&one.owner.uid) == service.metadata.uid.as_ref());
            let has: Vec<String> = own.iter().flat_map(|one| &one.addresses).map(ToString::to_string).collect();
            let status = service.status.and_then(|status| status.load_balancer);
            let shown: Vec<String> =
                status.and_then(|status| status.ingress).into_iter().flatten().filter_map(|one| one.ip).collect();
            ensure!(!shown.is_empty() && shown == has, "shown {shown:?}, the cloud has {has:?}");
            Ok(())
        });
        waited.await.with_context(|| self.log())
    }

    /// Waits until a Service is gone, finalizer and all.
    pub(super) async fn is_gone(&self, name: &str) -> Result<()> {
        let what = format!("{name} is gone");
        let waited = eventually(&what, LONG, async || match self.services.get_opt(name).await? {
            None => Ok(()),
            Some(service) => bail!("{:?}", service.metadata.finalizers),
        });
        waited.await.with_context(|| self.log())
    }

    /// Makes a machine and its Node, which waits for its cloud; answers the route that it should have.
    pub(super) async fn make_node(&self, name: &str, index: usize) -> Result<(String, String)> {
        let provider_id = self.cloud.add_instance(name).await?;
        let cidr = format!("10.244.{index}.0/24");
        let node: Node = serde_json::from_value(json!({
            "metadata": { "name": name },
            "spec": {
                "providerID": provider_id, "podCIDR": cidr, "podCIDRs": [cidr],
                "taints": [{ "key": UNINITIALIZED, "value": "true", "effect": "NoSchedule" }],
            },
        }))?;
        self.nodes.create(&PostParams::default(), &node).await?;
        self.ready(name, true).await?;
        Ok((cidr, name.to_owned()))
    }

    /// Removes a Node, as a person does; its machine stays.
    pub(super) async fn remove_node(&self, name: &str) -> Result<()> {
        self.nodes.delete(name, &DeleteParams::default()).await?;
        Ok(())
    }

    /// Has a Node say whether it is Ready.
    pub(super) async fn ready(&self, name: &str, ready: bool) -> Result<()> {
        let status = if ready { "True" } else { "Unknown" };
        let patch = Patch::Strategic(json!({ "status": { "conditions": [{ "type": "Ready", "status": status }] } }));
        self.nodes.patch_status(name, &PatchParams::default(), &patch).await?;
        Ok(())
    }

    pub(super) async fn has_node(&self, name: &str) -> Result<bool> {
        let node = self.nodes.get_opt(name).await?;
        Ok(node.is_some_and(|node| node.metadata.deletion_timestamp.is_none()))
    }

    /// Waits until a Node no longer waits for its cloud.
    pub(super) async fn initialized(&self, name: &str) -> Result<()> {
        let what = format!("{name} is initialized");
        let waited = eventually(&what, LONG, async || {
            let taints = self.nodes.get(name).await?.spec.and_then(|spec| spec.taints).unwrap_or_default();
            ensure!(!taints.iter().any(|taint| taint.key == UNINITIALIZED), "{taints:?}");
            Ok(())
        });
        waited.await.with_context(|| self.log())
    }

    /// Waits until the cloud's routes are these.
    pub(super) async fn routes_are(&self, wanted: &[(String, String)]) -> Result<()> {
        let wanted: Vec<(&str, &str)> = wanted.iter().map(|(to, node)| (to.as_str(), node.as_str())).collect();
        self.cloud.routes_are(&wanted).await.with_context(|| self.log())
    }

    /// Kills the leader when one of its calls stands still, lets the cloud go on, and has the other replica lead.
    pub(super) async fn kill_leader_when_held(&self, method: &str, point: &str) -> Result<()> {
        self.cloud.held(method).await.with_context(|| format!("{point}\n{}", self.log()))?;
        let leader = self.deck.leader(LONG).await?;
        self.deck.replica(leader).process().kill().await?;
        self.cloud.heal().await?;
        let next = self.deck.leader(LONG).await?;
        ensure!(next != leader, "{point}: quarterdeck-{leader} is dead, and leads");
        self.deck.replica(leader).restart()?;
        self.deck.replica(leader).ready(LONG).await
    }

    /// Whoever had the deck changed nothing after the next one did.
    pub(super) async fn tenures_never_go_back(&self) -> Result<()> {
        let calls = self.cloud.calls("*").await?;
        let changes: Vec<_> = calls.iter().filter(|call| call.changed).collect();
        ensure!(changes.is_sorted_by_key(|call| call.epoch), "{changes:#?}");
        Ok(())
    }

    fn log(&self) -> String {
        let mut text = String::new();
        for replica in self.deck.replicas() {
            let log = replica.process().log_text();
            let lines: Vec<&str> = log.lines().collect();
            text += &format!("a replica's log ends:\n{}\n", lines[lines.len().saturating_sub(20)..].join("\n"));
        }
        text
    }
}
