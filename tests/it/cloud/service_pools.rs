//! Addresses from pools.

use anyhow::{Context, Result, ensure};
use quarterdeck_it::{CloudSim, ControlPlane, eventually};
use serde_json::{Value, json};

use super::service_yard::{PATIENCE, Yard, path};

const POOLS: &str = "/apis/cloud.quarterdeck.dev/v1alpha1/addresspools";
const RESERVATIONS: &str = "/apis/cloud.quarterdeck.dev/v1alpha1/addressreservations";

async fn pool(yard: &Yard, name: &str, spec: Value) -> Result<()> {
    let object = json!({
        "apiVersion": "cloud.quarterdeck.dev/v1alpha1", "kind": "AddressPool",
        "metadata": { "name": name }, "spec": spec,
    });
    eventually(&format!("pool {name} is taken"), PATIENCE, async || {
        yard.send("POST", POOLS, object.clone()).await.map(drop)
    })
    .await
}

/// Waits until a pool's status is so.
async fn pool_is(yard: &Yard, name: &str, total: i64, used: i64, exhausted: &str) -> Result<()> {
    eventually(&format!("pool {name}: {used} of {total}"), PATIENCE, async || {
        let pool = yard.get(&format!("{POOLS}/{name}")).await?.context("it is gone")?;
        let status = &pool["status"];
        ensure!(status["total"] == total && status["used"] == used, "{status}");
        let condition = status["conditions"].as_array().context("no conditions")?.first().context("none")?;
        ensure!(condition["type"] == "Exhausted" && condition["status"] == exhausted, "{status}");
        Ok(())
    })
    .await
}

async fn reserved(yard: &Yard) -> Result<Vec<String>> {
    let list = yard.send("GET", RESERVATIONS, Value::Null).await?;
    let items = list["items"].as_array().context("a list")?;
    Ok(items.iter().filter_map(|item| item["spec"]["address"].as_str().map(str::to_owned)).collect())
}

async fn remove(yard: &Yard, names: &[&str]) -> Result<()> {
    for name in names {
        yard.delete(name).await?;
        yard.gone(&path(name)).await?;
    }
    Ok(())
}

/// The server refuses what cannot be read.
async fn nonsense_is_refused(yard: &Yard) -> Result<()> {
    pool(yard, "small", json!({ "addresses": ["192.0.2.1-192.0.2.2"] })).await?;
    for entry in ["x", "192.0.2.0/33", "192.0.2.1-x", "192.0.2.1-2001:db8::1", "192.0.2.1-192.0.2.2-192.0.2.3"] {
        let object = json!({
            "apiVersion": "cloud.quarterdeck.dev/v1alpha1", "kind": "AddressPool",
            "metadata": { "name": "bad" }, "spec": { "addresses": [entry] },
        });
        let refused = yard.send("POST", POOLS, object).await;
        ensure!(refused.is_err(), "{entry} is taken");
    }
    Ok(())
}

/// Given in order, waited for when none is left, and given back when the load balancer is gone.
async fn a_pool_is_used_up_and_frees(yard: &Yard) -> Result<()> {
    pool_is(yard, "small", 2, 0, "False").await?;
    let first = yard.create("first", json!({}), json!({})).await?;
    assert_eq!(yard.addresses("first").await?, ["192.0.2.1"]);
    let wanted = json!({ "quarterdeck.dev/load-balancer-ips": "192.0.2.2" });
    let second = yard.create("second", wanted, json!({})).await?;
    assert_eq!(yard.addresses("second").await?, ["192.0.2.2"]);
    pool_is(yard, "small", 2, 2, "True").await?;
    let third = yard.create("third", json!({}), json!({})).await?;
    yard.told("third", "AddressUnavailable", "no IPv4 address is left in pool small").await?;
    yard.cloud.owned_by(&[&first, &second]).await?;

    // The pool loses what is in use: nothing moves, and nothing of it is given again.
    let elsewhere = json!({ "spec": { "addresses": ["192.0.2.2"] } });
    yard.send("PATCH", &format!("{POOLS}/small"), elsewhere).await?;
    pool_is(yard, "small", 1, 1, "True").await?;
    yard.patch("first", json!({ "spec": { "ports": [{ "name": "main", "port": 8080 }] } })).await?;
    yard.balancer(&first, "it has the new port", |one| one.ports.iter().any(|port| port.port == 8080)).await?;
    assert_eq!(yard.addresses("first").await?, ["192.0.2.1"]);

    remove(yard, &["second"]).await?;
    assert_eq!(yard.addresses("third").await?, ["192.0.2.2"], "given back, and to the one who waited");
    yard.cloud.owned_by(&[&first, &third]).await?;
    remove(yard, &["first", "third"]).await?;
    ensure!(reserved(yard).await?.is_empty(), "{:?}", reserved(yard).await?);
    Ok(())
}

