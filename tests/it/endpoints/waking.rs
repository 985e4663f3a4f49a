//! What wakes the controllers: labels, selectors, nodes.

use anyhow::Result;
use serde_json::{Value, json};

use super::bay::Bay;

fn zone_hint(zone: &str) -> Value {
    json!({ "forZones": [{ "name": zone }] })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn labels_and_selectors_move_pods_between_services() -> Result<()> {
    let bay = Bay::open().await?;
    bay.node("node", "zone-a").await?;
    bay.service("red", json!({ "color": "red" }), Value::Null).await?;
    bay.service("blue", json!({ "color": "blue", "tier": "front" }), Value::Null).await?;
    bay.pod("one", json!({ "color": "red", "tier": "front" }), "node", "10.1.0.1").await?;
    bay.pod("two", json!({ "color": "blue" }), "node", "10.1.0.2").await?;
    bay.shows("red", &[("10.1.0.1", true)]).await?;
    bay.shows("blue", &[]).await?;

    // A pod changes sides: both services hear of it.
    bay.patch("pods/one", json!({ "metadata": { "labels": { "color": "blue" } } })).await?;
    bay.shows("red", &[]).await?;
    bay.shows("blue", &[("10.1.0.1", true)]).await?;

    // A service selects less, then something else.
    bay.patch("services/blue", json!({ "spec": { "selector": { "tier": null } } })).await?;
    bay.shows("blue", &[("10.1.0.1", true), ("10.1.0.2", true)]).await?;
    bay.patch("services/blue", json!({ "spec": { "selector": { "color": "green" } } })).await?;
    bay.shows("blue", &[]).await?;
    // The index follows the new selector: a change of the pod alone wakes the service.
    bay.patch("pods/two", json!({ "metadata": { "labels": { "color": "green" } } })).await?;
    bay.shows("blue", &[("10.1.0.2", true)]).await?;
    bay.ready("two", false).await?;
    bay.shows("blue", &[("10.1.0.2", false)]).await?;

    // Labels and names of a service show at once, and so does what it publishes.
    bay.patch("services/blue", json!({ "spec": { "publishNotReadyAddresses": true } })).await?;
    bay.shows("blue", &[("10.1.0.2", true)]).await?;
    bay.delete("pods/two").await?;
    bay.shows("blue", &[]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_bring_zones_and_hints() -> Result<()> {
    let bay = Bay::open().await?;
    bay.node("node-a", "zone-a").await?;
    let all = json!({ "app": "web" });
    bay.service("near", all.clone(), json!({ "trafficDistribution": "PreferSameZone" })).await?;
    bay.service("spread", all.clone(), Value::Null).await?;
    let auto = json!({ "metadata": { "annotations": { "service.kubernetes.io/topology-mode": "Auto" } } });
    bay.patch("services/spread", auto).await?;
    bay.pod("one", all.clone(), "node-a", "10.1.0.1").await?;
    bay.pod("two", all, "node-b", "10.1.0.2").await?;
    // A pod on a node that nobody knows is left out; the others do not wait for it.
    bay.slices_show("near", &[("10.1.0.1", true)]).await?;
    bay.near("near", &[("10.1.0.1", "zone-a", zone_hint("zone-a"))]).await?;
    bay.near("spread", &[("10.1.0.1", "zone-a", Value::Null)]).await?;

    // The node appears: its pod comes in, and there is something to spread.
    bay.node("node-b", "zone-b").await?;
    let (one, two) = (("10.1.0.1", "zone-a", zone_hint("zone-a")), ("10.1.0.2", "zone-b", zone_hint("zone-b")));
    bay.near("near", &[one.clone(), two.clone()]).await?;
    bay.near("spread", &[one.clone(), two]).await?;

    // The node goes to another zone. Where hints rest on what the zones have, that is seen at once.
    bay.move_node("node-b", "zone-c").await?;
    let moved = ("10.1.0.2", "zone-c", zone_hint("zone-c"));
    bay.near("spread", &[one.clone(), moved.clone()]).await?;
    // Elsewhere when the service is looked at next.
    bay.ready("one", false).await?;
    bay.near("near", &[("10.1.0.1", "zone-a", Value::Null), moved]).await?;
    bay.ready("one", true).await?;

    // With one zone left there is nothing to spread.
    bay.move_node("node-b", "zone-a").await?;
    bay.near("spread", &[("10.1.0.1", "zone-a", Value::Null), ("10.1.0.2", "zone-a", Value::Null)]).await?;
    let by_node = json!({ "spec": { "trafficDistribution": "PreferSameNode" } });
    bay.patch("services/near", by_node).await?;
    let hints = json!({ "forZones": [{ "name": "zone-a" }], "forNodes": [{ "name": "node-b" }] });
    bay.near("near", &[("10.1.0.2", "zone-a", hints)]).await
}
