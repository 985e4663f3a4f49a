//! Requests that cannot be met: what there is stays, and is told of nodes; one event and one count each, nothing lost.

use anyhow::{Context, Result, ensure};
use quarterdeck_it::cloud::{Balancer, Command};
use quarterdeck_it::{CloudSim, ControlPlane, eventually};
use serde_json::{Value, json};

use super::service_yard::{NAMESPACE, PATIENCE, Yard, path, shown};

const IPS: &str = "quarterdeck.dev/load-balancer-ips";
const POOL: &str = "quarterdeck.dev/address-pool";
const KEY: &str = "quarterdeck.dev/allow-shared-ip";
const PROBLEMS: &str = "quarterdeck_cloudprovider_service_problems_total";
const RESERVATIONS: &str = "/apis/cloud.quarterdeck.dev/v1alpha1/addressreservations";

struct Quay {
    yard: Yard,
    /// Nodes there are.
    nodes: usize,
}

impl Quay {
    async fn annotate(&self, service: &str, annotations: Value) -> Result<()> {
        self.yard.patch(service, json!({ "metadata": { "annotations": annotations } })).await.map(drop)
    }

    /// Waits until so many problems of a kind were counted.
    async fn counted(&self, reason: &str, count: f64) -> Result<()> {
        eventually(&format!("{reason} is counted {count} times"), PATIENCE, async || {
            let leader = self.yard.deck.leader(PATIENCE).await?;
            let found = self.yard.deck.replica(leader).metric(PROBLEMS, &[("reason", reason)]).await?;
            ensure!((found - count).abs() < f64::EPSILON, "{found}");
            Ok(())
        })
        .await
    }

    /// There is one event with this reason and text, and it was told once.
    async fn told_once(&self, service: &str, reason: &str, part: &str) -> Result<()> {
        self.yard.told(service, reason, part).await?;
        let path = format!("/api/v1/namespaces/{NAMESPACE}/events?fieldSelector=involvedObject.name={service}");
        let events = self.yard.send("GET", &path, Value::Null).await?;
        let says = |event: &&Value| {
            event["reason"] == reason && event["message"].as_str().is_some_and(|message| message.contains(part))
        };
        let all: Vec<&Value> = events["items"].as_array().context("a list")?.iter().filter(says).collect();
        ensure!(all.len() == 1 && all[0]["count"].as_u64().unwrap_or(1) == 1, "{all:#?}");
        Ok(())
    }

    async fn another_leader(&self) -> Result<()> {
        self.yard.deck.replica(0).process().kill().await?;
        self.yard.deck.replica(0).restart()?;
        self.yard.deck.leader(PATIENCE).await.map(drop)
    }

    async fn held_by(&self, uid: &str) -> Result<Vec<String>> {
        let list = self.yard.send("GET", RESERVATIONS, Value::Null).await?;
        let holds = |item: &&Value| item["spec"]["holders"].as_array().is_some_and(|all| all[0]["uid"] == uid);
        let items = list["items"].as_array().context("a list")?.iter().filter(holds);
        Ok(items.filter_map(|item| item["spec"]["address"].as_str().map(str::to_owned)).collect())
    }
}

/// A Service that has what it asked for, before it asks for the impossible.
struct Guest {
    name: &'static str,
    uid: String,
    before: Balancer,
}

impl Quay {
    async fn guest(&self, name: &'static str, annotations: Value, port: u16) -> Result<Guest> {
        let spec = json!({ "ports": [{ "name": "main", "port": port }] });
        let uid = self.yard.create(name, annotations, spec).await?;
        self.yard.addresses(name).await?;
        let before = self.yard.balancer(&uid, "it is there", |one| one.backends.len() == self.nodes).await?;
        Ok(Guest { name, uid, before })
    }

    /// Adds a node, and waits until all are told; each has to be as it was but for its nodes.
    async fn all_are_told_of_nodes(&mut self, guests: &[&Guest]) -> Result<()> {
        self.nodes += 1;
        self.yard.node(&format!("n-{}", self.nodes), json!({})).await?;
        for Guest { name, uid, before } in guests {
            let what = format!("{name} is told of {} nodes", self.nodes);
            let now = self.yard.balancer(uid, &what, |one| one.backends.len() == self.nodes).await?;
            let (backends, revision) = (now.backends.clone(), now.revision);
            ensure!(now == Balancer { backends, revision, ..before.clone() }, "{name}: {before:?} became {now:?}");
            let shown = shown(&self.yard.service(name).await?);
            ensure!(
                shown.iter().eq(&before.addresses.iter().map(ToString::to_string).collect::<Vec<_>>()),
                "{shown:?}"
            );
        }
        Ok(())
    }
}

