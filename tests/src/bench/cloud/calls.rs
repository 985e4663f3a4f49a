//! Calls in five minutes for a cluster of which a part is not ready.

use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::json;

use super::peer::CloudPeer;
use super::place::{Place, UNLIMITED, count, stop};
use crate::api::Http;
use crate::contestant::Side;
use crate::report::{Collector, Goal, Scale};

/// Nodes of the cluster.
const NODES: usize = 1_000;
/// Those of them that are not ready.
const NOT_READY: usize = 50;
/// For how many seconds calls are counted, from the start of the process.
const COUNTED: usize = 300;
const CONTROLLERS: &str = "cloud-node-controller,cloud-node-lifecycle-controller";

/// Both sides at the same time, on two servers.
pub(super) async fn measure(scale: Scale) -> Result<Vec<Collector>> {
    let mut figure = Collector::new(
        format!("calls in the first 5 min, {NODES} nodes, {NOT_READY} not ready"),
        "calls",
        Goal::AtMost(20.0),
    );
    let (ours, peers) = tokio::try_join!(ours(scale), peers(scale))?;
    figure.add(Side::Ours, ours);
    figure.add(Side::Go, peers);
    Ok(vec![figure])
}

async fn ours(scale: Scale) -> Result<f64> {
    let place = Place::open(&[]).await?;
    let mut nodes = Vec::new();
    for index in 0..scale.size(NODES) {
        nodes.push(place.cloud.add_instance(&node_name(index)).await?);
    }
    furnish(&place.http, scale, nodes).await?;
    let begun = Instant::now();
    let deck = place.deck(CONTROLLERS, 1, &UNLIMITED).await?;
    wait(scale, begun).await;
    let calls = place.cloud.calls("*").await?;
    tell("quarterdeck", calls.iter().map(|call| call.method.as_str()));
    stop(&deck).await?;
    count(calls.len())
}

async fn peers(scale: Scale) -> Result<f64> {
    let place = Place::open(&[]).await?;
    let nodes = (0..scale.size(NODES)).map(|index| format!("fake://{}", node_name(index))).collect();
    furnish(&place.http, scale, nodes).await?;
    let begun = Instant::now();
    let peer = CloudPeer::start(&place.control_plane, CONTROLLERS).await?;
    wait(scale, begun).await;
    let calls = peer.calls()?;
    tell("the peer", calls.iter().map(|call| call.split(' ').next().unwrap_or_default()));
    peer.stop().await?;
    count(calls.len())
}

/// The figure is of a span of time, not of an event.
async fn wait(scale: Scale, begun: Instant) {
    let counted = Duration::from_secs(scale.size(COUNTED) as u64);
    tokio::time::sleep(counted.saturating_sub(begun.elapsed())).await;
}

/// Says which calls were made.
fn tell<'a>(who: &str, methods: impl Iterator<Item = &'a str>) {
    let mut all = std::collections::BTreeMap::<&str, usize>::new();
    methods.for_each(|method| *all.entry(method).or_default() += 1);
    eprintln!("   calls of {who}: {all:?}");
}

fn node_name(index: usize) -> String {
    format!("node-{index:04}")
}

/// Makes initialised nodes with these providerIDs.
async fn furnish(http: &Http, scale: Scale, ids: Vec<String>) -> Result<()> {
    let not_ready = scale.size(NOT_READY);
    let make = |http: Http, (index, id): (usize, String)| async move {
        let name = node_name(index);
        let object = json!({ "metadata": { "name": name }, "spec": { "providerID": id } });
        http.create("/api/v1/nodes", &object).await?;
        let word = if index < not_ready { "Unknown" } else { "True" };
        let status = json!({ "status": {
            "conditions": [{ "type": "Ready", "status": word }],
            "addresses": [{ "type": "InternalIP", "address": "10.0.0.1" }],
        } });
        http.merge(&format!("/api/v1/nodes/{name}/status"), &status).await?;
        Ok(())
    };
    http.for_each(ids.into_iter().enumerate(), 32, make).await
}
