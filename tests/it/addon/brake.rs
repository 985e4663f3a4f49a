//! Many removals at once wait for a person, and so do kinds that take others with them.

use serde_json::Value;

use super::{World, at, map};

async fn release(world: &World, parent: &Value) {
    let command = parent["data"]["release"].as_str().unwrap().to_owned();
    let words: Vec<&str> = command.split(' ').skip(1).collect();
    world.kubectl(&words).await;
}

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
    release(&world, &parent).await;
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
    release(&world, &parent).await;
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