/// Text that is no address, ports that collide, a policy with which nothing is shared: what there is stays as it is, also under
/// the next leader, which does not know how it was made.
async fn the_impossible_costs_nothing(quay: &mut Quay) -> Result<()> {
    let web = quay.guest("web", json!({ IPS: "192.0.2.1" }), 80).await?;
    let one = quay.guest("one", json!({ IPS: "192.0.2.3", KEY: "key" }), 80).await?;
    let two = quay.guest("two", json!({ IPS: "192.0.2.3", KEY: "key" }), 81).await?;
    let local = quay.guest("local", json!({ IPS: "192.0.2.3", KEY: "key" }), 82).await?;

    quay.annotate("web", json!({ IPS: "the one with the view" })).await?;
    let port = |port: u16| json!({ "spec": { "ports": [{ "name": "main", "port": port }] } });
    quay.yard.patch("two", port(80)).await?;
    quay.yard.patch("local", json!({ "spec": { "externalTrafficPolicy": "Local" } })).await?;
    let told = [
        ("web", "SyncLoadBalancerFailed", "is not an IP address"),
        ("local", "AddressUnavailable", "externalTrafficPolicy Cluster"),
        ("two", "AddressUnavailable", "port TCP/80 is in use"),
    ];
    for (name, reason, part) in told {
        quay.yard.told(name, reason, part).await?;
    }
    quay.counted("invalid_address", 1.0).await?;
    quay.counted("sharing_conflict", 2.0).await?;
    let guests = [&web, &one, &two, &local];
    quay.all_are_told_of_nodes(&guests).await?;
    for (name, reason, part) in told {
        quay.told_once(name, reason, part).await?;
    }
    quay.another_leader().await?;
    quay.all_are_told_of_nodes(&guests).await?;

    // A bad address keeps nothing else from being followed, nor a lost load balancer from being made again.
    quay.yard.patch("web", port(8080)).await?;
    quay.yard.balancer(&web.uid, "it has the new port", |one| one.ports[0].port == 8080).await?;
    for guest in [&web, &one] {
        quay.yard.cloud.command(&Command::LoseLoadBalancer { uid: guest.uid.clone() }).await?;
        let back = |one: &Balancer| one.id != guest.before.id && one.addresses == guest.before.addresses;
        quay.yard.balancer(&guest.uid, "it is there again, at its address", back).await?;
    }
    quay.yard.patch("two", port(83)).await?;
    quay.yard.balancer(&two.uid, "it is as it is wanted", |one| one.ports[0].port == 83).await?;
    for name in ["local", "one", "two"] {
        quay.yard.delete(name).await?;
        quay.yard.gone(&path(name)).await?;
    }
    Ok(())
}

/// Each has its event and its count, and `web` stays where it is until it asks for what there is.
async fn each_problem_is_told_and_counted_once(quay: &mut Quay) -> Result<()> {
    let other = quay.guest("other", json!({ IPS: "192.0.2.4" }), 80).await?;
    let problems = [
        (json!({ IPS: null, POOL: "nine" }), "AddressUnavailable", "there is no AddressPool nine", "no_such_pool"),
        (json!({ IPS: "198.51.100.9", POOL: null }), "AddressUnavailable", "in no AddressPool", "outside_pool"),
        (json!({ IPS: "192.0.2.4" }), "AddressUnavailable", "in use by harbour/other", "in_use"),
        (
            json!({ IPS: "192.0.2.1", "quarterdeck.dev/load-balancer-ip": "x" }),
            "UnknownAnnotation",
            "quarterdeck.dev/load-balancer-ips may be meant",
            "unknown_annotation",
        ),
    ];
    for (annotations, event, part, reason) in problems {
        quay.annotate("web", annotations).await?;
        quay.told_once("web", event, part).await?;
        quay.counted(reason, 1.0).await?;
        ensure!(shown(&quay.yard.service("web").await?) == ["192.0.2.1"], "{part}");
    }
    // What the provider does not know is the provider's to refuse.
    let uid = quay.yard.service("web").await?["metadata"]["uid"].as_str().context("a uid")?.to_owned();
    let before = quay.yard.balancer(&uid, "it is there", |_| true).await?;
    let web = Guest { name: "web", uid, before };
    quay.annotate("web", json!({ "sim.quarterdeck.dev/x": "" })).await?;
    quay.yard.told("web", "SyncLoadBalancerFailed", "means nothing to sim").await?;
    quay.all_are_told_of_nodes(&[&web, &other]).await?;

    quay.annotate("web", json!({ "sim.quarterdeck.dev/x": null, IPS: "192.0.2.5" })).await?;
    let moved = |one: &Balancer| one.addresses[0].to_string() == "192.0.2.5";
    quay.yard.balancer(&web.uid, "it has what it asks for now", moved).await?;
    eventually("its former address is given back", PATIENCE, async || {
        let held = quay.held_by(&web.uid).await?;
        ensure!(held == ["192.0.2.5"], "{held:?}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_cannot_be_met_cost_nothing() -> Result<()> {
    let cloud = CloudSim::builder().args(["--needs-addresses"]).start().await?;
    let yard = Yard::open(ControlPlane::start().await?, cloud, 1).await?;
    let pool = json!({
        "apiVersion": "cloud.quarterdeck.dev/v1alpha1", "kind": "AddressPool",
        "metadata": { "name": "only" }, "spec": { "addresses": ["192.0.2.0/29"] },
    });
    yard.send("POST", "/apis/cloud.quarterdeck.dev/v1alpha1/addresspools", pool).await?;
    yard.node("n-1", json!({})).await?;
    let mut quay = Quay { yard, nodes: 1 };
    the_impossible_costs_nothing(&mut quay).await?;
    each_problem_is_told_and_counted_once(&mut quay).await?;
    for name in ["web", "other"] {
        quay.yard.delete(name).await?;
        quay.yard.gone(&path(name)).await?;
    }
    quay.yard.cloud.owned_by(&[]).await
}
