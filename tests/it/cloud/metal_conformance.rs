//! Every case of the conformance suite against metal, served as a plug-in, on a real API server, with a manager that
//! decides and agents that report.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use async_trait::async_trait;
use clap::{Args as _, FromArgMatches as _};
use futures::future::try_join_all;
use ipnet::IpNet;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Api, DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams};
use parking_lot::Mutex;
use quarterdeck_api::cloud::metal::{AGENTS_NAMESPACE, MetalAgent, MetalLoadBalancer, MetalRoute, RouteSpec};
use quarterdeck_cloud::error::Result as CloudResult;
use quarterdeck_cloud::facility::{CloudConfig, MakeProvider};
use quarterdeck_cloud::grpc::{Plugin, PluginUri, serve};
use quarterdeck_cloud::metal::objects::CLUSTER_LABEL;
use quarterdeck_cloud::metal::{self, Shared};
use quarterdeck_cloud::model::{AddressKind, Answers, NodeAddress, NodeRef, Owner, Protocol};
use quarterdeck_cloud::provider::{CallCtx, Instances, LoadBalancers, Provider, ProviderInfo, Routes, SharedProvider};
use quarterdeck_cloud_conformance::known::{Balancers, DualStack, Labelled, Paths};
use quarterdeck_cloud_conformance::{CASES, Described, Known, Machine, Report, Steering, Stop, Suite, Verdict};
use quarterdeck_election::{BootClock, Gate};
use quarterdeck_it::proxy::Faults;
use quarterdeck_it::{ControlPlane, Credentials, Deck, Proxy, eventually};
use quarterdeck_runtime::client::{ClientOptions, Clients, Source};
use quarterdeck_runtime::facility::{Given, Ground};
use quarterdeck_runtime::informer::Informers;
use serde_json::json;
use tokio::net::UnixListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::metal_world::{Agent, LONG};

const INVENTORY: &str = "
cluster: conformance
instances:
  - {name: gw-1, addresses: [{InternalIP: 10.0.0.1}], role: gateway}
  - {name: gw-2, addresses: [{InternalIP: 10.0.0.2}], role: gateway}
  - {name: runs-1, id: r-1, addresses: [{InternalIP: 10.0.0.11}]}
  - {name: runs-2, id: r-2, addresses: [{InternalIP: 10.0.0.12}]}
  - {name: stopped, id: s-1, addresses: [{InternalIP: 10.0.0.13}], shutdown: true}
  - {name: dual, id: d-1, addresses: [{InternalIP: '2001:db8::14'}, {InternalIP: 10.0.0.14}]}
  - {name: labelled, id: l-1, addresses: [{InternalIP: 10.0.0.15}], labels: {example.com/rack: r1}}
";

/// Cases that metal has no occasion for, and why.
const NOT_APPLICABLE: [(&str, &str); 3] = [
    ("L14", "no other cluster can have the same cloud"),
    ("L17", "no annotations for it"),
    ("R5", "lead to addresses"),
];

/// The cases that run one after the other against a provider of their own; each row beside the others.
const ROWS: [&[&str]; 5] = [
    &["I1", "I2", "I3", "I4", "I5", "I6", "I7", "I8", "I9", "I10", "P1", "P2", "P3", "P4", "P5"],
    &["L1", "L2", "L3", "L4", "L5", "L6"],
    &["L7", "L8", "L9", "L10", "L11", "L12"],
    &["L13", "L14", "L15", "L16", "L17", "L18"],
    &["R1", "R2", "R3", "R4", "R5", "R6", "R7", "R8"],
];

/// What agents report, as a manager reads it.
type Reports = Arc<Mutex<Option<Vec<MetalAgent>>>>;

/// A provider of its own: with a proxy before the server, an inventory, and a socket.
struct Stand {
    proxy: Proxy,
    client: kube::Client,
    shared: Arc<Shared>,
    provider: Arc<Late>,
    socket: PathBuf,
    server: Mutex<Option<(CancellationToken, JoinHandle<()>)>>,
}

