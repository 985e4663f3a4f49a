//! A gateway of `metal` with a thousand load balancers of twenty backends, of which one backend changes.
//!
//! The agent runs in a network namespace of its own, beside a client and a machine that plays all nodes; it reads the
//! API server, to which a way leads out of the namespace. Takes root.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsRawFd as _;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::socket::{AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket};
use parking_lot::Mutex;
use quarterdeck_it::deck::program_named;
use quarterdeck_it::netns::{Conversation, Echo, Health, Machine, dial, get, relay, switch};
use quarterdeck_it::{ControlPlane, Process, eventually, repository};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::place::count;
use crate::api::{Http, seconds};
use crate::contestant::{LONG, Side};
use crate::report::{Collector, Goal, Scale};

/// Load balancers.
const BALANCERS: usize = 1_000;
/// Backends of each.
const BACKENDS: usize = 20;
/// Nodes that they are taken from, so that each load balancer has others than the next one.
const NODES: usize = 40;
/// Changes of one backend of one load balancer.
const CHANGES: usize = 40;
/// Connections that are open all the time.
const CONNECTIONS: usize = 200;
/// Loads of the whole table, for comparison.
const RELOADS: usize = 5;
const NODE_PORT: u16 = 30080;
const KIND: &str = "/apis/cloud.quarterdeck.dev/v1alpha1/metalloadbalancers";

pub(super) async fn measure(scale: Scale) -> Result<Vec<Collector>> {
    let balancers = scale.size(BALANCERS);
    let mut change = Collector::new(
        format!(
            "metal: {BALANCERS} services × {BACKENDS} backends, one changes: readable → in the kernel (peer: nft loads all)"
        ),
        "s",
        Goal::AtMost(0.02),
    );
    let mut lost =
        Collector::new(format!("the same: of {CONNECTIONS} open connections, lost"), "connections", Goal::AtMost(0.0));
    let mut whole =
        Collector::new("the same: agent started with an empty kernel → all load balancers in it", "s", Goal::None);
    let mut own = Collector::new("the same by the agent's own count: seen → in the kernel, mean", "s", Goal::None);
    let mut from_asking =
        Collector::new("the same from the request to the server, whose work it then holds too", "s", Goal::None);
    let scene = Scene::set(balancers).await?;
    let begun = Instant::now();
    let agent = scene.start_agent()?;
    let changes = Changes::of(Arc::clone(&scene.gateway));
    scene.programmed(&agent, balancers).await?;
    let last = *changes.since(begun).last().context("the agent changed the kernel")?;
    whole.add(Side::Ours, seconds(begun, last));
    scene.settled().await?;

    let mut calls = scene.call(balancers)?;
    let before = scene.own_count()?;
    for index in 0..scale.rounds(CHANGES) {
        // Every second change takes a backend away, and the next one brings it back.
        let balancer = (index / 2 * 37) % balancers;
        let spec = spec(balancer, index % 2 == 0);
        let patch = json!({ "spec": { "backends": spec["backends"] } });
        let asked = Instant::now();
        let patched = scene.http.merge(&format!("{KIND}/{}", balancer_name(balancer)), &patch).await?;
        let readable = Instant::now();
        let generation = patched["metadata"]["generation"].as_i64().context("a generation")?;
        scene.reported(&agent, balancer, generation).await?;
        // The last step: should it take several, it is not in the kernel before.
        let steps = changes.since(asked);
        let seen = *steps.last().context("the change came to the kernel")?;
        if steps.len() > 1 {
            eprintln!("   in {} steps", steps.len());
        }
        // The agent may know of a change before its writer has the answer.
        change.add(Side::Ours, seconds(readable, seen));
        from_asking.add(Side::Ours, seconds(asked, seen));
        scene.quiet(&changes).await?;
    }
    let after = scene.own_count()?;
    if after.0 > before.0 {
        own.add(Side::Ours, (after.1 - before.1) / (after.0 - before.0));
    }
    let broken = calls.iter_mut().filter_map(|call| call.again().err()).inspect(|error| eprintln!("   {error:#}"));
    lost.add(Side::Ours, count(broken.count())?);
    for took in scene.reload(scale.rounds(RELOADS)).await? {
        change.add(Side::Go, took);
    }
    agent.stop(Duration::from_secs(30)).await?;
    Ok(vec![change, from_asking, own, lost, whole])
}

