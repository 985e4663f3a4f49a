//! The provider metal, on a real API server, with agents that only report.

use std::sync::atomic::Ordering;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use quarterdeck_api::cloud::metal::{AGENTS_NAMESPACE, MetalAgent, MetalLoadBalancer, MetalRoute};
use quarterdeck_it::{ControlPlane, eventually};
use serde_json::{Value, json};

use super::metal_world::{Agent, LONG, World};

const RETIRED: &str = "retired";
const UNINITIALIZED: &str = "node.cloudprovider.kubernetes.io/uninitialized";

/// A Node of the inventory, as its kubelet registers it.
async fn register(world: &World) -> Result<()> {
    let node = json!({
        "metadata": { "name": "n-1" },
        "spec": {
            "podCIDR": "10.244.1.0/24", "podCIDRs": ["10.244.1.0/24"],
            "taints": [{ "key": UNINITIALIZED, "value": "true", "effect": "NoSchedule" }],
        },
    });
    world.nodes().create(&PostParams::default(), &serde_json::from_value::<Node>(node)?).await?;
    Ok(())
}

async fn the_node_is_initialised_from_the_inventory_and_routed(world: &World) -> Result<()> {
    let waited = eventually("the node is initialised", LONG, async || {
        let node = serde_json::to_value(world.nodes().get("n-1").await?)?;
        let labels = &node["metadata"]["labels"];
        ensure!(node["spec"]["providerID"] == "metal://4c4c4544-0001", "{node:#}");
        ensure!(labels["topology.kubernetes.io/zone"] == "row-a" && labels["example.com/disks"] == "nvme", "{node:#}");
        ensure!(labels["topology.kubernetes.io/region"] == "hall-1", "{node:#}");
        ensure!(labels["node.kubernetes.io/instance-type"] == "r640", "{node:#}");
        let taints = node["spec"]["taints"].as_array().into_iter().flatten();
        ensure!(taints.into_iter().all(|taint| taint["key"] != UNINITIALIZED), "{node:#}");
        ensure!(node["status"]["addresses"][0]["address"] == "10.0.0.11", "{node:#}");
        Ok(())
    });
    waited.await.with_context(|| world.logs())?;
    let routes: Api<MetalRoute> = Api::all(world.client.clone());
    let waited = eventually("its pods are routed", LONG, async || {
        let route = routes.get("n-1").await?;
        ensure!(route.spec.destinations == ["10.244.1.0/24".parse()?], "{route:?}");
        ensure!(route.spec.next_hops == ["10.0.0.11".parse::<std::net::IpAddr>()?], "{route:?}");
        ensure!(route.spec.epoch > 0, "{route:?}");
        Ok(())
    });
    waited.await.with_context(|| world.logs())
}

fn gateway(balancer: &MetalLoadBalancer) -> String {
    balancer.spec.addresses[0].gateway.clone().unwrap_or_default()
}

fn condition<'a>(balancer: &'a Value, kind: &str) -> &'a Value {
    let conditions = balancer["status"]["conditions"].as_array();
    conditions.and_then(|all| all.iter().find(|one| one["type"] == kind)).unwrap_or(&Value::Null)
}

/// A pipe, and a file that says that there are no machines, if one reads on past its fault.
async fn a_broken_inventory_harms_nothing(world: &World, uid: &str) -> Result<()> {
    let before = world.balancers().get(uid).await?;
    let pipe = world.inventory.with_extension("pipe");
    mkfifo(&pipe, Mode::S_IRWXU)?;
    std::fs::rename(pipe, &world.inventory)?;
    world.event("kube-system", "InventoryInvalid", "inventory.yaml: it is not a file").await?;
    // What is wanted is written into a file of its own: into a pipe nobody would read it.
    std::fs::remove_file(&world.inventory)?;
    world.write_inventory(false)?;
    world.event("kube-system", "InventoryInvalid", "inventory.yaml: line ").await?;
    // The manager works on: what is asked for now is done with the last good inventory.
    let second = world.service("second").await?;
    world.address("second").await?;
    world.balancer(&second, "it lists both gateways", |one| one["spec"]["gateways"][1]["name"] == "gw-2").await?;
    let now = world.balancers().get(uid).await?;
    ensure!(now.spec == before.spec, "{now:?}");
    world.nodes().get("n-1").await?;
    world.write_inventory(true)?;
    world.event("kube-system", "InventoryValid", "").await?;
    Ok(())
}

