//! Objects that were there before, and objects that only look like ours.

use http::Method;
use serde_json::json;

use super::{World, at, map};

#[tokio::test]
async fn what_kubectl_applied_is_adopted() {
    let world = World::start(&[]).await;
    let file = world.dir.path().join("before.yaml");
    std::fs::write(&file, map("x", "Reconcile", "v").replace("{k: v}", "{k: old, extra: e}")).unwrap();
    world.apply(&file).await;
    let before = world.until_there(&at("x")).await;
    world.write("x.yaml", &map("x", "Reconcile", "v"));
    let after = world.until(&at("x"), "it is as the file says", |object| object["data"] == json!({"k": "v"})).await;
    assert_eq!(after["metadata"]["uid"], before["metadata"]["uid"]);
    let annotations = after["metadata"]["annotations"].as_object();
    assert!(
        annotations.is_none_or(|all| !all.contains_key("kubectl.kubernetes.io/last-applied-configuration")),
        "{after}"
    );
    world.write("stays.yaml", &map("stays", "Reconcile", "v"));
    world.parent("x.yaml", "ready").await;
    world.remove("x.yaml");
    world.until_gone(&at("x")).await;
}

#[tokio::test]
async fn copies_of_labels_are_not_ours() {
    let world = World::start(&[]).await;
    world.write(
        "x.yaml",
        &format!(
            "{}---\n{}",
            map("x", "Reconcile", "v"),
            map("kept", "Reconcile", "v")
                .replace("  labels:", "  annotations: {quarterdeck.dev/prune: keep}\n  labels:")
        ),
    );
    world.write("stays.yaml", &map("stays", "Reconcile", "v"));
    world.parent("x.yaml", "ready").await;
    // A copy with everything, managedFields included; one owned by a controller; one of another name space.
    let original = world.until_there(&at("x")).await;
    let copy = |name: &str| {
        let mut copy = original.clone();
        for field in ["uid", "resourceVersion", "creationTimestamp"] {
            copy["metadata"].as_object_mut().unwrap().remove(field);
        }
        copy["metadata"]["name"] = name.into();
        copy
    };
    world.send(Method::POST, "/api/v1/namespaces/default/configmaps", "application/json", &copy("copy")).await.unwrap();
    world.control_plane.namespace("elsewhere").await.unwrap();
    let mut elsewhere = copy("x");
    elsewhere["metadata"]["namespace"] = "elsewhere".into();
    world.send(Method::POST, "/api/v1/namespaces/elsewhere/configmaps", "application/json", &elsewhere).await.unwrap();
    world.remove("x.yaml");
    world.until_gone(&at("x")).await;
    for path in [at("copy"), at("kept"), "/api/v1/namespaces/elsewhere/configmaps/x".to_owned(), at("stays")] {
        world.until_there(&path).await;
    }
}
