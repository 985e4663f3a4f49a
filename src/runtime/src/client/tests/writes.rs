use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Event};
use parking_lot::Mutex;
use quarterdeck_election::fence::EPOCH_MESSAGE;
use quarterdeck_election::{BootClock, Clock, Epoch, Gate};
use serde_json::json;

use super::server::{Server, json as answer, status};
use super::{clients, config_map, leading, open_gate, stored, token, versioned};
use crate::client::{
    Api, ApiError, ApplyOptions, ApplyTo, Class, DeletePrecondition, Expect, Identity, PatchPrecondition, Propagation,
    WriteLog,
};
use crate::object::{Kind, ObjectKey};

const FENCE_HEADER: &str = "impersonate-extra-quarterdeck.dev%2fepoch-quarterdeck";

fn one() -> (Kind, ObjectKey) {
    (Kind::of::<ConfigMap>(), ObjectKey::new("a", "one"))
}

async fn leading_behind(gate: Gate, server: &Server) -> Api {
    clients(server, gate).await.api(&Identity::system("endpoint-controller"))
}

#[tokio::test]
async fn a_write_says_who_it_is_and_how_long_it_may_take() {
    let server = Server::start(|_| async { answer(201, &stored("12")) }).await;
    let (api, _keeper) = leading(&server).await;
    let written = api.create(&config_map("one")).await.unwrap();
    assert_eq!((written.uid.as_str(), written.resource_version.as_str(), written.generation), ("u1", "12", 3));
    let seen = &server.seen()[0];
    assert_eq!(seen.uri, "/api/v1/namespaces/a/configmaps?timeout=375ms");
    assert_eq!(seen.header("impersonate-user"), Some("system:serviceaccount:kube-system:endpoint-controller"));
    assert_eq!(seen.header(FENCE_HEADER), Some("lease-uid/7"));
    assert!(seen.header("user-agent").unwrap().starts_with("quarterdeck/"));
    assert!(seen.header("accept").unwrap().contains("as=PartialObjectMetadata"));
    assert_eq!(seen.header("host"), Some(server.url().trim_start_matches("http://")));
    assert_eq!(seen.body["kind"], "ConfigMap");
}

#[tokio::test]
async fn the_managers_own_writes_carry_no_impersonation() {
    let server = Server::start(|_| async { answer(201, &stored("12")) }).await;
    let (gate, _keeper) = open_gate(true);
    clients(&server, gate).await.api(&Identity::Manager).create(&config_map("one")).await.unwrap();
    let seen = &server.seen()[0];
    assert_eq!((seen.header("impersonate-user"), seen.header(FENCE_HEADER)), (None, None));
}

#[tokio::test]
async fn without_a_verified_fence_its_header_is_left_out() {
    let server = Server::start(|_| async { answer(201, &stored("12")) }).await;
    let (gate, _keeper) = open_gate(false);
    leading_behind(gate, &server).await.create(&config_map("one")).await.unwrap();
    assert_eq!(server.seen()[0].header(FENCE_HEADER), None);
}

#[tokio::test]
async fn without_an_election_writes_pass_and_carry_no_token() {
    let server = Server::start(|_| async { answer(201, &stored("12")) }).await;
    leading_behind(Gate::unelected(Arc::new(BootClock)), &server).await.create(&config_map("one")).await.unwrap();
    assert_eq!(server.seen()[0].header(FENCE_HEADER), None);
}

#[tokio::test]
async fn nothing_is_written_once_the_lease_is_lost_while_the_server_turns_writes_away() {
    let (gate, _keeper) = open_gate(true);
    let shut = gate.clone();
    let server = Server::start(move |seen| {
        if seen.number == 2 {
            shut.shut();
        }
        async { status(429, "TooManyRequests", "busy") }
    })
    .await;
    let error = leading_behind(gate, &server).await.create(&config_map("one")).await.unwrap_err();
    assert!(matches!(error, ApiError::Gate { .. }), "{error}");
    assert_eq!(error.class(), Class::NotLeader);
    assert_eq!(server.seen().len(), 3);
}

#[tokio::test]
async fn a_write_that_may_have_been_carried_out_is_not_repeated() {
    for code in [500, 502, 503] {
        let server = Server::start(move |_| async move { status(code, "ServiceUnavailable", "") }).await;
        let (api, _keeper) = leading(&server).await;
        assert_eq!(api.create(&config_map("one")).await.unwrap_err().code(), Some(code));
        assert_eq!(server.seen().len(), 1, "{code}");
    }
}

