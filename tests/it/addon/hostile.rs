//! Files that are made to harm: what they ask for is told and not done, and the others go on.

use std::os::unix::fs::symlink;

use http::Method;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use serde_json::json;

use super::{World, at, map};

impl World {
    /// Something that comes after a hostile file is applied all the same.
    async fn goes_on(&self, word: &str) {
        self.write(&format!("{word}.yaml"), &map(word, "Reconcile", "v"));
        self.parent(&format!("{word}.yaml"), "ready").await;
        assert!(self.deck.replica(0).process().is_running());
    }
}

#[tokio::test]
async fn files_that_are_no_manifests_hold_nobody_up() {
    let world = World::start(&[]).await;
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("secret.yaml"), map("outside", "Reconcile", "v")).unwrap();
    world.write("good.yaml", &map("good", "Reconcile", "v"));
    world.write("swapped.yaml", &map("swapped", "Reconcile", "v"));
    world.parent("swapped.yaml", "ready").await;
    let uid = world.until_there(&at("swapped")).await["metadata"]["uid"].clone();

    // A GiB of nothing, a pipe that nobody writes into, ways out, and a depth that would end a stack.
    let sparse = std::fs::File::create(world.path("sparse.yaml")).unwrap();
    sparse.set_len(1 << 30).unwrap();
    mkfifo(&world.path("pipe.yaml"), Mode::S_IRWXU).unwrap();
    symlink(outside.path().join("secret.yaml"), world.path("out.yaml")).unwrap();
    symlink("../../../../../../etc/passwd", world.path("up.yaml")).unwrap();
    symlink(outside.path(), world.path("folder")).unwrap();
    symlink("loop.yaml", world.path("loop.yaml")).unwrap();
    world.write("deep.json", &"[".repeat(200_000));
    world.write("deep.yaml", &format!("a: {}", "[".repeat(100_000)));
    world.write("nested.yaml", &(0..5_000).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect::<String>());
    let mut path = world.path("d");
    for _ in 0..60 {
        std::fs::create_dir(&path).unwrap();
        path.push("d");
    }
    world.goes_on("after").await;
    for file in ["sparse.yaml", "deep.json", "deep.yaml", "nested.yaml"] {
        let parent = world.until_parent(file, "it is told", |map| map["data"]["state"] == "degraded").await;
        assert!(!parent["data"]["errors"].as_str().unwrap_or_default().is_empty(), "{file}: {parent}");
    }
    assert_eq!(world.get(&at("outside")).await.unwrap(), None, "nothing outside of the directory is read");
    let memory = world.deck.replica(0).process().usage().unwrap();
    assert!(memory.resident < 512 << 20, "a file of a GiB is not read: {memory:?}");

    // A file whose place something else takes is not gone.
    std::fs::remove_file(world.path("swapped.yaml")).unwrap();
    mkfifo(&world.path("swapped.yaml"), Mode::S_IRWXU).unwrap();
    world.parent("swapped.yaml", "degraded").await;
    std::fs::remove_file(world.path("swapped.yaml")).unwrap();
    symlink(outside.path().join("secret.yaml"), world.path("swapped.yaml")).unwrap();
    world.goes_on("later").await;
    assert_eq!(world.until_there(&at("swapped")).await["metadata"]["uid"], uid);
    assert_eq!(world.get(&at("outside")).await.unwrap(), None);
    // A pipe by its name holds no reader up for ever: what is right again is read.
    std::fs::remove_file(world.path("swapped.yaml")).unwrap();
    world.write("swapped.yaml", &map("swapped", "Reconcile", "new"));
    world.until(&at("swapped"), "the new content", |object| object["data"]["k"] == "new").await;
}

#[tokio::test]
async fn files_that_change_while_they_are_read_are_read_whole_or_not_at_all() {
    let world = World::start(&[]).await;
    world.write("still.yaml", &map("still", "Reconcile", "v"));
    let both = |value: &str| ["a", "b"].map(|name| map(name, "Reconcile", value)).join("---\n");
    world.write("x.yaml", &both("t0"));
    world.parent("x.yaml", "ready").await;
    let uids = [world.until_there(&at("a")).await, world.until_there(&at("b")).await]
        .map(|map| map["metadata"]["uid"].clone());
    // Written in place and piece by piece, swapped by renames, cut short: hundreds of times.
    let path = world.path("x.yaml");
    let swapping = tokio::task::spawn_blocking(move || {
        use std::io::Write as _;
        for turn in 1..=300 {
            let text = ["a", "b"].map(|name| map(name, "Reconcile", &format!("t{turn}"))).join("---\n");
            if turn % 2 == 0 {
                let mut file = std::fs::File::create(&path).unwrap();
                for piece in text.as_bytes().chunks(40) {
                    file.write_all(piece).unwrap();
                }
            } else {
                let other = path.with_extension("new");
                std::fs::write(&other, &text).unwrap();
                std::fs::rename(&other, &path).unwrap();
            }
        }
    });
    swapping.await.unwrap();
    for (name, uid) in ["a", "b"].iter().zip(&uids) {
        let live = world.until(&at(name), "the last content", |map| map["data"]["k"] == "t300").await;
        assert_eq!(&live["metadata"]["uid"], uid, "it was never deleted");
    }
    world.parent("x.yaml", "ready").await;
}

/// Labels are no proof, whoever puts them on.
#[tokio::test]
async fn stolen_labels_cost_nobody_an_object() {
    let world = World::start(&[]).await;
    world.control_plane.namespace("theirs").await.unwrap();
    world.write("x.yaml", &["x", "z"].map(|name| map(name, "Reconcile", "v")).join("---\n"));
    world.write("stays.yaml", &map("stays", "Reconcile", "v"));
    world.parent("x.yaml", "ready").await;
    let set = world.until_there(&at("x")).await["metadata"]["labels"]["applyset.kubernetes.io/part-of"].clone();
    // People's objects, one of them with the name of a member, and their own kinds.
    let labels = json!({"applyset.kubernetes.io/part-of": set, "addonmanager.kubernetes.io/mode": "Reconcile"});
    let mut paths = Vec::new();
    for (namespace, resource, kind, name) in [
        ("default", "configmaps", "ConfigMap", "mine"),
        ("theirs", "configmaps", "ConfigMap", "x"),
        ("default", "secrets", "Secret", "x"),
    ] {
        let body = json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "labels": labels}});
        let path = format!("/api/v1/namespaces/{namespace}/{resource}");
        for manager in ["kubectl", "quarterdeck-addons"] {
            let by = format!("{path}/{name}?fieldManager={manager}&force=true");
            world.send(Method::PATCH, &by, "application/apply-patch+yaml", &body).await.unwrap();
        }
        paths.push(format!("{path}/{name}"));
    }
    let mut before = Vec::new();
    for path in &paths {
        before.push(world.until_there(path).await);
    }
    // One member is replaced by a person's object of the same name, too: it has another uid.
    world.write("x.yaml", &map("x", "Reconcile", "v"));
    world.until_gone(&at("z")).await;
    world.remove("x.yaml");
    world.until_gone(&at("x")).await;
    world.until_no_parent("x.yaml").await;
    for (path, before) in paths.iter().zip(&before) {
        assert_eq!(&world.until_there(path).await, before);
    }
}
