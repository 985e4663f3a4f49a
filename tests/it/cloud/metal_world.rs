//! A cluster on metal: an inventory, replicas of quarterdeck, and agents that report without touching a kernel. What
//! agents do to kernels is tried in namespaces of the network.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Event, Namespace, Node, Service};
use kube::api::{Api, ListParams, ObjectMeta, Patch, PatchParams, PostParams};
use quarterdeck_api::cloud::metal::{
    AGENTS_NAMESPACE, AgentStatus, Announcement, LoadBalancerReport, MetalAgent, MetalLoadBalancer,
};
use quarterdeck_it::{ControlPlane, Deck, eventually};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

/// Time that anything gets on a loaded machine.
pub(super) const LONG: Duration = Duration::from_secs(90);
/// Namespace of the tests' Services.
pub(super) const NAMESPACE: &str = "yard";
/// Duration of the agents' Leases: long enough that none runs out because the machine is busy.
const LEASE_SECONDS: u64 = 10;

pub(super) const INVENTORY: &str = "
cluster: rack-1
instances:
  - name: gw-1
    addresses: [{InternalIP: 10.0.0.1}]
    role: gateway
  - name: gw-2
    addresses: [{InternalIP: 10.0.0.2}]
    role: gateway
  - name: n-1
    id: 4c4c4544-0001
    addresses: [{InternalIP: 10.0.0.11}, {Hostname: n-1}]
    zone: row-a
    region: hall-1
    type: r640
    labels: {example.com/disks: nvme}
";

/// A cluster on metal.
pub(super) struct World {
    // Dropped first: a replica without a server fills its log.
    pub(super) deck: Deck,
    pub(super) client: kube::Client,
    pub(super) inventory: PathBuf,
    control_plane: ControlPlane,
    _folder: tempfile::TempDir,
}

impl World {
    /// Starts one with two replicas on this control plane, with more flags; they reach the server at these addresses.
    pub(super) async fn on(control_plane: ControlPlane, more: &[&str], servers: &[String]) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let inventory = folder.path().join("inventory.yaml");
        std::fs::write(&inventory, INVENTORY)?;
        let client = control_plane.admin().await?;
        for name in [NAMESPACE, AGENTS_NAMESPACE] {
            let namespace = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } });
            let all: Api<Namespace> = Api::all(client.clone());
            all.patch(name, &PatchParams::apply("test"), &Patch::Apply(namespace)).await?;
        }
        let flags = [
            "--cloud-provider=metal".to_owned(),
            format!("--cloud-config={}", inventory.display()),
            "--controllers=service,cloud-node,cloud-node-lifecycle,route,metal".to_owned(),
            "--cluster-cidr=10.244.0.0/16".to_owned(),
            "--configure-cloud-routes=true".to_owned(),
            "--leader-elect-lease-duration=4s".to_owned(),
            "--leader-elect-renew-deadline=3s".to_owned(),
            "--leader-elect-retry-period=500ms".to_owned(),
        ];
        let deck = Deck::builder(&control_plane).replicas(2).install_args(flags.clone());
        let deck = deck.args(flags).args(more.iter().copied()).servers(servers).start().await?;
        deck.ready(LONG).await?;
        Ok(Self { deck, client, inventory, control_plane, _folder: folder })
    }

    /// The server and what belongs to it.
    pub(super) fn control_plane(&self) -> &ControlPlane {
        &self.control_plane
    }

    /// Breaks the inventory, or mends it.
    pub(super) fn write_inventory(&self, good: bool) -> Result<()> {
        let text =
            if good { INVENTORY.to_owned() } else { INVENTORY.replace("instances:", "instances: []\nmachines:") };
        Ok(std::fs::write(&self.inventory, text)?)
    }

    pub(super) fn nodes(&self) -> Api<Node> {
        Api::all(self.client.clone())
    }

    pub(super) fn services(&self) -> Api<Service> {
        Api::namespaced(self.client.clone(), NAMESPACE)
    }

    pub(super) fn balancers(&self) -> Api<MetalLoadBalancer> {
        Api::all(self.client.clone())
    }

    /// Makes a Service; answers its uid.
    pub(super) async fn service(&self, name: &str) -> Result<String> {
        let service = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": { "name": name },
            "spec": { "type": "LoadBalancer", "ports": [{ "name": "web", "port": 80 }] },
        });
        let made = self.services().create(&PostParams::default(), &serde_json::from_value(service)?).await?;
        made.metadata.uid.context("a uid")
    }

    /// Waits until a Service shows an address, and answers it.
    pub(super) async fn address(&self, name: &str) -> Result<String> {
        let what = format!("{name} shows an address");
        let waited = eventually(&what, LONG, async || {
            let service = serde_json::to_value(self.services().get(name).await?)?;
            let ingress = &service["status"]["loadBalancer"]["ingress"][0];
            ensure!(ingress["ipMode"] == "VIP", "{service:#}");
            Ok(ingress["ip"].as_str().context("an address")?.to_owned())
        });
        waited.await.with_context(|| self.logs())
    }

    /// Waits until a load balancer is so.
    pub(super) async fn balancer(
        &self,
        uid: &str,
        what: &str,
        is_so: impl Fn(&Value) -> bool,
    ) -> Result<MetalLoadBalancer> {
        let waited = eventually(what, LONG, async || {
            let object: Value = serde_json::to_value(self.balancers().get(uid).await?)?;
            let status = self.balancers().get_status(uid).await?.status;
            let mut whole = object.clone();
            whole["status"] = serde_json::to_value(status)?;
            ensure!(is_so(&whole), "{whole:#}");
            Ok(serde_json::from_value(whole)?)
        });
        waited.await.with_context(|| self.logs())
    }

    /// Waits for an event in a namespace, and answers how many there are.
    pub(super) async fn event(&self, namespace: &str, reason: &str, part: &str) -> Result<usize> {
        let events: Api<Event> = Api::namespaced(self.client.clone(), namespace);
        let of_reason = ListParams::default().fields(&format!("reason={reason}"));
        let what = format!("event {reason} {part}");
        let waited = eventually(&what, LONG, async || {
            let all = events.list(&of_reason).await?.items;
            let fits = |event: &&Event| event.message.as_deref().is_some_and(|message| message.contains(part));
            let count: usize =
                all.iter().filter(fits).map(|event| usize::try_from(event.count.unwrap_or(1)).unwrap_or(1)).sum();
            ensure!(count > 0, "{:?}", all.iter().map(|event| &event.message).collect::<Vec<_>>());
            Ok(count)
        });
        waited.await.with_context(|| self.logs())
    }

    pub(super) fn logs(&self) -> String {
        let end = |text: String| {
            let lines: Vec<&str> = text.lines().rev().take(40).collect();
            lines.into_iter().rev().collect::<Vec<_>>().join("\n")
        };
        let ends = self.deck.replicas().iter().map(|replica| end(replica.process().log_text()));
        format!("the replicas' logs end:\n{}", ends.collect::<Vec<_>>().join("\n----\n"))
    }
}