/// The machines, the API server, and the agent's rights at it.
struct Scene {
    folder: TempDir,
    control_plane: ControlPlane,
    http: Http,
    kubeconfig: std::path::PathBuf,
    _switch: Machine,
    client: Machine,
    gateway: Arc<Machine>,
    _nodes: Machine,
    _health: Health,
}

impl Scene {
    async fn set(balancers: usize) -> Result<Self> {
        let control_plane = ControlPlane::start().await?;
        let http = Http::new(&control_plane).await?;
        for file in ["metalagents", "metalloadbalancers", "metalroutes"] {
            apply(&control_plane, &format!("deploy/crds/{file}.cloud.quarterdeck.dev.yaml")).await?;
        }
        apply(&control_plane, "deploy/metal/daemonset.yaml").await?;
        let kubeconfig = control_plane.kubeconfig("an-agent", &["quarterdeck:metal-agents"])?;
        let make = |http: Http, index: usize| async move {
            let metadata = json!({ "name": balancer_name(index) });
            let object = json!({
                "apiVersion": "cloud.quarterdeck.dev/v1alpha1", "kind": "MetalLoadBalancer",
                "metadata": metadata, "spec": spec(index, false),
            });
            http.create(KIND, &object).await
        };
        eventually("the kind is served", LONG, async || {
            ensure!(!http.get(KIND).await?.is_null(), "it is not");
            Ok(())
        })
        .await?;
        http.for_each(0..balancers, 16, make).await?;

        let switch = switch(Machine::start("switch").await?, &["outside", "inside"])?;
        let client = Machine::start("client").await?;
        client.plug("eth0", &switch, "outside")?;
        client.run("ip addr add 10.200.0.200/16 dev eth0")?;
        let gateway = Machine::start("gateway").await?;
        gateway.plug("out", &switch, "outside")?;
        gateway.plug("in", &switch, "inside")?;
        gateway.run("ip addr add 10.200.0.1/16 dev out")?;
        gateway.run("ip addr add 10.0.0.1/24 dev in")?;
        gateway.set("net/ipv4/ip_forward", "1")?;
        let nodes = Machine::start("nodes").await?;
        nodes.plug("eth0", &switch, "inside")?;
        for node in 0..NODES {
            nodes.run(&format!("ip addr add {}/24 dev eth0", node_address(node)))?;
        }
        nodes.run("ip route add default via 10.0.0.1")?;
        Echo::start(&nodes, NODE_PORT)?;
        let health = Health::start(&nodes, 10256)?;
        relay(&gateway, control_plane.apiserver(0).address())?;
        Ok(Self {
            folder: tempfile::tempdir()?,
            control_plane,
            http,
            kubeconfig,
            _switch: switch,
            client,
            gateway: Arc::new(gateway),
            _nodes: nodes,
            _health: health,
        })
    }

    fn start_agent(&self) -> Result<Process> {
        let program = program_named("quarterdeck-agent")?;
        let launch = self.gateway.launch("agent", &program)?;
        launch
            .args(["--node-name=gateway".to_owned(), format!("--kubeconfig={}", self.kubeconfig.display())])
            .arg(format!("--state-dir={}", self.folder.path().join("state").display()))
            .log(self.control_plane.folder().join("agent.log"))
            .spawn()
    }

    fn status(&self) -> Result<Value> {
        Ok(serde_json::from_str(&get(&self.gateway, 10290, "/status")?)?)
    }

    /// Waits until the agent has nothing more to do after its start: each address was announced for the last time,
    /// which is some seconds after it came.
    async fn settled(&self) -> Result<()> {
        const LAST: Duration = Duration::from_secs(8);
        let announced = || self.total("announcements_total");
        eventually("the agent is at rest", LONG, async || {
            let before = announced()?;
            tokio::time::sleep(LAST).await;
            let after = announced()?;
            ensure!(after <= before, "{} addresses were announced just now", after - before);
            Ok(())
        })
        .await
    }

