//! 2,000 pods of one crowded namespace change their readiness, 100 a second.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use parking_lot::Mutex;
use quarterdeck_it::audit::Event;
use serde_json::{Value, json};

use crate::api::{Change, Http, Watch, seconds};
use crate::audit::Requests;
use crate::contestant::{Crew, Side};
use crate::load::{conditions, pod_name, pod_status_path};
use crate::memory::{CONTROLLERS, NODES, PODS, SERVICES, written};
use crate::report::{Collector, Goal, Report, percentile};
use crate::yard::{ENDPOINTS, SLICES, Yard};

const FLIPS: usize = 2000;
const PAUSE: Duration = Duration::from_millis(10);
/// Flips that wait for the server's answer at most: more would only be connections to open.
const AT_ONCE: usize = 64;
/// Prime to the number of pods, so that flips in a row are of other services.
const STRIDE: usize = 2711;

/// The pods that flip: where to, and when the server had answered.
struct Flips {
    ready: bool,
    answered: Mutex<HashMap<String, Instant>>,
}

/// Tells which pods an object names, and which of them it calls ready.
type Readiness = fn(&Value, &mut dyn FnMut(&str, bool));

/// Measures processor time, delay and writes.
pub(crate) async fn run(yard: &mut Yard, report: &mut Report) -> Result<()> {
    yard.fill(PODS, SERVICES, NODES).await?;
    // What a run that was cut off left in a control plane that is kept.
    turn_all(&yard.http, true).await?;
    let goal = Goal::AtMost(2000.0);
    let mut cpu = Collector::new("2,000 flips: CPU until all are seen", "s", Goal::Ratio(0.1));
    let mut sent = Collector::new("2,000 flips: until all were answered", "s", Goal::None);
    let mut p50 = Collector::new("flip → slice seen, p50", "s", Goal::Ratio(0.1));
    let mut p99 = Collector::new("flip → slice seen, p99", "s", Goal::Ratio(0.2));
    let mut endpoints_p99 = Collector::new("flip → Endpoints seen, p99", "s", Goal::None);
    let mut slices = Collector::new("2,000 flips: writes of slices", "writes", goal);
    let mut endpoints = Collector::new("2,000 flips: writes of Endpoints", "writes", goal);
    let mut refused = Collector::new("2,000 flips: writes that were refused", "writes", Goal::None);
    for round in 0..report.rounds(5) {
        // Each round turns the other way, so that the next one finds all pods ready.
        for (place, side) in Side::both(round).into_iter().enumerate() {
            yard.clear().await?;
            let crew = Crew::start(&yard.control_plane, &yard.http, side, &CONTROLLERS, 1, &[]).await?;
            written(yard, PODS).await?;
            let audit = yard.control_plane.audit_from_now()?;
            let before = crew.cpu()?;
            let flipped = flip(&yard.http, place == 1).await?;
            cpu.add(side, crew.cpu()? - before);
            sent.add(side, flipped.sent);
            p50.add(side, percentile(&flipped.slices, 0.5).unwrap_or(f64::NAN));
            p99.add(side, percentile(&flipped.slices, 0.99).unwrap_or(f64::NAN));
            endpoints_p99.add(side, percentile(&flipped.endpoints, 0.99).unwrap_or(f64::NAN));
            let requests = Requests::since(&yard.control_plane, audit, side).await?;
            let written = |resource: &'static str| {
                move |event: &Event| event.is_write() && event.succeeded() && event.resource() == resource
            };
            slices.add(side, requests.count(written("endpointslices.discovery.k8s.io")));
            endpoints.add(side, requests.count(written("endpoints")));
            refused.add(side, requests.count(|event| event.is_write() && !event.succeeded() && !event.is_dry_run()));
            crew.stop().await?;
        }
    }
    report.take("flips", [cpu, sent, p50, p99, endpoints_p99, slices, endpoints, refused]);
    Ok(())
}

/// What became of the flips, in seconds.
struct Flipped {
    /// From each answer to the slice that shows it.
    slices: Vec<f64>,
    /// From each answer to the Endpoints that show it.
    endpoints: Vec<f64>,
    /// Until all were answered; 20 when the server keeps pace.
    sent: f64,
}

