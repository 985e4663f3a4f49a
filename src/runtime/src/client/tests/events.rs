use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use serde_json::json;

use super::server::{Server, json as answer, status};
use super::{clients, open_gate, stored};
use crate::client::Identity;
use crate::events::{EventSink, EventType, Reason, Recorder};

const FAILED: Reason = Reason::declared(EventType::Warning, "Failed", "Service");
const MADE: Reason = Reason::declared(EventType::Normal, "Made", "Service");

/// Long enough never to be over.
const LONG: Duration = Duration::from_secs(60);

fn about(name: &str) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".into()),
        kind: Some("Service".into()),
        namespace: Some("a".into()),
        name: Some(name.into()),
        ..Default::default()
    }
}

async fn sink(server: &Server, gate: quarterdeck_election::Gate) -> (EventSink, prometheus::Registry) {
    let registry = prometheus::Registry::new();
    (EventSink::start(&clients(server, gate).await, &registry).unwrap(), registry)
}

fn recorder(sink: &EventSink, component: &'static str) -> Recorder {
    sink.recorder(component, &Identity::system(component))
}

fn outcome(registry: &prometheus::Registry, component: &str, outcome: &str) -> u64 {
    let text = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
    let line = format!("quarterdeck_events_total{{component=\"{component}\",outcome=\"{outcome}\"}} ");
    text.lines().find_map(|found| found.strip_prefix(&line)?.parse().ok()).unwrap_or(0)
}

#[tokio::test]
async fn events_are_created_then_counted_under_the_controllers_account() {
    let server = Server::start(|_| async { answer(201, &stored("12")) }).await;
    let (gate, _keeper) = open_gate(true);
    let (sink, registry) = sink(&server, gate).await;
    let recorder = recorder(&sink, "endpoint-controller");
    for _ in 0..2 {
        recorder.event(&about("web"), FAILED, "no luck");
    }
    sink.flush(LONG).await;
    let [create, patch] = &server.seen()[..] else { panic!("two requests") };
    assert_eq!(create.uri.path(), "/api/v1/namespaces/a/events");
    assert_eq!(create.header("impersonate-user"), Some("system:serviceaccount:kube-system:endpoint-controller"));
    assert_eq!(create.body["involvedObject"]["name"], "web");
    let name = create.body["metadata"]["name"].as_str().unwrap();
    assert_eq!(patch.uri.path(), format!("/api/v1/namespaces/a/events/{name}"));
    assert_eq!((&patch.body["count"], &patch.body["message"]), (&json!(2), &json!("no luck")));
    assert_eq!(outcome(&registry, "endpoint-controller", "written"), 2);
}

#[tokio::test]
async fn an_event_that_the_server_forgot_is_written_again() {
    let server = Server::start(|seen| async move {
        if seen.uri.path().ends_with("/events") { answer(201, &stored("12")) } else { status(404, "NotFound", "") }
    })
    .await;
    let (gate, _keeper) = open_gate(true);
    let (sink, _) = sink(&server, gate).await;
    let recorder = recorder(&sink, "endpoint-controller");
    for _ in 0..2 {
        recorder.event(&about("web"), MADE, "luck");
    }
    sink.flush(LONG).await;
    let counts: Vec<_> = server.seen().iter().map(|seen| seen.body["count"].clone()).collect();
    assert_eq!(counts, [1, 2, 2]);
}

#[tokio::test]
async fn without_the_lease_nothing_is_written() {
    let server = Server::start(|_| async { answer(201, &stored("12")) }).await;
    let (gate, _keeper) = open_gate(true);
    gate.shut();
    let (sink, registry) = sink(&server, gate).await;
    recorder(&sink, "endpoint-controller").event(&about("web"), MADE, "luck");
    sink.flush(LONG).await;
    assert_eq!(server.seen().len(), 0);
    assert_eq!(outcome(&registry, "endpoint-controller", "not_leader"), 1);
}

#[tokio::test]
async fn a_component_whose_events_do_not_get_through_holds_up_no_other() {
    let (heard, mut hear) = tokio::sync::mpsc::unbounded_channel();
    let server = Server::start(move |seen| {
        let heard = heard.clone();
        async move {
            if seen.header("impersonate-user").unwrap().ends_with(":slow") {
                std::future::pending::<()>().await;
            }
            heard.send(()).unwrap();
            answer(201, &stored("12"))
        }
    })
    .await;
    let (gate, _keeper) = open_gate(true);
    let (sink, registry) = sink(&server, gate).await;
    let (slow, quick) = (recorder(&sink, "slow"), recorder(&sink, "quick"));
    for number in 0..3 {
        slow.event(&about(&format!("web-{number}")), MADE, "luck");
        quick.event(&about(&format!("web-{number}")), MADE, "luck");
    }
    // More than the queue holds: callers go on, and what is too much is counted.
    for _ in 0..2000 {
        slow.event(&about("web"), MADE, "luck");
    }
    assert!(outcome(&registry, "slow", "queue_full") >= 900);
    for _ in 0..3 {
        hear.recv().await.unwrap();
    }
    assert_eq!(outcome(&registry, "slow", "written"), 0);
    // It is not waited for without end, either.
    sink.flush(Duration::ZERO).await;
}
