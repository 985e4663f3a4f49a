//! The cloud node lifecycle controller: Nodes go when their machines are proven to be gone, and never before.

use anyhow::{Result, ensure};
use kube::api::{DeleteParams, PostParams};
use quarterdeck_api::cloud::account::CloudAccount;
use quarterdeck_it::cloud::{Fault, Power, Rule};
use quarterdeck_it::eventually;
use serde_json::json;
use tokio::net::UnixListener;

use super::node_world::{CLOUD, LONG, World, has_taint};

const SHUTDOWN: &str = "node.cloudprovider.kubernetes.io/shutdown";
/// How far apart the two answers are at least, in ms: 15 s for the manager, and less for a cloud that hears a question late.
const SPACING: u64 = 10_000;
const REFUSALS: &str = "quarterdeck_cloud_node_deletion_refusals_total";
const FLAGS: [&str; 2] = ["--node-monitor-period=1s", "--cloud-node-deletion-grace=0s"];

fn refused(reason: &'static str) -> [(&'static str, &'static str); 2] {
    [("provider", CLOUD), ("reason", reason)]
}

/// A failed refresh of a provider's cache, read as absence, deleted live nodes (cloud-provider-azure#2880); an empty
/// list with 200 and credentials of another account do the same to cloud-provider.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_goes_after_proof_and_a_live_one_never() -> Result<()> {
    let folder = tempfile::TempDir::with_prefix("hung-")?;
    let hung = folder.path().join("hung.sock");
    // Connections are taken by the kernel, and nobody reads them.
    let _listener = UnixListener::bind(&hung)?;
    let hung = format!("hung=grpc:unix://{}", hung.display());
    let world = World::start("cloud-node-lifecycle", &[hung], &FLAGS).await?;
    for name in ["w1", "w2", "w3", "w4", "live"] {
        world.machine(name, name != "live").await?;
    }
    world.machine("stopped", false).await?;
    world.cloud.set_power("stopped", Power::Stopped).await?;
    let stopped = world.becomes("stopped", "it is tainted", |node| has_taint(node, SHUTDOWN)).await?;
    ensure!(stopped["spec"]["taints"].as_array().is_some_and(|taints| taints.iter().all(|t| t["effect"].is_string())));
    world.ready("stopped", true).await?;
    world.becomes("stopped", "the taint is taken", |node| !has_taint(node, SHUTDOWN)).await?;

    // The cloud looks into an account where there is nothing, and says so with 200.
    let wrong = Fault::WrongAccount { account: "somebody-elses".to_owned() };
    world.cloud.fault(Rule::new("instances.get_many", wrong)).await?;
    world.machine("gone", false).await?;
    world.cloud.set_power("gone", Power::Terminated).await?;
    world.counts(REFUSALS, &refused("ready_node_absent"), 2.0).await?;
    world.event("live", "NodeDeletionRefused").await?;
    let lies = world.cloud.calls("instances.get_many").await?.len();
    world.cloud.heal().await?;

    // What is really gone goes, once it has been seen twice, some time apart.
    world.is_gone("gone").await?;
    let calls = world.cloud.calls("instances.get_many").await?.split_off(lies);
    let asked: Vec<u64> =
        calls.iter().filter(|call| call.subjects.iter().any(|name| name == "gone")).map(|call| call.at).collect();
    let span = asked.last().zip(asked.first()).map(|(last, first)| last - first);
    ensure!(asked.len() >= 2 && span >= Some(SPACING), "it went after answers at {asked:?} ms");
    let event = world.event("gone", "DeletingNode").await?;
    ensure!(event.message.as_deref().is_some_and(|text| text.contains("terminated")), "{event:?}");
    let counted = [("provider", CLOUD), ("outcome", "success")];
    world.counts("quarterdeck_cloud_node_deletions_total", &counted, 1.0).await?;
    for name in ["w1", "w2", "w3", "w4", "live", "stopped"] {
        ensure!(world.nodes.get_opt(name).await?.is_some(), "node {name} was deleted");
    }
    let record = world.accounts.get(CLOUD).await?;
    ensure!(record.spec.account == world.cloud.state().await?.account && record.spec.provider == CLOUD, "{record:?}");
    // Nobody but a person lets another account count, and a node nothing at all.
    let change = kube::api::Patch::Merge(json!({ "spec": { "account": "another" } }));
    let refused = world.accounts.patch(CLOUD, &kube::api::PatchParams::default(), &change).await;
    ensure!(refused.is_err_and(|error| error.to_string().contains("never changed")));
    Ok(())
}

/// Each of these deletes nothing, whatever the cloud proves.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn brakes_hold_what_would_take_too_much() -> Result<()> {
    let world = World::start("cloud-node-lifecycle", &[], &FLAGS).await?;
    let id = world.cloud.add_instance("master").await?;
    let labels = json!({ "node-role.kubernetes.io/control-plane": "" });
    // Found in another account before.
    let before = CloudAccount::new(CLOUD, "before", "somebody");
    world.accounts.create(&PostParams::default(), &before).await?;
    let master = json!({ "metadata": { "name": "master", "labels": labels }, "spec": { "providerID": id } });
    world.node(master, false).await?;
    for name in ["w1", "w2", "w3", "w4"] {
        world.machine(name, true).await?;
    }
    world.cloud.set_power("master", Power::Terminated).await?;
    world.counts(REFUSALS, &refused("account_changed"), 1.0).await?;

    // Once a person says that it may be written down anew, no other control-plane node is Ready.
    world.accounts.delete(CLOUD, &DeleteParams::default()).await?;
    let account = world.cloud.state().await?.account;
    eventually("the account is written down anew", LONG, async || {
        let record = world.accounts.get(CLOUD).await?;
        ensure!(record.spec.account == account && record.spec.witness.starts_with('w'), "{record:?}");
        Ok(())
    })
    .await?;
    world.counts(REFUSALS, &refused("last_control_plane"), 1.0).await?;

    // Three of five at once.
    for name in ["w1", "w2"] {
        world.cloud.set_power(name, Power::Terminated).await?;
        world.ready(name, false).await?;
    }
    world.counts(REFUSALS, &refused("brake"), 1.0).await?;
    world.event("master", "NodeDeletionRefused").await?;
    for name in ["master", "w1", "w2", "w3", "w4"] {
        ensure!(world.nodes.get_opt(name).await?.is_some(), "node {name} was deleted");
    }
    Ok(())
}