impl Stand {
    async fn build(control_plane: &ControlPlane, folder: &Path, reports: &Reports) -> Result<Self> {
        std::fs::create_dir_all(folder)?;
        let inventory = folder.join("inventory.yaml");
        std::fs::write(&inventory, INVENTORY)?;
        let url = control_plane.apiserver(0).url().to_owned();
        let server: SocketAddr = url.trim_start_matches("https://").trim_end_matches('/').parse().context(url)?;
        let proxy = Proxy::start(server).await?;
        let kubeconfig =
            control_plane.kubeconfig_at(&proxy.url(), &Credentials::user("conformance", &["system:masters"]))?;
        let registry = prometheus::Registry::new();
        let gate = Gate::unelected(Arc::new(BootClock));
        let clients =
            Clients::connect(Source::kubeconfig(&kubeconfig), ClientOptions::default(), gate, &registry).await?;
        let ground = Ground {
            informers: Informers::new(),
            registry,
            clients: Arc::new(OnceLock::from(clients)),
            given: Given::default(),
        };
        let flags = clap::Command::new("x").no_binary_name(true);
        let flag = format!("--cloud-config={}", inventory.display());
        let config = CloudConfig::from_arg_matches(&CloudConfig::augment_args(flags).try_get_matches_from([flag])?)?;
        let given: Mutex<Given> = Mutex::default();
        let make = MakeProvider { name: metal::NAME, uri: None, config: &config, ground: &ground, shared: &given };
        let provider = (metal::kind().make)(&make).map_err(|error| anyhow::anyhow!("{}", error.reason))?;
        let shared = given.lock().get::<Shared>().context("metal shares something")?;
        let seen = Arc::clone(reports);
        shared.answer_holders(move |name| {
            let has = |agent: &&MetalAgent| {
                let status = agent.status.iter();
                let mut own = status.flat_map(|status| &status.load_balancers);
                own.any(|own| own.name == name)
            };
            let agents = seen.lock();
            Some(agents.as_ref()?.iter().filter(has).map(|agent| agent.name().to_owned()).collect())
        });
        let (client, socket) = (control_plane.admin().await?, folder.join("metal.sock"));
        let provider = Arc::new(Late { metal: provider, waits: watch::Sender::new(false) });
        let stand = Self { proxy, client, shared, provider, socket, server: Mutex::default() };
        stand.serve()?;
        Ok(stand)
    }

    fn serve(&self) -> Result<()> {
        let _ = std::fs::remove_file(&self.socket);
        let (listener, stop) = (UnixListener::bind(&self.socket)?, CancellationToken::new());
        let provider: SharedProvider = Arc::<Late>::clone(&self.provider);
        let serving = serve(provider, listener, stop.clone());
        let task = tokio::spawn(async move { serving.await.expect("it can be served") });
        *self.server.lock() = Some((stop, task));
        Ok(())
    }

    fn routes(&self) -> Api<MetalRoute> {
        Api::all(self.client.clone())
    }
}

#[expect(clippy::needless_pass_by_value, reason = "used by map_err")]
fn from_any(error: anyhow::Error) -> Stop {
    Stop::Failed(format!("{error:#}"))
}

fn foreign_name(destination: IpNet) -> String {
    format!("foreign-{}", destination.network()).replace(['.', ':'], "-")
}

/// Metal, with an inventory that can be on a server of files that does not answer.
struct Late {
    metal: SharedProvider,
    waits: watch::Sender<bool>,
}

#[async_trait]
impl Provider for Late {
    async fn info(&self, call: &CallCtx) -> CloudResult<ProviderInfo> {
        self.metal.info(call).await
    }

    async fn probe(&self, call: &CallCtx) -> CloudResult<()> {
        self.metal.probe(call).await
    }

    fn instances(&self) -> Option<&dyn Instances> {
        self.metal.instances().map(|_| self as _)
    }

    fn load_balancers(&self) -> Option<&dyn LoadBalancers> {
        self.metal.load_balancers()
    }

    fn routes(&self) -> Option<&dyn Routes> {
        self.metal.routes()
    }
}

#[async_trait]
impl Instances for Late {
    async fn get_many(&self, call: &CallCtx, nodes: &[NodeRef]) -> CloudResult<Answers> {
        let answers = self.waits.subscribe().wait_for(|waits| !waits).await.is_ok();
        assert!(answers, "it outlives its calls");
        self.metal.instances().expect("it has some").get_many(call, nodes).await
    }
}

struct Steered(Arc<Stand>);

#[async_trait]
impl Steering for Steered {
    async fn hang(&self, method: &str) -> Result<(), Stop> {
        if method == "instances.get_many" {
            self.0.provider.waits.send_replace(true);
        } else {
            self.0.proxy.set(Faults::partition());
        }
        Ok(())
    }

    async fn fail_at_step(&self, step: usize) -> Result<(), Stop> {
        // Making one is one write: it is made, or not.
        if step == 0 {
            self.0.proxy.refuse().await.map_err(from_any)?;
            self.0.proxy.cut();
        }
        Ok(())
    }

