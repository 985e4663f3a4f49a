//! Standing by: caches are warm, a take-over reads nothing anew, and nothing happens at rest.

use std::time::Duration;

use anyhow::{Result, ensure};
use http::Request;
use k8s_openapi::api::core::v1::{Namespace, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::flowcontrol::v1::PriorityLevelConfiguration;
use kube::api::{Api, ListParams, PostParams};
use quarterdeck_it::audit::{Event, Stage};
use quarterdeck_it::deck::{GROUP, USER, renewed_lease};
use quarterdeck_it::{ControlPlane, Credentials, Deck, eventually};
use serde_json::json;

/// Time that anything gets on a loaded machine.
const LONG: Duration = Duration::from_secs(60);
const TIMING: [&str; 3] =
    ["--leader-elect-lease-duration=4s", "--leader-elect-renew-deadline=3s", "--leader-elect-retry-period=500ms"];
const NAMESPACE: &str = "standby";

/// Makes a service, and waits for its slice: the leader works.
async fn works(control_plane: &ControlPlane, name: &str) -> Result<()> {
    let client = control_plane.admin().await?;
    let service = json!({
        "metadata": { "name": name },
        "spec": { "selector": { "app": name }, "ports": [{ "port": 80 }] },
    });
    let services: Api<Service> = Api::namespaced(client.clone(), NAMESPACE);
    services.create(&PostParams::default(), &serde_json::from_value(service)?).await?;
    let slices: Api<EndpointSlice> = Api::namespaced(client, NAMESPACE);
    let of_service = ListParams::default().labels(&format!("kubernetes.io/service-name={name}"));
    eventually(&format!("a slice of {name}"), LONG, async || {
        ensure!(!slices.list(&of_service).await?.items.is_empty(), "none");
        Ok(())
    })
    .await
}

/// Waits for all caches of all replicas, also for those that nobody waits for: a definition that was
/// just made is served a moment later.
async fn all_caches_are_full(deck: &Deck) -> Result<()> {
    for replica in 0..3 {
        eventually(&format!("the caches of replica {replica} are full"), LONG, async || {
            let status = deck.replica(replica).status().await?;
            let informers = status.0["informers"].as_array().cloned().unwrap_or_default();
            let empty: Vec<_> = informers.iter().filter(|informer| informer["synced"] != true).collect();
            ensure!(!informers.is_empty() && empty.is_empty(), "{empty:?}");
            Ok(())
        })
        .await?;
    }
    Ok(())
}

fn of_a_replica(event: &Event) -> bool {
    event.user.groups.iter().any(|group| group.starts_with(GROUP))
}

/// A request that fills a cache anew: a list, or a watch other than the barrier's probe and the Lease's.
fn fills_a_cache(event: &Event) -> bool {
    let probe = event.request_uri.contains("fieldSelector=metadata.name");
    // A watch is told of when it begins and when it ends.
    let begun = event.verb == "list" || (event.verb == "watch" && event.stage == Stage::ResponseStarted);
    of_a_replica(event) && begun && !probe && !event.resource().starts_with("leases")
}

/// A write that changes an object, renewals aside. Reviews store nothing; they come from those who look at the replicas.
fn changes_an_object(event: &Event) -> bool {
    let resource = event.resource();
    let review = resource.starts_with("tokenreviews") || resource.starts_with("subjectaccessreviews");
    of_a_replica(event) && event.is_write() && !event.is_dry_run() && !review && !resource.starts_with("leases")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_take_over_reads_nothing_anew_and_rest_is_rest() {
    let control_plane = ControlPlane::builder().start().await.unwrap();
    control_plane.namespace(NAMESPACE).await.unwrap();
    let deck = Deck::builder(&control_plane).args(TIMING).start().await.unwrap();
    deck.ready(LONG).await.unwrap();
    let first = deck.leader(LONG).await.unwrap();
    works(&control_plane, "one").await.unwrap();

    // At rest: the stretch of ten renewals, after one in which all is told that came of the beginning.
    all_caches_are_full(&deck).await.unwrap();
    let mut busy = Vec::new();
    for _ in 0..2 {
        let mut rest = control_plane.audit_from_now().unwrap();
        rest.wait_for_count("renewals", 10, LONG, |event| renewed_lease(event, first)).await.unwrap();
        busy = rest.filter(|event| changes_an_object(event) || fills_a_cache(event)).unwrap();
    }
    let busy: Vec<_> = busy.iter().map(|event| format!("{} {}", event.verb, event.request_uri)).collect();
    assert!(busy.is_empty(), "at rest: {busy:#?}");

    // Killed, the next one takes over; that one is stopped, and the last one does.
    let mut takeovers = control_plane.audit_from_now().unwrap();
    deck.replica(first).process().kill().await.unwrap();
    let second = deck.leader(LONG).await.unwrap();
    assert_ne!(first, second);
    works(&control_plane, "two").await.unwrap();
    deck.replica(second).process().stop(LONG).await.unwrap();
    let third = deck.leader(LONG).await.unwrap();
    assert!(![first, second].contains(&third));
    works(&control_plane, "three").await.unwrap();
    control_plane.settle_audit().await.unwrap();
    let filled = takeovers.filter(fills_a_cache).unwrap();
    let filled: Vec<_> = filled.iter().map(|event| format!("{} {}", event.verb, event.request_uri)).collect();
    assert!(filled.is_empty(), "read anew: {filled:#?}");
    // What was looked for is there, at the start; and the barrier did ask.
    assert!(!control_plane.audit().filter(fills_a_cache).unwrap().is_empty());
    let probe = |event: &Event| of_a_replica(event) && event.request_uri.contains("fieldSelector=metadata.name");
    assert!(!takeovers.filter(|event| probe(event) && event.resource() == "services").unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn renewals_are_in_the_priority_level_of_leader_election() {
    let control_plane = ControlPlane::builder().start().await.unwrap();
    let deck = Deck::builder(&control_plane).replicas(1).args(TIMING).start().await.unwrap();
    deck.leader(LONG).await.unwrap();
    let levels: Api<PriorityLevelConfiguration> = Api::all(control_plane.admin().await.unwrap());
    let level = levels.get("leader-election").await.unwrap().metadata.uid.unwrap();
    let url = control_plane.apiserver(0).url();
    let client = control_plane.client(url, &Credentials::user(USER, &[])).await.unwrap();
    let path = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/quarterdeck";
    let ask = async |request: Request<Vec<u8>>| {
        let answer = client.send(request.map(Into::into)).await.unwrap();
        let level =
            answer.headers().get("x-kubernetes-pf-prioritylevel-uid").map(|uid| uid.to_str().unwrap().to_owned());
        (answer.status().as_u16(), level.unwrap_or_default())
    };
    let lease = client.request::<serde_json::Value>(Request::get(path).body(Vec::new()).unwrap()).await.unwrap();
    assert_eq!(ask(Request::get(path).body(Vec::new()).unwrap()).await, (200, level.clone()));
    // A renewal by another version than the present one is refused, in the level where it would be carried out.
    let mut stale = lease.clone();
    stale["metadata"]["resourceVersion"] = "1".into();
    let renewal = Request::put(path).header("content-type", "application/json").body(stale.to_string().into_bytes());
    assert_eq!(ask(renewal.unwrap()).await, (409, level.clone()));
    let watch = format!(
        "{}?watch=1&timeoutSeconds=1&fieldSelector=metadata.name=quarterdeck",
        path.trim_end_matches("/quarterdeck")
    );
    assert_eq!(ask(Request::get(watch).body(Vec::new()).unwrap()).await, (200, level.clone()));
    // What the same user asks otherwise is not.
    let namespaces: Api<Namespace> = Api::all(client.clone());
    assert!(namespaces.list(&ListParams::default()).await.is_err());
    let (_, other) = ask(Request::get("/api/v1/namespaces").body(Vec::new()).unwrap()).await;
    assert!(!other.is_empty() && other != level, "{other}");
}
