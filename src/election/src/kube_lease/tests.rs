use std::convert::Infallible;

use http::{Request as HttpRequest, Response};
use http_body_util::{BodyExt as _, Full};
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tower::service_fn;

use super::*;
use crate::record::Change;

const WITHIN: Duration = Duration::from_millis(3875);

/// A server that gives one answer to everything, and what it was asked.
fn server(code: u16, body: String) -> (KubeLeases, mpsc::UnboundedReceiver<(String, Value)>) {
    let (asked, seen) = mpsc::unbounded_channel();
    let service = service_fn(move |request: HttpRequest<Body>| {
        let (asked, body) = (asked.clone(), body.clone());
        async move {
            let line = format!("{} {}", request.method(), request.uri());
            let sent = request.into_body().collect().await.unwrap().to_bytes();
            asked.send((line, serde_json::from_slice(&sent).unwrap_or_default())).unwrap();
            Ok::<_, Infallible>(Response::builder().status(code).body(Full::new(body.into_bytes().into())).unwrap())
        }
    });
    (KubeLeases::new(Client::new(service, "default"), "kube-system", "deck"), seen)
}

fn stored() -> Value {
    json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {
            "name": "deck", "namespace": "kube-system", "uid": "u", "resourceVersion": "41",
            "labels": {"keep": "me"}, "managedFields": [{"manager": "x"}],
        },
        "spec": {"holderIdentity": "a", "leaseDurationSeconds": 15, "leaseTransitions": 3},
    })
}

fn failure(code: u16, reason: &str) -> String {
    json!({"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": "no"}).to_string()
}

#[tokio::test]
async fn reads_and_replaces_with_the_version_and_keeps_what_others_wrote() {
    let (leases, mut seen) = server(200, stored().to_string());
    let view = leases.get(WITHIN).await.unwrap().unwrap();
    assert_eq!((&*view.uid, view.version_number(), view.record.transitions), ("u", Some(41), 3));
    let path = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/deck";
    assert_eq!(seen.recv().await.unwrap().0, format!("GET {path}?timeout=3875ms"));

    let record = view.record.next(Change::Take, "b", 15, jiff::Timestamp::UNIX_EPOCH);
    leases.replace(&view, &record, WITHIN).await.unwrap();
    let (line, body) = seen.recv().await.unwrap();
    assert!(line.starts_with(&format!("PUT {path}?")) && line.ends_with("timeout=3875ms"), "{line}");
    assert_eq!((&body["metadata"]["uid"], &body["metadata"]["resourceVersion"]), (&json!("u"), &json!("41")));
    assert_eq!((&body["metadata"]["labels"]["keep"], &body["metadata"]["managedFields"]), (&json!("me"), &Value::Null));
    assert_eq!((&body["spec"]["holderIdentity"], &body["spec"]["leaseTransitions"]), (&json!("b"), &json!(4)));
    assert_eq!(body["spec"]["renewTime"], json!("1970-01-01T00:00:00.000000Z"));
}

#[tokio::test]
async fn creates_without_a_version() {
    let (leases, mut seen) = server(201, stored().to_string());
    let record = Record::first("a", 15, jiff::Timestamp::UNIX_EPOCH);
    leases.create(&record, WITHIN).await.unwrap();
    let (line, body) = seen.recv().await.unwrap();
    assert!(line.starts_with("POST /apis/coordination.k8s.io/v1/namespaces/kube-system/leases?"), "{line}");
    assert_eq!((&body["metadata"]["name"], &body["metadata"]["resourceVersion"]), (&json!("deck"), &Value::Null));
}

#[tokio::test]
async fn tells_what_was_surely_not_written_from_what_may_have_been() {
    let record = Record::default();
    let cases = [
        (409, "AlreadyExists", LeaseError::Conflict),
        (409, "Conflict", LeaseError::Conflict),
        (404, "NotFound", LeaseError::NotFound),
        (403, "Forbidden", LeaseError::Rejected("403 no".into())),
        (429, "TooManyRequests", LeaseError::Rejected("429 no".into())),
        (500, "InternalError", LeaseError::Unknown("500 no".into())),
        (504, "Timeout", LeaseError::Unknown("504 no".into())),
    ];
    for (code, reason, expected) in cases {
        let (leases, _seen) = server(code, failure(code, reason));
        assert_eq!(leases.create(&record, WITHIN).await.unwrap_err(), expected);
    }
    let (leases, _seen) = server(404, failure(404, "NotFound"));
    assert_eq!(leases.get(WITHIN).await, Ok(None));
    let (leases, _seen) = server(200, "half an ans".into());
    assert!(matches!(leases.create(&record, WITHIN).await, Err(LeaseError::Unknown(_))));
}

#[tokio::test(start_paused = true)]
async fn a_silent_server_is_given_up_in_time() {
    let service = service_fn(|_: HttpRequest<Body>| std::future::pending::<Result<Response<Body>, Infallible>>());
    let leases = KubeLeases::new(Client::new(service, "default"), "kube-system", "deck");
    assert!(matches!(leases.get(WITHIN).await, Err(LeaseError::Unknown(_))));
}

#[tokio::test]
async fn watches_one_lease_by_name() {
    let mut lines = String::new();
    for kind in ["ADDED", "MODIFIED", "BOOKMARK", "DELETED"] {
        lines.push_str(&json!({"type": kind, "object": stored()}).to_string());
        lines.push('\n');
    }
    lines.push_str(
        &json!({"type": "ERROR", "object": {"kind": "Status", "code": 410, "message": "too old"}}).to_string(),
    );
    lines.push('\n');
    let (leases, mut seen) = server(200, lines);
    let sights: Vec<_> = leases.watch().await.unwrap().collect().await;
    let (line, _) = seen.recv().await.unwrap();
    assert!(line.contains("watch=true") && line.contains("fieldSelector=metadata.name%3Ddeck"), "{line}");
    let view = LeaseView::from(serde_json::from_value::<Lease>(stored()).unwrap());
    let is = || Ok(LeaseSight::Is(view.clone()));
    let expected = [is(), is(), Ok(LeaseSight::Gone(Some(41))), Err(LeaseError::Rejected("too old".into()))];
    assert_eq!(sights, expected);
}
