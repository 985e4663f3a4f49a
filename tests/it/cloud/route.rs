//! The node route controller: the cloud's routes are the nodes' pod networks, whatever happens to them.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Namespace;
use kube::api::Api;
use quarterdeck_cloud::model::ClusterId;
use quarterdeck_it::cloud::{Command, FailKind, Fault, Moment, Power, Rule};
use serde_json::{Value, json};

use super::node_world::{CLOUD, World};

const FLAGS: [&str; 2] = ["--cluster-cidr=10.244.0.0/16,fd00:10:244::/48", "--route-reconciliation-period=2s"];

fn says(node: &Value, reason: &str) -> bool {
    let conditions = node["status"]["conditions"].as_array();
    let of_network = |one: &&Value| one["type"] == "NetworkUnavailable";
    conditions.and_then(|all| all.iter().find(of_network)).is_some_and(|one| one["reason"] == reason)
}

/// A machine and its Node, with pod networks.
async fn node(world: &World, name: &str, cidrs: &[&str]) -> Result<()> {
    let id = world.cloud.add_instance(name).await?;
    let spec = json!({ "providerID": id, "podCIDR": cidrs[0], "podCIDRs": cidrs });
    world.node(json!({ "metadata": { "name": name }, "spec": spec }), true).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn routes_are_the_nodes_networks_whatever_happens() -> Result<()> {
    let world = World::start("route", &[], &FLAGS).await?;
    node(&world, "dual", &["10.244.1.0/24", "fd00:10:244:1::/64"]).await?;
    node(&world, "two", &["10.244.2.0/24"]).await?;
    node(&world, "astray", &["192.168.7.0/24"]).await?;
    let both = [("10.244.1.0/24", "dual"), ("10.244.2.0/24", "two"), ("fd00:10:244:1::/64", "dual")];
    world.cloud.routes_are(&both).await?;
    for name in ["dual", "two"] {
        let node = world.becomes(name, "it has its routes", |node| says(node, "RouteCreated")).await?;
        let others = node["status"]["conditions"].as_array().context("conditions")?;
        ensure!(others.iter().any(|one| one["type"] == "Ready"), "other conditions stay: {node:#}");
    }
    world.event("astray", "InvalidPodCIDR").await?;
    world.becomes("astray", "it has no route", |node| says(node, "NoRouteCreated")).await?;
    world.counts("quarterdeck_route_wrong_pod_cidrs", &[("provider", CLOUD), ("reason", "outside")], 1.0).await?;
    world.counts("route_controller_route_sync_total", &[], 2.0).await?;

    // Lost behind our back; and one of somebody else, which is not touched.
    let namespaces: Api<Namespace> = Api::all(world.control_plane.admin().await?);
    let cluster = ClusterId(namespaces.get("kube-system").await?.metadata.uid.context("a uid")?.into());
    world.cloud.command(&Command::AddForeignRoute { cluster, destination: "10.244.99.0/24".parse()? }).await?;
    world.cloud.command(&Command::LoseRoutes { destination: "10.244.1.0/24".parse()? }).await?;
    world.cloud.routes_are(&both).await?;

    // Defect 10: a node that is made anew on another machine has its route moved, never away; and while the cloud does
    // not list its routes, none is taken for one too many.
    world.cloud.command(&Command::ClearCalls).await?;
    let silent = Fault::Fail { error: FailKind::Unavailable, retry_after_ms: None, at: Moment::Before };
    let silent = world.cloud.fault(Rule::new("routes.list", silent)).await?;
    world.cloud.set_power("two", Power::Terminated).await?;
    let id = world.cloud.add_instance("two").await?;
    world.remove("two").await?;
    let spec = json!({ "providerID": id, "podCIDR": "10.244.2.0/24", "podCIDRs": ["10.244.2.0/24"] });
    world.node(json!({ "metadata": { "name": "two" }, "spec": spec }), true).await?;
    world.cloud.command(&Command::ClearFaults { id: Some(silent) }).await?;
    world.becomes("two", "it has its route", |node| says(node, "RouteCreated")).await?;
    world.cloud.routes_are(&both).await?;
    ensure!(world.cloud.calls("routes.replace").await?.len() == 1, "{:?}", world.cloud.calls("routes.*").await?);
    ensure!(world.cloud.calls("routes.delete").await?.is_empty(), "{:?}", world.cloud.calls("routes.*").await?);

    // A node that goes takes its route along, a blackhole or not.
    world.cloud.set_power("two", Power::Terminated).await?;
    world.remove("two").await?;
    world.cloud.routes_are(&both[..1].iter().chain(&both[2..]).copied().collect::<Vec<_>>()).await?;

    // A cloud that refuses, for a while: only what it refuses is missing.
    let full = Fault::Fail { error: FailKind::Quota, retry_after_ms: None, at: Moment::Before };
    world.cloud.fault(Rule::new("routes.create", full).times(2)).await?;
    node(&world, "three", &["10.244.3.0/24"]).await?;
    world.event("three", "FailedToCreateRoute").await?;
    world.becomes("three", "it has its route in the end", |node| says(node, "RouteCreated")).await?;
    let routes = world.cloud.state().await?.routes;
    ensure!(routes.values().any(|one| !one.owned && one.destination.to_string() == "10.244.99.0/24"), "{routes:?}");
    Ok(())
}