#[tokio::test]
async fn a_write_that_gets_no_answer_dies_alone() {
    let server = Server::start(|seen| async move {
        if seen.body["metadata"]["name"] == "stuck" {
            pending::<()>().await;
        }
        answer(201, &stored("12"))
    })
    .await;
    let (gate, _keeper) = open_gate(true);
    let api = leading_behind(gate.clone(), &server).await;
    let stuck = tokio::spawn({
        let api = api.clone();
        async move { api.create(&config_map("stuck")).await }
    });
    for number in 0..20 {
        api.create(&config_map(&format!("other-{number}"))).await.unwrap();
    }
    let error = stuck.await.unwrap().unwrap_err();
    assert!(matches!(error, ApiError::Deadline { .. }), "{error}");
    assert_eq!(error.class(), Class::Transient);
    server.closed(1).await;
    let seen = server.seen();
    let stuck = seen.iter().find(|seen| seen.body["metadata"]["name"] == "stuck").unwrap();
    assert_eq!(seen.iter().filter(|seen| seen.connection == stuck.connection && seen.number > stuck.number).count(), 0);
    api.create(&config_map("after")).await.unwrap();
    assert_eq!(server.connections(), 2);
    // The release of the lease waits until the write cannot land any more.
    gate.shut();
    gate.quiet().await;
}

