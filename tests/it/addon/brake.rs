//! Many removals at once wait for a person, and so do kinds that take others with them.

use super::{World, at, map};

#[tokio::test]
async fn an_emptied_directory_is_held_until_it_is_released() {
    let world = World::start(&[]).await;
    for n in 0..3 {
        world.write(&format!("f{n}.yaml"), &map(&format!("m{n}"), "Reconcile", "v"));
    }
    for n in 0..3 {
        world.parent(&format!("f{n}.yaml"), "ready").await;
    }
    // An unmounted disk looks like this.
    let (here, away) = (world.path(""), world.dir.path().join("away"));
    std::fs::rename(&here, &away).unwrap();
    std::fs::create_dir(&here).unwrap();
    let parent = world.parent("f0.yaml", "held").await;
    assert!(parent["data"]["held"].as_str().unwrap().contains("ConfigMap/default/m0"));
    world.parent("f2.yaml", "held").await;
    // A restart lets nothing go.
    world.deck.replica(0).process().kill().await.unwrap();
    world.deck.replica(0).restart().unwrap();
    world.deck.ready(super::LONG).await.unwrap();
    // One file comes back; the others stay held.
    world.write("f1.yaml", &map("m1", "Reconcile", "w"));
    world.until(&at("m1"), "a file that is back is applied", |object| object["data"]["k"] == "w").await;
    world.parent("f1.yaml", "ready").await;
    for n in [0, 2] {
        world.until_there(&at(&format!("m{n}"))).await;
    }
    let parent = world.parent("f0.yaml", "held").await;
    world.release(&parent).await;
    world.until_gone(&at("m0")).await;
    world.until_gone(&at("m2")).await;
    world.until_there(&at("m1")).await;
}

#[tokio::test]
async fn one_file_goes_at_once_but_for_its_namespace() {
    let world = World::start(&[]).await;
    let namespace = "apiVersion: v1\nkind: Namespace\nmetadata: {name: harbour, labels: {addonmanager.kubernetes.io/mode: Reconcile}}\n";
    let maps: Vec<String> = (0..30)
        .map(|n| map(&format!("m{n}"), "Reconcile", "v").replace("  labels", "  namespace: harbour\n  labels"))
        .collect();
    world.write("only.yaml", &format!("{namespace}---\n{}", maps.join("---\n")));
    world.parent("only.yaml", "ready").await;
    let in_harbour = |n: u32| format!("/api/v1/namespaces/harbour/configmaps/m{n}");
    world.until_there(&in_harbour(29)).await;
    // The last file, with any number of objects.
    world.remove("only.yaml");
    for n in 0..30 {
        world.until_gone(&in_harbour(n)).await;
    }
    let parent = world.parent("only.yaml", "held").await;
    assert_eq!(parent["data"]["held"], "Namespace//harbour\n");
    assert!(world.until_there("/api/v1/namespaces/harbour").await["metadata"].get("deletionTimestamp").is_none());
    world.release(&parent).await;
    world
        .until("/api/v1/namespaces/harbour", "the namespace goes", |object| {
            object["metadata"].get("deletionTimestamp").is_some()
        })
        .await;
}

#[tokio::test]
async fn a_large_edit_is_held_and_a_missing_directory_is_no_edit() {
    let world = World::start(&["--addon-prune-protect="]).await;
    let maps =
        |count: u32| (0..count).map(|n| map(&format!("m{n}"), "Reconcile", "v")).collect::<Vec<_>>().join("---\n");
    world.write("many.yaml", &maps(20));
    world.parent("many.yaml", "ready").await;
    world.write("many.yaml", &maps(9));
    world.parent("many.yaml", "held").await;
    world.until_there(&at("m19")).await;
    world.write("many.yaml", &maps(20));
    world.parent("many.yaml", "ready").await;
    world.write("many.yaml", &maps(11));
    world.until_gone(&at("m19")).await;
    world.until_gone(&at("m11")).await;
    // A directory that is away, and an empty file, are no evidence.
    std::fs::rename(world.path(""), world.dir.path().join("away")).unwrap();
    world.kubectl(&["delete", "configmap", "m0"]).await;
    std::fs::create_dir(world.path("")).unwrap();
    world.write("many.yaml", "# nothing\n");
    world.write("new.yaml", &map("new", "Reconcile", "v"));
    world.until_there(&at("new")).await;
    world.parent("new.yaml", "ready").await;
    world.until_there(&at("m10")).await;
}

#[tokio::test]
async fn edits_that_are_held_go_by_the_plan_that_was_released() {
    let world = World::start(&["--addon-prune-protect="]).await;
    let maps = |count: u32, value: &str| {
        (0..count).map(|n| map(&format!("m{n}"), "Reconcile", value)).collect::<Vec<_>>().join("---\n")
    };
    world.write("many.yaml", &maps(20, "v"));
    world.write("stays.yaml", &map("stays", "Reconcile", "v"));
    world.parent("many.yaml", "ready").await;
    world.parent("stays.yaml", "ready").await;
    world.write("many.yaml", &maps(8, "v"));
    let first = world.parent("many.yaml", "held").await;
    // The edit grows: the first plan is good for nothing any more.
    world.write("many.yaml", &maps(7, "v"));
    let grown = |map: &serde_json::Value| map["data"]["heldPlan"] != first["data"]["heldPlan"];
    let second = world.until_parent("many.yaml", "the plan is another", grown).await;
    assert!(second["data"]["held"].as_str().unwrap().contains("ConfigMap/default/m7\n"), "{second}");
    world.release(&first).await;
    // What the file still has is kept meanwhile, and what is held is not.
    world.write("many.yaml", &maps(7, "w"));
    world.until(&at("m0"), "the rest of the file is applied", |object| object["data"]["k"] == "w").await;
    world.parent("many.yaml", "held").await;
    for n in 7..20 {
        assert_eq!(world.until_there(&at(&format!("m{n}"))).await["data"]["k"], "v");
    }
    world.release(&second).await;
    for n in 7..20 {
        world.until_gone(&at(&format!("m{n}"))).await;
    }
    world.parent("many.yaml", "ready").await;
    world.until_there(&at("m6")).await;
}

#[tokio::test]
async fn without_protection_namespaces_go_with_their_file() {
    let world = World::start(&["--addon-prune-protect="]).await;
    let namespace = "apiVersion: v1\nkind: Namespace\nmetadata: {name: harbour, labels: {addonmanager.kubernetes.io/mode: Reconcile}}\n";
    world.write("only.yaml", namespace);
    world.parent("only.yaml", "ready").await;
    world.remove("only.yaml");
    world.until_no_parent("only.yaml").await;
    let path = "/api/v1/namespaces/harbour";
    // Nothing here empties namespaces: it stays as one that is being deleted.
    world.until(path, "it goes", |object| object["metadata"].get("deletionTimestamp").is_some()).await;
}
