//! A cloud that answers nothing for ever: others' work, the end of its calls, the stop of the process.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use quarterdeck_it::cloud::{Fault, Moment, Rule};
use quarterdeck_it::deck::Replica;
use quarterdeck_it::{Deck, eventually};
use serde_json::json;

use super::place::{NAMESPACE, Place, UNLIMITED, count, has_address, name, new_node, service, services};
use super::queues::Waits;
use crate::api::{Change, Http, seconds};
use crate::contestant::{LONG, Side};
use crate::report::{Collector, Goal, Scale, percentile};

/// Deadline of all calls where their end is measured.
const DEADLINE: Duration = Duration::from_secs(2);
const TIMEOUTS: &str = "--cloud-timeout=read=2s,batch=2s,route=2s,loadbalancer=2s";
/// The bound of the calls' histogram that comes next after [`DEADLINE`].
const LATE: &str = "2.5";
/// Load balancers that the cloud has.
const BALANCERS: usize = 50;
/// Calls that have to hang before anything is measured: the places that a provider has for load balancers.
const HANG: usize = 20;
/// From the change of the load balancers to the first probe.
const SETTLE: Duration = Duration::from_secs(3);
/// Services whose slices are waited for, one by one, in a turn with and in one without the cloud hanging.
const PROBES: usize = 400;
/// Turns of each.
const TURNS: usize = 5;
const SECONDS: &str = "quarterdeck_cloudprovider_api_request_duration_seconds";

/// What Services and keys of others waited in turns of one kind.
#[derive(Default)]
struct Turns {
    slices: Vec<f64>,
    waits: Waits,
}

pub(super) async fn measure(scale: Scale) -> Result<Vec<Collector>> {
    let place = Place::open(&[]).await?;
    let mut figures = others(&place, scale).await?;
    figures.extend(ends(&place, scale).await?);
    Ok(figures)
}

/// Turns with and without the cloud hanging, on one replica with every controller.
async fn others(place: &Place, scale: Scale) -> Result<Vec<Collector>> {
    let deck = place.deck("*", 1, &UNLIMITED).await?;
    furnish(place, scale.size(BALANCERS)).await?;
    let (mut well, mut hung) = (Turns::default(), Turns::default());
    for turn in 0..scale.rounds(TURNS) {
        stir(place, scale, &format!("well-{turn}")).await?;
        calm(&deck).await?;
        probe(place, deck.replica(0), scale, &format!("well-{turn}"), &mut well).await?;
        place.cloud.fault(Rule::new("*", Fault::Hang { at: Moment::Before })).await?;
        stir(place, scale, &format!("hung-{turn}")).await?;
        hanging(place, scale).await?;
        // What the change itself made others do is over by then: the other turns begin at rest, too.
        tokio::time::sleep(SETTLE).await;
        probe(place, deck.replica(0), scale, &format!("hung-{turn}"), &mut hung).await?;
        ensure!(!place.cloud.dump().await?.held.is_empty(), "the cloud hung to the end of the turn");
        place.cloud.heal().await?;
    }
    super::place::stop(&deck).await?;

    let mut figures = Vec::new();
    let mut figure = |name: &str, unit, goal, value: f64| {
        let mut figure = Collector::new(name, unit, goal);
        figure.add(Side::Ours, value);
        figures.push(figure);
    };
    let p99 = |turns: &Turns| percentile(&turns.slices, 0.99).unwrap_or(f64::NAN);
    figure(
        "Service made → its slice, p99, a cloud hangs ÷ it does not (upstream: all workers stuck)",
        "×",
        Goal::AtMost(1.05),
        p99(&hung) / p99(&well),
    );
    figure("the same p99, while a cloud hangs", "s", Goal::None, p99(&hung));
    let p50 = |turns: &Turns| percentile(&turns.slices, 0.5).unwrap_or(f64::NAN);
    figure("the same, p50, a cloud hangs ÷ it does not", "×", Goal::None, p50(&hung) / p50(&well));
    figure(
        "queue latency of all other controllers, p99 by its histogram, a cloud hangs ÷ it does not",
        "×",
        Goal::AtMost(1.05),
        hung.waits.quantile(0.99) / well.waits.quantile(0.99),
    );
    figure("the same p99, while a cloud hangs", "ms", Goal::None, 1_000.0 * hung.waits.quantile(0.99));
    figure("the same, mean, a cloud hangs ÷ it does not", "×", Goal::None, hung.waits.mean() / well.waits.mean());
    eprintln!("   {} keys waited while the cloud hung, {} while not", hung.waits.count(), well.waits.count());
    Ok(figures)
}

/// Load balancers that are there, and nodes, so that every controller of clouds has to do.
async fn furnish(place: &Place, balancers: usize) -> Result<()> {
    for index in 0..5 {
        let name = format!("node-{index}");
        place.cloud.add_instance(&name).await?;
        place.http.create("/api/v1/nodes", &new_node(&name)).await?;
    }
    let make = |http: Http, index: usize| async move {
        http.create(&services(), &service(&format!("balancer-{index:03}"), "LoadBalancer")).await
    };
    place.http.for_each(0..balancers, 16, make).await?;
    eventually("every Service has an address", LONG, async || {
        let list = place.http.get(&services()).await?;
        let done = list["items"].as_array().into_iter().flatten().filter(|service| has_address(service)).count();
        ensure!(done == balancers, "{done} of {balancers}");
        Ok(())
    })
    .await
}

/// Gives the controllers of clouds something to do: each load balancer has to change.
async fn stir(place: &Place, scale: Scale, word: &str) -> Result<()> {
    let word = word.to_owned();
    let change = |http: Http, index: usize| {
        let annotation = json!({ "metadata": { "annotations": { "example.com/stirred": word } } });
        async move {
            http.merge(&format!("{}/balancer-{index:03}", services()), &annotation).await?;
            Ok(())
        }
    };
    place.http.for_each(0..scale.size(BALANCERS), 16, change).await
}

