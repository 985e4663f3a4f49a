//! The client stack on a real kube-apiserver.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use http::{Request, Version};
use http_body_util::BodyExt as _;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::{ConfigMap, Event, ObjectReference};
use k8s_openapi::api::rbac::v1::PolicyRule;
use kube::api::{ObjectMeta, PostParams};
use quarterdeck_election::fence::FencePolicy;
use quarterdeck_election::{BootClock, Clock, Epoch, EpochToken, Gate, Timing};
use quarterdeck_it::{ControlPlane, eventually, shared};
use quarterdeck_runtime::client::{
    Api, ApiError, ApplyOptions, ApplyTo, Class, ClientOptions, Clients, DeletePrecondition, Expect, Identity,
    ListQuery, PatchPrecondition, Propagation, Source, WriteLog,
};
use quarterdeck_runtime::events::EventSink;
use quarterdeck_runtime::informer::WatchTransport as _;
use quarterdeck_runtime::object::{Kind, ObjectKey};
use serde_json::{Value, json};

const LONG: Duration = Duration::from_secs(60);

async fn connect(control_plane: &ControlPlane, gate: Gate) -> Clients {
    let source = Source::kubeconfig(control_plane.admin_kubeconfig().unwrap());
    Clients::connect(source, ClientOptions::default(), gate, &prometheus::Registry::new()).await.unwrap()
}

async fn unelected(control_plane: &ControlPlane) -> Clients {
    connect(control_plane, Gate::unelected(Arc::new(BootClock))).await
}

/// A service account with all rights on ConfigMaps and Events.
async fn account(control_plane: &ControlPlane, name: &str) -> Identity {
    let rule = PolicyRule {
        api_groups: Some(vec![String::new()]),
        resources: Some(vec!["configmaps".to_owned(), "events".to_owned()]),
        verbs: vec!["*".to_owned()],
        ..Default::default()
    };
    control_plane.grant(&format!("system:serviceaccount:kube-system:{name}"), &[rule]).await.unwrap();
    Identity::system(name)
}

fn config_map(namespace: &str, name: &str) -> ConfigMap {
    ConfigMap {
        metadata: ObjectMeta { name: Some(name.into()), namespace: Some(namespace.into()), ..Default::default() },
        ..Default::default()
    }
}

async fn live(api: &Api, namespace: &str, name: &str) -> Option<ConfigMap> {
    api.get(&Kind::of::<ConfigMap>(), &ObjectKey::new(namespace, name)).await.unwrap()
}

#[tokio::test]
async fn objects_are_made_read_changed_and_deleted_under_an_account() {
    let control_plane = shared().await;
    control_plane.namespace("client").await.unwrap();
    let identity = account(control_plane, "client-writer").await;
    let mut audit = control_plane.audit_from_now().unwrap();
    let log = WriteLog::default();
    let api = unelected(control_plane).await.api(&identity).logging_to(log.clone());
    let (kind, key) = (Kind::of::<ConfigMap>(), ObjectKey::new("client", "one"));

    let made = api.create(&config_map("client", "one")).await.unwrap();
    let again = api.create(&config_map("client", "one")).await.unwrap_err();
    assert!(again.is_already_exists(), "{again}");
    let mut object = live(&api, "client", "one").await.unwrap();
    assert_eq!(object.metadata.uid.as_ref(), Some(&made.uid));
    object.data = Some([("a".to_owned(), "b".to_owned())].into());
    let replaced = api.replace(&object).await.unwrap();
    let stale = api.replace(&object).await.unwrap_err();
    assert!(stale.is_conflict(), "{stale}");

    let query = ListQuery { limit: Some(1), metadata_only: true, ..Default::default() };
    let page = api.list::<Value>(&kind, Some("client"), &query).await.unwrap();
    assert_eq!((page.items.len(), page.items[0]["kind"].as_str()), (1, Some("PartialObjectMetadata")));

    let wrong = PatchPrecondition::Uid("00000000-0000-0000-0000-000000000000".into());
    let labels = json!({"metadata": {"labels": {"a": "b"}}});
    let refused = api.merge_patch(&kind, &key, None, &labels, &wrong).await.unwrap_err();
    assert_eq!((refused.is_conflict(), refused.class()), (true, Class::Conflict), "{refused}");
    api.merge_patch(&kind, &key, None, &labels, &PatchPrecondition::Uid(made.uid.clone())).await.unwrap();

    let outdated = DeletePrecondition { uid: made.uid.clone(), resource_version: Some(made.resource_version.clone()) };
    assert!(api.delete(&kind, &key, &outdated, Propagation::Background).await.unwrap_err().is_conflict());
    let right = DeletePrecondition { uid: made.uid.clone(), resource_version: None };
    api.delete(&kind, &key, &right, Propagation::Background).await.unwrap();
    assert!(live(&api, "client", "one").await.is_none());

    let options = ApplyOptions { manager: "quarterdeck-test", force: true, dry_run: false };
    let desired = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "one", "namespace": "client"}});
    let known = ApplyTo::Known { uid: made.uid.clone() };
    let gone = api.apply(&kind, &key, &desired, &known, &options).await.unwrap_err();
    assert!(gone.is_conflict(), "an apply brought a deleted object back: {gone}");
    let applied = api.apply(&kind, &key, &desired, &ApplyTo::Absent, &options).await.unwrap();
    assert_ne!(applied["metadata"]["uid"], made.uid.as_str());

    let versions = |version: &str| Expect::AtLeast(version.parse().unwrap());
    let expects: Vec<_> = log.take().into_iter().map(|wrote| wrote.expect).collect();
    assert_eq!(expects[..2], [versions(&made.resource_version), versions(&replaced.resource_version)]);
    assert_eq!(expects[2], Expect::OtherThan(made.resource_version.clone()));

    let event = audit
        .wait_for("the create", LONG, |event| event.namespace() == "client" && event.verb == "create")
        .await
        .unwrap();
    assert_eq!(event.acting_user(), "system:serviceaccount:kube-system:client-writer");
}