    async fn heal(&self) -> Result<(), Stop> {
        self.0.provider.waits.send_replace(false);
        self.0.proxy.set(Faults::none());
        self.0.proxy.accept().await.map_err(from_any)
    }

    async fn stop(&self) -> Result<(), Stop> {
        let server = self.0.server.lock().take();
        if let Some((stop, task)) = server {
            stop.cancel();
            task.await.map_err(|error| Stop::Failed(error.to_string()))?;
        }
        Ok(())
    }

    async fn start(&self) -> Result<(), Stop> {
        self.0.serve().map_err(from_any)
    }

    async fn make_machine(&self, _: &str) -> Result<Machine, Stop> {
        Err(Stop::NotApplicable("metal's routes lead to addresses, whatever machine has them".to_owned()))
    }

    async fn add_foreign_route(&self, _: &str, destination: IpNet) -> Result<(), Stop> {
        let metadata = ObjectMeta { name: Some(foreign_name(destination)), ..ObjectMeta::default() };
        let spec = RouteSpec { epoch: 0, destinations: vec![destination], next_hops: vec!["10.9.9.9".parse()?] };
        self.0.routes().create(&PostParams::default(), &MetalRoute { metadata, spec }).await?;
        Ok(())
    }

    async fn has_foreign_route(&self, destination: IpNet) -> Result<bool, Stop> {
        let stored = self.0.routes().get_opt(&foreign_name(destination)).await?;
        Ok(stored.is_some_and(|one| one.spec.destinations == [destination] && one.metadata.labels.is_none()))
    }

    async fn remove_foreign_route(&self, destination: IpNet) -> Result<(), Stop> {
        self.0.routes().delete(&foreign_name(destination), &DeleteParams::default()).await?;
        Ok(())
    }

    async fn page(&self, size: usize) -> Result<(), Stop> {
        self.0.shared.set_page(u32::try_from(size)?);
        Ok(())
    }

    async fn described(&self, owner: &Owner) -> Result<Vec<Described>, Stop> {
        let all: Api<MetalLoadBalancer> = Api::all(self.0.client.clone());
        let all = all.list(&ListParams::default().labels(&format!("{CLUSTER_LABEL}={}", owner.cluster))).await?.items;
        let own = all.into_iter().map(|one| one.spec).filter(|spec| spec.owner.uid == owner.uid);
        let described = own.map(|spec| Described {
            ports: spec.ports.iter().map(|port| (protocol(port.protocol), port.port)).collect(),
            backends: spec.backends.iter().map(|backend| backend.name.clone()).collect(),
            source_ranges: spec.source_ranges.clone(),
            health_check_node_port: spec.health_check_node_port,
            affinity: spec.affinity_seconds.map(|seconds| Duration::from_secs(seconds.into())),
            addresses: spec.addresses.iter().map(|address| address.address).collect(),
        });
        Ok(described.collect())
    }

    async fn left_of(&self, owner: &Owner) -> Result<usize, Stop> {
        Ok(self.described(owner).await?.len())
    }
}

fn protocol(stored: quarterdeck_api::cloud::metal::Protocol) -> Protocol {
    match stored {
        quarterdeck_api::cloud::metal::Protocol::Tcp => Protocol::Tcp,
        quarterdeck_api::cloud::metal::Protocol::Udp => Protocol::Udp,
        quarterdeck_api::cloud::metal::Protocol::Sctp => Protocol::Sctp,
    }
}

fn machine(name: &str, id: &str, addresses: &[&str]) -> Machine {
    let addresses = addresses.iter().map(|address| address.parse().expect("an address")).collect();
    Machine { name: name.to_owned(), provider_id: format!("metal://{id}"), addresses }
}

/// What the inventory lists; each row has addresses and networks of its own.
fn known(row: usize) -> Result<Known> {
    let address = |address: &str| NodeAddress { kind: AddressKind::InternalIp, address: address.to_owned() };
    let addresses = vec![address("2001:db8::14"), address("10.0.0.14")];
    Ok(Known {
        cluster: "conformance".to_owned(),
        other_cluster: String::new(),
        running: vec![machine("runs-1", "r-1", &["10.0.0.11"]), machine("runs-2", "r-2", &["10.0.0.12"])],
        stopped: Some(machine("stopped", "s-1", &["10.0.0.13"])),
        terminated: Some(machine("gone", "g-1", &[])),
        foreign: vec!["metal://another/r-1".to_owned(), "metal://".to_owned(), "sim://account/zone/i-1".to_owned()],
        dual_stack: Some(DualStack { machine: machine("dual", "d-1", &["2001:db8::14", "10.0.0.14"]), addresses }),
        labelled: Some(Labelled {
            machine: machine("labelled", "l-1", &["10.0.0.15"]),
            labels: [("example.com/rack".to_owned(), "r1".to_owned())].into(),
        }),
        load_balancers: Some(Balancers {
            addresses: Some(format!("198.51.{row}.0/24").parse()?),
            ..Balancers::default()
        }),
        routes: Some(Paths { within: "10.77.0.0/16".parse()?, foreign: None, many: 100, in_two_steps: false }),
        restart: None,
    })
}