/// Waits until calls hang, as many as may be made at once.
async fn hanging(place: &Place, scale: Scale) -> Result<()> {
    let most = HANG.min(scale.size(BALANCERS));
    eventually("calls hang", LONG, async || {
        let held = place.cloud.dump().await?.held;
        let balancers = held.iter().filter(|held| held.method.starts_with("loadbalancers.")).count();
        ensure!(balancers >= most, "{balancers} of {most}; held: {held:?}");
        Ok(())
    })
    .await
}

/// Waits until nothing is left over of a turn in which the cloud hung: it is not left alone any more, no call runs, and
/// no key waits or is given back for a while.
async fn calm(deck: &Deck) -> Result<()> {
    let replica = deck.replica(0);
    let busy = async || -> Result<f64> {
        let running = replica.metric("quarterdeck_cloudprovider_inflight", &[]).await?;
        let depth = replica.metric("workqueue_depth", &[]).await?;
        let unfinished = replica.metric("workqueue_unfinished_work_seconds", &[]).await?;
        Ok(running + depth + unfinished)
    };
    let ended = async || replica.metric(&format!("{SECONDS}_count"), &[]).await;
    eventually("the cloud's controllers are at rest", LONG, async || {
        let before = ended().await?;
        // Longer than the first delay after a failure.
        tokio::time::sleep(Duration::from_secs(6)).await;
        let (after, busy) = (ended().await?, busy().await?);
        let closed = replica.metric("quarterdeck_cloudprovider_breaker_state", &[("state", "closed")]).await?;
        ensure!(closed > 0.5, "the cloud is left alone");
        // A node's lifecycle is looked at every five seconds.
        ensure!(after - before < 6.0 && busy < 0.5, "{} calls ended, {busy}", after - before);
        Ok(())
    })
    .await
}

/// A turn: the seconds from the making of each Service to its slice, one at a time.
async fn probe(place: &Place, replica: &Replica, scale: Scale, prefix: &str, turns: &mut Turns) -> Result<()> {
    let slices = format!("/apis/discovery.k8s.io/v1/namespaces/{NAMESPACE}/endpointslices");
    let mut watch = place.http.watch(&slices).await?;
    let before = Waits::read(replica).await?;
    for index in 0..scale.size(PROBES) {
        let own = format!("{prefix}-{index}");
        let begun = Instant::now();
        place.http.create(&services(), &service(&own, "ClusterIP")).await?;
        let is_own = |object: &serde_json::Value| object["metadata"]["labels"]["kubernetes.io/service-name"] == own;
        let seen = watch.until("the slice", |seen| seen.change == Change::Added && is_own(&seen.object)).await?;
        turns.slices.push(seconds(begun, seen.at));
    }
    turns.waits.add(&Waits::read(replica).await?.since(&before));
    // Each turn has as many Services as the others had.
    let list = place.http.get(&services()).await?;
    let old: Vec<String> = list["items"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|service| name(service).to_owned())
        .filter(|name| name.starts_with(prefix))
        .collect();
    let delete = |http: Http, name: String| async move { http.delete(&format!("{}/{name}", services())).await };
    place.http.for_each(old, 16, delete).await
}

/// When calls are given up, and how soon a process with calls that hang ends.
async fn ends(place: &Place, scale: Scale) -> Result<Vec<Collector>> {
    let mut given_up = Collector::new(
        "a hung call is given up so long after its deadline, on average (upstream: never)",
        "s",
        Goal::AtMost(0.25),
    );
    let mut late = Collector::new("calls given up more than 0.5 s after it", "calls", Goal::AtMost(0.0));
    let mut stop = Collector::new("SIGTERM → process ended, while calls hang", "s", Goal::AtMost(2.0));
    for round in 0..scale.rounds(5) {
        let deck = place.deck("*", 1, &[UNLIMITED[0], UNLIMITED[1], TIMEOUTS]).await?;
        place.cloud.fault(Rule::new("*", Fault::Hang { at: Moment::Before })).await?;
        stir(place, scale, &format!("end-{round}")).await?;
        let replica = deck.replica(0);
        let most = count(HANG.min(scale.size(BALANCERS)))?;
        let outcome = [("outcome", "timeout")];
        let ended = eventually("calls were given up", LONG, async || {
            let ended = replica.metric(&format!("{SECONDS}_count"), &outcome).await?;
            ensure!(ended >= most, "{ended} of {most}");
            Ok(ended)
        })
        .await?;
        // Of a scrape after the count: it may be of a few calls more.
        let sum = replica.metric(&format!("{SECONDS}_sum"), &outcome).await?;
        let now = replica.metric(&format!("{SECONDS}_count"), &outcome).await?;
        let in_time = replica.metric(&format!("{SECONDS}_bucket"), &[outcome[0], ("le", LATE)]).await?;
        eprintln!("   {ended} calls were given up");
        given_up.add(Side::Ours, sum / now - DEADLINE.as_secs_f64());
        late.add(Side::Ours, (now - in_time).max(0.0));
        // The breaker leaves the cloud alone; calls that hang are those with which it tries it again.
        stir(place, scale, &format!("stop-{round}")).await?;
        eventually("a call hangs", LONG, async || {
            ensure!(!place.cloud.dump().await?.held.is_empty(), "none does");
            Ok(())
        })
        .await?;
        let begun = Instant::now();
        replica.process().stop(Duration::from_secs(30)).await?;
        stop.add(Side::Ours, begun.elapsed().as_secs_f64());
        place.cloud.heal().await?;
    }
    Ok(vec![given_up, late, stop])
}
