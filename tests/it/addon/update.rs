//! The acceptance test of kube-addon-manager
//! (`kubernetes:test/e2e/cloud/gcp/addon_update.go`): modes, the older label, an update, a removal.

use http::Method;
use serde_json::{Value, json};

use super::{World, at, map};

const MODE: &str = "addonmanager.kubernetes.io/mode";
const LEGACY: &str = "kubernetes.io/cluster-service";

fn controller(name: &str, labels: &Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ReplicationController",
        "metadata": {"name": name, "namespace": "kube-system", "labels": labels},
        "spec": {"replicas": 2, "selector": {"k8s-app": name}, "template": {
            "metadata": {"labels": {"k8s-app": name}},
            "spec": {"containers": [{"name": name, "image": "serve"}]},
        }},
    })
}

fn service(name: &str, labels: &Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name, "namespace": "kube-system", "labels": labels},
        "spec": {"ports": [{"port": 9376, "protocol": "TCP", "targetPort": 9376}], "selector": {"k8s-app": name}},
    })
}

fn with(mut object: Value, label: &str) -> Value {
    object["metadata"]["labels"][label] = "true".into();
    object
}

fn path(kind: &str, name: &str) -> String {
    format!("/api/v1/namespaces/kube-system/{kind}/{name}")
}

#[tokio::test]
async fn the_modes_of_an_addon_are_kept_over_an_update_and_a_removal() {
    let world = World::start(&[]).await;
    // This one stays, so that not all files go at once.
    world.write("stays.yaml", &map("stays", "Reconcile", "v"));
    world.parent("stays.yaml", "ready").await;
    let files = [
        ("invalid.yaml", controller("not-matched", &json!({MODE: "NotMatch"}))),
        ("reconcile.yaml", controller("reconciled", &json!({LEGACY: "true", MODE: "Reconcile"}))),
        ("legacy.yaml", service("deprecated", &json!({LEGACY: "true"}))),
        ("ensure.yaml", service("ensured", &json!({MODE: "EnsureExists"}))),
    ];
    for (name, object) in &files {
        world.write(name, &object.to_string());
    }
    let reconciled = path("replicationcontrollers", "reconciled");
    let (deprecated, ensured) = (path("services", "deprecated"), path("services", "ensured"));
    for path in [&reconciled, &deprecated, &ensured] {
        world.until_there(path).await;
    }
    let before = world.until_there(&ensured).await;
    assert!(before["metadata"]["labels"].get("applyset.kubernetes.io/part-of").is_none(), "{before}");

    for (name, object) in files {
        world.write(name, &with(object, "newLabel").to_string());
    }
    for path in [&reconciled, &deprecated] {
        let updated = |object: &Value| object["metadata"]["labels"]["newLabel"] == "true";
        world.until(path, "it is updated", updated).await;
    }
    world.parent("ensure.yaml", "ready").await;
    assert_eq!(world.until_there(&ensured).await["metadata"]["resourceVersion"], before["metadata"]["resourceVersion"]);

    for name in ["invalid.yaml", "reconcile.yaml", "legacy.yaml", "ensure.yaml"] {
        world.remove(name);
    }
    world.until_gone(&reconciled).await;
    world.until_gone(&deprecated).await;
    for name in ["invalid.yaml", "reconcile.yaml", "legacy.yaml", "ensure.yaml"] {
        world.until_no_parent(name).await;
    }
    assert_eq!(world.until_there(&ensured).await["metadata"]["resourceVersion"], before["metadata"]["resourceVersion"]);
    assert_eq!(world.get(&path("replicationcontrollers", "not-matched")).await.unwrap(), None);
    world.until_there(&at("stays")).await;
}

/// What only has to exist is never written once it does, whoever made it and whatever becomes of it;
/// what is applied stands in its inventory first.
#[tokio::test]
async fn what_only_has_to_exist_is_never_touched() {
    let world = World::start(&[]).await;
    let theirs =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "theirs"}, "data": {"k": "theirs"}});
    let maps = "/api/v1/namespaces/default/configmaps";
    world.send(Method::POST, maps, "application/json", &theirs).await.unwrap();
    let before = world.until_there(&at("theirs")).await["metadata"]["resourceVersion"].clone();
    let file = |value: &str| {
        [map("theirs", "EnsureExists", value), map("made", "EnsureExists", value), map("kept", "Reconcile", value)]
            .join("---\n")
    };
    world.write("x.yaml", &file("v"));
    world.parent("x.yaml", "ready").await;
    world.until_there(&at("made")).await;
    world.kubectl(&["annotate", "configmap", "made", "by=hand"]).await;
    let made = world.until_there(&at("made")).await["metadata"]["resourceVersion"].clone();
    world.write("x.yaml", &file("w"));
    world.until(&at("kept"), "the file's change is applied", |object| object["data"]["k"] == "w").await;
    world.parent("x.yaml", "ready").await;
    // Neither a restart nor the end of the file touches them; the last object that is kept goes.
    world.deck.replica(0).process().kill().await.unwrap();
    world.deck.replica(0).restart().unwrap();
    world.write("x.yaml", &[map("theirs", "EnsureExists", "x"), map("made", "EnsureExists", "x")].join("---\n"));
    world.until_gone(&at("kept")).await;
    world.parent("x.yaml", "ready").await;
    world.remove("x.yaml");
    world.until_no_parent("x.yaml").await;
    for (name, version) in [("theirs", before), ("made", made)] {
        assert_eq!(world.until_there(&at(name)).await["metadata"]["resourceVersion"], version, "{name}");
    }
    world.control_plane.settle_audit().await.unwrap();
    let ours = world
        .control_plane
        .audit()
        .filter(|event| event.is_write() && event.acting_user().ends_with(":quarterdeck-addons") && event.succeeded())
        .unwrap();
    let ours: Vec<_> = ours.iter().filter(|event| event.resource() == "configmaps").collect();
    let of = |name: &str| ours.iter().filter(|event| event.name() == name).count();
    assert_eq!((of("theirs"), of("made")), (0, 1), "{ours:#?}");
    let place = |name: &str| ours.iter().position(|event| event.name().starts_with(name));
    assert!(place("addon-directory-x-") < place("kept"), "the inventory was widened too late: {ours:#?}");
}