#[tokio::test]
async fn an_account_without_the_right_is_told_so() {
    let control_plane = shared().await;
    control_plane.namespace("client-denied").await.unwrap();
    let api = unelected(control_plane).await.api(&Identity::system("client-nobody"));
    let refused = api.create(&config_map("client-denied", "one")).await.unwrap_err();
    assert!(refused.is_forbidden() && refused.to_string().contains("client-nobody"), "{refused}");
    let refused = api.get::<ConfigMap>(&Kind::of::<ConfigMap>(), &ObjectKey::new("client-denied", "one")).await;
    assert!(refused.unwrap_err().is_forbidden());
}

#[tokio::test]
async fn streams_reads_and_the_lease_go_over_http2() {
    let control_plane = shared().await;
    control_plane.namespace("client-streams").await.unwrap();
    let clients = unelected(control_plane).await;
    let path = "/api/v1/namespaces/client-streams/configmaps?watch=true&timeoutSeconds=60";
    let mut watches = Vec::new();
    for _ in 0..120 {
        let request = Request::get(path).body(()).unwrap();
        let answer = clients.send(&Identity::Manager, request).await.unwrap();
        assert_eq!((answer.status().as_u16(), answer.version()), (200, Version::HTTP_2));
        watches.push(answer.into_body());
    }
    // More streams than the server takes on one connection, and still reads and writes go through.
    let api = clients.api(&Identity::Manager);
    api.create(&config_map("client-streams", "one")).await.unwrap();
    assert!(live(&api, "client-streams", "one").await.is_some());
    for watch in &mut watches {
        let frame = watch.frame().await.unwrap().unwrap().into_data().unwrap();
        assert!(String::from_utf8_lossy(&frame).contains("\"ADDED\""));
    }
    let leases: kube::Api<Lease> = kube::Api::namespaced(clients.lease_client(), "client-streams");
    let lease = Lease { metadata: config_map("client-streams", "one").metadata, spec: Some(LeaseSpec::default()) };
    leases.create(&PostParams::default(), &lease).await.unwrap();
    assert_eq!(leases.get("one").await.unwrap().metadata.name.as_deref(), Some("one"));
}

#[tokio::test]
async fn reads_and_writes_outlive_a_restart_of_the_server() {
    let control_plane = ControlPlane::start().await.unwrap();
    control_plane.namespace("client").await.unwrap();
    let api = unelected(&control_plane).await.api(&Identity::Manager);
    api.create(&config_map("client", "before")).await.unwrap();
    assert!(live(&api, "client", "before").await.is_some());
    control_plane.apiserver(0).kill().await.unwrap();
    let down = api.create(&config_map("client", "down")).await.unwrap_err();
    assert!(matches!(down, ApiError::Transport { .. }), "{down}");
    control_plane.apiserver(0).start().await.unwrap();
    assert!(live(&api, "client", "before").await.is_some());
    api.create(&config_map("client", "after")).await.unwrap();
}

