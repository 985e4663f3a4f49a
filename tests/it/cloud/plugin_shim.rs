//! Kubernetes' own fake cloud provider, served as a plug-in by hack/cloud-shim.

use std::time::Duration;

use anyhow::{Result, ensure};
use quarterdeck_cloud::model::{AddressKind, Deletion, LbOutcome, Lookup};
use quarterdeck_cloud::{CloudError, Instances as _, LoadBalancers as _, Provider as _};
use quarterdeck_it::{Binaries, Launch, Peer};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::plugin::{
    Running, call, keeps_routes, knows_nodes, makes_one_load_balancer, node, refuses_past_tenures, remembers_tenures,
    removes_a_load_balancer, spec,
};

/// The fake, with a file that says how it behaves.
struct Shim {
    running: Running,
}

/// One node that exists, and a load balancer that is found.
fn healthy() -> Value {
    json!({
        "exists": true,
        "instanceExists": true,
        "providerIDs": {"node-1": "fake://node-1"},
        "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}, {"type": "Hostname", "address": "node-1"}],
    })
}

impl Shim {
    async fn start() -> Result<Self> {
        let program = Binaries::ensure(&[Peer::CloudShim]).await?.path("cloud-shim/cloud-shim");
        let running = Running::start(|folder| {
            let file = folder.path().join("behaviour.json");
            std::fs::write(&file, healthy().to_string()).expect("the folder can be written to");
            let state = folder.path().join("state.json");
            let flag = |name: &str, path: &std::path::Path| format!("--{name}={}", path.display());
            Launch::new("cloud-shim", program).arg(flag("behaviour", &file)).arg(flag("state", &state))
        })
        .await?;
        Ok(Self { running })
    }

