//! What happens to load balancers behind everybody's back, and what a leader finds when it comes.

use anyhow::{Result, ensure};
use quarterdeck_cloud::LoadBalancers as _;
use quarterdeck_cloud::grpc::{Plugin, PluginUri};
use quarterdeck_it::cloud::{Command, FailKind, Fault, Moment, Rule};
use quarterdeck_it::{CloudSim, ControlPlane, eventually};
use serde_json::{Value, json};

use super::plugin::{call, spec};
use super::service_witness::Witness;
use super::service_yard::{NAMESPACE, PATIENCE, Yard, deck, path};

const ENSURE: &str = "loadbalancers.ensure";
const UPDATE: &str = "loadbalancers.update_backends";

/// Upstream compares nothing with the cloud: what is lost there stays lost. It comes back at its address.
async fn what_is_lost_or_spoiled_comes_back_at_its_address(yard: &Yard) -> Result<String> {
    let uid = yard.create("adrift", json!({}), json!({})).await?;
    let address = yard.addresses("adrift").await?;
    let before = yard.balancer(&uid, "it is there", |_| true).await?;

    yard.cloud.command(&Command::SpoilLoadBalancer { uid: uid.clone() }).await?;
    yard.told("adrift", "LoadBalancerDrifted", "changed").await?;
    let ports = before.ports.clone();
    yard.balancer(&uid, "it is as it was", |one| one.ports == ports && one.id == before.id).await?;

    yard.cloud.command(&Command::LoseLoadBalancer { uid: uid.clone() }).await?;
    yard.told("adrift", "LoadBalancerDrifted", "gone").await?;
    let back = yard.balancer(&uid, "it is there again", |one| one.id != before.id).await?;
    ensure!(back.addresses == before.addresses && yard.addresses("adrift").await? == address, "{back:?}");
    Ok(uid)
}

/// One that was there twice before this leader came: the one that is written down is gone on with.
async fn of_duplicates_one_is_adopted_and_the_others_are_told(yard: &Yard, uid: &str) -> Result<()> {
    let one = yard.balancer(uid, "it is there", |_| true).await?;
    let other = yard.cloud.command(&Command::DuplicateLoadBalancer { uid: uid.to_owned() }).await?;
    yard.deck.replica(0).process().kill().await?;
    yard.deck.replica(0).restart()?;
    yard.told("adrift", "DuplicateLoadBalancers", &format!("{other} should be removed by hand")).await?;
    yard.metric("quarterdeck_cloudprovider_duplicate_load_balancers", 1.0).await?;

    let port = json!({ "spec": { "ports": [{ "name": "main", "port": 81 }] } });
    yard.patch("adrift", port).await?;
    eventually("the one that is written down is changed", PATIENCE, async || {
        let all = yard.cloud.balancers_of(uid).await?;
        let port = |id: &str| all.iter().find(|one| one.id == id).and_then(|one| one.ports.first()).map(|one| one.port);
        ensure!(all.len() == 2 && port(&one.id) == Some(81) && port(&other) == Some(80), "{all:?}");
        Ok(())
    })
    .await?;
    yard.delete("adrift").await?;
    yard.gone(&path("adrift")).await?;
    yard.cloud.owned_by(&[]).await
}

/// The cloud made it, said that it did not, and shows it to nobody for half a minute.
async fn reads_that_lag_make_no_duplicates(yard: &Yard) -> Result<()> {
    for method in ["loadbalancers.get", "loadbalancers.list_owned"] {
        yard.cloud.fault(Rule::new(method, Fault::ReadLag { ms: 30_000 })).await?;
    }
    let lost = Fault::Fail { error: FailKind::Unavailable, retry_after_ms: None, at: Moment::After };
    yard.cloud.fault(Rule::new(ENSURE, lost).about("lagging").times(1)).await?;
    let uid = yard.create("lagging", json!({}), json!({})).await?;
    yard.addresses("lagging").await?;
    let gets = yard.cloud.calls("loadbalancers.get").await?;
    ensure!(gets.iter().any(|call| call.subjects.iter().any(|name| name == "lagging")), "nobody asked first");
    yard.cloud.owned_by(&[&uid]).await?;
    yard.cloud.heal().await?;
    yard.delete("lagging").await?;
    yard.gone(&path("lagging")).await?;
    yard.cloud.owned_by(&[]).await
}

