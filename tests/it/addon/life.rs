//! What kube-addon-manager's own tests ask for
//! (`kubernetes:cluster/addons/addon-manager/kube-addons-test.sh`, `test/e2e/cloud/gcp/addon_update.go`),
//! and that a bad file hurts nobody else.

use http::Method;
use serde_json::json;

use super::{World, at, map};

fn limits(name: &str, mode: &str, cpu: u32) -> String {
    format!(
        "apiVersion: v1\nkind: LimitRange\nmetadata:\n  name: {name}\n  namespace: default\n  labels: {{addonmanager.kubernetes.io/mode: {mode}}}\nspec: {{limits: [{{type: Container, default: {{cpu: {cpu}m}}}}]}}\n"
    )
}

fn limit(name: &str) -> String {
    format!("/api/v1/namespaces/default/limitranges/{name}")
}

#[tokio::test]
async fn files_are_applied_kept_and_removed() {
    let world = World::start(&[]).await;
    let file =
        |cpu| format!("{}---\n{}", limits("reconciled", "Reconcile", cpu), limits("ensured", "EnsureExists", cpu));
    world.write("multi.yaml", &file(100));
    world.write("other.yaml", &map("other", "Reconcile", "v"));
    world.write("skipped.yaml", &map("never", "NotMatch", "v"));
    world.until_there(&limit("reconciled")).await;
    world.until_there(&limit("ensured")).await;
    world.until_there(&at("other")).await;

    // The file changes.
    world.write("multi.yaml", &file(200));
    let cpu = |object: &serde_json::Value| object["spec"]["limits"][0]["default"]["cpu"].clone();
    world.until(&limit("reconciled"), "the file's change is applied", |object| cpu(object) == "200m").await;
    assert_eq!(cpu(&world.until_there(&limit("ensured")).await), "100m");

    // A person changes the objects.
    let patch = json!({"spec": {"limits": [{"type": "Container", "default": {"cpu": "999m"}}]}, "metadata": {"annotations": {"by": "hand"}}});
    for name in ["ensured", "reconciled"] {
        world.kubectl(&["patch", "limitrange", name, "--type=merge", "-p", &patch.to_string()]).await;
    }
    world
        .until(&limit("reconciled"), "a person's change is reverted", |object| {
            cpu(object) == "200m" && object["metadata"]["annotations"].get("by").is_none()
        })
        .await;
    assert_eq!(cpu(&world.until_there(&limit("ensured")).await), "999m");

    // A person deletes the objects.
    for name in ["ensured", "reconciled"] {
        let uid = world.until_there(&limit(name)).await["metadata"]["uid"].clone();
        world.kubectl(&["delete", "limitrange", name]).await;
        world.until(&limit(name), "it is made anew", |object| object["metadata"]["uid"] != uid).await;
    }

    // The file goes; its objects go but for those that only have to exist.
    world.parent("multi.yaml", "ready").await;
    world.remove("multi.yaml");
    world.until_gone(&limit("reconciled")).await;
    world.until_there(&limit("ensured")).await;
    world.until_there(&at("other")).await;
    assert_eq!(world.get(&at("never")).await.unwrap(), None);
    assert_eq!(world.parent("skipped.yaml", "ready").await["data"]["skipped"], "1");
}

#[tokio::test]
async fn a_bad_file_hurts_nobody_else() {
    let world = World::start(&[]).await;
    world.write("a-bad.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: [\n");
    world.write(
        "b-half.yaml",
        &format!("{}---\nkind: 7\n---\n{}", map("before", "Reconcile", "v"), map("after", "Reconcile", "v")),
    );
    world.write("c-unknown.yaml", &format!("{}---\napiVersion: nowhere.example/v1\nkind: Nothing\nmetadata: {{name: x, labels: {{addonmanager.kubernetes.io/mode: Reconcile}}}}\n", map("beside", "Reconcile", "v")));
    world.write(
        "d-refused.yaml",
        &format!("{}---\n{}", limits("Bad_Name", "Reconcile", 1), map("with", "Reconcile", "v")),
    );
    world.write("e-good.yaml", &format!("{}---\n{}", map("good", "Reconcile", "v"), map("going", "Reconcile", "v")));
    for name in ["before", "after", "beside", "with", "good", "going"] {
        world.until_there(&at(name)).await;
    }
    let errors = async |file: &str| {
        world.parent(file, "degraded").await["data"]["errors"].as_str().unwrap_or_default().to_owned()
    };
    assert!(errors("a-bad.yaml").await.contains("line"));
    assert!(errors("b-half.yaml").await.contains("document 2"));
    assert!(errors("c-unknown.yaml").await.contains("no such kind"));
    assert!(errors("d-refused.yaml").await.contains("Bad_Name"));
    // Prune goes on beside them.
    world.write("e-good.yaml", &map("good", "Reconcile", "v"));
    world.until_gone(&at("going")).await;
    // A half-readable file removes nothing, also when a document is taken out of it.
    world.write("b-half.yaml", &format!("{}---\nkind: 7\n", map("before", "Reconcile", "w")));
    world.until(&at("before"), "the rest is applied", |object| object["data"]["k"] == "w").await;
    world.until_there(&at("after")).await;
    // Mended, it does.
    world.write("b-half.yaml", &map("before", "Reconcile", "w"));
    world.until_gone(&at("after")).await;
    world.parent("b-half.yaml", "ready").await;
}