    /// The sum of a metric of the agent.
    fn total(&self, name: &str) -> Result<f64> {
        let text = get(&self.gateway, 10290, "/metrics")?;
        let name = format!("quarterdeck_agent_{name}");
        let lines = text.lines().filter(|line| line.starts_with(&name));
        Ok(lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum())
    }

    /// How many changes the agent worked in, and the seconds that all of them took, by its own count.
    fn own_count(&self) -> Result<(f64, f64)> {
        let total = |name: &str| self.total(&format!("change_duration_seconds_{name}"));
        Ok((total("count")?, total("sum")?))
    }

    /// Waits until every load balancer is in the kernel with all backends.
    async fn programmed(&self, agent: &Process, balancers: usize) -> Result<()> {
        eventually("all load balancers are programmed", LONG, async || {
            let status = self.status()?;
            let reports = status["loadBalancers"].as_array().context("no report yet")?;
            let whole = reports.iter().filter(|one| one["healthy"] == BACKENDS && is_well(one)).count();
            ensure!(whole == balancers, "{whole} of {balancers}: {} {:?}", status["problems"], reports.first());
            Ok(())
        })
        .await
        .with_context(|| agent.log_text())
    }

    /// Waits until the agent says that this generation of a load balancer is in the kernel.
    async fn reported(&self, agent: &Process, balancer: usize, generation: i64) -> Result<()> {
        let own = balancer_name(balancer);
        eventually("the change is in the kernel", LONG, async || {
            let status = self.status()?;
            let report = status["loadBalancers"].as_array().into_iter().flatten().find(|one| one["name"] == *own);
            let report = report.with_context(|| format!("no report of {own}"))?;
            ensure!(report["generation"] == generation && is_well(report), "{report}");
            Ok(())
        })
        .await
        .with_context(|| agent.log_text())
    }

    /// Waits until the agent leaves the kernel alone: announcements and checks have come to rest.
    async fn quiet(&self, changes: &Changes) -> Result<()> {
        let pause = Duration::from_millis(300);
        eventually("the kernel is left alone", LONG, async || {
            let last = changes.last();
            ensure!(last.is_none_or(|last| last.elapsed() > pause), "it was changed just now");
            Ok(())
        })
        .await
    }

    /// Connections through load balancers all over.
    fn call(&self, balancers: usize) -> Result<Vec<Conversation>> {
        let to = |index: usize| SocketAddr::from((address(index * 7 % balancers), 80));
        (0..CONNECTIONS).map(|index| dial(&self.client, to(index))).collect()
    }

    /// Seconds that nft takes for the gateway's whole table: it is emptied and filled in one transaction, in a
    /// namespace of its own.
    async fn reload(&self, rounds: usize) -> Result<Vec<f64>> {
        let table = self.gateway.run("nft -s list table inet quarterdeck")?;
        let file = self.folder.path().join("table.nft");
        std::fs::write(&file, format!("add table inet quarterdeck\ndelete table inet quarterdeck\n{table}"))?;
        let machine = Machine::start("reload").await?;
        let load = format!("nft -f {}", file.display());
        machine.run(&load)?;
        let mut all = Vec::new();
        for _ in 0..rounds {
            let begun = Instant::now();
            machine.run(&load)?;
            all.push(begun.elapsed().as_secs_f64());
        }
        Ok(all)
    }
}

/// Whether nothing is said against a load balancer.
fn is_well(report: &Value) -> bool {
    report["error"].as_str().unwrap_or_default().is_empty()
}

/// Name of a load balancer: the manager's are uids.
fn balancer_name(index: usize) -> String {
    format!("00000000-0000-4000-8000-{index:012x}")
}

/// The address of a load balancer.
fn address(index: usize) -> Ipv4Addr {
    let number = u32::from(Ipv4Addr::new(10, 200, 16, 0)) + u32::try_from(index).expect("a few thousand");
    Ipv4Addr::from(number)
}

fn node_address(node: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, u8::try_from(100 + node).expect("forty nodes"))
}

