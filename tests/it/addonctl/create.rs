//! `create`, `apply` and `delete` on a real server.

use kube::api::{Patch, PatchParams};
use serde_json::json;

use super::{NAMESPACE, World};

#[tokio::test(flavor = "multi_thread")]
async fn create_makes_updates_and_leaves_alone() {
    let world = World::start().await;
    let install = world.file("install.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n");
    let args = ["create", "core/app", "-n", "deployed", "-v", "v1", "--install", &install];
    let line = |done: &str| format!("addon.addonmgr.keikoproj.io/core-app {done}\n");
    assert_eq!(world.run(&args).await.fine(), line("created"));
    assert_eq!(world.run(&args).await.fine(), line("unchanged"));
    let api = world.addons(NAMESPACE);
    let first = api.get("core-app").await.unwrap();
    assert_eq!(first.spec.pkg_name, "core/app");

    // What others said about it stays.
    let theirs =
        Patch::Merge(json!({"metadata": {"labels": {"a": "b"}, "finalizers": ["delete.addonmgr.keikoproj.io"]}}));
    api.patch("core-app", &PatchParams::default(), &theirs).await.unwrap();
    let more = [&args[..], &["--desc", "d", "-p", "x=1"]].concat();
    assert_eq!(world.run(&more).await.fine(), line("configured"));
    let second = api.get("core-app").await.unwrap();
    assert_eq!((second.metadata.uid.clone(), second.label("a")), (first.metadata.uid, Some("b")));
    assert_eq!((&*second.spec.pkg_description, second.spec.parameters().unwrap()["x"].as_str()), ("d", "1"));

    // Another package that comes to the same name is not overwritten.
    let error = world.run(&["create", "core-app", "-n", "deployed", "-v", "v1"]).await.failed(1);
    assert!(error.contains("is the package \"core/app\", not \"core-app\""), "{error}");

    // Deleted, it waits for its finalizer, and for us if we say so.
    let deleted = world.run(&["delete", "core-app"]).await.fine();
    assert_eq!(deleted, "addon core-app is being deleted\n");
    let wait = tokio::spawn(super::ended(world.command(&["wait", "core-app", "--for=deleted", "--timeout=60s"])));
    let free = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    api.patch("core-app", &PatchParams::default(), &free).await.unwrap();
    let ran = wait.await.unwrap().unwrap();
    assert_eq!((ran.code, ran.out.as_str()), (0, "addon core-app deleted\n"), "{}", ran.err);
    let error = world.run(&["delete", "core-app"]).await.failed(3);
    assert_eq!(error, "error: there is no addon \"core-app\"\n");
    assert_eq!(world.run(&["wait", "core-app", "--for=deleted"]).await.fine(), "addon core-app deleted\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn apply_takes_addons_and_nothing_else() {
    let world = World::start().await;
    world.control_plane.namespace("elsewhere").await.unwrap();
    let addon = |name: &str, namespace: &str, version: &str| {
        format!(
            "apiVersion: addonmgr.keikoproj.io/v1alpha1\nkind: Addon\nmetadata:\n  name: {name}\n  namespace: {namespace}\n\
             spec:\n  pkgName: {name}\n  pkgVersion: {version}\n  pkgType: composite\n  pkgDescription: d\n  params:\n    \
             namespace: deep\n    clusterContext: {{clusterName: c}}\n    data: {{feature: true}}\n"
        )
    };
    let file =
        world.file("two.yaml", &format!("{}---\n{}", addon("a", NAMESPACE, "v1"), addon("b", "elsewhere", "v1")));
    let line = |name: &str, done: &str| format!("addon.addonmgr.keikoproj.io/{name} {done}\n");
    let dry = world.run(&["apply", "-f", &file, "--dry-run"]).await.fine();
    assert_eq!(dry, line("a", "created (dry run)") + &line("b", "created (dry run)"));
    assert_eq!(world.run(&["apply", "-f", &file]).await.fine(), line("a", "created") + &line("b", "created"));
    let file =
        world.file("two.yaml", &format!("{}---\n{}", addon("a", NAMESPACE, "v1"), addon("b", "elsewhere", "v2")));
    assert_eq!(world.run(&["apply", "-f", &file]).await.fine(), line("a", "unchanged") + &line("b", "configured"));
    assert_eq!(world.addons("elsewhere").get("b").await.unwrap().spec.pkg_version, "v2");

    // Nothing is written while a file has something that is no Addon, or a wrong one.
    let pod = world.file("pod.yaml", "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\n");
    let fresh = world.file("fresh.yaml", &addon("fresh", NAMESPACE, "v1"));
    let error = world.run(&["apply", "-f", &fresh, "-f", &pod]).await.failed(1);
    assert!(error.contains("pod.yaml: document 1: is \"v1\" \"Pod\""), "{error}");
    let wrong =
        world.file("wrong.yaml", &addon("fresh", NAMESPACE, "v1").replace("namespace: deep\n", "namespace: \"\"\n"));
    let error = world.run(&["apply", "-f", &wrong]).await.failed(1);
    assert!(error.contains("wrong.yaml: document 1: spec.params.namespace: must not be empty"), "{error}");
    assert!(world.addons(NAMESPACE).get_opt("fresh").await.unwrap().is_none());
    // The server's refusal names the field, and the other objects are applied.
    let unknown = addon("c", NAMESPACE, "v1").replace("pkgDescription: d", "pkgDescription: d\n  pkgUnknown: x");
    let file = world.file("some.yaml", &format!("{unknown}---\n{}", addon("fresh", NAMESPACE, "v1")));
    let ran = world.run(&["apply", "-f", &file]).await;
    assert_eq!((ran.code, ran.out), (1, line("fresh", "created")));
    assert!(ran.err.contains("addon c: ") && ran.err.contains("pkgUnknown"), "{}", ran.err);
    assert!(ran.err.ends_with("error: 1 of 2 addons could not be applied\n"), "{}", ran.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_addons_is_named_as_such() {
    let control_plane = quarterdeck_it::ControlPlane::start().await.unwrap();
    let home = tempfile::tempdir().unwrap();
    let kubeconfig = control_plane.admin_kubeconfig().unwrap();
    let kubeconfig = kubeconfig.display().to_string();
    for args in [&["get"][..], &["describe", "a"], &["create", "a", "-n=n", "-v=1"]] {
        let error = super::alone(home.path(), &[args, &["--kubeconfig", &kubeconfig]].concat()).await.failed(1);
        assert!(error.contains("`quarterdeck install` brings them"), "{args:?}: {error}");
    }
}
