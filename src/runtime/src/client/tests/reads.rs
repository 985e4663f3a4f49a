use std::sync::Arc;

use bytes::Bytes;
use http::Response;
use http_body_util::Full;
use k8s_openapi::api::authentication::v1::TokenReview;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::ConfigMap;
use quarterdeck_election::{BootClock, Gate};
use serde_json::json;

use super::server::{Server, json as answer, status};
use super::{clients, leading};
use crate::client::{ApiError, Identity, ListQuery};
use crate::object::{Kind, ObjectKey};

fn key() -> ObjectKey {
    ObjectKey::new("a", "one")
}

#[tokio::test]
async fn only_the_servers_own_404_means_that_an_object_is_not_there() {
    let server = Server::start(|seen| async move {
        if seen.uri.path().ends_with("/gone") {
            status(404, "NotFound", "gone")
        } else {
            status(500, "InternalError", "")
        }
    })
    .await;
    let (api, _keeper) = leading(&server).await;
    let kind = Kind::of::<ConfigMap>();
    assert!(api.get::<ConfigMap>(&kind, &ObjectKey::new("a", "gone")).await.unwrap().is_none());
    assert_eq!(api.get::<ConfigMap>(&kind, &key()).await.unwrap_err().code(), Some(500));
    assert_eq!(api.get_metadata(&kind, &key()).await.unwrap_err().code(), Some(500));
}

#[tokio::test]
async fn reads_outlast_a_server_that_is_busy_for_a_moment() {
    let server = Server::start(|seen| async move {
        match seen.number {
            0 => status(429, "TooManyRequests", ""),
            1 => status(503, "ServiceUnavailable", ""),
            _ => answer(200, &json!({"metadata": {"name": "one", "namespace": "a"}})),
        }
    })
    .await;
    let (api, _keeper) = leading(&server).await;
    let found: ConfigMap = api.get(&Kind::of::<ConfigMap>(), &key()).await.unwrap().unwrap();
    assert_eq!(found.metadata.name.as_deref(), Some("one"));
    let seen = server.seen();
    assert_eq!(seen.len(), 3);
    assert_eq!(seen[2].header("impersonate-user"), Some("system:serviceaccount:kube-system:endpoint-controller"));
}

#[tokio::test]
async fn a_list_is_read_page_by_page() {
    let server = Server::start(|seen| async move {
        let metadata = match seen.query("continue") {
            None => json!({"resourceVersion": "5", "continue": "next page"}),
            Some(_) => json!({"resourceVersion": "5", "continue": ""}),
        };
        answer(200, &json!({"metadata": metadata, "items": null}))
    })
    .await;
    let (api, _keeper) = leading(&server).await;
    let kind = Kind::of::<ConfigMap>();
    let mut query =
        ListQuery { labels: Some("a=b".into()), limit: Some(10), metadata_only: true, ..Default::default() };
    let page = api.list::<ConfigMap>(&kind, Some("a"), &query).await.unwrap();
    assert_eq!((page.resource_version.as_str(), page.items.len()), ("5", 0));
    query.continue_token = page.continue_token;
    assert_eq!(api.list::<ConfigMap>(&kind, None, &query).await.unwrap().continue_token, None);
    let seen = server.seen();
    assert_eq!(seen[0].uri, "/api/v1/namespaces/a/configmaps?labelSelector=a%3Db&limit=10");
    assert!(seen[0].header("accept").unwrap().contains("as=PartialObjectMetadataList"));
    assert_eq!(seen[1].uri, "/api/v1/configmaps?labelSelector=a%3Db&limit=10&continue=next%20page");
}

#[tokio::test]
async fn the_end_of_a_log_is_read_as_text() {
    let server = Server::start(|seen| async move {
        if seen.uri.path().contains("/gone/") {
            return status(404, "NotFound", "pod gone not found");
        }
        if seen.uri.path().contains("/early/") {
            return Response::builder().status(204).body(Full::default()).unwrap();
        }
        Response::new(Full::new(Bytes::from_static(b"one\ntwo \xff\n")))
    })
    .await;
    let (api, _keeper) = leading(&server).await;
    assert_eq!(api.pod_log(&key(), "main", 20, 4096).await.unwrap(), "one\ntwo \u{fffd}\n");
    assert_eq!(api.pod_log(&ObjectKey::new("a", "early"), "main", 20, 4096).await.unwrap(), "");
    let gone = api.pod_log(&ObjectKey::new("a", "gone"), "main", 20, 4096).await.unwrap_err();
    assert_eq!(gone.to_string(), "get log of pod a/gone: pod gone not found (code 404)");
    let seen = &server.seen()[0];
    assert_eq!(seen.uri, "/api/v1/namespaces/a/pods/one/log?container=main&tailLines=20&limitBytes=4096");
    assert_eq!(seen.header("accept"), Some("text/plain, */*"));
}

#[tokio::test]
async fn an_answer_of_the_wrong_shape_is_an_error_that_names_the_object() {
    let server = Server::start(|_| async { answer(200, &json!({"metadata": []})) }).await;
    let (api, _keeper) = leading(&server).await;
    let error = api.get::<ConfigMap>(&Kind::of::<ConfigMap>(), &key()).await.unwrap_err();
    assert!(matches!(error, ApiError::Decode { .. }), "{error}");
    assert!(error.to_string().starts_with("get configmaps a/one: cannot read the answer:"), "{error}");
}

#[tokio::test]
async fn the_lease_connection_is_no_way_around_the_gate() {
    let server = Server::start(|seen| async move { answer(201, &seen.body) }).await;
    let (gate, _keeper) = Gate::new(super::timing(), Arc::new(BootClock));
    let client = clients(&server, gate).await.lease_client();
    let leases: kube::Api<Lease> = kube::Api::namespaced(client.clone(), "a");
    let metadata = super::config_map("one").metadata;
    leases.create(&Default::default(), &Lease { metadata, spec: None }).await.unwrap();
    let others: kube::Api<ConfigMap> = kube::Api::namespaced(client, "a");
    let refused = others.create(&Default::default(), &super::config_map("one")).await.unwrap_err();
    assert!(refused.to_string().contains("not without the gate"), "{refused}");
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn reviews_pass_a_shut_gate_and_nothing_else_does() {
    let server = Server::start(|seen| async move { answer(201, &seen.body) }).await;
    let (gate, _keeper) = Gate::new(super::timing(), Arc::new(BootClock));
    let api = clients(&server, gate).await.api(&Identity::Manager);
    let review = TokenReview::default();
    api.review("/apis/authentication.k8s.io/v1/tokenreviews", &review).await.unwrap();
    let lease = "/apis/coordination.k8s.io/v1/namespaces/a/leases";
    for path in ["/api/v1/namespaces/a/configmaps", "/apis/apps/v1/tokenreviews", "tokenreviews", lease] {
        let refused = api.review(path, &review).await.unwrap_err();
        assert!(matches!(refused, ApiError::Invalid { .. }), "{path}: {refused}");
    }
    assert_eq!(server.seen().len(), 1);
}