/// Flips the pods, and waits until all are seen.
async fn flip(http: &Http, ready: bool) -> Result<Flipped> {
    let flips = Arc::new(Flips { ready, answered: Mutex::new(HashMap::new()) });
    let slices = http.watch(SLICES).await?;
    let endpoints = http.watch(ENDPOINTS).await?;
    let slices = tokio::spawn(see(slices, Arc::clone(&flips), readiness_in_slice));
    let endpoints = tokio::spawn(see(endpoints, Arc::clone(&flips), readiness_in_endpoints));
    let begun = tokio::time::Instant::now();
    let work = |http: Http, number: usize| {
        let flips = Arc::clone(&flips);
        let pod = number * STRIDE % PODS;
        async move {
            // By the clock, not one after another: a slow answer delays no other flip.
            tokio::time::sleep_until(begun + PAUSE * u32::try_from(number)?).await;
            turn(&http, pod, ready).await?;
            flips.answered.lock().insert(pod_name(pod), Instant::now());
            Ok(())
        }
    };
    http.for_each(0..FLIPS, AT_ONCE, work).await?;
    let sent = begun.elapsed().as_secs_f64();
    let seen = (slices.await??, endpoints.await??);
    let answered = flips.answered.lock();
    let delays = |seen: &HashMap<String, Instant>| {
        seen.iter().filter_map(|(pod, &at)| answered.get(pod).map(|&from| seconds(from, at))).collect()
    };
    Ok(Flipped { slices: delays(&seen.0), endpoints: delays(&seen.1), sent })
}

/// Makes a pod ready or not.
async fn turn(http: &Http, pod: usize, ready: bool) -> Result<()> {
    let patch = json!({ "status": { "conditions": conditions(ready) } });
    http.merge(&pod_status_path(pod), &patch).await.map(drop)
}

/// Makes all pods that flip ready or not.
async fn turn_all(http: &Http, ready: bool) -> Result<()> {
    let work = move |http: Http, number: usize| async move { turn(&http, number * STRIDE % PODS, ready).await };
    http.for_each(0..FLIPS, AT_ONCE, work).await
}

/// Reads events until every flipped pod was seen as it should be; returns when that was.
async fn see(mut watch: Watch, flips: Arc<Flips>, readiness: Readiness) -> Result<HashMap<String, Instant>> {
    let wanted: Vec<_> = (0..FLIPS).map(|number| pod_name(number * STRIDE % PODS)).collect();
    let mut waiting: std::collections::HashSet<_> = wanted.iter().map(String::as_str).collect();
    let mut seen = HashMap::new();
    while !waiting.is_empty() {
        let event = watch.next().await?;
        if event.change == Change::Deleted {
            continue;
        }
        readiness(&event.object, &mut |pod, ready| {
            if ready == flips.ready && waiting.remove(pod) {
                seen.insert(pod.to_owned(), event.at);
            }
        });
    }
    Ok(seen)
}

fn list<'a>(object: &'a Value, field: &str) -> &'a [Value] {
    object[field].as_array().map_or(&[], Vec::as_slice)
}

fn readiness_in_slice(slice: &Value, tell: &mut dyn FnMut(&str, bool)) {
    for endpoint in list(slice, "endpoints") {
        let pod = endpoint["targetRef"]["name"].as_str().unwrap_or_default();
        tell(pod, endpoint["conditions"]["ready"] == true);
    }
}

fn readiness_in_endpoints(endpoints: &Value, tell: &mut dyn FnMut(&str, bool)) {
    for subset in list(endpoints, "subsets") {
        for (field, ready) in [("addresses", true), ("notReadyAddresses", false)] {
            for address in list(subset, field) {
                tell(address["targetRef"]["name"].as_str().unwrap_or_default(), ready);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_tell_which_pods_are_ready() {
        let slice = json!({ "endpoints": [
            { "targetRef": { "name": "a" }, "conditions": { "ready": true } },
            { "targetRef": { "name": "b" }, "conditions": { "ready": false } },
        ] });
        let endpoints = json!({ "subsets": [{
            "addresses": [{ "targetRef": { "name": "a" } }],
            "notReadyAddresses": [{ "targetRef": { "name": "b" } }],
        }] });
        let forms: [(Value, Readiness); 2] = [(slice, readiness_in_slice), (endpoints, readiness_in_endpoints)];
        for (object, readiness) in forms {
            let mut told = Vec::new();
            readiness(&object, &mut |pod, ready| told.push((pod.to_owned(), ready)));
            assert_eq!(told, [("a".to_owned(), true), ("b".to_owned(), false)]);
        }
    }

    #[test]
    fn no_pod_flips_twice() {
        let pods: std::collections::HashSet<_> = (0..FLIPS).map(|number| number * STRIDE % PODS).collect();
        assert_eq!(pods.len(), FLIPS);
    }
}