/// A load balancer with twenty of the nodes, or without the last one of them.
fn spec(index: usize, less: bool) -> Value {
    // Twenty of the forty, drawn anew for each load balancer: no two have the same ones.
    let mut drawn: Vec<usize> = (0..NODES).collect();
    drawn.sort_by_key(|node| scatter((index * NODES + node) as u64));
    let backends: Vec<Value> = drawn
        .into_iter()
        .take(BACKENDS - usize::from(less))
        .map(|node| json!({ "name": format!("node-{node}"), "addresses": [node_address(node)] }))
        .collect();
    json!({
        "epoch": 1,
        "owner": { "cluster": "bench", "namespace": "bench", "name": format!("s-{index}"), "uid": balancer_name(index) },
        "addresses": [{ "address": address(index), "gateway": "gateway" }],
        "gateways": [{ "name": "gateway", "addresses": ["10.0.0.1"] }],
        "ports": [{ "protocol": "TCP", "port": 80, "nodePort": NODE_PORT }],
        "backends": backends,
    })
}

/// A number that looks drawn (the mixer of splitmix64).
fn scatter(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

async fn apply(control_plane: &ControlPlane, file: &str) -> Result<()> {
    let output = tokio::process::Command::new(control_plane.program("kubectl"))
        .env("KUBECONFIG", control_plane.admin_kubeconfig()?)
        .env("HOME", control_plane.folder())
        .current_dir(repository())
        .args(["apply", "-f", file])
        .stdin(Stdio::null())
        .output()
        .await?;
    if output.status.success() { Ok(()) } else { bail!("{file}: {}", String::from_utf8_lossy(&output.stderr)) }
}

/// When tables of nftables on a machine changed, by the kernel's count of changes.
struct Changes {
    seen: Arc<Mutex<Vec<Instant>>>,
    ended: Arc<AtomicBool>,
}

impl Changes {
    /// Looks every 0.2 ms, from now on.
    fn of(machine: Arc<Machine>) -> Self {
        let changes = Self { seen: Arc::default(), ended: Arc::default() };
        let (seen, ended) = (Arc::clone(&changes.seen), Arc::clone(&changes.ended));
        std::thread::spawn(move || {
            let watched = machine.inside(|| {
                let (socket, mut known) = (generations()?, None);
                while !ended.load(Ordering::Relaxed) {
                    let now = generation(socket.as_raw_fd())?;
                    if known.replace(now).is_some_and(|known| known != now) {
                        seen.lock().push(Instant::now());
                    }
                    std::thread::sleep(Duration::from_micros(200));
                }
                Ok(())
            });
            if let Err(error) = watched {
                eprintln!("   the kernel's changes are not seen any more: {error:#}");
            }
        });
        changes
    }

    fn since(&self, moment: Instant) -> Vec<Instant> {
        self.seen.lock().iter().copied().filter(|seen| *seen >= moment).collect()
    }

    fn last(&self) -> Option<Instant> {
        self.seen.lock().last().copied()
    }
}

impl Drop for Changes {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
    }
}

/// A socket to ask for the count of changes.
fn generations() -> Result<std::os::fd::OwnedFd> {
    let protocol = SockProtocol::NetlinkNetFilter;
    Ok(socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?)
}

/// The count of changes of this namespace's tables (`NFT_MSG_GETGEN`).
fn generation(socket: i32) -> Result<u32> {
    const LENGTH: u32 = 20;
    const GET_GENERATION: u16 = (10 << 8) | 16;
    const REQUEST: u16 = 1;
    let mut message = Vec::with_capacity(LENGTH as usize);
    message.extend(LENGTH.to_ne_bytes());
    message.extend(GET_GENERATION.to_ne_bytes());
    message.extend(REQUEST.to_ne_bytes());
    message.resize(LENGTH as usize, 0);
    sendto(socket, &message, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
    let mut answer = [0; 256];
    let length = recv(socket, &mut answer, MsgFlags::empty())?;
    // Headers of netlink and netfilter (20 bytes) and of the first attribute (4), which is the count.
    let id = answer[..length].get(24..28).and_then(|bytes| bytes.first_chunk::<4>());
    Ok(u32::from_be_bytes(*id.context("an answer of an unknown form")?))
}
