//! A cluster with all the cloud's controllers, whose cloud is made up.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::core::v1::{Event, Node, Service};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use quarterdeck_it::deck::Replica;
use quarterdeck_it::{CloudSim, ControlPlane, Deck, eventually};
use serde_json::{Value, json};

/// Time that anything gets on a loaded machine.
pub(super) const LONG: Duration = Duration::from_secs(120);
/// Namespace of the Services.
pub(super) const NAMESPACE: &str = "storm";
/// The clouds' controllers.
const CONTROLLERS: &str = "service,cloud-node,cloud-node-lifecycle,route";
/// Taint of a Node that waits for its cloud.
const UNINITIALIZED: &str = "node.cloudprovider.kubernetes.io/uninitialized";

/// A made-up cloud, a control plane, and two replicas with all the cloud's controllers.
pub(super) struct World {
    // Dropped first: a replica without a server fills its log.
    pub(super) deck: Deck,
    pub(super) cloud: CloudSim,
    pub(super) client: kube::Client,
    services: Api<Service>,
    nodes: Api<Node>,
    _control_plane: ControlPlane,
}

/// How to start one, if not with two replicas, the clouds' controllers and one made-up cloud.
pub(super) struct Options {
    /// Values of `--cloud-provider`.
    pub(super) providers: Vec<String>,
    /// Value of `--controllers`.
    pub(super) controllers: &'static str,
    /// Another program than quarterdeck.
    pub(super) program: Option<PathBuf>,
    /// Further flags.
    pub(super) args: Vec<String>,
}

impl Options {
    /// Those of managers that reach a cloud by this value of `--cloud-provider`.
    pub(super) fn of(provider: String) -> Self {
        Self { providers: vec![provider], controllers: CONTROLLERS, program: None, args: Vec::new() }
    }

    /// Calls are given up after this many seconds.
    pub(super) fn hasty(mut self, seconds: u32) -> Self {
        let classes = ["read", "batch", "route", "loadbalancer"].map(|class| format!("{class}={seconds}s"));
        self.args.push(format!("--cloud-timeout={}", classes.join(",")));
        self
    }
}

impl World {
    pub(super) async fn start() -> Result<Self> {
        let cloud = CloudSim::builder().args(["--provision-ms=300"]).start().await?;
        let options = Options::of(format!("sim={}", cloud.uri()));
        Self::start_with(cloud, options).await
    }

    /// Starts one; what it says of clouds is about this one.
    pub(super) async fn start_with(cloud: CloudSim, options: Options) -> Result<Self> {
        let control_plane = ControlPlane::start().await?;
        control_plane.namespace(NAMESPACE).await?;
        let mut installed: Vec<String> =
            options.providers.iter().map(|provider| format!("--cloud-provider={provider}")).collect();
        installed.extend([
            format!("--controllers={}", options.controllers),
            "--configure-cloud-routes=true".to_owned(),
            "--cluster-cidr=10.244.0.0/16".to_owned(),
        ]);
        let flags = [
            "--leader-elect-lease-duration=4s",
            "--leader-elect-renew-deadline=3s",
            "--leader-elect-retry-period=500ms",
            "--load-balancer-audit-period=1s",
            "--route-reconciliation-period=1s",
            "--node-monitor-period=1s",
            "--cloud-node-deletion-grace=1s",
        ]
        .map(str::to_owned);
        let deck = Deck::builder(&control_plane).replicas(2).install_args(installed.clone());
        let deck = match options.program {
            Some(program) => deck.program(program),
            None => deck,
        };
        let deck = deck.args(installed).args(flags).args(options.args).start().await?;
        deck.ready(LONG).await?;
        deck.leader(LONG).await?;
        let client = control_plane.admin().await?;
        let (services, nodes) = (Api::namespaced(client.clone(), NAMESPACE), Api::all(client.clone()));
        Ok(Self { deck, cloud, client, services, nodes, _control_plane: control_plane })
    }

    /// Makes a Service that wants a load balancer, and returns its uid.
    pub(super) async fn make_service(&self, name: &str) -> Result<String> {
        self.make_service_of(name, None).await
    }

