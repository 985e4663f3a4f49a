//! The agents of metal on real packets: a client, two gateways and three nodes in network namespaces.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use quarterdeck_it::Process;
use quarterdeck_it::deck::program_named;
use quarterdeck_it::eventually;
use quarterdeck_it::netns::{
    CLIENT, Conversation, Echo, Flow, Health, Layout, Machine, OTHER_CLIENT, Site, datagram, datagram_from, dial,
    dial_from, get, refused,
};
use serde_json::{Value, json};

pub(super) const LONG: Duration = Duration::from_secs(60);
/// Announced by the first gateway, and by the second one.
pub(super) const VIP: [&str; 2] = ["192.0.2.10", "192.0.2.11"];
const VIP6: &str = "2001:db8::10";
pub(super) const NODES: [&str; 3] = ["n1", "n2", "n3"];
const GATEWAYS: [&str; 2] = ["gw1", "gw2"];

pub(super) fn at(address: &str) -> SocketAddr {
    SocketAddr::new(address.parse().expect("an address"), 80)
}

/// The machines, their servers, and an agent on each but the client.
pub(super) struct Scene {
    folder: tempfile::TempDir,
    _switch: Machine,
    pub(super) client: Machine,
    pub(super) gateways: Vec<Machine>,
    pub(super) nodes: Vec<Machine>,
    health: Vec<Health>,
    pub(super) agents: Vec<Process>,
}