/// From the first to the last moment of a Service on metal.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_has_one_gateway_that_lives_and_managers_do_not_matter() -> Result<()> {
    let world = World::on(ControlPlane::start().await?, &["--metal-agent-retention=2s"], &[]).await?;
    register(&world).await?;
    let pool = json!({
        "apiVersion": "cloud.quarterdeck.dev/v1alpha1", "kind": "AddressPool",
        "metadata": { "name": "all" }, "spec": { "addresses": ["192.0.2.10-192.0.2.20"] },
    });
    let pools: Api<quarterdeck_api::cloud::pool::AddressPool> = Api::all(world.client.clone());
    pools.patch("all", &PatchParams::apply("test"), &Patch::Apply(pool)).await?;
    let uid = world.service("web").await?;

    // No agent yet: an address is reserved, and nobody has it.
    let lacks = |one: &Value| condition(one, "Assigned")["reason"] == "NoGateway";
    world.balancer(&uid, "it is said that there is no gateway", lacks).await?;
    the_node_is_initialised_from_the_inventory_and_routed(&world).await?;
    let agents = ["gw-1", "gw-2"].map(|name| (name, Agent::start(&world.client, name)));
    // One whose host is in no list any more.
    let retired = Agent::start(&world.client, RETIRED);
    let address = world.address("web").await?;
    let announced = |one: &Value| condition(one, "Announced")["status"] == "True";
    let backends = json!([{ "name": "n-1", "addresses": ["10.0.0.11"] }]);
    let whole = |one: &Value| announced(one) && one["spec"]["backends"] == backends;
    let balancer = world.balancer(&uid, "it is announced, and leads to the node", whole).await?;
    let spec = serde_json::to_value(&balancer.spec)?;
    ensure!(spec["owner"]["name"] == "web" && spec["owner"]["uid"] == *uid, "{spec:#}");
    ensure!(spec["ports"][0]["port"] == 80 && spec["ports"][0]["nodePort"].as_u64() > Some(0), "{spec:#}");
    ensure!(spec["addresses"][0]["address"] == *address, "{spec:#}");
    a_broken_inventory_harms_nothing(&world, &uid).await?;
    let reports: Api<MetalAgent> = Api::all(world.client.clone());
    eventually("the retired host has reported", LONG, async || Ok(reports.get(RETIRED).await?)).await?;
    retired.kill();

    // The leader is killed: whoever follows finds everything decided.
    let balancer = world.balancers().get(&uid).await?;
    let holder = gateway(&balancer);
    let leader = world.deck.leader(LONG).await?;
    world.deck.replica(leader).process().kill().await?;
    world.deck.leader(LONG).await?;
    world.service("third").await?;
    world.address("third").await?;
    let after = world.balancers().get(&uid).await?;
    ensure!(after.spec == balancer.spec, "a failover moves nothing: {after:?}");

    // Its gateway is gone: the address moves, once, and says so.
    let (_, dead) = agents.iter().find(|(name, _)| *name == holder).context("it has one of them")?;
    dead.kill();
    let (other, survivor) = agents.iter().find(|(name, _)| *name != holder).context("there are two")?;
    let moved = |one: &Value| one["spec"]["addresses"][0]["gateway"] == *other && announced(one);
    world.balancer(&uid, "the other gateway announces it", moved).await?;
    let told = format!("from gateway {holder} to {other}: its agent's Lease has expired");
    ensure!(world.event("yard", "LoadBalancerAddressMoved", &format!("{address} {told}")).await? == 1, "once");
    ensure!(world.address("web").await? == address, "the address stays");

    // The Service goes when the live agent has let go of it, and does not wait for the dead one.
    survivor.clings.store(true, Ordering::Release);
    world.services().delete("web", &DeleteParams::default()).await?;
    let waited = eventually("the load balancer is withdrawn", LONG, async || {
        let stored = world.balancers().get(&uid).await?;
        ensure!(stored.spec.addresses.is_empty() && stored.spec.gateways.is_empty(), "{stored:?}");
        Ok(())
    });
    waited.await.with_context(|| world.logs())?;
    world
        .event("yard", "SyncLoadBalancerFailed", &format!("metal agents of {other}"))
        .await
        .or_else(|_| anyhow::bail!("nobody says whom the deletion waits for; {}", world.logs()))?;
    ensure!(world.services().get_opt("web").await?.is_some(), "its address is not free yet");
    survivor.clings.store(false, Ordering::Release);
    let waited = eventually("the Service is gone", LONG, async || {
        ensure!(world.services().get_opt("web").await?.is_none(), "it is there");
        ensure!(world.balancers().get_opt(&uid).await?.is_none(), "its load balancer is there");
        Ok(())
    });
    waited.await.with_context(|| world.logs())?;
    what_a_host_left_goes_when_it_is_gone(&world, &holder).await
}

/// `dead`: a gateway whose agent is as silent, and which the inventory lists.
async fn what_a_host_left_goes_when_it_is_gone(world: &World, dead: &str) -> Result<()> {
    let reports: Api<MetalAgent> = Api::all(world.client.clone());
    let leases: Api<Lease> = Api::namespaced(world.client.clone(), AGENTS_NAMESPACE);
    let waited = eventually("its report and its Lease are gone", LONG, async || {
        ensure!(reports.get_opt(RETIRED).await?.is_none(), "its report is there");
        ensure!(leases.get_opt(RETIRED).await?.is_none(), "its Lease is there");
        Ok(())
    });
    waited.await.with_context(|| world.logs())?;
    world.event(AGENTS_NAMESPACE, "AgentForgotten", RETIRED).await?;
    ensure!(reports.get_opt(dead).await?.is_some() && leases.get_opt(dead).await?.is_some(), "{dead} may come back");
    Ok(())
}