    /// Makes a Service that wants a load balancer of a class, and returns its uid.
    pub(super) async fn make_service_of(&self, name: &str, class: Option<&str>) -> Result<String> {
        let service: Service = serde_json::from_value(json!({
            "metadata": { "name": name },
            "spec": { "type": "LoadBalancer", "loadBalancerClass": class, "ports": [{ "port": 80 }] },
        }))?;
        self.services.create(&PostParams::default(), &service).await?.metadata.uid.context("a uid")
    }

    /// The replica that leads.
    pub(super) async fn leader(&self) -> Result<&Replica> {
        Ok(self.deck.replica(self.deck.leader(LONG).await?))
    }

    /// How often the managers said this, by the reason of the events.
    pub(super) async fn said(&self, reason: &str) -> Result<i32> {
        let events: Api<Event> = Api::all(self.client.clone());
        let list = events.list(&ListParams::default().fields(&format!("reason={reason}"))).await?;
        let times = |event: Event| event.count.or(event.series.and_then(|series| series.count)).unwrap_or(1);
        Ok(list.items.into_iter().map(times).sum())
    }

    /// How many calls of the leader ended as those do that got no answer.
    pub(super) async fn unanswered(&self) -> Result<f64> {
        let leader = self.leader().await?;
        let mut sum = 0.0;
        for outcome in ["timeout", "unavailable", "other"] {
            let name = "quarterdeck_cloudprovider_api_request_duration_seconds_count";
            sum += leader.metric(name, &[("outcome", outcome)]).await.unwrap_or_default();
        }
        Ok(sum)
    }

    /// Waits until a Service's status shows an address, and answers it.
    pub(super) async fn address(&self, name: &str) -> Result<String> {
        let what = format!("{name} has an address");
        let waited = eventually(&what, LONG, async || {
            let status = self.services.get(name).await?.status.and_then(|status| status.load_balancer);
            let mut shown = status.and_then(|status| status.ingress).into_iter().flatten().filter_map(|one| one.ip);
            shown.next().context("it has none")
        });
        waited.await.with_context(|| self.log())
    }

    /// Waits until the leader's status page says this of the cloud with this name.
    pub(super) async fn cloud_becomes(&self, name: &str, what: &str, is_so: impl Fn(&Value) -> bool) -> Result<()> {
        let what = format!("cloud {name}: {what}");
        let waited = eventually(&what, LONG, async || {
            let page = self.leader().await?.status().await?.0;
            let clouds = page["cloud"].as_array().with_context(|| format!("no clouds: {page:#}"))?;
            let one = clouds.iter().find(|one| one["provider"] == name).context("it is not there")?;
            ensure!(is_so(one), "{one:#}");
            Ok(())
        });
        waited.await.with_context(|| self.log())
    }

    /// Waits until a metric of the leader is as it should be; one that is not there is 0.
    pub(super) async fn counts(&self, name: &str, labels: &[(&str, &str)], is_so: impl Fn(f64) -> bool) -> Result<f64> {
        let name = format!("quarterdeck_cloudprovider_{name}");
        let what = format!("{name} with {labels:?}");
        let waited = eventually(&what, LONG, async || {
            let value = self.leader().await?.metric(&name, labels).await.unwrap_or_default();
            ensure!(is_so(value), "{value}");
            Ok(value)
        });
        waited.await.with_context(|| self.log())
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
        self.make_node_of(name, &provider_id, index).await
    }

    /// The same for a machine that is there already.
    pub(super) async fn make_node_of(&self, name: &str, provider_id: &str, index: usize) -> Result<(String, String)> {
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

    pub(super) fn log(&self) -> String {
        let mut text = String::new();
        for replica in self.deck.replicas() {
            let log = replica.process().log_text();
            let lines: Vec<&str> = log.lines().collect();
            text += &format!("a replica's log ends:\n{}\n", lines[lines.len().saturating_sub(20)..].join("\n"));
        }
        text
    }
}