impl Scene {
    pub(super) async fn set() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let layout = Layout { gateways: &GATEWAYS, nodes: &NODES, pods: "10.1", detached: false };
        let Site { switch, client, gateways, nodes } = Site::build(layout).await?;
        let mut health = Vec::new();
        for node in &nodes {
            // A route that is not ours.
            node.run("ip route add 10.9.9.0/24 via 10.0.0.2 proto static")?;
            Echo::start(node, 30080)?;
            health.push(Health::start(node, 10256)?);
        }
        let mut scene = Self { folder, _switch: switch, client, gateways, nodes, health, agents: Vec::new() };
        scene.write(&scene.state(1, &NODES, "gw1"))?;
        scene.start_agents()?;
        Ok(scene)
    }

    fn machines(&self) -> impl Iterator<Item = &Machine> {
        self.gateways.iter().chain(&self.nodes)
    }

    fn arguments(&self, machine: &Machine) -> Vec<String> {
        let folder = self.folder.path().join(machine.name());
        vec![
            format!("--node-name={}", machine.name()),
            format!("--state-file={}", self.state_file().display()),
            format!("--state-dir={}", folder.display()),
            "--check-interval=200ms".to_owned(),
            "--check-timeout=10s".to_owned(),
            "--check-failures=2".to_owned(),
            "--check-successes=1".to_owned(),
        ]
    }

    pub(super) fn start_agents(&mut self) -> Result<()> {
        let program = program_named("quarterdeck-agent")?;
        let mut agents = Vec::new();
        for machine in self.machines() {
            let name = format!("agent of {}", machine.name());
            let log = self.folder.path().join(format!("{}.log", machine.name()));
            agents.push(machine.launch(&name, &program)?.args(self.arguments(machine)).log(log).spawn()?);
        }
        self.agents = agents;
        Ok(())
    }

    fn state_file(&self) -> PathBuf {
        self.folder.path().join("state.json")
    }

    /// Says what is wanted from now on.
    pub(super) fn write(&self, state: &Value) -> Result<()> {
        let new = self.folder.path().join("state.new");
        std::fs::write(&new, state.to_string())?;
        Ok(std::fs::rename(new, self.state_file())?)
    }

    /// Two load balancers, one with addresses at `gateway`, one at the second gateway; and routes to all nodes.
    pub(super) fn state(&self, epoch: u64, backends: &[&str], gateway: &str) -> Value {
        let gateways: Vec<Value> = (1..)
            .zip(GATEWAYS)
            .map(|(n, name)| json!({ "name": name, "addresses": [format!("10.0.0.{n}"), format!("fd00::{n}")] }))
            .collect();
        let backends: Vec<Value> = (1..)
            .zip(NODES)
            .filter(|(_, name)| backends.contains(name))
            .map(|(n, name)| json!({ "name": name, "addresses": [format!("10.0.0.1{n}"), format!("fd00::1{n}")] }))
            .collect();
        let balancer = |name: &str, addresses: Value| {
            json!({
                "kind": "MetalLoadBalancer",
                "metadata": { "name": name },
                "spec": {
                    "epoch": epoch,
                    "addresses": addresses,
                    "gateways": gateways,
                    "backends": backends,
                    "ports": [
                        { "protocol": "TCP", "port": 80, "nodePort": 30080 },
                        { "protocol": "UDP", "port": 80, "nodePort": 30080 },
                    ],
                },
            })
        };
        let mut items = vec![
            balancer("a", json!([{ "address": VIP[0], "gateway": gateway }, { "address": VIP6, "gateway": gateway }])),
            balancer("b", json!([{ "address": VIP[1], "gateway": "gw2" }])),
        ];
        for (n, name) in (1..).zip(NODES) {
            items.push(json!({
                "kind": "MetalRoute",
                "metadata": { "name": name },
                "spec": {
                    "epoch": epoch,
                    "destinations": [format!("10.1.{n}.0/24")],
                    "nextHops": [format!("10.0.0.1{n}"), format!("fd00::1{n}")],
                },
            }));
        }
        json!({ "items": items })
    }

    /// Who answers fresh datagrams, and whether all saw the client's own address.
    fn answering(&self, to: SocketAddr) -> Result<BTreeSet<String>> {
        let client = if to.is_ipv6() { "2001:db8::200" } else { CLIENT };
        let mut all = BTreeSet::new();
        for _ in 0..40 {
            let (server, seen) = datagram(&self.client, to)?;
            if seen != client {
                bail!("{server} saw {seen}, and not {client}");
            }
            all.insert(server);
        }
        Ok(all)
    }

    /// Waits until these nodes and no others answer.
    pub(super) async fn answer(&self, to: SocketAddr, nodes: &[&str]) -> Result<()> {
        let expected: BTreeSet<String> = nodes.iter().map(|name| (*name).to_owned()).collect();
        eventually(&format!("{expected:?} answer at {to}"), LONG, || async {
            let all = self.answering(to)?;
            if all == expected { Ok(()) } else { bail!("{all:?}") }
        })
        .await
        .with_context(|| self.logs())
    }

    /// Waits until an address is, or is not, on a gateway.
    async fn on_gateway(&self, gateway: usize, address: &str, there: bool) -> Result<()> {
        let machine = &self.gateways[gateway];
        eventually(&format!("{address} on {}: {there}", machine.name()), LONG, || async {
            let all = machine.run("ip addr show dev out")?;
            if all.contains(&format!(" {address}/")) == there { Ok(()) } else { bail!("{all}") }
        })
        .await
        .with_context(|| self.logs())
    }

    /// Waits until a machine's agent reports that it has applied this epoch.
    pub(super) async fn applied(&self, machine: &Machine, epoch: u64) -> Result<()> {
        eventually(&format!("{} has applied epoch {epoch}", machine.name()), LONG, || async {
            let status: Value = serde_json::from_str(&get(machine, 10290, "/status")?)?;
            if status["epoch"] == epoch { Ok(()) } else { bail!("{status}") }
        })
        .await
        .with_context(|| self.logs())
    }

    pub(super) fn logs(&self) -> String {
        let texts = self.agents.iter().map(|agent| format!("{}:\n{}", agent.launch().name(), agent.log_text()));
        texts.collect::<Vec<_>>().join("\n")
    }
}

