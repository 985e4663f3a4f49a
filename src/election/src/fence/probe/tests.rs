use std::convert::Infallible;

use http::{Request as HttpRequest, Response};
use http_body_util::Full;
use kube::client::Body;
use parking_lot::Mutex;
use tower::service_fn;

use super::*;
use crate::fence::{EPOCH_MESSAGE, NAMESPACE_MESSAGE};

fn token() -> EpochToken {
    EpochToken { lease_uid: "u".into(), transitions: 4 }
}

/// A server that answers a dry-run write with the status that `answer` gives for its token.
fn prover(mut answer: impl FnMut(&str) -> (u16, String) + Send + 'static) -> KubeFenceProver {
    let seen = Arc::new(Mutex::new(move |request: &HttpRequest<Body>| {
        let header = |name: &str| request.headers()[name].to_str().unwrap().to_owned();
        assert_eq!(request.method(), http::Method::POST);
        assert_eq!(request.uri().path(), "/api/v1/namespaces/kube-system/events");
        assert!(request.uri().query().unwrap_or_default().contains("dryRun=All"), "{}", request.uri());
        assert_eq!(header("impersonate-user"), PROBE_ACCOUNT);
        answer(&header("impersonate-extra-quarterdeck.dev%2fepoch-deck"))
    }));
    let service = service_fn(move |request: HttpRequest<Body>| {
        let (code, message) = seen.lock()(&request);
        let body = match code {
            201 => r#"{"metadata":{},"involvedObject":{}}"#.to_owned(),
            code => {
                serde_json::json!({"kind": "Status", "status": "Failure", "code": code, "message": message}).to_string()
            }
        };
        std::future::ready(Ok::<_, Infallible>(
            Response::builder().status(code).body(Full::new(body.into_bytes().into())).unwrap(),
        ))
    });
    KubeFenceProver::new(Client::new(service, "default"), "deck")
}

fn refused() -> (u16, String) {
    (
        403,
        format!(
            "events \"x\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: {EPOCH_MESSAGE}"
        ),
    )
}

fn admitted() -> (u16, String) {
    (201, String::new())
}

#[tokio::test(start_paused = true)]
async fn works_if_the_present_epoch_is_admitted_and_the_past_one_refused() {
    let prover = prover(|token| if token == "u/4" { admitted() } else { refused() });
    assert_eq!(prover.verify(&token()).await, Ok(FenceState::Verified));
}

#[tokio::test(start_paused = true)]
async fn is_absent_if_any_epoch_is_admitted() {
    assert_eq!(prover(|_| admitted()).verify(&token()).await, Ok(FenceState::Absent));
}

#[tokio::test(start_paused = true)]
async fn waits_for_a_server_that_lags_and_gives_up_on_a_dead_one() {
    let mut writes = 0;
    let lagging = prover(move |token| {
        writes += 1;
        let known = if writes > 6 { "u/4" } else { "u/3" };
        if token == known { admitted() } else { refused() }
    });
    assert_eq!(lagging.verify(&token()).await, Ok(FenceState::Verified));
    for admits in ["u/3", "none"] {
        let dead = prover(move |token| if token == admits { admitted() } else { refused() });
        let Ok(FenceState::Broken(reason)) = dead.verify(&token()).await else { panic!("must be broken") };
        assert!(reason.contains("the present epoch is refused"), "{reason}");
    }
}

#[tokio::test(start_paused = true)]
async fn missing_rights_and_errors_are_no_verdict() {
    for (code, message) in [(403, "user may not impersonate"), (500, "etcd is away"), (403, NAMESPACE_MESSAGE)] {
        let error = prover(move |_| (code, message.to_owned())).verify(&token()).await.unwrap_err();
        assert!(error.0.contains(message), "{error}");
    }
}
