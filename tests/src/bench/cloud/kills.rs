//! Leaders that are killed while load balancers are being made and others deleted: what is there twice, and what is
//! left over.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use quarterdeck_it::{Deck, eventually};
use serde_json::{Value, json};

use super::place::{Place, address, count, name, service, services};
use crate::api::{Http, seconds};
use crate::contestant::{LONG, Side};
use crate::report::{Collector, Goal, Scale};

/// Load balancers that are being made when a leader is killed.
const SERVICES: usize = 100;
/// How many leaders are killed.
const KILLS: usize = 50;
const CONTROLLER: &str = "service-lb-controller";
/// What is not well by then stays so, and is counted.
const SETTLED: Duration = Duration::from_secs(60);
/// A cloud that takes 0.3 s for each call and half a second to make a load balancer, of addresses that are reserved.
const CLOUD: [&str; 3] = ["--needs-addresses", "--change-ms=300", "--provision-ms=500"];
const FLAGS: [&str; 5] = [
    "--leader-elect-lease-duration=4s",
    "--leader-elect-renew-deadline=3s",
    "--leader-elect-retry-period=500ms",
    "--load-balancer-audit-period=1s",
    "--load-balancer-orphan-grace=1s",
];

/// What went wrong.
#[derive(Default)]
struct Faults {
    /// Load balancers of a Service beyond the first, and addresses that several Services show.
    duplicates: usize,
    /// Load balancers of Services that are gone, what is left of one, and reservations of nobody.
    leaks: usize,
    /// Services that showed one address and later another.
    moved: usize,
}

/// The Services of now, by uid.
type Services = BTreeMap<String, Value>;

pub(super) async fn measure(scale: Scale) -> Result<Vec<Collector>> {
    let kills = scale.rounds(KILLS);
    let about = format!("{SERVICES} load balancers being made and as many deleted, SIGKILL ×{kills}");
    let mut duplicates = Collector::new(format!("{about}: there twice"), "duplicates", Goal::AtMost(0.0));
    let mut leaks = Collector::new(format!("{about}: left over"), "leaks", Goal::AtMost(0.0));
    let mut moved = Collector::new("the same: addresses that changed", "duplicates", Goal::AtMost(0.0));
    let mut healed = Collector::new("the same: SIGKILL → all are made", "s", Goal::None);

    let place = Place::open(&CLOUD).await?;
    let deck = place.deck(CONTROLLER, 3, &FLAGS).await?;
    let pool = json!({
        "apiVersion": "cloud.quarterdeck.dev/v1alpha1", "kind": "AddressPool",
        "metadata": { "name": "all" }, "spec": { "addresses": ["10.200.0.0/16"] },
    });
    place.http.create("/apis/cloud.quarterdeck.dev/v1alpha1/addresspools", &pool).await?;
    let mut faults = Faults::default();
    for kill in 0..kills {
        let took = round(&place, &deck, scale, kill, &mut faults).await.with_context(|| format!("kill {kill}"))?;
        healed.add(Side::Ours, took);
    }
    faults.leaks += reservations(&place, &list(&place.http).await?).await?;
    duplicates.add(Side::Ours, count(faults.duplicates)?);
    leaks.add(Side::Ours, count(faults.leaks)?);
    moved.add(Side::Ours, count(faults.moved)?);
    for replica in deck.replicas() {
        replica.process().stop(Duration::from_secs(30)).await?;
    }
    Ok(vec![duplicates, leaks, moved, healed])
}