#[tokio::test]
async fn traffic_goes_on_whatever_happens_to_the_agents() -> Result<()> {
    let mut scene = Scene::set().await?;
    let client: IpAddr = CLIENT.parse()?;

    // All nodes answer, and see the client's own address; also where the reply's way is not the default route.
    for to in [at(VIP[0]), at(VIP[1]), at(VIP6)] {
        scene.answer(to, &NODES).await?;
    }
    for to in [at(VIP[0]), at(VIP[1])] {
        let call = dial_from(&scene.client, client, to)?;
        assert_eq!(call.seen, CLIENT);
    }
    // A gateway's own services are not to be had at these addresses.
    let _own = Health::start(&scene.gateways[0], 8080)?;
    scene.client.inside(|| Ok(std::net::TcpStream::connect("192.0.2.1:8080")?))?;
    refused(&scene.client, None, SocketAddr::new(VIP[0].parse()?, 8080))?;

    // Conversations with every node.
    let mut calls = Vec::new();
    let mut heard = BTreeSet::new();
    while heard.len() < NODES.len() {
        for to in [at(VIP[0]), at(VIP[1]), at(VIP6)] {
            let call = dial(&scene.client, to)?;
            heard.insert(call.server.clone());
            calls.push(call);
        }
    }

    // One node less: fresh calls go elsewhere, and the others are not disturbed.
    scene.write(&scene.state(2, &["n1", "n2"], "gw1"))?;
    scene.answer(at(VIP[0]), &["n1", "n2"]).await?;
    scene.answer(at(VIP[1]), &["n1", "n2"]).await?;
    calls.iter_mut().try_for_each(Conversation::again)?;
    // One that fails its checks.
    let mut flows = Vec::new();
    while flows.len() < 3 {
        let flow = Flow::new(&scene.client, at(VIP[0]))?;
        if flow.ask()? == "n2" {
            flows.push(flow);
        }
    }
    scene.health[1].answer(503);
    scene.answer(at(VIP[0]), &["n1"]).await?;
    for flow in &flows {
        // Datagrams from a port that never falls silent go elsewhere too.
        eventually("the flow moves", LONG, || async {
            let server = flow.ask()?;
            if server == "n1" { Ok(()) } else { bail!("{server} answers") }
        })
        .await?;
    }
    scene.health[1].answer(200);
    scene.answer(at(VIP[0]), &["n1", "n2"]).await?;

    // An older state is refused, and what is in force stays.
    scene.write(&scene.state(1, &["n3"], "gw2"))?;
    eventually("the older state is refused", LONG, || async {
        let text = scene.agents[0].log_text();
        if text.contains("epoch 1 is older than 2") { Ok(()) } else { bail!("{text}") }
    })
    .await?;
    assert_eq!(scene.answering(at(VIP[0]))?, BTreeSet::from(["n1".to_owned(), "n2".to_owned()]));

    // No agent at all: established and fresh calls go on.
    scene.write(&scene.state(2, &["n1", "n2"], "gw1"))?;
    for agent in &scene.agents {
        agent.kill().await?;
    }
    calls.iter_mut().try_for_each(Conversation::again)?;
    scene.answer(at(VIP[0]), &["n1", "n2"]).await?;
    scene.answer(at(VIP6), &["n1", "n2"]).await?;
    // They come back with no source to read: from what they kept.
    std::fs::remove_file(scene.state_file())?;
    let before = scene.gateways[0].run("nft -j list table inet quarterdeck")?;
    scene.start_agents()?;
    eventually("the agents are back", LONG, || async {
        let text = scene.logs();
        if text.matches("everything stays as it is").count() >= scene.agents.len() { Ok(()) } else { bail!("{text}") }
    })
    .await?;
    calls.iter_mut().try_for_each(Conversation::again)?;
    assert_eq!(scene.gateways[0].run("nft -j list table inet quarterdeck")?, before, "nothing was loaded anew");

    // Somebody else breaks what is ours; it comes back.
    scene.gateways[0].run("nft delete table inet quarterdeck")?;
    scene.gateways[1].run(&format!("ip addr del {}/32 dev out", VIP[1]))?;
    scene.nodes[0].run("ip route flush table main proto 99")?;
    for to in [at(VIP[0]), at(VIP[1])] {
        eventually("it is repaired", LONG, || async { scene.answering(to) }).await.with_context(|| scene.logs())?;
    }
    eventually("routes are back", LONG, || async {
        let routes = scene.nodes[0].run("ip route show proto 99")?;
        if routes.lines().count() == 2 { Ok(()) } else { bail!("{routes}") }
    })
    .await?;
    calls.iter_mut().try_for_each(Conversation::again)?;

    // The first gateway dies; the second one announces its addresses, and conversations live on: with the nodes that
    // there were when they began, it leads each to the same one.
    scene.agents[0].kill().await?;
    for link in ["out", "in"] {
        scene.gateways[0].run(&format!("ip link set {link} down"))?;
    }
    scene.write(&scene.state(3, &NODES, "gw2"))?;
    scene.on_gateway(1, VIP[0], true).await?;
    scene.on_gateway(1, VIP6, true).await?;
    scene.answer(at(VIP[0]), &NODES).await?;
    for call in &mut calls {
        let server = call.server.clone();
        call.again().with_context(|| format!("{server}, after the gateway's end"))?;
    }
    // Back again, it gives up what is another's now; what reaches it before that is not harmed.
    for link in ["out", "in"] {
        scene.gateways[0].run(&format!("ip link set {link} up"))?;
    }
    an_old_memory_resets_nothing(&scene, &mut calls).await?;
    scene.start_agents()?;
    scene.on_gateway(0, VIP[0], false).await?;

    // Removal leaves nothing of ours, and everything of others.
    for agent in &scene.agents {
        agent.stop(LONG).await?;
    }
    let program = program_named("quarterdeck-agent")?.display().to_string();
    for machine in scene.machines() {
        machine.run(&format!("{program} {} --cleanup", scene.arguments(machine).join(" ")))?;
        assert_eq!(machine.run("nft list tables")?, "", "{}", machine.name());
        for command in ["ip route show table all proto 99", "ip -6 route show table all proto 99"] {
            assert_eq!(machine.run(command)?, "", "{}: {command}", machine.name());
        }
        for command in ["ip rule", "ip -6 rule"] {
            let rules = machine.run(command)?;
            assert!(!rules.contains("99"), "{}: {rules}", machine.name());
        }
        let addresses = machine.run("ip addr")?;
        assert!(VIP.iter().chain([&VIP6]).all(|vip| !addresses.contains(&format!("{vip}/"))), "{addresses}");
    }
    assert!(scene.nodes[0].run("ip route")?.contains("10.9.9.0/24"));
    Ok(())
}