/// Upstream's `TestSlowNodeSync`: one pass tells all Services of nodes, one after the other, with nodes as they were.
async fn a_slow_update_holds_nobody_up_and_is_not_the_last_word(yard: &Yard) -> Result<()> {
    yard.node("n-1", json!({})).await?;
    let slow = yard.create("slow", json!({}), json!({})).await?;
    let quick = yard.create("quick", json!({}), json!({})).await?;
    for name in ["slow", "quick"] {
        yard.addresses(name).await?;
    }
    yard.cloud.fault(Rule::new(UPDATE, Fault::Hold { at: Moment::Before }).about("slow").times(1)).await?;
    yard.node("n-2", json!({})).await?;
    yard.cloud.held(UPDATE).await?;
    yard.node("n-3", json!({})).await?;
    yard.balancer(&quick, "the other one is told of all", |one| one.backends.len() == 3).await?;
    ensure!(yard.balancer(&slow, "it stands", |_| true).await?.backends.len() == 1, "it is held");
    yard.cloud.heal().await?;
    yard.balancer(&slow, "so is the slow one", |one| one.backends.len() == 3).await?;
    for name in ["slow", "quick"] {
        yard.delete(name).await?;
        yard.gone(&path(name)).await?;
    }
    Ok(())
}

/// A cluster that was restored from an old backup looks like this: most of its Services were never there. Beside its
/// load balancers there is one of another cluster, of a Service with a name that this one has, too
/// (digitalocean-cloud-controller-manager#916, cloud-provider-openstack#2004): to this one it is neither orphan nor its own.
async fn many_orphans_at_once_are_kept(mut yard: Yard) -> Result<()> {
    let mut foreign = spec("uid-elsewhere");
    (foreign.owner.name, foreign.owner.namespace) = ("kept".into(), NAMESPACE.into());
    let other = Plugin::new(PluginUri::Unix(yard.cloud.socket().to_owned()), None);
    foreign.addresses = vec!["192.0.2.200".parse()?];
    other.ensure(&call(7), &foreign, None).await?;
    let before = yard.cloud.balancers_of("uid-elsewhere").await?;
    ensure!(before.len() == 1, "{before:?}");
    let mut all = Vec::new();
    for name in ["o-1", "o-2", "o-3", "kept"] {
        all.push(yard.create(name, json!({}), json!({})).await?);
        yard.addresses(name).await?;
    }
    all.push("uid-elsewhere".to_owned());
    let uids: Vec<&str> = all.iter().map(String::as_str).collect();
    yard.deck.replica(0).process().kill().await?;
    for name in ["o-1", "o-2", "o-3"] {
        yard.patch(name, json!({ "metadata": { "finalizers": null } })).await?;
        yard.delete(name).await?;
        yard.gone(&path(name)).await?;
    }
    yard.deck = deck(&yard.control_plane, &yard.cloud, 1, &["--cloud-delete-orphans"]).await?;
    yard.told("o-1", "OrphanedLoadBalancer", "--load-balancer-orphan-brake").await?;
    yard.metric("quarterdeck_cloudprovider_orphan_sweep_braked", 1.0).await?;
    yard.cloud.owned_by(&uids).await?;

    yard.deck.replica(0).process().kill().await?;
    let flags = ["--cloud-delete-orphans", "--load-balancer-orphan-brake=100"];
    yard.deck = deck(&yard.control_plane, &yard.cloud, 1, &flags).await?;
    yard.cloud.owned_by(&uids[3..]).await?;
    eventually("so are their reservations", PATIENCE, async || {
        let path = "/apis/cloud.quarterdeck.dev/v1alpha1/addressreservations";
        let list = yard.send("GET", path, Value::Null).await?;
        let count = list["items"].as_array().map(Vec::len);
        ensure!(count == Some(1), "{list}");
        Ok(())
    })
    .await?;
    ensure!(yard.cloud.balancers_of("uid-elsewhere").await? == before, "another cluster's was changed");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happens_in_the_cloud_is_put_right() -> Result<()> {
    let cloud = CloudSim::builder().args(["--needs-addresses"]).start().await?;
    let yard = Yard::open(ControlPlane::start().await?, cloud, 1).await?;
    let pool = json!({
        "apiVersion": "cloud.quarterdeck.dev/v1alpha1", "kind": "AddressPool",
        "metadata": { "name": "only" }, "spec": { "addresses": ["192.0.2.0/28"] },
    });
    yard.send("POST", "/apis/cloud.quarterdeck.dev/v1alpha1/addresspools", pool).await?;
    let witness = Witness::start(&yard);
    let uid = what_is_lost_or_spoiled_comes_back_at_its_address(&yard).await?;
    of_duplicates_one_is_adopted_and_the_others_are_told(&yard, &uid).await?;
    reads_that_lag_make_no_duplicates(&yard).await?;
    a_slow_update_holds_nobody_up_and_is_not_the_last_word(&yard).await?;
    many_orphans_at_once_are_kept(yard).await?;
    witness.verdict()
}