async fn run(control_plane: &ControlPlane, folder: &Path, reports: &Reports, row: usize) -> Result<Report> {
    let stand = Arc::new(Stand::build(control_plane, &folder.join(row.to_string()), reports).await?);
    // Lists of routes are seen paged, too: all those of a node, 64 at most, are one object.
    stand.shared.set_page(1);
    let plugin = Plugin::new(PluginUri::Unix(stand.socket.clone()), None);
    let mut suite = Suite::new(Arc::new(plugin), known(row)?, Box::new(Steered(stand)));
    // Tests assert no timing.
    (suite.tolerance, suite.patience) = (LONG, LONG);
    let cases: Vec<_> = CASES.iter().filter(|case| ROWS[row].contains(&case.id)).copied().collect();
    let report = suite.run(&cases).await;
    println!("{report}");
    Ok(report)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metal_passes_every_case() -> Result<()> {
    let control_plane = ControlPlane::start().await?;
    let (client, folder) = (control_plane.admin().await?, tempfile::tempdir()?);
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let namespace = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": AGENTS_NAMESPACE } });
    namespaces.patch(AGENTS_NAMESPACE, &PatchParams::apply("test"), &Patch::Apply(namespace)).await?;
    let inventory = folder.path().join("inventory.yaml");
    std::fs::write(&inventory, INVENTORY)?;
    let flags = ["--cloud-provider=metal".to_owned(), format!("--cloud-config={}", inventory.display())];
    // Rights of the provider's calls, too, which are made in this process.
    let installed = flags
        .iter()
        .cloned()
        .chain(["--configure-cloud-routes=true".to_owned(), "--cluster-cidr=10.77.0.0/16".to_owned()]);
    // The suite has tenures of its own, which would be later than this manager's.
    let election = ["--controllers=metal".to_owned(), "--leader-elect=false".to_owned()];
    let deck = Deck::builder(&control_plane)
        .replicas(1)
        .install_args(installed)
        .args(flags.iter().cloned().chain(election))
        .start()
        .await?;
    deck.ready(LONG).await?;
    let _agents = ["gw-1", "gw-2"].map(|name| Agent::start(&client, name));
    let reports = Reports::default();
    let (agents, seen): (Api<MetalAgent>, _) = (Api::all(client.clone()), Arc::clone(&reports));
    let _reading = AbortOnDropHandle::new(tokio::spawn(async move {
        loop {
            if let Ok(all) = agents.list(&ListParams::default()).await {
                *seen.lock() = Some(all.items);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }));
    eventually("agents report", LONG, async || {
        ensure!(reports.lock().as_ref().is_some_and(|all| all.len() == 2), "not yet");
        Ok(())
    })
    .await?;
    ensure!(ROWS.iter().map(|row| row.len()).sum::<usize>() == CASES.len(), "each case is in a row");
    let rows = try_join_all((0..ROWS.len()).map(|row| run(&control_plane, folder.path(), &reports, row))).await?;
    for line in rows.iter().flat_map(|report| &report.cases) {
        let excused = NOT_APPLICABLE.iter().find(|(id, _)| *id == line.id).map(|(_, why)| *why);
        let as_it_should = match (&line.verdict, excused) {
            (Verdict::Passed, None) => true,
            (Verdict::NotApplicable(told), Some(why)) => told.contains(why),
            _ => false,
        };
        ensure!(as_it_should, "{}: {:?}", line.id, line.verdict);
    }
    let left: Api<MetalLoadBalancer> = Api::all(client.clone());
    ensure!(left.list(&ListParams::default()).await?.items.is_empty(), "load balancers are left");
    let left: Api<MetalRoute> = Api::all(client);
    ensure!(left.list(&ListParams::default()).await?.items.is_empty(), "routes are left");
    Ok(())
}
