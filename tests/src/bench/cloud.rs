//! The cloud's controllers against the made-up cloud: what a hung cloud costs others, how few calls suffice, how soon
//! nodes and load balancers are done.
//!
//! The peer has no figures here: upstream's controllers run inside of each vendor's program only. What is known of
//! them stands in the names of the figures.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use quarterdeck_it::cloud::{CloudSim, Fault, Moment, Rule};
use quarterdeck_it::{ControlPlane, Deck, eventually};
use serde_json::{Value, json};

use crate::api::{Change, Http, seconds};
use crate::contestant::{LONG, Side};
use crate::report::{Collector, Goal, Report};

/// Deadline of calls where their end is measured.
const DEADLINE: Duration = Duration::from_secs(2);
/// Nodes of the cluster whose calls are counted.
const NODES: usize = 1_000;
/// Those of them that are not ready.
const NOT_READY: usize = 50;
/// For how long calls are counted.
const COUNTED: Duration = Duration::from_secs(300);
/// Load balancers that are made at once.
const BALANCERS: usize = 500;
/// Services whose slices are waited for, one by one, while a cloud hangs.
const PROBES: usize = 200;
const NAMESPACE: &str = "cloud";

/// Measures all of it, each on a server of its own.
pub(crate) async fn run(report: &mut Report) -> Result<()> {
    hung(report).await?;
    initialised(report).await?;
    calls(report).await?;
    balancers(report).await
}

struct Place {
    control_plane: ControlPlane,
    http: Http,
    cloud: CloudSim,
}

impl Place {
    async fn open() -> Result<Self> {
        let control_plane = ControlPlane::start().await?;
        let http = Http::new(&control_plane).await?;
        control_plane.namespace(NAMESPACE).await?;
        Ok(Self { control_plane, http, cloud: CloudSim::start().await? })
    }

    async fn deck(&self, controllers: &str, flags: &[&str]) -> Result<Deck> {
        let fixed = [
            self.cloud.flag(),
            format!("--controllers={controllers}"),
            "--kube-api-qps=5000".to_owned(),
            "--kube-api-burst=10000".to_owned(),
        ];
        let args = fixed.into_iter().chain(flags.iter().map(|&flag| flag.to_owned()));
        let deck = Deck::builder(&self.control_plane).replicas(1).args(args).start().await?;
        deck.ready(LONG).await?;
        deck.leader(LONG).await?;
        Ok(deck)
    }
}

fn node(name: &str, provider_id: &str, ready: bool) -> (Value, Value) {
    let object = json!({ "metadata": { "name": name }, "spec": { "providerID": provider_id } });
    let word = if ready { "True" } else { "Unknown" };
    (object, json!({ "status": { "conditions": [{ "type": "Ready", "status": word }] } }))
}

fn service(name: &str, kind: &str) -> Value {
    json!({
        "metadata": { "name": name },
        "spec": { "type": kind, "selector": { "app": name }, "ports": [{ "port": 80 }] },
    })
}

/// 99th percentile.
fn p99(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    let index = (values.len() * 99).div_ceil(100).saturating_sub(1);
    values.get(index).copied().unwrap_or(f64::NAN)
}

/// A cloud that answers nothing for ever: others' work, the end of its calls, the stop of the process.
async fn hung(report: &mut Report) -> Result<()> {
    let mut others = Collector::new(
        "Service made → its slice, p99, a cloud hangs ÷ it does not (upstream: all workers stuck)",
        "×",
        Goal::AtMost(1.05),
    );
    let mut given_up =
        Collector::new("a hung call is given up so long after its deadline (upstream: never)", "s", Goal::AtMost(0.25));
    let mut stop = Collector::new("SIGTERM → process ended, while calls hang", "s", Goal::AtMost(2.0));
    for round in 0..report.rounds(3) {
        let place = Place::open().await?;
        let timeouts = "--cloud-timeout=read=2s,batch=2s,route=2s,loadbalancer=2s";
        let deck = place.deck("*", &[timeouts]).await?;
        let without = slices(&place.http, &format!("well-{round}")).await?;
        place.cloud.fault(Rule::new("*", Fault::Hang { at: Moment::Before })).await?;
        let path = format!("/api/v1/namespaces/{NAMESPACE}/services");
        let make = |http: Http, index: usize| {
            let path = path.clone();
            async move { http.create(&path, &service(&format!("hung-{index}"), "LoadBalancer")).await }
        };
        place.http.for_each(0..50, 16, make).await?;
        eventually("calls hang", LONG, async || {
            let held = place.cloud.dump().await?.held.len();
            ensure!(held > 0, "none does");
            Ok(())
        })
        .await?;
        let with = slices(&place.http, &format!("hung-{round}")).await?;
        others.add(Side::Ours, with / without);
        let replica = deck.replica(0);
        let labels = [("outcome", "timeout")];
        let took = eventually("calls were given up", LONG, async || {
            let name = "quarterdeck_cloudprovider_api_request_duration_seconds";
            let count = replica.metric(&format!("{name}_count"), &labels).await?;
            ensure!(count > 0.0, "none was");
            Ok(replica.metric(&format!("{name}_sum"), &labels).await? / count)
        })
        .await?;
        given_up.add(Side::Ours, took - DEADLINE.as_secs_f64());
        let begun = Instant::now();
        replica.process().stop(Duration::from_secs(30)).await?;
        stop.add(Side::Ours, begun.elapsed().as_secs_f64());
    }
    report.take("cloud", [others, given_up, stop]);
    Ok(())
}