/// The first gateway is back, has no agent, and knows conversations as they were before they went on through the
/// second one: packets that go astray to it are out of any window it knows. It may drop them, and not reset.
async fn an_old_memory_resets_nothing(scene: &Scene, calls: &mut Vec<Conversation>) -> Result<()> {
    let (client, old) = (&scene.client, &scene.gateways[0]);
    // Counts what the gateway's own tracking of connections finds to be invalid.
    for command in [
        "nft add table inet watcher",
        "nft add counter inet watcher astray",
        "nft add chain inet watcher input { type filter hook input priority -300 ; }",
        "nft add rule inet watcher input ct state invalid tcp dport 80 counter name astray",
    ] {
        old.run(command)?;
    }
    let astray = || -> Result<u64> {
        let all: Value = serde_json::from_str(&old.run("nft -j list counters table inet watcher")?)?;
        let counter =
            all["nftables"].as_array().into_iter().flatten().find_map(|item| item["counter"]["packets"].as_u64());
        counter.with_context(|| all.to_string())
    };
    let lead = |gateway: &Machine| -> Result<()> {
        let link = gateway.run("ip -o link show dev out")?;
        let (_, rest) = link.split_once("link/ether ").with_context(|| link.clone())?;
        let mac = rest.split(' ').next().unwrap_or_default();
        client.run(&format!("ip neigh replace {} lladdr {mac} dev eth0 nud permanent", VIP[0])).map(drop)
    };
    let index = calls.iter().position(|call| call.callee == at(VIP[0])).context("there is a conversation")?;
    let mut call = calls.remove(index);
    // Something is said that the first gateway does not hear.
    call.again()?;
    lead(old)?;
    let talk = std::thread::spawn(move || call.again().map(|()| call));
    eventually("packets go astray", LONG, || async {
        // The first one, and one that the client sends again.
        let seen = astray()?;
        if seen >= 2 || talk.is_finished() { Ok(()) } else { bail!("{seen} packets") }
    })
    .await?;
    lead(&scene.gateways[1])?;
    let told = talk.join().map_err(|_| anyhow::anyhow!("a thread panicked"))?;
    calls.push(told.context("its packets went astray to a gateway with an old memory")?);
    client.run(&format!("ip neigh del {} dev eth0", VIP[0]))?;
    old.run("nft delete table inet watcher").map(drop)
}

