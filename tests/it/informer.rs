//! Informers on a real kube-apiserver, over the client stack's own connection.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use k8s_openapi::api::rbac::v1::PolicyRule;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, DeleteParams, ObjectMeta, Patch, PatchParams, PostParams};
use quarterdeck_election::{BootClock, Gate};
use quarterdeck_it::{ControlPlane, eventually, shared};
use quarterdeck_runtime::client::{ClientOptions, Clients, Expect, Identity, Source};
use quarterdeck_runtime::informer::{Freshness, Informers, Lister, Selection, State};
use quarterdeck_runtime::object::{Cached, Kind, ObjectKey, Typed as _};
use quarterdeck_runtime::view::{Metadata, NodeView, PodView};
use serde_json::json;
use tokio::runtime::Handle;

const LONG: Duration = Duration::from_secs(60);

async fn start(informers: &Informers, control_plane: &ControlPlane) {
    let source = Source::kubeconfig(control_plane.admin_kubeconfig().unwrap());
    let (options, gate) = (ClientOptions::default(), Gate::unelected(Arc::new(BootClock)));
    let clients = Clients::connect(source, options, gate, &prometheus::Registry::new()).await.unwrap();
    informers.start(Arc::new(clients), Handle::current());
}

fn in_namespace(namespace: &str) -> Selection {
    Selection { namespace: Some(namespace.to_owned()), ..Selection::default() }
}

fn config_map(name: &str) -> ConfigMap {
    ConfigMap { metadata: ObjectMeta { name: Some(name.into()), ..Default::default() }, ..Default::default() }
}