/// New Services are made, those of the round before deleted, and the leader killed in the middle of it. Returns the
/// seconds from the kill until all is done.
async fn round(place: &Place, deck: &Deck, scale: Scale, kill: usize, faults: &mut Faults) -> Result<f64> {
    let number = scale.size(SERVICES);
    let old: Vec<String> = list(&place.http).await?.values().map(|one| name(one).to_owned()).collect();
    let make = |http: Http, index: usize| async move {
        http.create(&services(), &service(&format!("round-{kill}-{index:03}"), "LoadBalancer")).await
    };
    let delete = |http: Http, name: String| async move { http.delete(&format!("{}/{name}", services())).await };
    let (made, deleted) = tokio::join!(place.http.for_each(0..number, 8, make), place.http.for_each(old, 8, delete));
    made.and(deleted)?;
    // Another part of them each time.
    let part = number * (1 + kill % 8) / 10;
    eventually("a part of them has an address", LONG, async || {
        let shown = shown(&list(&place.http).await?, kill);
        ensure!(shown.len() >= part, "{} of {part}", shown.len());
        Ok(())
    })
    .await?;
    let leader = deck.leader(LONG).await?;
    let begun = Instant::now();
    deck.replica(leader).process().kill().await?;
    let before = list(&place.http).await?;
    let before = shown(&before, kill);
    deck.replica(leader).restart()?;
    // All of them, and nothing else: what is not so in the end is counted.
    let end = Instant::now() + SETTLED;
    let mut twice = 0;
    let (now, state) = loop {
        let now = list(&place.http).await?;
        let state = place.cloud.state().await?;
        twice = twice.max(duplicates(&now, &state));
        let settled = now.len() == number && shown(&now, kill).len() == number && leaks(&now, &state) == 0;
        if settled || Instant::now() > end {
            break (now, state);
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    };
    let took = seconds(begun, Instant::now());
    let after = shown(&now, kill);
    ensure!(after.len() == number, "{} of {number} have an address after {SETTLED:?}", after.len());
    let left = leaks(&now, &state);
    if twice + left > 0 {
        eprintln!("   kill {kill}: {twice} duplicates, {left} leaks; left: {:?}", state.leftovers());
    }
    faults.duplicates += twice;
    faults.leaks += left;
    faults.moved += before.iter().filter(|(uid, address)| after.get(*uid).is_some_and(|now| now != *address)).count();
    Ok(took)
}

async fn list(http: &Http) -> Result<Services> {
    let list = http.get(&services()).await?;
    let uid = |one: &Value| Some((one["metadata"]["uid"].as_str()?.to_owned(), one.clone()));
    Ok(list["items"].as_array().context("a list of Services")?.iter().filter_map(uid).collect())
}

/// The addresses that Services of a round show, by uid.
fn shown(services: &Services, kill: usize) -> BTreeMap<String, String> {
    let own = format!("round-{kill}-");
    let of_round = services.iter().filter(|(_, one)| name(one).starts_with(&own));
    of_round.filter_map(|(uid, one)| Some((uid.clone(), address(one)?.to_owned()))).collect()
}

fn duplicates(services: &Services, state: &quarterdeck_it::cloud::State) -> usize {
    let owners: BTreeSet<&str> = state.balancers.values().map(|one| one.owner.uid.as_str()).collect();
    let balancers = state.balancers.len() - owners.len();
    // One that goes shows its address until the end; it is free as soon as the load balancer is gone.
    let staying = services.values().filter(|one| one["metadata"]["deletionTimestamp"].is_null());
    let shown: Vec<&str> = staying.filter_map(address).collect();
    let unique: BTreeSet<&str> = shown.iter().copied().collect();
    balancers + shown.len() - unique.len()
}

fn leaks(services: &Services, state: &quarterdeck_it::cloud::State) -> usize {
    let of_nobody = state.balancers.values().filter(|one| !services.contains_key(&one.owner.uid)).count();
    of_nobody + state.leftovers().len()
}

/// Reservations in the cluster that no Service holds, once nothing more happens.
async fn reservations(place: &Place, services: &Services) -> Result<usize> {
    let path = "/apis/cloud.quarterdeck.dev/v1alpha1/addressreservations";
    let of_nobody = async || -> Result<usize> {
        let list = place.http.get(path).await?;
        let items = list["items"].as_array().context("a list of reservations")?;
        let held = |item: &&Value| {
            let holders = item["spec"]["holders"].as_array();
            holders.into_iter().flatten().any(|one| one["uid"].as_str().is_some_and(|uid| services.contains_key(uid)))
        };
        Ok(items.len() - items.iter().filter(held).count())
    };
    let settled = eventually("no reservation is of nobody", SETTLED, async || {
        let left = of_nobody().await?;
        ensure!(left == 0, "{left}");
        Ok(())
    });
    if settled.await.is_ok() { Ok(0) } else { of_nobody().await }
}

#[cfg(test)]
mod tests {
    use quarterdeck_it::cloud::State;

    use super::*;

    fn cloud(balancers: &[(&str, &str)], reserved: &[&str]) -> State {
        let owner = |uid: &str| json!({ "cluster": "c", "namespace": "n", "name": uid, "uid": uid });
        let balancer = |(id, uid): &(&str, &str)| {
            let balancer = json!({
                "id": id, "owner": owner(uid), "addresses": [], "ports": [], "source_ranges": [],
                "external_traffic": "Cluster", "health_check_node_port": 0, "affinity": null, "backends": [],
                "hostname": "", "revision": 1, "phase": "active", "made_at": 0,
            });
            ((*id).to_owned(), serde_json::from_value(balancer).unwrap())
        };
        let reserved = reserved.iter().map(|uid| json!({ "address": "10.200.0.1", "owner": owner(uid) }));
        State {
            balancers: balancers.iter().map(balancer).collect(),
            reservations: reserved.map(|one| serde_json::from_value(one).unwrap()).collect(),
            ..State::default()
        }
    }

    fn cluster(shown: &[(&str, &str)]) -> Services {
        let service = |(uid, ip): &(&str, &str)| {
            let status = json!({ "loadBalancer": { "ingress": [{ "ip": ip }] } });
            ((*uid).to_owned(), json!({ "metadata": { "name": uid, "uid": uid }, "status": status }))
        };
        shown.iter().map(service).collect()
    }

    #[test]
    fn what_is_there_twice_or_left_over_is_counted() {
        let services = cluster(&[("a", "10.200.0.1"), ("b", "10.200.0.2")]);
        let well = cloud(&[("lb-1", "a"), ("lb-2", "b")], &["a", "b"]);
        assert_eq!((duplicates(&services, &well), leaks(&services, &well)), (0, 0));
        let twice = cloud(&[("lb-1", "a"), ("lb-2", "a"), ("lb-3", "b")], &[]);
        assert_eq!((duplicates(&services, &twice), leaks(&services, &twice)), (1, 0));
        let orphan = cloud(&[("lb-1", "a"), ("lb-2", "gone")], &["a", "long-gone"]);
        assert_eq!((duplicates(&services, &orphan), leaks(&services, &orphan)), (0, 2));
        let shared = cluster(&[("a", "10.200.0.1"), ("b", "10.200.0.1")]);
        assert_eq!(duplicates(&shared, &well), 1);
    }
}
