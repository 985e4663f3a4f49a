//! A whole cluster on metal: a control plane, three masters, and gateways and nodes that are network namespaces, each
//! with an agent that reaches the server. What is wanted is said by Services alone.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use http::Request;
use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use parking_lot::Mutex;
use quarterdeck_api::cloud::metal::{LoadBalancerSpec, MetalLoadBalancer};
use quarterdeck_it::deck::{Demo, program_named};
use quarterdeck_it::netns::{CLIENT, Echo, Health, Layout, Machine, Site, datagram_patient, get, relay};
use quarterdeck_it::{ControlPlane, Deck, Process, eventually, repository};
use serde_json::{Value, json};
use tokio_util::task::AbortOnDropHandle;

/// Time that anything gets on a loaded machine.
pub(super) const LONG: Duration = Duration::from_secs(90);
/// Namespace of the tests' Services.
pub(super) const NAMESPACE: &str = "quay";
pub(super) const NODES: [&str; 3] = ["n1", "n2", "n3"];
pub(super) const GATEWAYS: [&str; 2] = ["gw1", "gw2"];
/// Port of kube-proxy's own health check.
const KUBE_PROXY: u16 = 10256;
/// Duration of the Lease of a gateway's agent: the default.
pub(super) const GATEWAY_LEASE: Duration = Duration::from_secs(8);

const INVENTORY: &str = "
cluster: quay
instances:
  - {name: gw1, addresses: [{InternalIP: 10.0.0.1}], role: gateway}
  - {name: gw2, addresses: [{InternalIP: 10.0.0.2}], role: gateway}
  - {name: n1, addresses: [{InternalIP: 10.0.0.11}], zone: row-a}
  - {name: n2, addresses: [{InternalIP: 10.0.0.12}], zone: row-b}
  - {name: n3, addresses: [{InternalIP: 10.0.0.13}], zone: row-b}
";

/// The cluster.
pub(super) struct World {
    // Dropped first: a replica without a server fills its log.
    pub(super) deck: Deck,
    pub(super) site: Site,
    pub(super) client: kube::Client,
    pub(super) demo: Demo,
    /// What kube-proxy answers on each node.
    pub(super) health: Vec<Health>,
    agents: Mutex<BTreeMap<String, Process>>,
    _proxies: Mutex<Vec<AbortOnDropHandle<()>>>,
    control_plane: ControlPlane,
    folder: tempfile::TempDir,
}