/// An agent that renews its Lease and reports that it did what it was told; ends when it is dropped.
pub(super) struct Agent {
    /// Whether it keeps what it was told to remove.
    pub(super) clings: Arc<AtomicBool>,
    /// Whether it says that it cannot program load balancers.
    pub(super) fails: Arc<AtomicBool>,
    tasks: [JoinHandle<()>; 2],
}

impl Agent {
    pub(super) fn start(client: &kube::Client, name: &str) -> Self {
        Self::reporting_every(client, name, Duration::from_millis(200))
    }

    /// One that looks at what it has to do once in so long, and reports then.
    pub(super) fn reporting_every(client: &kube::Client, name: &str, pause: Duration) -> Self {
        let (clings, fails) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let beats = beat(client.clone(), name.to_owned());
        let (keeps, lacks) = (Arc::clone(&clings), Arc::clone(&fails));
        let reports = report(client.clone(), name.to_owned(), pause, keeps, lacks);
        Self { clings, fails, tasks: [tokio::spawn(beats), tokio::spawn(reports)] }
    }

    /// Ends it as a crash does.
    pub(super) fn kill(&self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.kill();
    }
}

async fn beat(client: kube::Client, name: String) {
    let leases: Api<Lease> = Api::namespaced(client, AGENTS_NAMESPACE);
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    loop {
        ticks.tick().await;
        let lease = json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": { "name": name },
            "spec": {
                "holderIdentity": name, "leaseDurationSeconds": LEASE_SECONDS,
                "renewTime": format!("{:.6}", Timestamp::now()),
            },
        });
        let _ = leases.patch(&name, &PatchParams::apply("agent").force(), &Patch::Apply(lease)).await;
    }
}

async fn report(client: kube::Client, name: String, pause: Duration, clings: Arc<AtomicBool>, fails: Arc<AtomicBool>) {
    let (agents, balancers): (Api<MetalAgent>, Api<MetalLoadBalancer>) = (Api::all(client.clone()), Api::all(client));
    let own = MetalAgent { metadata: ObjectMeta { name: Some(name.clone()), ..ObjectMeta::default() }, status: None };
    let _ = agents.create(&PostParams::default(), &own).await;
    let (mut known, mut written) = (BTreeMap::new(), None);
    let mut ticks = tokio::time::interval(pause);
    loop {
        ticks.tick().await;
        let Ok(all) = balancers.list(&ListParams::default()).await else { continue };
        if !clings.load(Ordering::Acquire) {
            known.clear();
        }
        let clings = clings.load(Ordering::Acquire);
        let heard = all.items.into_iter().filter(|own| !clings || !own.spec.addresses.is_empty());
        known.extend(heard.map(|own| (own.name().to_owned(), own)));
        let announces = known.values().flat_map(|own| {
            let mine = own.spec.addresses.iter().filter(|address| address.gateway.as_ref() == Some(&name));
            mine.map(|address| Announcement {
                address: address.address,
                load_balancer: own.name().to_owned(),
                by: "eth0".to_owned(),
            })
        });
        let told = known.values().filter(|own| own.spec.gateways.iter().any(|gateway| gateway.name == name));
        let error = if fails.load(Ordering::Acquire) { "nft: no memory" } else { "" };
        let status = AgentStatus {
            ready: true,
            announces: announces.collect(),
            load_balancers: told
                .map(|own| LoadBalancerReport {
                    name: own.name().to_owned(),
                    error: error.to_owned(),
                    ..LoadBalancerReport::default()
                })
                .collect(),
            ..AgentStatus::default()
        };
        if written.as_ref() != Some(&status) {
            let mut whole = serde_json::to_value(&status).expect("it is JSON");
            // What is left out of a patch stays as it was.
            for list in ["announces", "loadBalancers"] {
                whole.as_object_mut().expect("a map").entry(list).or_insert_with(|| json!([]));
            }
            let patch = Patch::Merge(json!({ "status": whole }));
            if agents.patch_status(&name, &PatchParams::default(), &patch).await.is_ok() {
                written = Some(status);
            }
        }
    }
}