#[tokio::test]
async fn clients_are_let_in_and_stick_and_pods_are_reached() -> Result<()> {
    let scene = Scene::set().await?;
    let [client, other]: [IpAddr; 2] = [CLIENT.parse()?, OTHER_CLIENT.parse()?];
    scene.answer(at(VIP[0]), &NODES).await?;

    // Pods of each node from each other one.
    for (here, node) in (1..).zip(&scene.nodes) {
        for there in (1..=3).filter(|there| *there != here) {
            let pods: SocketAddr = format!("10.1.{there}.1:30080").parse()?;
            let call = eventually("the pods are reached", LONG, || async { dial(node, pods) }).await?;
            assert_eq!(call.server, format!("n{there}"));
        }
    }

    // Only one of two clients is let in.
    let mut state = scene.state(2, &NODES, "gw1");
    state["items"][0]["spec"]["sourceRanges"] = json!([format!("{OTHER_CLIENT}/32")]);
    scene.write(&state)?;
    eventually("one client is kept out", LONG, || async { refused(&scene.client, Some(client), at(VIP[0])) })
        .await
        .with_context(|| scene.logs())?;
    datagram_from(&scene.client, other, at(VIP[0]))?;
    datagram_from(&scene.client, client, at(VIP[1]))?;

    // A client sticks to its node, also when others come; when its node goes, it moves and sticks again.
    let mut state = scene.state(3, &["n1", "n2"], "gw1");
    state["items"][0]["spec"]["affinitySeconds"] = json!(600);
    scene.write(&state)?;
    let stuck = |to: SocketAddr| -> Result<String> {
        let servers: Result<BTreeSet<String>> =
            (0..20).map(|_| Ok(dial_from(&scene.client, client, to)?.server)).collect();
        let servers = servers?;
        if servers.len() == 1 { Ok(servers.into_iter().next().unwrap_or_default()) } else { bail!("{servers:?}") }
    };
    let first =
        eventually("the client sticks", LONG, || async { stuck(at(VIP[0])) }).await.with_context(|| scene.logs())?;
    let mut state = scene.state(4, &NODES, "gw1");
    state["items"][0]["spec"]["affinitySeconds"] = json!(600);
    scene.write(&state)?;
    scene.applied(&scene.gateways[0], 4).await?;
    assert_eq!(stuck(at(VIP[0]))?, first);
    let others: Vec<&str> = NODES.into_iter().filter(|name| *name != first).collect();
    let mut state = scene.state(5, &others, "gw1");
    state["items"][0]["spec"]["affinitySeconds"] = json!(600);
    scene.write(&state)?;
    eventually("the client moves", LONG, || async {
        let now = stuck(at(VIP[0]))?;
        if now == first { bail!("still {now}") } else { Ok(()) }
    })
    .await?;

    // With nobody to serve, calls are refused and the address stays.
    scene.write(&scene.state(6, &[], "gw1"))?;
    eventually("calls are refused", LONG, || async { refused(&scene.client, None, at(VIP[0])) }).await?;
    scene.on_gateway(0, VIP[0], true).await?;
    scene.client.run(&format!("ping -c1 -W5 {}", VIP[0])).map(drop).or_else(|error| {
        // Not every machine has the program.
        if error.to_string().contains("No such file") { Ok(()) } else { Err(error) }
    })
}
