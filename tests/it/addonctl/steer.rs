//! `wait`, `pause`, `resume`, `adopt`, `rollback`, `prune` on a real server.

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::Api;
use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, BufReader};

use super::{NAMESPACE, World};

#[tokio::test(flavor = "multi_thread")]
async fn wait_watches_and_tells_how_it_goes() {
    let world = World::start().await;
    let addon = world.addon(NAMESPACE, "app", |_| {}).await;
    let mut child = world.command(&["wait", "app", "--for", "healthy", "--timeout", "60s"]).spawn().unwrap();
    let mut told = BufReader::new(child.stderr.take().unwrap()).lines();
    assert_eq!(told.next_line().await.unwrap().as_deref(), Some("app: Pending"));
    // It waits now, and sees every change.
    let told_after = async |told: &mut tokio::io::Lines<_>, status: serde_json::Value| -> Option<String> {
        world.tell(&addon, status).await;
        told.next_line().await.unwrap()
    };
    let line = told_after(&mut told, json!({"health": "Progressing", "reason": "waits for CRD\nmore"})).await;
    assert_eq!(line.as_deref(), Some("app: Progressing, waits for CRD"));
    let held = json!({"health": "Held", "reason": "", "held": {"plan": "p7"}});
    let line = told_after(&mut told, held).await;
    assert_eq!(line.as_deref(), Some("app: Held; a removal waits: addonctl prune app --confirm=p7"));
    // Ready for an older spec is not ready.
    let line = told_after(&mut told, json!({"health": "Ready", "held": null, "observedGeneration": 0})).await;
    assert_eq!(line.as_deref(), Some("app: Ready"));
    let line = told_after(&mut told, json!({"observedGeneration": 1})).await;
    assert_eq!(line, None, "it ended");
    let output = child.wait_with_output().await.unwrap();
    assert!(output.status.success());
    assert_eq!(String::from_utf8_lossy(&output.stdout), "addon app healthy\n");
    // It is watched, not asked again and again.
    world.control_plane.settle_audit().await.unwrap();
    let asked =
        world.control_plane.audit().filter(|event| event.verb == "list" && event.resource().starts_with("addons"));
    let by_wait = asked.unwrap().into_iter().filter(|event| event.request_uri.contains("metadata.name")).count();
    assert!(by_wait <= 3, "{by_wait} lists");

    // One that is not there may come yet.
    let ran = world.run(&["wait", "app", "none", "--timeout", "1s"]).await;
    assert_eq!(ran.code, 3, "{}", ran.err);
    assert!(ran.err.ends_with("there is no addon \"none\", yet\nerror: there is no addon \"none\"\n"), "{}", ran.err);
    world.tell(&addon, json!({"health": "Degraded", "reason": "no image"})).await;
    let ran = world.run(&["wait", "app", "--timeout", "1s"]).await;
    assert_eq!(ran.code, 4, "{}", ran.err);
    assert!(ran.err.ends_with("error: not within 1s: app: Degraded, no image\n"), "{}", ran.err);
    // One that is deleted meanwhile will never be healthy.
    let mut child = world.command(&["wait", "app"]).spawn().unwrap();
    let mut told = BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(told.next_line().await.unwrap().is_some());
    assert_eq!(world.run(&["delete", "app"]).await.fine(), "addon app deleted\n");
    assert_eq!(told.next_line().await.unwrap().as_deref(), Some("error: addon app was deleted"));
    assert_eq!(child.wait().await.unwrap().code(), Some(3));
}