/// Two Services at one address, by key, while their ports are not the same.
async fn an_address_is_shared(yard: &Yard) -> Result<()> {
    let with_key = || json!({ "quarterdeck.dev/allow-shared-ip": "key" });
    let port = |number: u16| json!({ "ports": [{ "name": "main", "port": number }] });
    let one = yard.create("one", with_key(), port(80)).await?;
    assert_eq!(yard.addresses("one").await?, ["192.0.2.2"]);
    let two = yard.create("two", with_key(), port(81)).await?;
    assert_eq!(yard.addresses("two").await?, ["192.0.2.2"]);
    yard.create("same-port", with_key(), port(80)).await?;
    yard.told("same-port", "AddressUnavailable", "no IPv4 address").await?;
    yard.create("local", with_key(), json!({ "externalTrafficPolicy": "Local", "ports": [{ "port": 82 }] })).await?;
    yard.told("local", "AddressUnavailable", "no IPv4 address").await?;
    yard.cloud.owned_by(&[&one, &two]).await?;
    remove(yard, &["same-port", "local", "one"]).await?;
    assert_eq!(reserved(yard).await?, ["192.0.2.2"], "the other one has it still");
    remove(yard, &["two"]).await?;
    ensure!(reserved(yard).await?.is_empty());
    Ok(())
}

/// A pool by name, for some namespaces, and of both families.
async fn pools_serve_whom_they_should(yard: &Yard) -> Result<()> {
    pool(yard, "named", json!({ "addresses": ["198.51.100.0/30", "2001:db8::/126"], "autoAssign": false })).await?;
    pool(yard, "others", json!({ "addresses": ["203.0.113.1"], "namespaces": ["elsewhere"] })).await?;
    let annotation = json!({ "quarterdeck.dev/address-pool": "named" });
    yard.create("both", annotation, json!({ "ipFamilyPolicy": "RequireDualStack" })).await?;
    assert_eq!(yard.addresses("both").await?, ["198.51.100.0", "2001:db8::"]);
    assert_eq!(yard.addresses("both").await?.len(), 2);
    let held = reserved(yard).await?;
    ensure!(held.len() == 2 && held.iter().any(|address| address == "2001:db8::"), "{held:?}");
    let foreign = json!({ "quarterdeck.dev/address-pool": "others" });
    yard.create("foreign", foreign, json!({})).await?;
    yard.told("foreign", "AddressUnavailable", "pool others").await?;
    remove(yard, &["both", "foreign"]).await?;
    pool_is(yard, "named", 8, 0, "False").await
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_come_from_pools() -> Result<()> {
    let cloud = CloudSim::builder().args(["--needs-addresses"]).start().await?;
    let ranges = "--service-cluster-ip-range=10.96.0.0/16,fd00:10:96::/112";
    let control_plane = ControlPlane::builder().apiserver_args([ranges]).start().await?;
    let yard = Yard::open(control_plane, cloud, 1).await?;
    nonsense_is_refused(&yard).await?;
    a_pool_is_used_up_and_frees(&yard).await?;
    an_address_is_shared(&yard).await?;
    pools_serve_whom_they_should(&yard).await
}