/// Waits until an informer follows changes and shows exactly what the server has.
async fn equal(lister: &Lister<ConfigMap>, api: &Api<ConfigMap>) {
    eventually("store and server are equal", LONG, async || {
        let facts = |object: &ConfigMap| (object.key().to_string(), object.resource_version().to_owned());
        let server: BTreeMap<_, _> = api.list(&Default::default()).await?.items.iter().map(facts).collect();
        let store: BTreeMap<_, _> = lister.all().iter().map(|object| facts(object)).collect();
        let state = lister.status().state;
        ensure!(state == State::Watching && store == server, "{state:?}: {store:?} against {server:?}");
        Ok(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn stores_follow_the_server_through_restarts_lost_history_and_servers_without_streams() {
    let control_plane = ControlPlane::builder().start().await.unwrap();
    control_plane.namespace("follow").await.unwrap();
    let api: Api<ConfigMap> = Api::namespaced(control_plane.admin().await.unwrap(), "follow");
    let informers = Informers::new().reading_as(Identity::Manager);
    let lister = informers.typed::<ConfigMap>(in_namespace("follow"));
    let make = async |name: &str| api.create(&PostParams::default(), &config_map(name)).await.map_err(Into::into);
    for n in 0..5 {
        make(&format!("early-{n}")).await.unwrap();
    }
    start(&informers, &control_plane).await;
    equal(&lister, &api).await;
    assert!(lister.all().iter().all(|object| object.metadata.managed_fields.is_none()));

    api.delete("early-0", &DeleteParams::default()).await.unwrap();
    make("late").await.unwrap();
    equal(&lister, &api).await;
    assert_eq!(lister.status().relists, 0);

    // The server goes and comes back; history from before is lost on the way.
    api.delete("early-1", &DeleteParams::default()).await.unwrap();
    control_plane.compact_etcd().await.unwrap();
    control_plane.apiserver(0).kill().await.unwrap();
    control_plane.apiserver(0).start().await.unwrap();
    eventually("a write after the restart", LONG, async || make("restarted").await).await.unwrap();
    equal(&lister, &api).await;

    // A server that refuses lists as a stream is listed in pages. (Killed, as an orderly stop
    // waits for open watches.)
    control_plane.apiserver(0).kill().await.unwrap();
    control_plane.apiserver(0).restart_with(["--feature-gates=WatchList=false"]).await.unwrap();
    let paged = informers.dynamic::<ConfigMap>(Kind::of::<ConfigMap>(), Selection::default());
    eventually("a list in pages", LONG, async || {
        ensure!(paged.has_synced(), "{:?}", paged.status().state);
        Ok(())
    })
    .await
    .unwrap();
    eventually("a write at the older server", LONG, async || make("older").await).await.unwrap();
    equal(&lister, &api).await;
    assert_eq!(paged.in_namespace("follow").len(), lister.len());
    informers.stop_all();
}

#[tokio::test]
async fn views_hold_what_the_server_holds() {
    let control_plane = shared().await;
    control_plane.namespace("views").await.unwrap();
    let client = control_plane.admin().await.unwrap();
    let pods: Api<Pod> = Api::namespaced(client, "views");
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": "one", "labels": {"app": "x"}},
        "spec": {"nodeName": "nowhere", "hostname": "h", "containers": [{"name": "c", "image": "i",
            "ports": [{"name": "http", "containerPort": 80}, {"containerPort": 81}]}]},
    }))
    .unwrap();
    let made = pods.create(&PostParams::default(), &pod).await.unwrap();
    let status = json!({"status": {"phase": "Running", "podIP": "10.0.0.7", "podIPs": [{"ip": "10.0.0.7"}],
        "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-02T03:04:05Z"}]}});
    let made = pods.patch_status(&made.metadata.name.unwrap(), &PatchParams::default(), &Patch::Merge(status)).await;
    let made = made.unwrap();

    let informers = Informers::new().reading_as(Identity::Manager);
    let views = informers.typed::<PodView>(in_namespace("views"));
    let metadata = informers.dynamic::<Metadata>(PodView::kind(), in_namespace("views"));
    let nodes = informers.typed::<NodeView>(Selection::default());
    start(&informers, control_plane).await;
    eventually("three informers", LONG, async || {
        let synced = informers.all().iter().all(quarterdeck_runtime::informer::InformerHandle::has_synced);
        ensure!(synced, "{:?}", informers.statuses());
        Ok(())
    })
    .await
    .unwrap();

    let key = ObjectKey::new("views", "one");
    // The whole object, as JSON, is what the view must have been read from.
    let whole: PodView = serde_json::from_value(serde_json::to_value(&made).unwrap()).unwrap();
    let view = views.get(&key).unwrap();
    assert_eq!(*view, whole);
    assert_eq!((view.ready, view.ports.len(), view.ips.len()), (true, 1, 1));
    let slim = metadata.get(&key).unwrap();
    assert_eq!((&*slim.uid, slim.labels.get("app")), (&*view.uid, Some("x")));
    assert!(nodes.is_empty());

    // Our own writes show when they are waited for.
    let patch = Patch::Merge(json!({"metadata": {"labels": {"app": "y"}}}));
    let patched = pods.patch("one", &PatchParams::default(), &patch).await.unwrap();
    let (shown, wait) = tokio::sync::oneshot::channel();
    let expect = Expect::AtLeast(patched.metadata.resource_version.unwrap().parse().unwrap());
    informers.when_visible(&PodView::kind(), &key, &expect, move || {
        let _ = shown.send(());
    });
    tokio::time::timeout(LONG, wait).await.unwrap().unwrap();
    assert_eq!(views.get(&key).unwrap().labels.get("app"), Some("y"));
    assert_eq!(metadata.get(&key).unwrap().labels.get("app"), Some("y"));

    // A write of another kind moves the server's version, but sends no event here.
    let other: Api<ConfigMap> = Api::namespaced(control_plane.admin().await.unwrap(), "views");
    for round in 0..20 {
        let written = other.create(&PostParams::default(), &config_map(&format!("{round}"))).await.unwrap();
        let version: u64 = written.metadata.resource_version.unwrap().parse().unwrap();
        let fresh = informers.barrier(&PodView::kind(), version, LONG).await;
        assert_eq!(fresh.len(), 2);
        for (informer, freshness) in fresh {
            let name = informer.status().form;
            assert!(matches!(freshness, Freshness::Asked | Freshness::Current), "{name}: {freshness:?}");
        }
    }
    informers.stop_all();
}