#[tokio::test(flavor = "multi_thread")]
async fn marks_are_annotations_that_come_and_go() {
    let world = World::start().await;
    world
        .addon(NAMESPACE, "app", |addon| {
            addon["status"] = json!({"revisions": [
                {"hash": "cc", "state": "current"}, {"hash": "bb", "state": "bad"}, {"hash": "aa", "version": "v0"},
            ]});
        })
        .await;
    let annotation = async |key: &str| {
        let addon = world.addons(NAMESPACE).get("app").await.unwrap();
        addon.annotation(key).map(str::to_owned)
    };
    let say = async |args: &[&str]| world.run(args).await.fine();
    assert_eq!(say(&["pause", "app"]).await, "addon app paused\n");
    assert_eq!(annotation("quarterdeck.dev/paused").await.as_deref(), Some("true"));
    assert_eq!(say(&["pause", "app"]).await, "addon app is paused already\n");
    assert!(say(&["describe", "app"]).await.contains("Paused:         yes"));
    assert_eq!(say(&["resume", "app"]).await, "addon app resumed\n");
    assert_eq!(annotation("quarterdeck.dev/paused").await, None);
    assert_eq!(say(&["resume", "app"]).await, "addon app is not paused\n");
    assert_eq!(say(&["adopt", "app"]).await, "addon app to be adopted\n");
    assert_eq!(annotation("quarterdeck.dev/adopt").await.as_deref(), Some("true"));
    assert_eq!(say(&["rollback", "app"]).await, "addon app to be rolled back to aa (v0)\n");
    assert_eq!(annotation("quarterdeck.dev/rollback-to").await.as_deref(), Some("aa"));
    assert_eq!(say(&["rollback", "app", "--to=b"]).await, "addon app to be rolled back to bb\n");
    let error = world.run(&["rollback", "app", "--to=x"]).await.failed(1);
    assert_eq!(error, "error: --to=x: give one of cc, bb, aa\n");

    world
        .addon("kube-system", "mirror", |addon| {
            addon["metadata"]["labels"] = json!({"quarterdeck.dev/mirror": "channel"});
        })
        .await;
    for verb in ["adopt", "delete"] {
        let error = world.run(&[verb, "mirror"]).await.failed(1);
        assert!(error.contains("addon of a"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn prune_shows_what_waits_and_releases_that_plan_alone() {
    let world = World::start().await;
    world
        .addon(NAMESPACE, "app", |addon| {
            addon["status"] =
                json!({"held": {"plan": "p1", "reason": "a Namespace would go", "members": ["Namespace//x"]}});
        })
        .await;
    let shown = world.run(&["prune", "app"]).await.fine();
    let wanted = "addon app: 1 objects wait to be removed: a Namespace would go\n  Namespace//x\nto release: addonctl prune \
                  app --confirm=p1\n";
    assert_eq!(shown, wanted);
    let release = async || {
        let addon = world.addons(NAMESPACE).get("app").await.unwrap();
        addon.annotation("quarterdeck.dev/release-prune").map(str::to_owned)
    };
    let error = world.run(&["prune", "app", "--confirm=p0"]).await.failed(1);
    assert!(error.contains("the plan is p1 by now, not p0"), "{error}");
    assert_eq!(release().await, None);
    let line = "addon app: the removal of 1 objects is released (plan p1)\n";
    assert_eq!(world.run(&["prune", "app", "--confirm=p1"]).await.fine(), line);
    assert_eq!(release().await.as_deref(), Some("p1"));
    world.addon(NAMESPACE, "calm", |_| {}).await;
    assert_eq!(world.run(&["prune", "calm"]).await.fine(), "addon calm: no removal waits\n");
    assert_eq!(world.run(&["prune", "calm", "--confirm"]).await.failed(1), "error: addon calm: no removal waits\n");

    // An addon of a directory has a parent, by which it is found with and without its mirror.
    let maps: Api<ConfigMap> = Api::namespaced(world.client.clone(), "kube-system");
    for (name, addon, plan) in
        [("addon-directory-dns-1", "dns.yaml", "p2"), ("addon-directory-old-2", "old.yaml", "p3")]
    {
        let map = json!({
            "metadata": {
                "name": name, "labels": {"quarterdeck.dev/addon-source": "directory"},
                "annotations": {"quarterdeck.dev/addon": addon},
            },
            "data": {"held": "ConfigMap/a/x\nConfigMap/a/y\n", "heldPlan": plan, "heldReason": "too many"},
        });
        maps.create(&Default::default(), &serde_json::from_value(map).unwrap()).await.unwrap();
    }
    world
        .addon("kube-system", "dns", |addon| {
            addon["metadata"]["labels"] = json!({"quarterdeck.dev/mirror": "directory"});
            addon["spec"]["pkgName"] = json!("dns.yaml");
        })
        .await;
    let released = async |name: &str| {
        let map = maps.get(name).await.unwrap();
        map.metadata.annotations.unwrap().get("quarterdeck.dev/release-prune").cloned()
    };
    let shown = world.run(&["prune", "dns"]).await.fine();
    assert!(shown.contains("2 objects wait") && shown.contains("  ConfigMap/a/y\n"), "{shown}");
    world.run(&["prune", "dns", "--confirm"]).await.fine();
    assert_eq!(released("addon-directory-dns-1").await.as_deref(), Some("p2"));
    assert_eq!(released("addon-directory-old-2").await, None);
    world.run(&["prune", "old.yaml", "--confirm=p3"]).await.fine();
    assert_eq!(released("addon-directory-old-2").await.as_deref(), Some("p3"));
    assert_eq!(world.run(&["prune", "none"]).await.failed(3), "error: there is no addon \"none\"\n");
}
