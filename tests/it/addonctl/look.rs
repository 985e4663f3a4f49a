//! `get`, `describe`, `logs`, `channels get addons` on a real server.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};

use super::{NAMESPACE, World};

/// The cells of a table.
fn cells(text: &str) -> Vec<Vec<String>> {
    text.lines().map(|line| line.split_whitespace().map(str::to_owned).collect()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn get_shows_addons_of_every_source_in_one_list() {
    let world = World::start().await;
    let ran = world.run(&["get"]).await;
    assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (0, "", "no addons found\n"));
    world.control_plane.namespace("team").await.unwrap();
    world
        .addon("team", "fluentd", |addon| {
            addon["spec"]["pkgName"] = json!("core/fluentd");
            addon["status"] = json!({
                "lifecycle": {"installed": "Succeeded"}, "health": "Ready", "source": "addon", "objects": 4, "drift": 1,
            });
        })
        .await;
    world
        .addon("kube-system", "directory-of-a-very-long-name-of-dns", |addon| {
            addon["metadata"]["labels"] = json!({"quarterdeck.dev/mirror": "directory"});
            addon["spec"]["pkgType"] = json!("directory");
            addon["status"] = json!({"health": "Degraded", "reason": "broken file", "source": "directory"});
        })
        .await;
    world.addon(NAMESPACE, "fluentd", |_| {}).await;

    let all = cells(&world.run(&["get"]).await.fine());
    assert_eq!(all[0], ["NAMESPACE", "NAME", "PACKAGE", "VERSION", "STATUS", "HEALTH", "REASON", "AGE"]);
    assert_eq!(all.len(), 4);
    assert_eq!(all[1][..2], [NAMESPACE, "fluentd"]);
    assert_eq!(all[2][4..7], ["Degraded", "broken", "file"]);
    assert_eq!(all[3][..6], ["team", "fluentd", "core/fluentd", "v1", "Succeeded", "Ready"]);
    let names = |all: &[Vec<String>]| all.iter().map(|row| row[..2].to_vec()).collect::<Vec<_>>();
    assert_eq!(names(&cells(&world.run(&["get", "-A"]).await.fine())), names(&all));
    let wide = world.run(&["get", "-n", "team", "-o", "wide"]).await.fine();
    assert!(wide.starts_with("NAME ") && wide.contains("LAST DRIFT"), "{wide}");
    assert_eq!(cells(&wide)[1][6..], ["addon", "4", "1"]);

    let list: Value = serde_json::from_str(&world.run(&["get", "-o", "json"]).await.fine()).unwrap();
    assert_eq!((&list["kind"], list["items"].as_array().unwrap().len()), (&json!("List"), 3));
    let one: Value = serde_json::from_str(&world.run(&["get", "fluentd", "-n=team", "-o=json"]).await.fine()).unwrap();
    assert_eq!((&one["kind"], &one["spec"]["pkgName"]), (&json!("Addon"), &json!("core/fluentd")));
    assert!(one["metadata"].get("managedFields").is_none());
    let yaml = world.run(&["get", "fluentd", "-n=team", "-o=yaml"]).await.fine();
    assert!(yaml.starts_with("apiVersion: addonmgr.keikoproj.io/v1alpha1\nkind: Addon\n"), "{yaml}");

    // A name that is not the only one has to be told apart; one that is, has not.
    let error = world.run(&["get", "fluentd"]).await.failed(1);
    assert!(error.contains("is in several namespaces; name one with -n: addon-manager-system, team"), "{error}");
    assert!(world.run(&["get", "directory-of-a-very-long-name-of-dns"]).await.fine().contains("broken file"));
    assert_eq!(world.run(&["get", "none"]).await.failed(3), "error: there is no addon \"none\"\n");

    let told = world.run(&["describe", "fluentd", "-n", "team"]).await.fine();
    assert!(told.contains("Package:        core/fluentd\n") && told.contains("Drift:          1 repaired\n"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_look_everywhere_looks_at_home() {
    let world = World::start().await;
    world.addon("default", "mine", |_| {}).await;
    let rules = serde_json::from_value(json!([{
        "apiGroups": ["addonmgr.keikoproj.io"], "resources": ["addons"], "verbs": ["get", "list", "patch"],
    }]))
    .unwrap();
    let rules: Vec<k8s_openapi::api::rbac::v1::PolicyRule> = rules;
    world.control_plane.grant_in("default", "somebody", &rules).await.unwrap();
    let kubeconfig = world.control_plane.kubeconfig("somebody", &[]).unwrap().display().to_string();
    let run =
        async |args: &[&str]| super::alone(world.home.path(), &[args, &["--kubeconfig", &kubeconfig]].concat()).await;
    assert_eq!(run(&["pause", "mine"]).await.fine(), "addon mine paused\n");
    let error = run(&["get"]).await.failed(1);
    assert!(error.contains("is forbidden"), "{error}");
    assert!(run(&["get", "-n", "default"]).await.fine().contains("mine"));
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_are_those_of_pods_and_what_was_kept() {
    let world = World::start().await;
    world
        .addon("default", "app", |addon| {
            addon["status"] = json!({"progress": {"steps": {
                "prereqs": {"nodes": {"entry": {"state": "Failed", "message": "kept of prereqs\n"}}},
                "install": {"nodes": {"entry": {"state": "Failed", "message": "kept of install\n"}}},
            }}});
        })
        .await;
    let both = world.run(&["logs", "app"]).await.fine();
    let wanted = ["install", "prereqs"].map(|step| format!("==> {step}/entry (kept) <==\nkept of {step}\n"));
    assert_eq!(both, wanted.concat());
    assert_eq!(world.run(&["logs", "app", "--step=prereqs"]).await.fine(), wanted[1]);
    let ran = world.run(&["logs", "app", "--step=delete"]).await;
    assert_eq!((ran.code, ran.err.as_str()), (0, "addon app has no logs of delete\n"));

    // Pods that no node runs have no log; that hides nothing. Only those of the step are asked.
    let pods: Api<Pod> = Api::namespaced(world.client.clone(), "default");
    for (name, addon, step) in
        [("one", "app", "install/entry/a"), ("two", "app", "delete/entry/a"), ("three", "other", "install/entry/a")]
    {
        let pod = json!({
            "metadata": {
                "name": name, "labels": {"quarterdeck.dev/addon": addon}, "annotations": {"quarterdeck.dev/step": step},
            },
            "spec": {"containers": [{"name": "main", "image": "none"}]},
        });
        pods.create(&Default::default(), &serde_json::from_value(pod).unwrap()).await.unwrap();
    }
    for (args, asked) in [(&["logs", "app", "--step=install"][..], &["one"][..]), (&["logs", "app"], &["one", "two"])] {
        let mut audit = world.control_plane.audit_from_now().unwrap();
        let ran = world.run(args).await;
        assert!(ran.code == 0 && ran.out.starts_with(&wanted[0]), "{ran:?}");
        world.control_plane.settle_audit().await.unwrap();
        let events = audit.filter(|event| event.request_uri.contains("/log")).unwrap();
        let names: BTreeSet<String> =
            events.iter().filter_map(|event| event.request_uri.split('/').nth(6).map(str::to_owned)).collect();
        assert_eq!(names.iter().map(String::as_str).collect::<Vec<_>>(), asked);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn channels_lists_what_kops_would() {
    let world = World::start().await;
    let ran = world.run(&["channels", "get", "addons"]).await;
    assert_eq!((ran.code, ran.err.as_str()), (0, "no channel has installed an addon\n"));
    let namespaces: Api<Namespace> = Api::all(world.client.clone());
    let annotate = async |name: &str, value: Value| {
        let patch = Patch::Merge(json!({"metadata": {"annotations": value}}));
        namespaces.patch(name, &PatchParams::default(), &patch).await.unwrap();
    };
    annotate(
        "kube-system",
        json!({
            "addons.k8s.io/kube-dns": r#"{"channel":"s3://b/bootstrap.yaml","id":"k8s-1.12","manifestHash":"6f2c","systemGeneration":1}"#,
            "addons.k8s.io/core": r#"{"version":"1.4.0","channel":"s3://b/bootstrap.yaml"}"#,
        }),
    )
    .await;
    annotate("default", json!({"addons.k8s.io/mine": "{not json"})).await;
    let ran = world.run(&["channels", "get", "addons"]).await;
    let rows = cells(&ran.out);
    assert_eq!(rows[0], ["NAMESPACE", "NAME", "HASH", "CHANNEL"]);
    assert_eq!(rows[1], ["kube-system", "core", "s3://b/bootstrap.yaml"]);
    assert_eq!(rows[2], ["kube-system", "kube-dns", "6f2c", "s3://b/bootstrap.yaml"]);
    assert_eq!(rows.len(), 3);
    assert!(ran.err.starts_with("warning: namespace default: annotation addons.k8s.io/mine: "), "{}", ran.err);
    let json: Value = serde_json::from_str(&world.run(&["channels", "get", "addons", "-o=json"]).await.out).unwrap();
    assert_eq!(json[1]["manifestHash"], "6f2c");
}
