//! `plan` on a real server, and beside a real manager.

use std::path::Path;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, Patch, PatchParams};
use quarterdeck_it::{Deck, eventually};
use serde_json::{Value, json};

use super::{LONG, NAMESPACE, Ran, World};

/// The lines of a plan, less those about what is around a change.
fn said(ran: &Ran, code: i32) -> Vec<String> {
    assert_eq!((ran.code, ran.err.as_str()), (code, ""), "{}", ran.out);
    ran.out.lines().map(str::to_owned).collect()
}

fn map(name: &str, value: &str) -> String {
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {name}\n  namespace: default\n  labels:\n    \
         addonmanager.kubernetes.io/mode: Reconcile\ndata:\n  x: {value}\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_is_planned_as_the_manager_keeps_it() {
    let world = World::start().await;
    let folder = world.home.path().join("addons");
    std::fs::create_dir(&folder).unwrap();
    let path = folder.display().to_string();
    std::fs::write(folder.join("a.yaml"), map("a", "one") + "---\n" + &map("b", "one")).unwrap();
    std::fs::write(folder.join("c.yaml"), map("c", "one")).unwrap();
    let plan = async || world.run(&["plan", "-f", &path]).await;
    let new = said(&plan().await, 2);
    let wanted = [
        "directory addon a.yaml",
        "  + create ConfigMap/default/a",
        "  + create ConfigMap/default/b",
        "directory addon c.yaml",
        "  + create ConfigMap/default/c",
        "Plan: 3 to create, 0 to change, 0 to prune, 0 as they should be",
    ];
    assert_eq!(new, wanted);

    let _deck = keep(&world, &folder).await;
    eventually("the manager did what was planned", LONG, || async {
        let ran = plan().await;
        anyhow::ensure!(ran.code == 0, "{}", ran.out);
        assert!(ran.out.ends_with("No changes: 3 objects are as they should be\n"), "{}", ran.out);
        Ok(())
    })
    .await
    .unwrap();

    // Another folder, as the next release would have it: the manager does not see it.
    let next = world.home.path().join("next");
    std::fs::create_dir(&next).unwrap();
    std::fs::write(next.join("a.yaml"), map("a", "two")).unwrap();
    let ran = world.run(&["plan", "-f", &next.display().to_string()]).await;
    let lines = said(&ran, 2);
    for line in [
        "  ~ change ConfigMap/default/a",
        "    -   x: one",
        "    +   x: two",
        "  - prune  ConfigMap/default/b",
        "directory addon c.yaml",
        "  * its file is not there",
        "  - prune  ConfigMap/default/c",
        "Plan: 0 to create, 1 to change, 2 to prune, 0 as they should be",
    ] {
        assert!(lines.iter().any(|found| found == line), "{line:?} in {lines:#?}");
    }
    // A file that cannot be read whole says nothing about what is to go.
    std::fs::write(next.join("a.yaml"), map("a", "two") + "---\nkind: [\n").unwrap();
    let ran = world.run(&["plan", "-f", &next.display().to_string()]).await;
    assert_eq!(ran.code, 1);
    assert!(ran.out.contains("  ! document 2") && !ran.out.contains("prune  "), "{}", ran.out);
}

/// A replica that keeps the folder.
async fn keep(world: &World, folder: &Path) -> Deck {
    let args = ["--controllers=addon-controller".to_owned(), format!("--addon-path={}", folder.display())];
    Deck::builder(&world.control_plane).replicas(1).args(args).start().await.unwrap()
}

/// An Addon that applies a document.
fn addon(document: &str) -> Value {
    let template = json!({
        "apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow",
        "spec": {"entrypoint": "entry", "serviceAccountName": "installer", "templates": [
            {"name": "entry", "resource": {"action": "apply", "manifest": document}},
        ]},
    });
    json!({
        "apiVersion": "addonmgr.keikoproj.io/v1alpha1", "kind": "Addon",
        "metadata": {"name": "app", "namespace": NAMESPACE},
        "spec": {
            "pkgName": "app", "pkgVersion": "v1", "pkgType": "composite", "pkgDescription": "",
            "params": {"namespace": "fresh", "data": {"colour": "red"}},
            "lifecycle": {"install": {"template": template.to_string()}},
        },
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn an_addon_is_planned_with_its_objects_and_its_prune_list() {
    let world = World::start().await;
    let document = "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: fresh\n---\napiVersion: v1\nkind: Secret\nmetadata:\n  \
                    name: s\n  namespace: fresh\nstringData:\n  a: \"{{workflow.parameters.colour}}\"\n---\napiVersion: v1\nkind: ConfigMap\n\
                    metadata:\n  name: cm\n  namespace: default\ndata:\n  colour: \"{{workflow.parameters.colour}}\"\n";
    let file = world.file("app.yaml", &addon(document).to_string());
    let plan = async |args: &[&str]| world.run(&[&["plan"], args].concat()).await;
    let maps: Api<ConfigMap> = Api::namespaced(world.client.clone(), "default");
    let live = json!({"metadata": {"name": "cm"}, "data": {"colour": "blue", "theirs": "kept"}});
    maps.create(&Default::default(), &serde_json::from_value(live).unwrap()).await.unwrap();
    let version = maps.get("cm").await.unwrap().metadata.resource_version;

    let lines = said(&plan(&["-f", &file]).await, 2);
    for line in [
        "addon addon-manager-system/app",
        "  + create Addon.addonmgr.keikoproj.io/addon-manager-system/app",
        "  + create Namespace//fresh",
        "  + create Secret/fresh/s (its namespace comes with the addon)",
        "  ~ change ConfigMap/default/cm",
        "    -   colour: blue",
        "    +   colour: red",
        "        theirs: kept",
    ] {
        assert!(lines.iter().any(|found| found == line), "{line:?} in {lines:#?}");
    }
    assert_eq!(lines.last().unwrap(), "Plan: 3 to create, 1 to change, 0 to prune, 0 as they should be");
    // Nothing was done.
    assert!(world.addons(NAMESPACE).get_opt("app").await.unwrap().is_none());
    assert_eq!(maps.get("cm").await.unwrap().metadata.resource_version, version);

    // In the cluster, with an inventory that holds more than it wants.
    world.run(&["apply", "-f", &file]).await.fine();
    let live = world.addons(NAMESPACE).get("app").await.unwrap();
    let inventory = json!(["ConfigMap/default/cm u1", "ConfigMap/default/old u2", "Namespace//past u3"]);
    world.tell(&live, json!({"inventory": inventory})).await;
    let lines = said(&plan(&["app"]).await, 2);
    for line in [
        "  - prune  ConfigMap/default/old",
        "  - prune  Namespace//past (waits until a person confirms)",
        "Plan: 2 to create, 1 to change, 2 to prune, 0 as they should be",
    ] {
        assert!(lines.iter().any(|found| found == line), "{line:?} in {lines:#?}");
    }
    let changed = world.file(
        "app.yaml",
        &addon(document).to_string().replace("\"v1\"", "\"v2\"").replace("apiVersion\":\"v2", "apiVersion\":\"v1"),
    );
    let lines = said(&plan(&["-f", &changed]).await, 2);
    assert!(lines.iter().any(|line| line == "    +   pkgVersion: v2"), "{lines:#?}");

    // What the server refuses, and templates that cannot be run, are named; the rest is planned.
    let wrong = document.replace("colour: \"{{workflow.parameters.colour}}\"", "colour: {deep: 1}");
    let file = world.file("wrong.yaml", &addon(&wrong).to_string());
    let ran = plan(&["-f", &file]).await;
    assert_eq!(ran.code, 1);
    assert!(ran.out.contains("  ! ConfigMap/default/cm: the server refuses it: "), "{}", ran.out);
    assert!(
        ran.out.contains("  + create Namespace//fresh") && ran.err.contains("1 could not be planned"),
        "{}",
        ran.out
    );
    let file = world.file("unknown.yaml", &addon("kind: {{workflow.parameters.none}}").to_string());
    let ran = plan(&["-f", &file]).await;
    assert!(
        ran.out.contains("  ! spec.lifecycle.install.template: spec.templates[0].resource.manifest"),
        "{}",
        ran.out
    );

    // Colours are for terminals.
    assert!(!ran.out.contains('\u{1b}'));
    let annotations = Patch::Merge(json!({"metadata": {"labels": {"quarterdeck.dev/mirror": "channel"}}}));
    world.addons(NAMESPACE).patch("app", &PatchParams::default(), &annotations).await.unwrap();
    assert!(plan(&["app"]).await.failed(1).contains("plan its files with -f"));
}