#[tokio::test]
async fn a_crd_and_its_resources_come_in_one_pass() {
    let world = World::start(&[]).await;
    let crd = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "ships.fleet.example", "labels": {"addonmanager.kubernetes.io/mode": "Reconcile"}},
        "spec": {"group": "fleet.example", "scope": "Namespaced", "names": {"plural": "ships", "singular": "ship", "kind": "Ship"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}}}]},
    });
    let label = json!({"addonmanager.kubernetes.io/mode": "Reconcile"});
    let ship = |name: &str| json!({"apiVersion": "fleet.example/v1", "kind": "Ship", "metadata": {"name": name, "namespace": "harbour", "labels": label}, "spec": {"sails": 3}});
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "harbour", "labels": label}});
    // In the worst order, and one of them in another file.
    world.write("fleet.json", &format!("{}\n{crd}\n{namespace}", ship("one")));
    world.write("a-ship.json", &ship("two").to_string());
    let path = |name: &str| format!("/apis/fleet.example/v1/namespaces/harbour/ships/{name}");
    world.until_there(&path("one")).await;
    world.until_there(&path("two")).await;
    world.parent("fleet.json", "ready").await;
    world.parent("a-ship.json", "ready").await;
    // Drift of a kind that came later is seen, too.
    world
        .send(
            Method::PATCH,
            &format!("{}?fieldManager=kubectl-edit", path("one")),
            "application/merge-patch+json",
            &json!({"spec": {"sails": 4, "crew": 5}}),
        )
        .await
        .unwrap();
    world.until(&path("one"), "it is put back", |object| object["spec"] == json!({"sails": 3})).await;
}

/// Nothing empties namespaces here: they are being deleted for ever.
#[tokio::test]
async fn a_namespace_that_is_being_deleted_holds_up_nothing_else() {
    let world = World::start(&["--addon-prune-protect="]).await;
    let label = json!({"addonmanager.kubernetes.io/mode": "Reconcile"});
    let own =
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "own", "labels": label}}).to_string();
    let inside = |name: &str, namespace: &str| {
        map(name, "Reconcile", "v").replace("  labels", &format!("  namespace: {namespace}\n  labels"))
    };
    world.control_plane.namespace("theirs").await.unwrap();
    world.write("own.yaml", &own);
    world.write("mixed.yaml", &[inside("in", "theirs"), map("beside", "Reconcile", "v")].join("---\n"));
    world.parent("own.yaml", "ready").await;
    world.parent("mixed.yaml", "ready").await;
    for namespace in ["own", "theirs"] {
        world.kubectl(&["delete", "namespace", namespace, "--wait=false"]).await;
    }
    // What is being deleted is waited for.
    world.parent("own.yaml", "progressing").await;
    let file = [inside("new", "theirs"), map("beside", "Reconcile", "w"), map("more", "Reconcile", "v")];
    world.write("mixed.yaml", &file.join("---\n"));
    world.until(&at("beside"), "the rest is applied", |object| object["data"]["k"] == "w").await;
    world.until_there(&at("more")).await;
    world.until_error("mixed.yaml", &["ConfigMap/theirs/new", "being terminated"]).await;
    // The removal goes on beside the error.
    world.until_gone("/api/v1/namespaces/theirs/configmaps/in").await;
    world.write("mixed.yaml", &map("beside", "Reconcile", "w"));
    world.until_gone(&at("more")).await;
    world.parent("mixed.yaml", "ready").await;
}