    /// From the next call on it behaves so, and healthily in everything else.
    fn behave(&self, changes: Value) {
        let mut all = healthy();
        let (Value::Object(all_fields), Value::Object(changed)) = (&mut all, changes) else { panic!("not an object") };
        all_fields.extend(changed);
        // In one step: the provider reads it before each call.
        let (part, file) = (self.running.folder.path().join("part"), self.running.folder.path().join("behaviour.json"));
        std::fs::write(&part, all.to_string()).unwrap();
        std::fs::rename(part, file).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_go_provider_is_a_plug_in() -> Result<()> {
    let mut shim = Shim::start().await?;
    let plugin = &shim.running.plugin;
    let info = plugin.info(&call(0)).await?;
    ensure!(info.name == "fake" && info.schemes == ["fake"], "{info:?}");
    ensure!(info.instances && info.load_balancers && info.routes && info.max_batch == 100, "{info:?}");
    plugin.probe(&call(0)).await?;

    knows_nodes(plugin, "fake", "node-1", "").await?;
    let one = node("node-1", Some("fake://node-1"));
    shim.behave(json!({"shutdown": true}));
    let told = plugin.get_many(&call(0), std::slice::from_ref(&one)).await?;
    let Ok(Lookup::Found(found)) = &told.nodes[&one] else { anyhow::bail!("{told:?}") };
    ensure!(found.shutdown && found.labels["example.com/rack"] == "7" && found.region == "region-1", "{found:?}");
    ensure!(found.addresses[0].kind == AddressKind::InternalIp && found.addresses[1].address == "node-1", "{found:?}");
    shim.behave(json!({"instanceExists": false}));
    let told = plugin.get_many(&call(0), std::slice::from_ref(&one)).await?;
    ensure!(matches!(&told.nodes[&one], Ok(Lookup::Absent(proof)) if proof.evidence.contains("fake")), "{told:?}");

    shim.behave(json!({}));
    let spec = spec("5c0d-1");
    let handle = makes_one_load_balancer(plugin, &spec).await?;
    // The name that upstream makes of a Service's uid.
    ensure!(handle.0 == "a5c0d1", "{handle:?}");
    let owned = plugin.get(&call(0), &spec.owner).await?;
    ensure!(owned.len() == 1 && owned[0].owner == spec.owner && owned[0].handle == handle, "{owned:?}");
    ensure!(matches!(plugin.update_backends(&call(5), &spec, &handle).await?, LbOutcome::Ready { .. }));
    shim.behave(json!({"exists": false}));
    ensure!(plugin.get(&call(0), &spec.owner).await?.is_empty());
    let gone = plugin.update_backends(&call(5), &spec, &handle).await;
    ensure!(matches!(gone, Err(CloudError::NotFound(_))), "{gone:?}");
    // A Go provider has no list: what was made through the plug-in is listed, as far as the provider has it.
    let listed = async |shim: &Shim| anyhow::Ok(shim.running.plugin.list_owned(&call(0), None).await?.items);
    ensure!(listed(&shim).await?.is_empty(), "the provider says that it is gone");
    shim.behave(json!({}));
    shim.running.is_killed_and_back().await?;
    let plugin = &shim.running.plugin;
    let left = listed(&shim).await?;
    ensure!(left.len() == 1 && left[0].owner == spec.owner && left[0].handle == handle, "{left:?}");
    shim.behave(json!({"err": "the cloud is on fire"}));
    ensure!(listed(&shim).await.is_err(), "half a list is worse than none");
    shim.behave(json!({}));
    removes_a_load_balancer(plugin, &spec.owner, &handle).await?;
    ensure!(listed(&shim).await?.is_empty());

    keeps_routes(plugin).await?;
    refuses_past_tenures(plugin).await?;
    remembers_tenures(&mut shim.running).await?;
    shim.running.dies_and_comes_back(&one).await
}

/// Upstream's controllers compare some of these with `==`, and take a wrapped one for a failure.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_of_a_go_provider_keep_their_meaning_when_they_are_wrapped() -> Result<()> {
    let shim = Shim::start().await?;
    let (plugin, spec) = (&shim.running.plugin, spec("5c0d-2"));
    for (word, outcome) in [
        ("implemented-elsewhere", "implemented_elsewhere"),
        ("not-implemented", "not_implemented"),
        ("instance-not-found", "not_found"),
        ("retry", "retry_after"),
        ("the cloud is on fire", "other"),
    ] {
        shim.behave(json!({"err": word}));
        // The fake makes no load balancer where it knows no zone, and says why.
        let error = plugin.ensure(&call(5), &spec, None).await.expect_err(word);
        ensure!(error.outcome() == outcome, "{word}: {error:?}");
    }
    shim.behave(json!({"err": "retry"}));
    let error = plugin.ensure(&call(5), &spec, None).await.expect_err("to be retried");
    ensure!(error.retry_after() == Some(Duration::from_secs(7)), "{error:?}");
    let deletion = plugin.ensure_deleted(&call(5), &spec.owner, None).await?;
    ensure!(deletion == Deletion::InProgress(Duration::from_secs(7)), "{deletion:?}");

    // An error about a node is no absence, whatever it says.
    let one = node("node-1", Some("fake://node-1"));
    for word in ["instance-not-found", "the cloud is on fire"] {
        shim.behave(json!({"instanceExists": false, "instanceErr": word}));
        let told = plugin.get_many(&call(0), std::slice::from_ref(&one)).await?;
        ensure!(told.nodes[&one].is_err(), "{told:?}");
    }
    shim.behave(json!({"panics": true}));
    let told = plugin.get_many(&call(0), std::slice::from_ref(&one)).await?;
    ensure!(matches!(&told.nodes[&one], Err(CloudError::Other(text)) if text.contains("panicked")), "{told:?}");

    // Slower than the caller waits: the caller waits no longer for it.
    shim.behave(json!({"delayMillis": 30_000}));
    let mut hasty = call(5);
    hasty.deadline = Instant::now() + Duration::from_millis(500);
    let late = plugin.ensure(&hasty, &spec, None).await;
    ensure!(matches!(late, Err(CloudError::Timeout { maybe_applied: true, .. })), "{late:?}");
    Ok(())
}
