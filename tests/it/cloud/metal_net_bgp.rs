//! Addresses of load balancers that are announced by BGP: BIRD on two gateways, and on a router in front of the client.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context, Result, bail};
use quarterdeck_it::deck::program_named;
use quarterdeck_it::netns::{Echo, Health, Machine, dial, get, path, refused, switch};
use quarterdeck_it::{Launch, Process, eventually};
use serde_json::{Value, json};

use super::metal_net::LONG;

/// In no network of any machine: only routes lead there.
const VIP: &str = "203.0.113.10";
const CLIENT: &str = "198.51.100.200";
const ROUTER: &str = "192.0.2.254";

/// BIRD on a machine, with these sessions.
fn bird(machine: &Machine, folder: &Path, id: &str, rest: &str) -> Result<Process> {
    let name = machine.name();
    let file = folder.join(format!("{name}.bird"));
    std::fs::write(&file, format!("router id {id};\nprotocol device {{}}\n{rest}"))?;
    let program = path()?.split(':').map(|folder| Path::new(folder).join("bird")).find(|path| path.exists());
    let launch = machine.launch(&format!("bird of {name}"), &program.context("bird is not on the PATH")?)?;
    launch
        .args(["-f".to_owned(), format!("-c{}", file.display()), format!("-s{}", socket(folder, name))])
        .log(folder.join(format!("{name}.bird.log")))
        .spawn()
}

fn socket(folder: &Path, name: &str) -> String {
    folder.join(format!("{name}.ctl")).display().to_string()
}

fn session(name: &str, own: u32, neighbour: &str, other: u32, channel: &str) -> String {
    format!(
        "protocol bgp {name} {{ local as {own}; neighbor {neighbour} as {other}; connect delay time 1; \
         connect retry time 1; error wait time 1, 2; ipv4 {{ {channel} }}; }}\n"
    )
}

/// One load balancer, announced by `gateway`; and what nodes reply through.
fn state(epoch: u64, gateway: Option<&str>) -> Value {
    json!({ "items": [{
        "kind": "MetalLoadBalancer",
        "metadata": { "name": "a" },
        "spec": {
            "epoch": epoch,
            "addresses": [{ "address": VIP, "gateway": gateway }],
            "gateways": [{ "name": "gw1", "addresses": ["10.0.0.1"] }, { "name": "gw2", "addresses": ["10.0.0.2"] }],
            "backends": [{ "name": "n1", "addresses": ["10.0.0.11"] }],
            "ports": [{ "protocol": "TCP", "port": 80, "nodePort": 30080 }],
        },
    }] })
}