#[tokio::test]
async fn a_write_whose_caller_is_cancelled_is_read_to_its_end() {
    let (reached, mut reach) = tokio::sync::mpsc::unbounded_channel();
    let go = Arc::new(tokio::sync::Notify::new());
    let gone = Arc::clone(&go);
    let server = Server::start(move |seen| {
        let (reached, go) = (reached.clone(), Arc::clone(&gone));
        async move {
            if seen.number == 0 {
                reached.send(()).unwrap();
                go.notified().await;
            }
            answer(201, &stored("12"))
        }
    })
    .await;
    let (gate, keeper) = open_gate(true);
    let api = leading_behind(gate.clone(), &server).await;
    let cancelled = tokio::spawn({
        let api = api.clone();
        async move { api.create(&config_map("one")).await.map(|_| ()) }
    });
    reach.recv().await.unwrap();
    cancelled.abort();
    assert!(cancelled.await.unwrap_err().is_cancelled());
    go.notify_one();
    gate.shut();
    gate.quiet().await;
    keeper.open(Epoch::new("quarterdeck", token(8)), BootClock.now() + Duration::from_secs(3600), true);
    api.create(&config_map("two")).await.unwrap();
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn a_slow_webhook_gets_a_longer_time() {
    let server = Server::start(|seen| async move {
        match seen.query("timeout") {
            Some("375ms") => status(504, "Timeout", "request did not complete within the requested timeout"),
            _ => answer(201, &stored("12")),
        }
    })
    .await;
    let (api, _keeper) = leading(&server).await;
    api.create(&config_map("one")).await.unwrap();
    let timeouts: Vec<_> = server.seen().iter().map(|seen| seen.query("timeout").unwrap().to_owned()).collect();
    assert_eq!(timeouts, ["375ms", "750ms"]);
}

#[tokio::test]
async fn a_webhook_too_slow_for_the_lease_is_an_error_that_names_the_lease_that_would_do() {
    let server = Server::start(|_| async { status(504, "Timeout", "") }).await;
    let (api, _keeper) = leading(&server).await;
    let error = api.create(&config_map("one")).await.unwrap_err();
    assert!(error.is_timeout() && error.to_string().contains("--leader-elect-lease-duration="), "{error}");
    assert_eq!(server.seen().len(), 2);
}

#[tokio::test]
async fn a_server_whose_copy_of_the_lease_lags_is_asked_again() {
    let server = Server::start(|seen| async move {
        if seen.number < 2 { status(403, "Forbidden", EPOCH_MESSAGE) } else { answer(201, &stored("12")) }
    })
    .await;
    let (api, _keeper) = leading(&server).await;
    api.create(&config_map("one")).await.unwrap();
    assert_eq!(server.seen().len(), 3);
}

#[tokio::test]
async fn a_fence_that_refuses_the_present_token_for_good_is_a_passing_error() {
    let server = Server::start(|_| async { status(403, "Forbidden", EPOCH_MESSAGE) }).await;
    let (api, _keeper) = leading(&server).await;
    let error = api.create(&config_map("one")).await.unwrap_err();
    assert!(matches!(error, ApiError::Fenced { still_ours: true, .. }), "{error}");
    assert_eq!(error.class(), Class::Transient);
    assert_eq!(server.seen().len(), 4);
}

#[tokio::test]
async fn a_fence_that_refuses_a_past_token_means_not_leader() {
    let (gate, _keeper) = open_gate(true);
    let shut = gate.clone();
    let server = Server::start(move |_| {
        shut.shut();
        async { status(403, "Forbidden", EPOCH_MESSAGE) }
    })
    .await;
    let error = leading_behind(gate, &server).await.create(&config_map("one")).await.unwrap_err();
    assert!(matches!(error, ApiError::Fenced { still_ours: false, .. }), "{error}");
    assert_eq!(error.class(), Class::NotLeader);
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn a_write_without_its_precondition_is_not_sent() {
    let server = Server::start(|_| async { answer(200, &stored("12")) }).await;
    let (api, _keeper) = leading(&server).await;
    let (kind, key) = one();
    let no_uid = DeletePrecondition { uid: String::new(), resource_version: None };
    let options = ApplyOptions { manager: "quarterdeck", force: true, dry_run: false };
    let mut nameless = config_map("one");
    nameless.metadata.name = None;
    nameless.metadata.generate_name = Some("one-".into());
    let mut homeless = config_map("one");
    homeless.metadata.namespace = None;
    let no_version = PatchPrecondition::ResourceVersion { uid: "u1".into(), resource_version: String::new() };
    let refusals = [
        api.replace(&config_map("one")).await.map(|_| ()),
        api.replace_subresource("status", &config_map("one")).await.map(|_| ()),
        api.create(&nameless).await.map(|_| ()),
        api.create(&homeless).await.map(|_| ()),
        api.create(&versioned("one", "12")).await.map(|_| ()),
        api.delete(&kind, &key, &no_uid, Propagation::Background).await,
        api.apply(&kind, &key, &json!({}), &ApplyTo::Known { uid: String::new() }, &options).await.map(|_| ()),
        api.merge_patch(&kind, &key, None, &json!({}), &PatchPrecondition::Uid(String::new())).await.map(|_| ()),
        api.merge_patch(&kind, &key, None, &json!({}), &no_version).await.map(|_| ()),
        api.strategic_patch(&kind, &key, None, &json!({}), &PatchPrecondition::Uid(String::new())).await.map(|_| ()),
        api.merge_patch(&kind, &key, None, &json!([]), &PatchPrecondition::Uid("u1".into())).await.map(|_| ()),
        api.delete_collection(&kind, "", 10).await,
    ];
    for (number, refusal) in refusals.into_iter().enumerate() {
        assert!(matches!(refusal, Err(ApiError::Invalid { .. })), "{number}: {refusal:?}");
    }
    assert_eq!(server.seen().len(), 0);
}

#[tokio::test]
async fn each_verb_sends_its_precondition() {
    let server = Server::start(|_| async { answer(200, &stored("12")) }).await;
    let (api, _keeper) = leading(&server).await;
    let (kind, key) = one();
    let options = ApplyOptions { manager: "quarterdeck", force: true, dry_run: true };
    let precondition = DeletePrecondition { uid: "u1".into(), resource_version: Some("11".into()) };
    let versions = PatchPrecondition::ResourceVersion { uid: "u1".into(), resource_version: "11".into() };
    let labels = json!({"metadata": {"labels": {"a": "b"}}});
    api.replace_subresource("status", &versioned("one", "11")).await.unwrap();
    api.delete(&kind, &key, &precondition, Propagation::Foreground).await.unwrap();
    api.apply(&kind, &key, &labels, &ApplyTo::Known { uid: "u1".into() }, &options).await.unwrap();
    api.apply(&kind, &key, &labels, &ApplyTo::Absent, &options).await.unwrap();
    api.merge_patch(&kind, &key, None, &labels, &versions).await.unwrap();
    api.strategic_patch(&kind, &key, None, &labels, &PatchPrecondition::Uid("u1".into())).await.unwrap();
    let [put, delete, known, absent, patch, strategic] = &server.seen()[..] else { panic!("six requests") };
    assert_eq!(put.uri, "/api/v1/namespaces/a/configmaps/one/status?timeout=375ms");
    assert_eq!(put.body["metadata"]["resourceVersion"], "11");
    assert_eq!(delete.body["preconditions"], json!({"uid": "u1", "resourceVersion": "11"}));
    assert_eq!(delete.body["propagationPolicy"], "Foreground");
    assert_eq!((known.query("force"), known.query("dryRun")), (Some("true"), Some("All")));
    assert_eq!(known.body["metadata"], json!({"labels": {"a": "b"}, "uid": "u1"}));
    assert_eq!(known.header("content-type"), Some("application/apply-patch+yaml"));
    assert_eq!((absent.query("force"), &absent.body), (None, &labels));
    assert_eq!(patch.body["metadata"], json!({"labels": {"a": "b"}, "uid": "u1", "resourceVersion": "11"}));
    assert_eq!(patch.header("content-type"), Some("application/merge-patch+json"));
    assert_eq!(strategic.body["metadata"], json!({"labels": {"a": "b"}, "uid": "u1"}));
    assert_eq!(strategic.header("content-type"), Some("application/strategic-merge-patch+json"));
}

#[tokio::test]
async fn a_collection_is_deleted_only_under_a_verified_fence() {
    let server = Server::start(|_| async { status(504, "Timeout", "") }).await;
    let (gate, keeper) = open_gate(false);
    let api = leading_behind(gate, &server).await;
    let (kind, _) = one();
    assert!(api.delete_collection(&kind, "a", 200).await.unwrap_err().is_unfenced());
    assert_eq!(server.seen().len(), 0);
    keeper.set_fenced(true);
    assert!(api.delete_collection(&kind, "a", 200).await.unwrap_err().is_timeout());
    let [seen] = &server.seen()[..] else { panic!("a timeout is progress, and not repeated") };
    assert_eq!(seen.uri, "/api/v1/namespaces/a/configmaps?limit=200&timeout=375ms");
    assert_eq!(seen.header("impersonate-extra-quarterdeck.dev%2fnamespace-deletion"), Some("true"));
    assert_eq!(seen.header(FENCE_HEADER), Some("lease-uid/7"));
}

#[tokio::test]
async fn the_log_says_what_a_cache_must_show() {
    let server = Server::start(|seen| async move {
        match seen.uri.path().rsplit('/').next().unwrap() {
            "gone" => status(404, "NotFound", ""),
            "changed" => status(409, "Conflict", ""),
            _ => answer(200, &stored("12")),
        }
    })
    .await;
    let log = WriteLog::default();
    let (api, _keeper) = leading(&server).await;
    let api = api.logging_to(log.clone());
    let (kind, key) = one();
    let uid = |name: &str| DeletePrecondition { uid: format!("uid-of-{name}"), resource_version: None };
    let options = ApplyOptions { manager: "quarterdeck", force: true, dry_run: true };
    api.create(&config_map("one")).await.unwrap();
    api.replace(&versioned("changed", "11")).await.unwrap_err();
    api.delete(&kind, &key, &uid("one"), Propagation::Background).await.unwrap();
    api.delete(&kind, &ObjectKey::new("a", "gone"), &uid("gone"), Propagation::Background).await.unwrap_err();
    api.apply(&kind, &key, &json!({}), &ApplyTo::Absent, &options).await.unwrap();
    api.create_event(&Event { metadata: config_map("one").metadata, ..Default::default() }).await.unwrap();
    let expects: Vec<_> = log.take().into_iter().map(|wrote| (wrote.key.name().to_owned(), wrote.expect)).collect();
    let deleted = |name: &str| Expect::Deleted { uid: format!("uid-of-{name}") };
    let expected = [
        ("one", Expect::AtLeast(12)),
        ("changed", Expect::OtherThan("11".into())),
        ("one", deleted("one")),
        ("gone", deleted("gone")),
    ];
    assert_eq!(expects, expected.map(|(name, expect)| (name.to_owned(), expect)));
}

#[tokio::test]
async fn a_connection_that_the_server_closed_while_idle_costs_no_write() {
    let server = Server::start(|_| async {
        let mut last = answer(201, &stored("12"));
        last.headers_mut().insert("connection", "close".parse().unwrap());
        last
    })
    .await;
    let (api, _keeper) = leading(&server).await;
    for number in 0..3 {
        api.create(&config_map(&format!("number-{number}"))).await.unwrap();
        server.closed(number + 1).await;
    }
    assert_eq!((server.seen().len(), server.connections()), (3, 3));
}

#[tokio::test]
async fn attempts_refusals_and_kills_are_counted() {
    let codes = Mutex::new(vec![201, 429]);
    let server = Server::start(move |_| {
        let code = codes.lock().pop().unwrap_or(201);
        async move { answer(code, &stored("12")) }
    })
    .await;
    let (gate, _keeper) = open_gate(true);
    let registry = prometheus::Registry::new();
    let config = kube::Config::new(server.url().parse().unwrap());
    let clients = crate::client::Clients::connect(config, Default::default(), gate.clone(), &registry).await.unwrap();
    let api = clients.api(&Identity::system("endpoint-controller"));
    api.create(&config_map("one")).await.unwrap();
    gate.shut();
    api.create(&config_map("two")).await.unwrap_err();
    let text = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
    let host = clients.server();
    for line in [
        format!("rest_client_requests_total{{code=\"201\",host=\"{host}\",method=\"POST\"}} 1"),
        format!("rest_client_requests_total{{code=\"429\",host=\"{host}\",method=\"POST\"}} 1"),
        format!("rest_client_request_retries_total{{code=\"429\",host=\"{host}\",verb=\"POST\"}} 1"),
        format!("rest_client_rate_limiter_duration_seconds_count{{host=\"{host}\",verb=\"POST\"}} 2"),
        format!("rest_client_request_duration_seconds_count{{host=\"{host}\",verb=\"POST\"}} 2"),
        "quarterdeck_gate_refusals_total{reason=\"not_leading\"} 1".to_owned(),
    ] {
        assert!(text.contains(&line), "{line} is not in\n{text}");
    }
}
