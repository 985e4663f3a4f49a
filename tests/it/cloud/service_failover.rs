//! Leaders that are killed while load balancers are being made.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail, ensure};
use quarterdeck_it::{CloudSim, ControlPlane, eventually};
use serde_json::{Value, json};

use super::service_witness::Witness;
use super::service_yard::{NAMESPACE, PATIENCE, Yard, shown};

/// How many leaders are killed; the full proof is 50, with 500 Services.
const KILLS: &str = "QUARTERDECK_SERVICE_KILLS";
/// How many Services are made meanwhile.
const SERVICES: &str = "QUARTERDECK_SERVICE_COUNT";

fn number(variable: &str, otherwise: usize) -> usize {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

/// Which Service shows which address, of those that stay.
async fn addresses(yard: &Yard) -> Result<BTreeMap<String, String>> {
    let list = yard.send("GET", &format!("/api/v1/namespaces/{NAMESPACE}/services"), Value::Null).await?;
    let items = list["items"].as_array().context("a list")?;
    let address = |item: &Value| Some((item["metadata"]["uid"].as_str()?.to_owned(), shown(item).first()?.clone()));
    let stays = |item: &&Value| item["metadata"]["deletionTimestamp"].is_null();
    Ok(items.iter().filter(stays).filter_map(address).collect())
}

/// Says how far the full proof is, for whoever waits for it.
fn tell(kills: usize, of: usize, services: usize) {
    if of >= 50 {
        eprintln!("{kills} of {of} leaders killed, {services} Services made");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_leaders_leave_one_load_balancer_a_service() -> Result<()> {
    let (kills, services) = (number(KILLS, 5), number(SERVICES, 40));
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
        eventually("half of them have an address", PATIENCE, async || {
            let have = addresses(&yard).await?.len();
            ensure!(have >= wanted, "{have} of {wanted}");
            Ok(())
        })
        .await?;
        let leader = yard.deck.leader(PATIENCE).await?;
        yard.delete(&format!("short-lived-{kill}")).await?;
        yard.deck.replica(leader).process().kill().await?;
        yard.deck.replica(leader).restart()?;
        yard.deck.leader(PATIENCE).await?;
        witness.verdict()?;
        tell(kill + 1, kills, upto);
    }
    eventually("every Service has its address", PATIENCE * 2, async || match addresses(&yard).await?.len() {
        all if all == services => Ok(()),
        some => bail!("{some}"),
    })
    .await?;
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
