//! Leaders that are killed while load balancers are being made.

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail, ensure};
use quarterdeck_it::{CloudSim, ControlPlane, eventually};
use serde_json::{Value, json};

use super::service_witness::Witness;
use super::service_yard::{NAMESPACE, PATIENCE, Yard, shown};

/// How many Services show an address, of those that stay, and the first of those that do not.
async fn addresses(yard: &Yard) -> Result<(usize, Option<Value>)> {
    let list = yard.send("GET", &format!("/api/v1/namespaces/{NAMESPACE}/services"), Value::Null).await?;
    let items = list["items"].as_array().context("a list")?;
    let stays = |item: &&Value| item["metadata"]["deletionTimestamp"].is_null();
    let (with, without): (Vec<_>, Vec<_>) = items.iter().filter(stays).partition(|item| !shown(item).is_empty());
    Ok((with.len(), without.first().map(|item| (*item).clone())))
}

/// Waits until so many Services show an address.
async fn serve(yard: &Yard, wanted: usize) -> Result<()> {
    eventually(&format!("{wanted} have an address"), PATIENCE * 2, async || match addresses(yard).await? {
        (have, _) if have >= wanted => Ok(()),
        (have, without) => {
            let name = without.as_ref().and_then(|one| one["metadata"]["name"].as_str()).unwrap_or_default();
            let calls = yard.cloud.calls("loadbalancers.*").await?;
            let about = calls.iter().filter(|call| call.subjects.iter().any(|subject| subject == name));
            let last: Vec<_> = about.rev().take(5).collect();
            bail!("{have}; not {without:#?}, of which the cloud knows {last:#?}")
        }
    })
    .await
    .with_context(|| yard.log())
}

/// Says how far the full proof is, for whoever waits for it.
fn tell(kills: usize, of: usize, services: usize) {
    if of >= 50 {
        eprintln!("{kills} of {of} leaders killed, {services} Services made");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_leaders_leave_one_load_balancer_a_service() -> Result<()> {
    leaders_killed(5, 40).await
}

mod long {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn fifty_killed_leaders_leave_one_load_balancer_to_each_of_500_services() -> Result<()> {
        leaders_killed(50, 500).await
    }
}

/// Kills so many leaders, while so many Services are made.
async fn leaders_killed(kills: usize, services: usize) -> Result<()> {
    let cloud =
        CloudSim::builder().args(["--needs-addresses", "--change-ms=300", "--provision-ms=500"]).start().await?;
    let yard = Yard::open(ControlPlane::start().await?, cloud, 2).await?;
    let pool = json!({
        "apiVersion": "cloud.quarterdeck.dev/v1alpha1", "kind": "AddressPool",
        "metadata": { "name": "all" }, "spec": { "addresses": ["10.200.0.0/16"] },
    });
    yard.send("POST", "/apis/cloud.quarterdeck.dev/v1alpha1/addresspools", pool).await?;
    yard.deck.leader(PATIENCE).await?;

    let mut uids = Vec::new();
    let witness = Witness::start(&yard);
    for kill in 0..kills {
        let upto = services * (kill + 1) / kills;
        yard.create(&format!("short-lived-{kill}"), json!({}), json!({})).await?;
        while uids.len() < upto {
            uids.push(yard.create(&format!("s-{}", uids.len()), json!({}), json!({})).await?);
        }
        // In the middle of it: some are made, and more are being made.
        let wanted = upto - services / kills / 2;
        serve(&yard, wanted).await?;
        let leader = yard.deck.leader(PATIENCE).await?;
        yard.delete(&format!("short-lived-{kill}")).await?;
        yard.deck.replica(leader).process().kill().await?;
        yard.deck.replica(leader).restart()?;
        yard.deck.leader(PATIENCE).await?;
        witness.verdict()?;
        tell(kill + 1, kills, upto);
    }
    serve(&yard, services).await?;
    witness.verdict()?;
    ensure!(witness.saw() >= services, "it looked away");

    let uids: Vec<&str> = uids.iter().map(String::as_str).collect();
    yard.cloud.owned_by(&uids).await?;
    eventually("each has one reservation", PATIENCE, async || {
        let path = "/apis/cloud.quarterdeck.dev/v1alpha1/addressreservations";
        let list = yard.send("GET", path, Value::Null).await?;
        let items = list["items"].as_array().context("a list")?;
        let held: BTreeSet<_> = items.iter().filter_map(|item| item["spec"]["holders"][0]["uid"].as_str()).collect();
        ensure!(items.len() == services && held.len() == services, "{} for {}", items.len(), held.len());
        Ok(())
    })
    .await
}
