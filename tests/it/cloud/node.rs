//! The cloud node controller: nodes get what their cloud knows of them.

use anyhow::{Context as _, Result, ensure};
use futures::{StreamExt as _, TryStreamExt as _};
use kube::api::{WatchEvent, WatchParams};
use quarterdeck_cloud::model::{AddressKind, NodeAddress};
use quarterdeck_it::cloud::{Command, NewInstance};
use quarterdeck_it::eventually;
use serde_json::{Value, json};
use tokio::net::UnixListener;

use super::node_world::{LONG, UNINITIALIZED, World, has_taint};

fn address(kind: AddressKind, address: &str) -> NodeAddress {
    NodeAddress { kind, address: address.to_owned() }
}

fn tainted(name: &str) -> Value {
    let taints = json!([
        { "key": UNINITIALIZED, "value": "true", "effect": "NoSchedule" },
        { "key": "mine", "effect": "NoExecute" },
    ]);
    json!({ "metadata": { "name": name }, "spec": { "taints": taints } })
}

/// Also with a cloud beside it that never answers, and that is asked first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tainted_node_gets_what_its_cloud_knows() -> Result<()> {
    let folder = tempfile::TempDir::with_prefix("hung-")?;
    let hung = folder.path().join("hung.sock");
    // Connections are taken by the kernel, and nobody reads them.
    let _listener = UnixListener::bind(&hung)?;
    let hung = format!("hung=grpc:unix://{}", hung.display());
    let world = World::start("cloud-node", &[hung], &["--node-status-update-frequency=2s"]).await?;
    let dual = vec![
        address(AddressKind::InternalIp, "10.0.0.1"),
        address(AddressKind::InternalIp, "fd00::1"),
        address(AddressKind::ExternalIp, "192.0.2.1"),
    ];
    let instance = NewInstance {
        labels: [("example.com/rack".to_owned(), "7".to_owned())].into(),
        addresses: dual,
        zone: "zone-b".to_owned(),
        ..NewInstance::named("one")
    };
    let id = world.cloud.command(&Command::AddInstance(instance)).await?;
    let only = WatchParams::default().fields("metadata.name=one").timeout(290);
    let mut versions = world.nodes.watch(&only, "0").await?.boxed();
    world.node(tainted("one"), true).await?;
    // No version of it is without the taint and without its addresses.
    let first = tokio::time::timeout(LONG, async {
        while let Some(version) = versions.try_next().await? {
            let (WatchEvent::Added(node) | WatchEvent::Modified(node)) = version else { continue };
            let node = serde_json::to_value(node)?;
            if !has_taint(&node, UNINITIALIZED) {
                return Ok(node);
            }
        }
        anyhow::bail!("the watch ended")
    });
    let first = first.await.with_context(|| world.log())??;
    ensure!(first["status"]["addresses"].as_array().is_some_and(|list| list.len() == 3), "{first:#}");
    let one = world.becomes("one", "it is initialised", |node| !has_taint(node, UNINITIALIZED)).await?;
    let labels = &one["metadata"]["labels"];
    ensure!(one["spec"]["providerID"] == id.as_str() && has_taint(&one, "mine"), "{one:#}");
    for key in ["topology.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/zone"] {
        ensure!(labels[key] == "zone-b", "{key}: {labels}");
    }
    ensure!(labels["node.kubernetes.io/instance-type"] == "sim.small" && labels["example.com/rack"] == "7", "{labels}");
    let three = |node: &Value| node["status"]["addresses"].as_array().is_some_and(|list| list.len() == 3);
    let one = world.becomes("one", "its addresses are there", three).await?;
    world.event("one", "Synced").await?;
    for metric in ["cloud_provider_taint_removal_delay_seconds_count", "initial_node_sync_delay_seconds_count"] {
        world.counts(&format!("node_controller_{metric}"), &[], 1.0).await?;
    }

    // A node whose machine is there only later, and one whose machine nobody knows.
    world.node(tainted("late"), true).await?;
    world.node(tainted("never"), true).await?;
    let id = world.cloud.add_instance("late").await?;
    let late = world.becomes("late", "it is initialised", |node| !has_taint(node, UNINITIALIZED)).await?;
    ensure!(late["spec"]["providerID"] == id.as_str(), "{late:#}");
    ensure!(has_taint(&serde_json::to_value(world.nodes.get("never").await?)?, UNINITIALIZED));

    // Defect 9: rounds of comparison leave a dual-stack node as it is.
    let before = world.cloud.calls("instances.get_many").await?.len();
    eventually("more rounds", LONG, async || {
        let now = world.cloud.calls("instances.get_many").await?.len();
        ensure!(now >= before + 3, "{now} questions after {before}");
        Ok(())
    })
    .await?;
    let same = world.nodes.get("one").await?;
    let version = one["metadata"]["resourceVersion"].as_str();
    ensure!(same.metadata.resource_version.as_deref() == version, "written without need: {same:#?}");

    // A machine that gets other addresses.
    let addresses = vec![address(AddressKind::InternalIp, "10.0.0.2")];
    world.cloud.command(&Command::SetAddresses { name: "one".to_owned(), addresses }).await?;
    let moved = |node: &Value| node["status"]["addresses"] == json!([{ "type": "InternalIP", "address": "10.0.0.2" }]);
    world.becomes("one", "its new address", moved).await?;
    Ok(())
}