/// 99th percentile of the seconds from the making of a Service to its slice, one at a time.
async fn slices(http: &Http, prefix: &str) -> Result<f64> {
    let slices = format!("/apis/discovery.k8s.io/v1/namespaces/{NAMESPACE}/endpointslices");
    let mut watch = http.watch(&slices).await?;
    let mut all = Vec::with_capacity(PROBES);
    for index in 0..PROBES {
        let name = format!("{prefix}-{index}");
        let begun = Instant::now();
        http.create(&format!("/api/v1/namespaces/{NAMESPACE}/services"), &service(&name, "ClusterIP")).await?;
        let own = |object: &Value| object["metadata"]["labels"]["kubernetes.io/service-name"] == name.as_str();
        let seen = watch.until("the slice", |seen| seen.change == Change::Added && own(&seen.object)).await?;
        all.push(seconds(begun, seen.at));
    }
    Ok(p99(&mut all))
}

/// A new node with the taint of an uninitialised one: until the taint is gone.
async fn initialised(report: &mut Report) -> Result<()> {
    const TAINT: &str = "node.cloudprovider.kubernetes.io/uninitialized";
    let mut figure = Collector::new("tainted node → initialised", "s", Goal::P99AtMost(1.0));
    let place = Place::open().await?;
    let deck = place.deck("cloud-node-controller", &[]).await?;
    let mut watch = place.http.watch("/api/v1/nodes").await?;
    for index in 0..report.rounds(50) {
        let name = format!("new-{index}");
        place.cloud.add_instance(&name).await?;
        let object = json!({
            "metadata": { "name": name },
            "spec": { "taints": [{ "key": TAINT, "value": "true", "effect": "NoSchedule" }] },
        });
        let begun = Instant::now();
        place.http.create("/api/v1/nodes", &object).await?;
        let tainted = |object: &Value| {
            let taints = object["spec"]["taints"].as_array();
            taints.is_some_and(|taints| taints.iter().any(|taint| taint["key"] == TAINT))
        };
        let seen = watch
            .until("the node is initialised", |seen| {
                seen.object["metadata"]["name"] == name.as_str() && !tainted(&seen.object)
            })
            .await?;
        figure.add(Side::Ours, seconds(begun, seen.at));
    }
    deck.replica(0).process().stop(Duration::from_secs(30)).await?;
    report.take("cloud", [figure]);
    Ok(())
}

/// Calls in five minutes for a cluster of which a part is not ready.
async fn calls(report: &mut Report) -> Result<()> {
    let mut figure = Collector::new(
        format!("calls in 5 min, {NODES} nodes, {NOT_READY} not ready (upstream: 7,000)"),
        "calls",
        Goal::AtMost(20.0),
    );
    let place = Place::open().await?;
    let mut nodes = Vec::with_capacity(NODES);
    for index in 0..NODES {
        let name = format!("node-{index:04}");
        let provider_id = place.cloud.add_instance(&name).await?;
        nodes.push((name, provider_id));
    }
    let make = |http: Http, (index, (name, id)): (usize, (String, String))| async move {
        let (object, status) = node(&name, &id, index >= NOT_READY);
        http.create("/api/v1/nodes", &object).await?;
        http.merge(&format!("/api/v1/nodes/{name}/status"), &status).await?;
        Ok(())
    };
    place.http.for_each(nodes.into_iter().enumerate(), 32, make).await?;
    let deck = place.deck("cloud-node-controller,cloud-node-lifecycle-controller", &[]).await?;
    eventually("the cloud is asked", LONG, async || {
        let asked = place.cloud.calls("instances.*").await?.len();
        ensure!(asked > 0, "it is not");
        Ok(())
    })
    .await?;
    // The figure is of a span of time, not of an event.
    tokio::time::sleep(COUNTED).await;
    let asked = place.cloud.calls("*").await?.len();
    let asked = u32::try_from(asked).context("few enough to count")?;
    figure.add(Side::Ours, f64::from(asked));
    deck.replica(0).process().stop(Duration::from_secs(30)).await?;
    report.take("cloud", [figure]);
    Ok(())
}

/// Load balancers of a cloud that takes two seconds for each.
async fn balancers(report: &mut Report) -> Result<()> {
    let mut figure = Collector::new(
        format!("{BALANCERS} Services, the cloud takes 2 s each (upstream: 1,000 s)"),
        "s",
        Goal::AtMost(60.0),
    );
    let place = Place::open().await?;
    let slow = Fault::Delay { ms: 2_000, at: Moment::Before };
    place.cloud.fault(Rule::new("loadbalancers.ensure", slow)).await?;
    let deck = place.deck("service-lb-controller", &[]).await?;
    let path = format!("/api/v1/namespaces/{NAMESPACE}/services");
    let mut watch = place.http.watch(&path).await?;
    let begun = Instant::now();
    let make = |http: Http, index: usize| {
        let path = path.clone();
        async move { http.create(&path, &service(&format!("lb-{index:03}"), "LoadBalancer")).await }
    };
    place.http.for_each(0..BALANCERS, 32, make).await?;
    let mut done = std::collections::HashSet::new();
    let mut last = begun;
    while done.len() < BALANCERS {
        let seen = watch.next().await?;
        let ingress = seen.object["status"]["loadBalancer"]["ingress"].as_array();
        if ingress.is_some_and(|ingress| !ingress.is_empty())
            && let Some(name) = seen.object["metadata"]["name"].as_str()
            && done.insert(name.to_owned())
        {
            last = seen.at;
        }
    }
    figure.add(Side::Ours, seconds(begun, last));
    deck.replica(0).process().stop(Duration::from_secs(30)).await?;
    report.take("cloud", [figure]);
    Ok(())
}