impl World {
    pub(super) async fn start() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let inventory = folder.path().join("inventory.yaml");
        std::fs::write(&inventory, INVENTORY)?;
        let layout = Layout { gateways: &GATEWAYS, nodes: &NODES, pods: "10.1", detached: false };
        let (control_plane, site) = tokio::try_join!(ControlPlane::start(), Site::build(layout))?;
        control_plane.namespace(NAMESPACE).await?;
        let flags = [
            "--cloud-provider=metal".to_owned(),
            format!("--cloud-config={}", inventory.display()),
            "--cluster-cidr=10.1.0.0/16".to_owned(),
            "--configure-cloud-routes=true".to_owned(),
            "--leader-elect-lease-duration=4s".to_owned(),
            "--leader-elect-renew-deadline=3s".to_owned(),
            "--leader-elect-retry-period=500ms".to_owned(),
        ];
        let deck = Deck::builder(&control_plane).replicas(3).install_args(flags.clone()).args(flags).start().await?;
        let client = control_plane.admin().await?;
        let mut health = Vec::new();
        for node in &site.nodes {
            health.push(Health::start(node, KUBE_PROXY)?);
        }
        let demo = Demo::new(client.clone(), NAMESPACE);
        let (agents, proxies) = Default::default();
        let world = Self { deck, site, client, demo, health, agents, _proxies: proxies, control_plane, folder };
        world.kubectl(&["apply", "-k", "deploy/metal"]).await?;
        let url = world.control_plane.apiserver(0).url().to_owned();
        let server: SocketAddr = url.trim_start_matches("https://").trim_end_matches('/').parse().context(url)?;
        for machine in world.site.hosts() {
            relay(machine, server)?;
            world.start_agent(machine)?;
        }
        for name in NODES {
            world.make_node(name).await?;
        }
        world.deck.ready(LONG).await?;
        Ok(world)
    }

    async fn kubectl(&self, args: &[&str]) -> Result<()> {
        let output = tokio::process::Command::new(self.control_plane.program("kubectl"))
            .env("KUBECONFIG", self.control_plane.admin_kubeconfig()?)
            .env("HOME", self.control_plane.folder())
            .current_dir(repository())
            .args(args)
            .stdin(std::process::Stdio::null())
            .output()
            .await?;
        ensure!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }

    fn agent_flags(&self, machine: &Machine) -> Result<Vec<String>> {
        let kubeconfig = self
            .control_plane
            .kubeconfig(&format!("system:quarterdeck-agent:{}", machine.name()), &["quarterdeck:metal-agents"])?;
        Ok(vec![
            format!("--node-name={}", machine.name()),
            format!("--kubeconfig={}", kubeconfig.display()),
            format!("--state-dir={}", self.folder.path().join(machine.name()).display()),
            "--check-interval=200ms".to_owned(),
            "--check-timeout=10s".to_owned(),
            "--check-failures=2".to_owned(),
            "--check-successes=1".to_owned(),
            format!("--gateway-lease={}s", GATEWAY_LEASE.as_secs()),
        ])
    }

    /// Starts the agent of a machine, again if it ended.
    pub(super) fn start_agent(&self, machine: &Machine) -> Result<()> {
        self.start_agent_with(machine, &[])
    }

    /// The same with more flags.
    pub(super) fn start_agent_with(&self, machine: &Machine, more: &[&str]) -> Result<()> {
        let name = machine.name();
        let launch = machine.launch(&format!("agent of {name}"), &program_named("quarterdeck-agent")?)?;
        let log = self.folder.path().join(format!("{name}.log"));
        let agent = launch.args(self.agent_flags(machine)?).args(more.iter().copied()).log(log).spawn()?;
        self.agents.lock().insert(name.to_owned(), agent);
        Ok(())
    }

    pub(super) fn agent(&self, name: &str) -> Process {
        self.agents.lock()[name].clone()
    }

    /// Ends all agents, and has each remove what it put into its kernel.
    pub(super) async fn remove_agents(&self) -> Result<()> {
        for machine in self.site.hosts() {
            self.agent(machine.name()).stop(LONG).await?;
            let program = program_named("quarterdeck-agent")?.display().to_string();
            machine.run(&format!("{program} {} --cleanup", self.agent_flags(machine)?.join(" ")))?;
        }
        Ok(())
    }

    /// A Node as its kubelet registers it, whose pods' network somebody else chose.
    pub(super) async fn make_node(&self, name: &str) -> Result<()> {
        let number = name.trim_start_matches('n');
        self.demo.cloud_node(name, &format!("10.1.{number}.0/24")).await?;
        let ready = json!({ "status": { "conditions": [{ "type": "Ready", "status": "True" }] } });
        let nodes: Api<Node> = Api::all(self.client.clone());
        nodes.patch_status(name, &PatchParams::default(), &Patch::Strategic(ready)).await?;
        Ok(())
    }

    /// Has a Node counted among those that get traffic, or not.
    pub(super) async fn serve_from(&self, node: &str, serves: bool) -> Result<()> {
        let value = if serves { Value::Null } else { json!("true") };
        let label = "node.kubernetes.io/exclude-from-external-load-balancers";
        let nodes: Api<Node> = Api::all(self.client.clone());
        let patch = Patch::Merge(json!({ "metadata": { "labels": { label: value } } }));
        nodes.patch(node, &PatchParams::default(), &patch).await?;
        Ok(())
    }

    pub(super) fn services(&self) -> Api<Service> {
        Api::namespaced(self.client.clone(), NAMESPACE)
    }

    /// Makes a Service of type LoadBalancer for port 80 of TCP and UDP, with servers at its node port on each node.
    pub(super) async fn service(&self, name: &str, node_port: u16, more: Value) -> Result<()> {
        for node in &self.site.nodes {
            Echo::start(node, node_port)?;
        }
        let mut spec = json!({
            "type": "LoadBalancer", "selector": { "app": name },
            "ports": [
                { "name": "tcp", "protocol": "TCP", "port": 80, "nodePort": node_port },
                { "name": "udp", "protocol": "UDP", "port": 80, "nodePort": node_port },
            ],
        });
        spec.as_object_mut().context("a map")?.extend(more.as_object().cloned().unwrap_or_default());
        let service = json!({ "metadata": { "name": name }, "spec": spec });
        self.services().create(&PostParams::default(), &serde_json::from_value(service)?).await?;
        Ok(())
    }

    pub(super) async fn change(&self, name: &str, spec: Value) -> Result<()> {
        let patch = Patch::Merge(json!({ "spec": spec }));
        self.services().patch(name, &PatchParams::default(), &patch).await?;
        Ok(())
    }

    pub(super) async fn delete(&self, name: &str) -> Result<()> {
        self.services().delete(name, &DeleteParams::default()).await?;
        Ok(())
    }

    /// Waits until a Service shows its address.
    pub(super) async fn address(&self, name: &str) -> Result<SocketAddr> {
        self.until(&format!("{name} shows an address"), async || {
            let service = serde_json::to_value(self.services().get(name).await?)?;
            let ip = service["status"]["loadBalancer"]["ingress"][0]["ip"].as_str();
            let ip = ip.with_context(|| format!("{service:#}"))?;
            Ok(SocketAddr::new(ip.parse()?, 80))
        })
        .await
    }

    /// The load balancers as they are stored, by the name of their Service.
    pub(super) async fn balancers(&self) -> Result<BTreeMap<String, LoadBalancerSpec>> {
        let all: Api<MetalLoadBalancer> = Api::all(self.client.clone());
        let all = all.list(&ListParams::default()).await?.items;
        Ok(all.into_iter().map(|one| (one.spec.owner.name.clone(), one.spec)).collect())
    }

    /// Who announces each address.
    pub(super) async fn holders(&self) -> Result<BTreeMap<String, String>> {
        let all = self.balancers().await?;
        let addresses = all.into_values().flat_map(|spec| spec.addresses);
        Ok(addresses.map(|one| (one.address.to_string(), one.gateway.unwrap_or_default())).collect())
    }

    /// Which nodes answer fresh datagrams; all have to see the client's own address.
    pub(super) fn answering(&self, to: SocketAddr) -> Result<BTreeSet<String>> {
        let mut all = BTreeSet::new();
        for _ in 0..40 {
            let (server, seen) = datagram_patient(&self.site.client, to, Duration::from_secs(2))?;
            ensure!(seen == CLIENT, "{server} saw {seen}, and not {CLIENT}");
            all.insert(server);
        }
        Ok(all)
    }

    /// Waits until these nodes and no others answer.
    pub(super) async fn answer(&self, to: SocketAddr, nodes: &[&str]) -> Result<()> {
        let expected: BTreeSet<String> = nodes.iter().map(|name| (*name).to_owned()).collect();
        self.until(&format!("{expected:?} answer at {to}"), async || {
            let all = self.answering(to)?;
            if all == expected { Ok(()) } else { bail!("{all:?}") }
        })
        .await
    }

    /// Has node's health checks of a Service with `externalTrafficPolicy: Local` answered as kube-proxy does: well where
    /// an EndpointSlice says that there is a ready endpoint.
    pub(super) fn proxy_health(&self, service: &str, port: u16) -> Result<()> {
        let mut checks = Vec::new();
        for node in &self.site.nodes {
            let health = Health::start(node, port)?;
            health.answer(503);
            checks.push((node.name().to_owned(), health));
        }
        let slices: Api<EndpointSlice> = Api::namespaced(self.client.clone(), NAMESPACE);
        let own = ListParams::default().labels(&format!("kubernetes.io/service-name={service}"));
        self._proxies.lock().push(AbortOnDropHandle::new(tokio::spawn(async move {
            loop {
                tokio::time::sleep(Duration::from_millis(100)).await;
                let Ok(all) = slices.list(&own).await else { continue };
                let endpoints = all.items.into_iter().flat_map(|slice| slice.endpoints.unwrap_or_default());
                let ready = endpoints.filter(|one| one.conditions.as_ref().is_some_and(|is| is.ready == Some(true)));
                let there: BTreeSet<String> = ready.filter_map(|one| one.node_name).collect();
                for (node, health) in &checks {
                    health.answer(if there.contains(node) { 200 } else { 503 });
                }
            }
        })));
        Ok(())
    }

    /// What an agent says of itself.
    pub(super) fn report(&self, machine: &Machine) -> Result<Value> {
        Ok(serde_json::from_str(&get(machine, 10290, "/status")?)?)
    }

    /// How many objects there are of a kind.
    pub(super) async fn count(&self, path: &str) -> Result<usize> {
        let answer: Value = self.client.request(Request::get(path).body(Vec::new())?).await?;
        Ok(answer["items"].as_array().map_or(0, Vec::len))
    }

    /// Waits, and tells the logs if it was in vain.
    pub(super) async fn until<T, F, Fut>(&self, what: &str, condition: F) -> Result<T>
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = Result<T>>,
    {
        eventually(what, LONG, condition).await.with_context(|| self.logs())
    }

    pub(super) fn logs(&self) -> String {
        let end = |text: String| {
            let lines: Vec<&str> = text.lines().collect();
            lines[lines.len().saturating_sub(25)..].join("\n")
        };
        let masters = self.deck.replicas().iter().map(|replica| end(replica.process().log_text()));
        let agents = self.agents.lock();
        let agents = agents.iter().map(|(name, agent)| format!("{name}:\n{}", end(agent.log_text())));
        format!("logs end:\n{}", masters.chain(agents).collect::<Vec<_>>().join("\n----\n"))
    }
}