#[tokio::test]
async fn an_address_is_announced_and_withdrawn_by_bgp() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let switch = switch(Machine::start("switch").await?, &["front", "outside", "inside"])?;
    let client = Machine::start("client").await?;
    client.plug("eth0", &switch, "front")?;
    client.run(&format!("ip addr add {CLIENT}/24 dev eth0"))?;
    client.run("ip route add default via 198.51.100.254")?;
    let router = Machine::start("router").await?;
    router.plug("front", &switch, "front")?;
    router.plug("back", &switch, "outside")?;
    router.run("ip addr add 198.51.100.254/24 dev front")?;
    router.run(&format!("ip addr add {ROUTER}/24 dev back"))?;
    router.set("net/ipv4/ip_forward", "1")?;
    let mut sessions = "protocol kernel { ipv4 { import none; export all; }; }\n".to_owned();
    for number in 1..=2 {
        let neighbour = format!("192.0.2.{number}");
        let _ = write!(
            sessions,
            "{}",
            session(&format!("gw{number}"), 64513, &neighbour, 64512, "import all; export none;")
        );
    }
    let mut processes = vec![bird(&router, folder.path(), ROUTER, &sessions)?];

    let node = Machine::start("n1").await?;
    node.plug("eth0", &switch, "inside")?;
    node.run("ip addr add 10.0.0.11/24 dev eth0")?;
    node.run("ip route add default via 10.0.0.1")?;
    Echo::start(&node, 30080)?;
    let _health = Health::start(&node, 10256)?;
    let file = folder.path().join("state.json");
    let write = |state: &Value| -> Result<()> {
        let new = folder.path().join("state.new");
        std::fs::write(&new, state.to_string())?;
        Ok(std::fs::rename(new, &file)?)
    };
    write(&state(1, Some("gw1")))?;
    let program = program_named("quarterdeck-agent")?;
    let agent = |machine: &Machine| -> Result<Launch> {
        let name = machine.name();
        let own = folder.path().join(name);
        let launch = machine.launch(&format!("agent of {name}"), &program)?.log(own.with_extension("log"));
        Ok(launch.args([
            format!("--node-name={name}"),
            format!("--state-file={}", file.display()),
            format!("--state-dir={}", own.display()),
            "--cluster-check=none".to_owned(),
        ]))
    };
    let mut gateways = Vec::new();
    for number in 1..=2 {
        let gateway = Machine::start(&format!("gw{number}")).await?;
        gateway.plug("out", &switch, "outside")?;
        gateway.plug("in", &switch, "inside")?;
        gateway.run(&format!("ip addr add 192.0.2.{number}/24 dev out"))?;
        gateway.run(&format!("ip addr add 10.0.0.{number}/24 dev in"))?;
        gateway.run(&format!("ip route add 198.51.100.0/24 via {ROUTER}"))?;
        gateway.set("net/ipv4/ip_forward", "1")?;
        // As docs/cloud/metal-agent.md has it. The file is there before BIRD starts.
        let include = folder.path().join(format!("{}.quarterdeck.conf", gateway.name()));
        std::fs::write(&include, "protocol static quarterdeck_ipv4 { ipv4; }\n")?;
        let export = "import none; export where proto = \"quarterdeck_ipv4\";";
        let rest = format!("include \"{}\";\n{}", include.display(), session("uplink", 64512, ROUTER, 64513, export));
        processes.push(bird(&gateway, folder.path(), &format!("192.0.2.{number}"), &rest)?);
        let launch = agent(&gateway)?.args([
            "--announce=bgp".to_owned(),
            format!("--bird-include={}", include.display()),
            format!("--bird-socket={}", socket(folder.path(), gateway.name())),
        ]);
        processes.push(launch.spawn()?);
        gateways.push(gateway);
    }
    processes.push(agent(&node)?.spawn()?);
    let logs = || processes.iter().map(Process::log_text).collect::<Vec<_>>().join("\n--\n");

    let to = SocketAddr::new(VIP.parse()?, 80);
    let reached_by = async |gateway: &str| {
        let what = format!("the address is reached through {gateway}");
        let waited = eventually(&what, LONG, || async {
            let routes = router.run(&format!("ip route show {VIP}"))?;
            if !routes.contains(&format!("via {gateway} ")) || routes.lines().count() != 1 {
                bail!("{routes:?}");
            }
            dial(&client, to)
        });
        waited.await.with_context(logs)
    };
    let call = reached_by("192.0.2.1").await?;
    assert_eq!((call.server.as_str(), call.seen.as_str()), ("n1", CLIENT));
    let established = router.run(&format!("birdc -s{} show protocols", socket(folder.path(), "router")))?;
    assert_eq!(established.matches("Established").count(), 2, "{established}");
    let status: Value = serde_json::from_str(&get(&gateways[0], 10290, "/status")?)?;
    assert_eq!(status["announces"][0]["by"], "bgp", "{status:#}");
    assert!(gateways[0].run("ip addr show dev lo")?.contains(&format!(" {VIP}/32")));

    // It moves; what the first gateway announced is withdrawn.
    write(&state(2, Some("gw2")))?;
    reached_by("192.0.2.2").await?;
    // Nobody is to announce it: the second gateway gives it up.
    write(&state(3, None))?;
    eventually("the address is withdrawn", LONG, || async {
        let routes = router.run(&format!("ip route show {VIP}"))?;
        if routes.is_empty() { Ok(()) } else { bail!("{routes}") }
    })
    .await
    .with_context(logs)?;
    refused(&client, None, to)?;
    for gateway in &gateways {
        eventually("no address is left", LONG, || async {
            let addresses = gateway.run("ip addr show dev lo")?;
            if addresses.contains(VIP) { bail!("{addresses}") } else { Ok(()) }
        })
        .await
        .with_context(logs)?;
    }
    Ok(())
}