#[tokio::test]
async fn the_fence_refuses_the_token_of_a_past_tenure() {
    let control_plane = ControlPlane::start().await.unwrap();
    control_plane.namespace("client").await.unwrap();
    let identity = account(&control_plane, "client-fenced").await;
    let admin = unelected(&control_plane).await.api(&Identity::Manager);
    let spec = LeaseSpec { lease_transitions: Some(3), ..Default::default() };
    let metadata = config_map("kube-system", "quarterdeck").metadata;
    let lease = admin.create(&Lease { metadata, spec: Some(spec) }).await.unwrap();
    let fence = FencePolicy { namespace: "kube-system".into(), lease: "quarterdeck".into() };
    admin.create(&fence.policy()).await.unwrap();
    admin.create(&fence.binding()).await.unwrap();

    let token = EpochToken { lease_uid: lease.uid.as_str().into(), transitions: 3 };
    let deadline = BootClock.now() + Duration::from_secs(3600);
    let (gate, keeper) = Gate::new(Timing::default(), Arc::new(BootClock));
    let api = connect(&control_plane, gate).await.api(&identity);
    keeper.open(Epoch::new("quarterdeck", token.previous()), deadline, true);
    let refused = eventually("the fence", LONG, async || {
        let name = format!("past-{}", BootClock.now().as_nanos());
        api.create(&config_map("client", &name)).await.err().context("admitted")
    });
    let refused = refused.await.unwrap();
    assert!(matches!(refused, ApiError::Fenced { still_ours: true, .. }), "{refused}");

    keeper.open(Epoch::new("quarterdeck", token), deadline, true);
    api.create(&config_map("client", "present")).await.unwrap();

    let living = api.delete_collection(&Kind::of::<ConfigMap>(), "client", 10).await.unwrap_err();
    assert!(living.is_namespace_not_deleting() && !living.is_forbidden(), "{living}");
    assert!(live(&api, "client", "present").await.is_some());
}

quarterdeck_runtime::reasons! {
    /// What the test tells.
    REASONS:
    /// It has no luck.
    FAILED = Warning "Failed" about "ConfigMap";
}

#[tokio::test]
async fn events_show_up_with_count_and_source() {
    let control_plane = shared().await;
    control_plane.namespace("client-events").await.unwrap();
    let identity = account(control_plane, "client-events").await;
    let clients = unelected(control_plane).await;
    let sink = EventSink::start(&clients, &prometheus::Registry::new()).unwrap();
    let recorder = sink.recorder("test-controller", &identity);
    let about = ObjectReference {
        api_version: Some("v1".into()),
        kind: Some("ConfigMap".into()),
        namespace: Some("client-events".into()),
        name: Some("one".into()),
        ..Default::default()
    };
    for _ in 0..3 {
        recorder.event(&about, FAILED, "no luck");
    }
    sink.flush(LONG).await;
    let api = clients.api(&Identity::Manager);
    let page = api.list::<Event>(&Kind::of::<Event>(), Some("client-events"), &ListQuery::default()).await.unwrap();
    let [event] = &page.items[..] else { panic!("one event: {:?}", page.items) };
    assert_eq!((event.count, event.reason.as_deref()), (Some(3), Some("Failed")));
    assert_eq!(event.source.as_ref().unwrap().component.as_deref(), Some("test-controller"));
}

#[tokio::test]
async fn a_stream_that_nobody_reads_holds_up_no_other() {
    let control_plane = shared().await;
    control_plane.namespace("tide").await.unwrap();
    let clients = unelected(control_plane).await;
    let api = clients.api(&Identity::Manager);
    for number in 0..20 {
        let mut map = config_map("tide", &format!("map-{number}"));
        map.data = Some([("water".to_owned(), "~".repeat(100_000))].into());
        api.create(&map).await.unwrap();
    }
    let request = || Request::get("/api/v1/namespaces/tide/configmaps").body(()).unwrap();
    let unread = clients.send(&Identity::Manager, request()).await.unwrap();
    let read =
        async { clients.send(&Identity::Manager, request()).await.unwrap().into_body().collect().await.unwrap() };
    let read = tokio::time::timeout(LONG, read).await.expect("it comes beside the other").to_bytes();
    assert!(read.len() > 2_000_000, "{}", read.len());
    drop(unread);
}
