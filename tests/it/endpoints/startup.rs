//! What happened while nobody looked is made up for at the start.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::bay::{Bay, PATIENCE, array};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_happened_while_nobody_led_is_made_up_for() -> Result<()> {
    let bay = Bay::open().await?;
    bay.node("node", "zone-a").await?;
    for name in ["stays", "goes", "changes"] {
        bay.service(name, json!({ "app": name }), Value::Null).await?;
        bay.pod(name, json!({ "app": name }), "node", "10.1.0.1").await?;
        bay.shows(name, &[("10.1.0.1", true)]).await?;
    }
    let by_hand = |name: &str, ip: &str| json!({ "metadata": { "name": name }, "subsets": [{ "addresses": [{ "ip": ip }], "ports": [{ "port": 1 }] }] });
    for name in ["hand-stays", "hand-goes", "hand-changes"] {
        bay.create("services", json!({ "metadata": { "name": name }, "spec": { "ports": [{ "port": 1 }] } })).await?;
        bay.create("endpoints", by_hand(name, "10.5.0.1")).await?;
        bay.slices_show(name, &[("10.5.0.1", true)]).await?;
    }

    let process = bay.deck.replica(0).process();
    process.stop(PATIENCE).await?;
    for name in ["goes", "hand-goes"] {
        bay.delete(&format!("services/{name}")).await?;
    }
    bay.delete(&bay.slice_path("stays").await?).await?;
    bay.delete("endpoints/stays").await?;
    bay.delete(&bay.slice_path("hand-stays").await?).await?;
    bay.delete("pods/changes").await?;
    bay.pod("changed", json!({ "app": "changes" }), "node", "10.1.0.9").await?;
    bay.patch("endpoints/hand-changes", by_hand("hand-changes", "10.5.0.9")).await?;
    // Nobody's service, and a lock.
    bay.create("endpoints", by_hand("nobody", "10.5.0.7")).await?;
    let mut lock = by_hand("lock", "10.5.0.8");
    lock["metadata"]["annotations"] = json!({ "control-plane.alpha.kubernetes.io/leader": "{}" });
    bay.create("endpoints", lock).await?;
    let orphan = bay.slice_path("goes").await?;

    bay.deck.replica(0).restart()?;
    bay.shows("stays", &[("10.1.0.1", true)]).await?;
    bay.shows("changes", &[("10.1.0.9", true)]).await?;
    bay.slices_show("hand-stays", &[("10.5.0.1", true)]).await?;
    bay.slices_show("hand-changes", &[("10.5.0.9", true)]).await?;
    bay.slices_show("hand-goes", &[]).await?;
    for name in ["goes", "hand-goes", "nobody"] {
        bay.gone(&format!("endpoints/{name}")).await?;
    }
    let lock = bay.endpoints("lock").await?;
    ensure!(array(&lock["subsets"]).len() == 1, "{lock}");
    // The slices of a service that is gone are the garbage collector's.
    bay.send("GET", &Bay::path(&orphan), &Value::Null).await?;
    Ok(())
}