#[tokio::test]
async fn a_read_that_is_refused_says_why_and_starts_once_it_is_allowed() {
    let control_plane = shared().await;
    let identity = Identity::system("informer-of-little-rights");
    let informers = Informers::new().reading_as(identity);
    let lister = informers.typed::<ConfigMap>(Selection::default());
    start(&informers, control_plane).await;
    eventually("the refusal", LONG, async || {
        let State::Forbidden(reason) = lister.status().state else { anyhow::bail!("{:?}", lister.status().state) };
        ensure!(reason.contains("informer-of-little-rights") && reason.contains("configmaps"), "{reason}");
        Ok(())
    })
    .await
    .unwrap();
    assert!(!lister.has_synced());
    let rule = PolicyRule {
        api_groups: Some(vec![String::new()]),
        resources: Some(vec!["configmaps".to_owned()]),
        verbs: vec!["list".to_owned(), "watch".to_owned()],
        ..Default::default()
    };
    control_plane.grant("system:serviceaccount:kube-system:informer-of-little-rights", &[rule]).await.unwrap();
    eventually("the first list", LONG, async || {
        ensure!(lister.has_synced(), "{:?}", lister.status().state);
        Ok(())
    })
    .await
    .unwrap();
    informers.stop_all();
}

#[tokio::test]
async fn a_kind_that_goes_and_comes_back_is_followed_again() {
    let control_plane = shared().await;
    let client = control_plane.admin().await.unwrap();
    let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
    let definition: CustomResourceDefinition = serde_json::from_value(json!({
        "metadata": {"name": "boats.informer.quarterdeck.dev"},
        "spec": {"group": "informer.quarterdeck.dev", "scope": "Cluster",
            "names": {"plural": "boats", "singular": "boat", "kind": "Boat"},
            "versions": [{"name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}]},
    }))
    .unwrap();
    let kind = Kind::new("informer.quarterdeck.dev", "v1", "Boat", "boats", false);
    let boats: Api<kube::api::DynamicObject> = Api::all_with(
        client,
        &kube::api::ApiResource {
            group: "informer.quarterdeck.dev".into(),
            version: "v1".into(),
            api_version: "informer.quarterdeck.dev/v1".into(),
            kind: "Boat".into(),
            plural: "boats".into(),
        },
    );
    let boat = json!({"apiVersion": "informer.quarterdeck.dev/v1", "kind": "Boat", "metadata": {"name": "one"}});
    let boat: kube::api::DynamicObject = serde_json::from_value(boat).unwrap();
    let informers = Informers::new().reading_as(Identity::Manager);
    start(&informers, control_plane).await;
    let lister = informers.dynamic::<Metadata>(kind.clone(), Selection::default());
    let state = async |expected: State| {
        eventually("a state", LONG, async || {
            informers.retry_now(&kind);
            let state = lister.status().state;
            ensure!(state == expected, "{state:?}");
            Ok(())
        })
        .await
        .with_context(|| format!("{expected:?}"))
        .unwrap();
    };

    state(State::NotServed).await;
    for round in 0..2 {
        crds.create(&PostParams::default(), &definition).await.unwrap();
        state(State::Watching).await;
        boats.create(&PostParams::default(), &boat).await.unwrap();
        eventually("the object", LONG, async || {
            ensure!(lister.get(&ObjectKey::cluster("one")).is_some(), "{:?}", lister.status());
            Ok(())
        })
        .await
        .unwrap();
        crds.delete("boats.informer.quarterdeck.dev", &DeleteParams::default()).await.unwrap();
        eventually("the end of the kind", LONG, async || {
            let gone = crds.get_opt("boats.informer.quarterdeck.dev").await?.is_none();
            ensure!(gone, "round {round}: it is still there");
            Ok(())
        })
        .await
        .unwrap();
        state(State::NotServed).await;
    }
    informers.stop(&kind);
    assert_eq!(lister.status().state, State::Stopped);
}
