//! The life of load balancers.

use anyhow::{Result, ensure};
use quarterdeck_it::cloud::{Fault, Rule};
use quarterdeck_it::{CloudSim, ControlPlane, eventually};
use serde_json::json;

use super::service_yard::{PATIENCE, Yard, deck, path, shown};

const FINALIZER: &str = "service.kubernetes.io/load-balancer-cleanup";
const RECORD: &str = "quarterdeck.dev/load-balancer";

/// Made, changed with its Service and with the nodes, and removed with it.
async fn follows_its_service_and_the_nodes(yard: &Yard) -> Result<()> {
    yard.node("n-1", json!({})).await?;
    let uid = yard.create("web", json!({}), json!({})).await?;
    let addresses = yard.addresses("web").await?;
    let service = yard.service("web").await?;
    assert_eq!(service["metadata"]["finalizers"], json!([FINALIZER]));
    assert_eq!(service["status"]["loadBalancer"]["ingress"][0]["ipMode"], "VIP");
    yard.told("web", "EnsuringLoadBalancer", "").await?;
    yard.told("web", "EnsuredLoadBalancer", "").await?;

    yard.node("n-2", json!({})).await?;
    yard.node("n-3", json!({ "node.kubernetes.io/exclude-from-external-load-balancers": "true" })).await?;
    let names = |count: usize| move |one: &quarterdeck_it::cloud::Balancer| one.backends.len() == count;
    let balancer = yard.balancer(&uid, "it is told of the second node", names(2)).await?;
    assert_eq!(balancer.backends.iter().map(|backend| &*backend.name).collect::<Vec<_>>(), ["n-1", "n-2"]);
    yard.told("web", "UpdatedLoadBalancer", "").await?;
    let updates = yard.cloud.calls("loadbalancers.update_backends").await?;
    ensure!(!updates.is_empty(), "nodes need no new load balancer");

    yard.patch("web", json!({ "spec": { "ports": [{ "name": "main", "port": 80 }, { "name": "more", "port": 81 }] } }))
        .await?;
    let balancer = yard.balancer(&uid, "it has the second port", |one| one.ports.len() == 2).await?;
    assert_eq!(shown(&yard.service("web").await?), addresses, "the address stays");
    assert_eq!(balancer.addresses[0].to_string(), addresses[0]);

    // Nobody changes anything: nothing is asked for again.
    let before = yard.cloud.calls("loadbalancers.ensure").await?.len();
    let lists = yard.cloud.calls("loadbalancers.list_owned").await?.len();
    eventually("two audits pass", PATIENCE, async || {
        let now = yard.cloud.calls("loadbalancers.list_owned").await?.len();
        ensure!(now >= lists + 2, "{now}");
        Ok(())
    })
    .await?;
    assert_eq!(yard.cloud.calls("loadbalancers.ensure").await?.len(), before, "rest is rest");

    yard.delete("web").await?;
    yard.gone(&path("web")).await?;
    yard.cloud.owned_by(&[]).await
}

/// A Service of another type, and one of another class.
async fn type_and_class_decide(yard: &Yard) -> Result<()> {
    let foreign = json!({ "loadBalancerClass": "example.com/other" });
    yard.create("foreign", json!({}), foreign).await?;
    let uid = yard.create("turned", json!({}), json!({})).await?;
    yard.addresses("turned").await?;
    yard.cloud.owned_by(&[&uid]).await?;
    let service = yard.service("foreign").await?;
    ensure!(service["metadata"]["finalizers"].is_null(), "a foreign class: {service}");
    yard.create("elsewhere", json!({ "sim.quarterdeck.dev/implemented-elsewhere": "true" }), json!({})).await?;
    eventually("the cloud was asked for it", PATIENCE, async || {
        let service = yard.service("elsewhere").await?;
        ensure!(service["metadata"]["finalizers"] == json!([FINALIZER]), "{service}");
        Ok(())
    })
    .await?;

    yard.patch("turned", json!({ "spec": { "type": "ClusterIP" } })).await?;
    yard.cloud.owned_by(&[]).await?;
    eventually("nothing of ours is left on it", PATIENCE, async || {
        let service = yard.service("turned").await?;
        let annotations = &service["metadata"]["annotations"];
        ensure!(service["metadata"]["finalizers"].is_null() && annotations.get(RECORD).is_none(), "{service}");
        ensure!(shown(&service).is_empty(), "{service}");
        Ok(())
    })
    .await?;
    yard.patch("turned", json!({ "spec": { "type": "LoadBalancer" } })).await?;
    yard.cloud.owned_by(&[&uid]).await?;
    for name in ["turned", "foreign", "elsewhere"] {
        yard.delete(name).await?;
        yard.gone(&path(name)).await?;
    }
    yard.cloud.owned_by(&[]).await
}

/// Upstream asks whether it is there before it deletes, and leaks what a half-made one left behind.
async fn delete_is_always_called(yard: &Yard) -> Result<()> {
    let stop = Rule::new("loadbalancers.ensure", Fault::FailAtStep { step: 1 });
    yard.cloud.fault(stop).await?;
    yard.create("half", json!({}), json!({})).await?;
    yard.told("half", "SyncLoadBalancerFailed", "stopped").await?;
    ensure!(!yard.cloud.state().await?.leftovers().is_empty(), "an address without a load balancer");
    yard.delete("half").await?;
    yard.gone(&path("half")).await?;
    yard.cloud.heal().await?;
    yard.cloud.owned_by(&[]).await
}

/// A Service whose finalizer was taken away while nobody looked: reported, and removed only where that was asked for.
async fn orphans_are_told_and_removed_by_flag(mut yard: Yard) -> Result<()> {
    let uid = yard.create("lost", json!({}), json!({})).await?;
    let kept = yard.create("kept", json!({}), json!({})).await?;
    yard.addresses("lost").await?;
    yard.addresses("kept").await?;
    yard.deck.replica(0).process().kill().await?;
    yard.patch("lost", json!({ "metadata": { "finalizers": null } })).await?;
    yard.delete("lost").await?;
    yard.gone(&path("lost")).await?;

    yard.deck.replica(0).restart()?;
    yard.told("lost", "OrphanedLoadBalancer", "--cloud-delete-orphans").await?;
    yard.metric("quarterdeck_cloudprovider_orphans", 1.0).await?;
    yard.cloud.owned_by(&[&uid, &kept]).await?;

    yard.deck.replica(0).process().kill().await?;
    yard.deck = deck(&yard.control_plane, &yard.cloud, 1, &["--cloud-delete-orphans"]).await?;
    yard.cloud.owned_by(&[&kept]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn load_balancers_follow_their_services() -> Result<()> {
    let cloud = CloudSim::start().await?;
    let yard = Yard::open(ControlPlane::start().await?, cloud, 1).await?;
    follows_its_service_and_the_nodes(&yard).await?;
    type_and_class_decide(&yard).await?;
    delete_is_always_called(&yard).await?;
    orphans_are_told_and_removed_by_flag(yard).await
}
