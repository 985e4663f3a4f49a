//! From a Service to packets, and what becomes of them when managers, gateways and nodes come and go.
//!
//! All managers are dead for as long as it takes to see that health checks and some hundred flows go on; in [`long`],
//! for two minutes. Lines that begin with `measured:` are figures.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use quarterdeck_it::netns::{
    CLIENT, Load, OTHER_CLIENT, Tally, datagram_from, datagram_patient, dial, dial_from, refused,
};
use serde_json::{Value, json};

use super::metal_flow_world::{GATEWAY_LEASE, LONG, NAMESPACE, NODES, World};

/// Flows of each kind that have to pass while nobody manages.
const FLOWS: u64 = 100;

fn measured(what: &str) {
    println!("measured: {what}");
}

/// Addresses of two Services, one at each gateway.
struct Quays {
    web: SocketAddr,
    api: SocketAddr,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn services_are_served_whatever_becomes_of_managers_and_gateways() -> Result<()> {
    Box::pin(services_are_served(Duration::ZERO)).await
}

mod long {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn services_are_served_while_all_managers_are_dead_for_two_minutes() -> Result<()> {
        Box::pin(services_are_served(Duration::from_secs(120))).await
    }
}

/// `outage`: for how long all managers are dead at least.
async fn services_are_served(outage: Duration) -> Result<()> {
    let world = World::start().await?;
    let quays = two_services_get_addresses(&world).await?;
    let load = Load::start(&world.site.client, CLIENT.parse()?, &[quays.web, quays.api])?;
    pods_are_reached_on_all_nodes(&world).await?;
    backends_come_and_go(&world, &quays, &load).await?;
    what_a_service_asks_for_is_done(&world).await?;
    a_managers_failover_moves_nothing(&world, &load).await?;
    no_manager_is_needed(&world, &quays, &load, outage).await?;
    a_gateways_end_is_survived(&world, &quays, &load).await?;
    let Tally { kept, fresh, datagrams, flow, lost } = load.finish().with_context(|| world.logs())?;
    measured(&format!(
        "metal in all: {kept} answers in established connections, none broken; {fresh} fresh connections, {datagrams} \
         datagrams and {flow} datagrams of two flows answered; {lost} lost, all while a gateway was dead"
    ));
    nothing_is_left(&world).await
}

async fn two_services_get_addresses(world: &World) -> Result<Quays> {
    let pool = json!({
        "apiVersion": "cloud.quarterdeck.dev/v1alpha1", "kind": "AddressPool",
        "metadata": { "name": "all" }, "spec": { "addresses": ["192.0.2.10-192.0.2.20"] },
    });
    let path = "/apis/cloud.quarterdeck.dev/v1alpha1/addresspools";
    let request = http::Request::post(path).header("content-type", "application/json");
    world.client.request::<Value>(request.body(pool.to_string().into_bytes())?).await?;
    let begun = Instant::now();
    world.service("web", 30080, json!({})).await?;
    let web = world.address("web").await?;
    world.answer(web, &NODES).await?;
    measured(&format!("metal: a new Service is answered by all nodes after {:?}", begun.elapsed()));
    world.service("api", 30081, json!({})).await?;
    let api = world.address("api").await?;
    world.answer(api, &NODES).await?;
    let gateways: BTreeSet<String> = world.holders().await?.into_values().collect();
    ensure!(gateways.len() == 2, "each gateway has one: {gateways:?}");
    for to in [web, api] {
        let call = dial(&world.site.client, to)?;
        ensure!(call.seen == CLIENT, "{} saw {}", call.server, call.seen);
    }
    Ok(Quays { web, api })
}

async fn pods_are_reached_on_all_nodes(world: &World) -> Result<()> {
    for (here, node) in (1..).zip(&world.site.nodes) {
        for there in (1..=NODES.len()).filter(|there| *there != here) {
            let pods: SocketAddr = format!("10.1.{there}.1:30080").parse()?;
            let call = world.until("the pods are reached", async || dial(node, pods)).await?;
            ensure!(call.server == format!("n{there}"), "{} answers at {pods}", call.server);
        }
    }
    Ok(())
}

async fn backends_come_and_go(world: &World, quays: &Quays, load: &Load) -> Result<()> {
    for (node, rest) in [("n3", ["n1", "n2"]), ("n1", ["n2", "n3"])] {
        let begun = Instant::now();
        world.serve_from(node, false).await?;
        world.answer(quays.web, &rest).await?;
        measured(&format!("metal: a node that is excluded gets no new flow after {:?}", begun.elapsed()));
        world.answer(quays.api, &rest).await?;
        world.serve_from(node, true).await?;
        world.answer(quays.web, &NODES).await?;
        world.answer(quays.api, &NODES).await?;
    }
    load.check().context("scaling backends")
}

/// A Service for each of external traffic policy, session affinity and source ranges.
async fn what_a_service_asks_for_is_done(world: &World) -> Result<()> {
    let client = &world.site.client;
    let local = json!({ "externalTrafficPolicy": "Local", "healthCheckNodePort": 31999 });
    world.service("local", 30082, local).await?;
    world.proxy_health("local", 31999)?;
    for (pod, node) in [("local-1", "n1"), ("local-2", "n2")] {
        world.demo.pod(pod, "local", node, &format!("10.1.{}.7", &node[1..])).await?;
    }
    let to = world.address("local").await?;
    world.answer(to, &["n1", "n2"]).await?;
    let call = dial(client, to)?;
    ensure!(call.seen == CLIENT, "{} saw {}", call.server, call.seen);
    world.demo.ready("local-1", false).await?;
    world.demo.pod("local-3", "local", "n3", "10.1.3.7").await?;
    world.answer(to, &["n2", "n3"]).await?;

    let [own, other] = [CLIENT.parse()?, OTHER_CLIENT.parse()?];
    world.service("picky", 30083, json!({ "loadBalancerSourceRanges": [format!("{CLIENT}/32")] })).await?;
    let to = world.address("picky").await?;
    world.answer(to, &NODES).await?;
    refused(client, Some(other), to)?;
    world.change("picky", json!({ "loadBalancerSourceRanges": [format!("{OTHER_CLIENT}/32")] })).await?;
    world.until("the other client is let in", async || datagram_from(client, other, to)).await?;
    refused(client, Some(own), to)?;

    let stuck = || -> Result<String> {
        let calls = (0..20).map(|_| Ok(dial_from(client, own, to)?.server));
        let servers = calls.collect::<Result<BTreeSet<String>>>()?;
        let mut servers = servers.into_iter();
        match (servers.next(), servers.next()) {
            (Some(one), None) => Ok(one),
            other => bail!("{other:?}"),
        }
    };
    let sticky = json!({ "loadBalancerSourceRanges": null, "sessionAffinity": "ClientIP" });
    world.change("picky", sticky).await?;
    let first = world.until("the client sticks", async || stuck()).await?;
    world.serve_from(&first, false).await?;
    let second = world
        .until("the client moves, and sticks again", async || {
            let now = stuck()?;
            if now == first { bail!("still {now}") } else { Ok(now) }
        })
        .await?;
    world.serve_from(&first, true).await?;
    let spec = world.until("the node is there again", async || {
        let spec = world.balancers().await?.remove("picky").context("it is there")?;
        if spec.backends.len() == NODES.len() { Ok(spec) } else { bail!("{:?}", spec.backends) }
    });
    ensure!(spec.await?.affinity_seconds == Some(10800), "upstream's default");
    ensure!(stuck()? == second, "it sticks although others are there");
    for name in ["local", "picky"] {
        world.delete(name).await?;
    }
    world
        .until("both are gone", async || {
            let left = world.balancers().await?;
            let services = world.count(&format!("/api/v1/namespaces/{NAMESPACE}/services")).await?;
            if left.len() == 2 && services == 2 { Ok(()) } else { bail!("{services} Services, {:?}", left.keys()) }
        })
        .await
}

async fn a_managers_failover_moves_nothing(world: &World, load: &Load) -> Result<()> {
    let before = world.balancers().await?;
    let leader = world.deck.leader(GATEWAY_LEASE * 8).await?;
    world.deck.replica(leader).process().kill().await?;
    let next = world.deck.leader(GATEWAY_LEASE * 8).await?;
    ensure!(next != leader, "quarterdeck-{leader} is dead, and leads");
    the_leader_decided(world, "after-failover").await?;
    ensure!(world.balancers().await? == before, "a failover moves nothing");
    world.deck.replica(leader).restart()?;
    load.check().context("a manager's failover")
}

/// Has whoever leads decide something, so that it looked at everything; and undoes it.
async fn the_leader_decided(world: &World, name: &str) -> Result<()> {
    world.service(name, 30090 + u16::try_from(name.len())?, json!({})).await?;
    let to = world.address(name).await?;
    world.answer(to, &NODES).await?;
    world.delete(name).await?;
    world
        .until("it is gone", async || match world.services().get_opt(name).await? {
            None => Ok(()),
            Some(_) => bail!("it is there"),
        })
        .await
}

async fn no_manager_is_needed(world: &World, quays: &Quays, load: &Load, outage: Duration) -> Result<()> {
    let (before, begun, tally) = (world.balancers().await?, Instant::now(), load.tally());
    for replica in world.deck.replicas() {
        replica.process().kill().await?;
    }
    // Health checks go on.
    world.health[1].answer(503);
    world.answer(quays.web, &["n1", "n3"]).await?;
    world.health[1].answer(200);
    world.answer(quays.web, &NODES).await?;
    world
        .until("flows pass", async || {
            let passed = load.tally().since(&tally);
            if passed.least() >= FLOWS { Ok(()) } else { bail!("{passed:?}") }
        })
        .await?;
    while let Some(left) = outage.checked_sub(begun.elapsed()) {
        tokio::time::sleep(left.min(Duration::from_secs(1))).await;
        load.check().context("all managers are dead")?;
    }
    let passed = load.tally().since(&tally);
    load.check().context("all managers are dead")?;
    measured(&format!(
        "metal: all managers dead for {:?}: {} answers in established connections, {} fresh connections and {} datagrams \
         answered, {} lost",
        begun.elapsed(),
        passed.kept,
        passed.fresh,
        passed.datagrams + passed.flow,
        passed.lost
    ));
    ensure!(world.balancers().await? == before, "nothing moves");
    for replica in world.deck.replicas() {
        replica.restart()?;
    }
    world.deck.ready(GATEWAY_LEASE * 10).await?;
    the_leader_decided(world, "after-outage").await?;
    ensure!(world.balancers().await? == before, "nothing moves because managers are back");
    load.check().context("managers are back")
}

async fn a_gateways_end_is_survived(world: &World, quays: &Quays, load: &Load) -> Result<()> {
    let holder = world.holders().await?[&quays.web.ip().to_string()].clone();
    let dead = world.site.gateways.iter().find(|gateway| gateway.name() == holder).context("it is a gateway")?;
    let other = world.site.gateways.iter().find(|gateway| gateway.name() != holder).context("there are two")?;
    load.forgive(true);
    let tally = load.tally();
    world.agent(&holder).kill().await?;
    for link in ["out", "in"] {
        dead.run(&format!("ip link set {link} down"))?;
    }
    let begun = Instant::now();
    world
        .until("the address is answered again", async || {
            datagram_patient(&world.site.client, quays.web, Duration::from_millis(100))
        })
        .await?;
    measured(&format!(
        "metal: a gateway killed, its links down: its address answered through another one {:?} later (Lease of {:?}; \
         from the links' end to the first answer to a fresh datagram, one every 100 ms)",
        begun.elapsed(),
        GATEWAY_LEASE
    ));
    ensure!(world.address("web").await? == quays.web, "the address stays");
    let holders = world.holders().await?;
    ensure!(holders.values().all(|holder| holder == other.name()), "{holders:?}");
    world.answer(quays.web, &NODES).await?;
    // Established connections go on, each with its own node.
    world
        .until("all conversations were answered since", async || {
            let passed = load.tally().since(&tally);
            if passed.least() >= FLOWS { Ok(()) } else { bail!("{passed:?}") }
        })
        .await?;
    measured(&format!("metal: conversations went on {:?} after the gateway was killed", begun.elapsed()));
    load.check().context("a gateway is dead")?;
    load.forgive(false);
    // Back again, it gives up what is another's now, before anybody could hear of it.
    world.start_agent(dead)?;
    world
        .until("it lets go", async || {
            let there = dead.run("ip addr show dev out")?;
            if there.contains(&format!(" {}/", quays.web.ip())) { bail!("{there}") } else { Ok(()) }
        })
        .await?;
    for link in ["out", "in"] {
        dead.run(&format!("ip link set {link} up"))?;
    }
    world
        .until("it works again", async || match world.report(dead)? {
            report if report["ready"] == true && report["announces"].as_array().is_none_or(Vec::is_empty) => Ok(()),
            report => bail!("{report:#}"),
        })
        .await?;
    load.check().context("a gateway is back")
}

async fn nothing_is_left(world: &World) -> Result<()> {
    for name in ["web", "api"] {
        world.delete(name).await?;
    }
    let nodes: kube::Api<k8s_openapi::api::core::v1::Node> = kube::Api::all(world.client.clone());
    // The last one, too: nobody doubts a deletion that was watched.
    for name in NODES {
        nodes.delete(name, &Default::default()).await?;
    }
    let group = "/apis/cloud.quarterdeck.dev/v1alpha1";
    world
        .until("nothing is left in the cluster", async || {
            for path in [
                format!("/api/v1/namespaces/{NAMESPACE}/services"),
                format!("{group}/metalloadbalancers"),
                format!("{group}/metalroutes"),
                format!("{group}/addressreservations"),
                "/api/v1/nodes".to_owned(),
            ] {
                let count = world.count(&path).await?;
                ensure!(count == 0, "{count} of {path}");
            }
            Ok(())
        })
        .await?;
    // So do agents take it when most nodes go within a minute, until somebody says that it is none.
    for machine in world.site.hosts() {
        world.agent(machine.name()).stop(LONG).await?;
        world.start_agent_with(machine, &["--accept-deletions"])?;
    }
    for machine in world.site.hosts() {
        world
            .until(&format!("nothing is left on {}", machine.name()), async || {
                let routes = machine.run("ip route show table all proto 99")?;
                ensure!(!routes.contains("10.1."), "{routes}");
                let addresses = machine.run("ip addr")?;
                ensure!(!addresses.contains("192.0.2.1") || !addresses.contains("/32 scope global"), "{addresses}");
                let table = machine.run("nft list ruleset")?;
                ensure!(!table.contains("192.0.2.1"), "{table}");
                Ok(())
            })
            .await?;
    }
    world.remove_agents().await?;
    for machine in world.site.hosts() {
        for line in ["nft list tables", "ip route show table all proto 99", "ip -6 route show table all proto 99"] {
            let left = machine.run(line)?;
            ensure!(left.trim().is_empty(), "{}: {line}: {left}", machine.name());
        }
        let rules = machine.run("ip rule show")?;
        ensure!(!rules.contains("990"), "{}: {rules}", machine.name());
    }
    Ok(())
}
