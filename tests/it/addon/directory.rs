//! What is special about directories: masters that differ, the directory that is applied first, files
//! that are left alone, and directories that cannot be read.

use std::path::Path;

use anyhow::bail;
use quarterdeck_it::{Deck, eventually};
use serde_json::{Value, json};

use super::{LONG, World, at, map};

const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/quarterdeck-replicas/leases";
const EVENTS: &str = "/api/v1/namespaces/quarterdeck-replicas/events";

fn put(dir: &Path, name: &str, text: &str) {
    std::fs::write(dir.join(".new"), text).unwrap();
    std::fs::rename(dir.join(".new"), dir.join(name)).unwrap();
}

/// What a replica's Lease says of its addons.
fn record(lease: &Value) -> Value {
    let text = lease["metadata"]["annotations"]["quarterdeck.dev/source.directory"].as_str().unwrap_or("null");
    serde_json::from_str(text).unwrap_or_default()
}

impl World {
    /// Waits for an event about a replica's Lease with these words.
    async fn until_event(&self, replica: &str, reason: &str, words: &str) {
        let what = format!("an event {reason} about {replica} with {words:?}");
        let looked = eventually(&what, LONG, async || {
            let all = self.get(EVENTS).await?.unwrap_or_default();
            let mut all = all["items"].as_array().cloned().unwrap_or_default();
            all.retain(|event| event["involvedObject"]["name"] == replica && event["reason"] == reason);
            let texts: Vec<&str> = all.iter().filter_map(|event| event["message"].as_str()).collect();
            if texts.iter().any(|text| text.contains(words)) { Ok(()) } else { bail!("{texts:?}") }
        });
        looked.await.unwrap();
    }

    async fn until_differs(&self, deck: &Deck, replica: &str, expected: f64) {
        eventually(&format!("{replica} differs in {expected}"), LONG, async || {
            let value = deck.replica(0).metric("quarterdeck_addon_source_differs", &[("replica", replica)]).await?;
            if (value - expected).abs() < 0.5 { Ok(()) } else { bail!("{value}") }
        })
        .await
        .unwrap();
    }
}

/// A second master, with a directory and a name of its own, on the same cluster.
async fn second(world: &World, dir: &Path, name: &str) -> Deck {
    let args = [
        "--controllers=addon-controller".to_owned(),
        format!("--addon-path={}", dir.display()),
        format!("--replica-name={name}"),
    ];
    let deck = Deck::builder(&world.control_plane).replicas(1).args(args).without_install();
    deck.start().await.unwrap()
}

#[tokio::test]
async fn masters_that_differ_are_named_with_their_files() {
    let world = World::start(&["--replica-name=alpha"]).await;
    world.deck.leader(LONG).await.unwrap();
    let theirs = tempfile::tempdir().unwrap();
    for (name, value) in [("same", "v"), ("other", "here"), ("mine", "v")] {
        world.write(&format!("{name}.yaml"), &map(name, "Reconcile", value));
    }
    put(theirs.path(), "same.yaml", &map("same", "Reconcile", "v"));
    put(theirs.path(), "other.yaml", &map("other", "Reconcile", "there"));
    put(theirs.path(), "extra.yaml", &map("extra", "Reconcile", "v"));
    let beta = second(&world, theirs.path(), "beta").await;

    // The follower has said what it reads; the leader says in what it differs, and applies its own.
    let lease = world.until(&format!("{LEASES}/beta"), "what beta reads", |lease| record(lease)["count"] == 3).await;
    assert_eq!(record(&lease)["files"].as_object().unwrap().len(), 3, "{lease}");
    assert!(lease["spec"]["holderIdentity"].is_string(), "{lease}");
    world.until_event("beta", "SourceDiffers", "beta has another other.yaml").await;
    world.until_event("beta", "SourceDiffers", "beta lacks mine.yaml").await;
    world.until_event("beta", "SourceDiffers", "beta has extra.yaml, which is not here").await;
    world.until_differs(&world.deck, "beta", 3.0).await;
    world.until_differs(&beta, "alpha", 3.0).await;
    world.until(&at("other"), "the leader's content", |object| object["data"]["k"] == "here").await;

    // Brought in line, it differs no more; and nothing is renewed or written again.
    std::fs::remove_file(theirs.path().join("extra.yaml")).unwrap();
    put(theirs.path(), "other.yaml", &map("other", "Reconcile", "here"));
    put(theirs.path(), "mine.yaml", &map("mine", "Reconcile", "v"));
    world.until_differs(&world.deck, "beta", 0.0).await;
    world.until_event("beta", "SourceAgrees", "it differs no more").await;
    let before = world.until_there(&format!("{LEASES}/beta")).await["metadata"]["resourceVersion"].clone();
    put(theirs.path(), "mine.yaml", &map("mine", "Reconcile", "v"));
    put(theirs.path(), "note.txt", "none of ours");
    // A change that counts comes after one that does not: had that been written, it would show.
    put(theirs.path(), "mine.yaml", &format!("{}# a word\n", map("mine", "Reconcile", "v")));
    world.until_differs(&world.deck, "beta", 1.0).await;
    let after = world.until_there(&format!("{LEASES}/beta")).await;
    assert_ne!(after["metadata"]["resourceVersion"], before);

    // One that stops takes its record back: a master that is switched off is not called different.
    beta.replica(0).process().stop(LONG).await.unwrap();
    let lease = world.until(&format!("{LEASES}/beta"), "nothing", |lease| record(lease).is_null()).await;
    assert!(lease["spec"]["holderIdentity"].is_null(), "{lease}");
    world.until_event("beta", "SourceAgrees", "it differs no more").await;
}

#[tokio::test]
async fn a_lease_with_garbage_is_a_warning() {
    let world = World::start(&["--replica-name=alpha"]).await;
    world.write("x.yaml", &map("x", "Reconcile", "v"));
    world.parent("x.yaml", "ready").await;
    let texts =
        ["", "garbage", "{}", r#"{"digest":7}"#, r#"{"digest":"\u0000","count":1,"files":{"\n\u001b[2J":"x"}}"#];
    for (index, text) in texts.iter().enumerate() {
        let lease = json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {"name": format!("r{index}"), "annotations": {"quarterdeck.dev/source.directory": text}},
        });
        world.send(http::Method::POST, LEASES, "application/json", &lease).await.unwrap();
    }
    // The last one is a record, of strange files.
    world.until_event("r4", "SourceDiffers", "r4 has \u{fffd}\u{fffd}[2J, which is not here").await;
    eventually("the log names each that cannot be read", LONG, async || {
        let log = world.deck.replica(0).process().log_text();
        let told = |index: usize| {
            let name = format!("r{index}");
            log.lines().any(|line| line.contains("cannot be read") && line.contains(&name))
        };
        if (0..4).all(told) { Ok(()) } else { bail!("{log}") }
    })
    .await
    .unwrap();
    world.write("z.yaml", &map("z", "Reconcile", "v"));
    world.parent("z.yaml", "ready").await;
}

#[tokio::test]
async fn admission_controls_are_applied_and_never_removed() {
    let controls = tempfile::tempdir().unwrap();
    put(controls.path(), "policy.yaml", &map("policy", "Reconcile", "v"));
    put(
        controls.path(),
        "once.json",
        &json!({
            "apiVersion": "v1", "kind": "ConfigMap", "data": {"k": "v"},
            "metadata": {"name": "once", "labels": {"addonmanager.kubernetes.io/mode": "EnsureExists"}},
        })
        .to_string(),
    );
    put(controls.path(), "not.yml", &map("not", "Reconcile", "v"));
    let flag = format!("--admission-controls-path={}", controls.path().display());
    let world = World::start(&[&flag]).await;
    world.until_there(&at("policy")).await;
    let once = world.until_there(&at("once")).await["metadata"]["uid"].clone();

    // Changed on disk: applied. Changed by hand: put back.
    put(controls.path(), "policy.yaml", &map("policy", "Reconcile", "new"));
    world.until(&at("policy"), "the new content", |object| object["data"]["k"] == "new").await;
    world.kubectl(&["label", "configmap", "policy", "by=hand"]).await;
    world.until(&at("policy"), "the label is gone", |object| object["metadata"]["labels"].get("by").is_none()).await;

    // Gone from disk, file by file and all of it: it stays, while an addon that goes is removed.
    world.write("addon.yaml", &map("addon", "Reconcile", "v"));
    world.until_there(&at("addon")).await;
    let policy = world.until_there(&at("policy")).await["metadata"]["uid"].clone();
    std::fs::remove_file(controls.path().join("policy.yaml")).unwrap();
    std::fs::remove_file(controls.path().join("once.json")).unwrap();
    eventually("the directory is seen empty", LONG, async || {
        let labels = [("source", "admission-controls")];
        let count = world.deck.replica(0).metric("quarterdeck_addon_source_addons", &labels).await?;
        if count < 0.5 { Ok(()) } else { bail!("{count}") }
    })
    .await
    .unwrap();
    world.remove("addon.yaml");
    world.until_gone(&at("addon")).await;
    assert_eq!(world.until_there(&at("policy")).await["metadata"]["uid"], policy);
    assert_eq!(world.until_there(&at("once")).await["metadata"]["uid"], once);
    assert!(world.get(&at("not")).await.unwrap().is_none(), "upstream does not read .yml there");
}

#[tokio::test]
async fn a_mark_leaves_a_file_alone_and_removes_nothing() {
    let world = World::start(&[]).await;
    std::fs::create_dir(world.path("sub")).unwrap();
    world.write("a.yaml", &map("a", "Reconcile", "v"));
    world.write("sub/b.yaml", &map("b", "Reconcile", "v"));
    world.write("c.yaml", &map("c", "Reconcile", "v"));
    for name in ["a", "b", "c"] {
        world.until_there(&at(name)).await;
    }
    world.write("a.yaml.skip", "");
    world.write("sub.skip", "");
    world
        .until_parent("a.yaml", "the mark is told", |map| {
            map["data"]["errors"].as_str().is_some_and(|text| text.contains("a.yaml.skip"))
        })
        .await;
    world
        .until_parent("sub/b.yaml", "the mark is told", |map| {
            map["data"]["errors"].as_str().is_some_and(|text| text.contains("sub.skip"))
        })
        .await;
    // Neither its content nor its drift counts; what nobody marked goes on as ever.
    world.write("a.yaml", &map("a", "Reconcile", "new"));
    world.kubectl(&["label", "configmap", "b", "by=hand"]).await;
    world.remove("c.yaml");
    world.until_gone(&at("c")).await;
    assert_eq!(world.until_there(&at("a")).await["data"]["k"], "v");
    assert_eq!(world.until_there(&at("b")).await["metadata"]["labels"]["by"], "hand");
    // Without the marks all is as the files say.
    world.remove("a.yaml.skip");
    world.remove("sub.skip");
    world.until(&at("a"), "the new content", |object| object["data"]["k"] == "new").await;
    world.until(&at("b"), "the label is gone", |object| object["metadata"]["labels"].get("by").is_none()).await;
}

#[tokio::test]
async fn drift_is_repaired_while_the_directory_is_away() {
    let world = World::start(&[]).await;
    world.write("x.yaml", &map("x", "Reconcile", "v"));
    world.write("second.yaml", &map("second", "Reconcile", "v"));
    world.parent("x.yaml", "ready").await;
    world.parent("second.yaml", "ready").await;
    let state = world.control_plane.folder().join("quarterdeck-0-state/directories");
    eventually("what was read is kept", LONG, async || {
        let kept = std::fs::read_dir(&state)?.flatten().find_map(|entry| {
            std::fs::read_to_string(entry.path().join("state.json")).ok().filter(|text| text.contains("second.yaml"))
        });
        if kept.is_some() { Ok(()) } else { bail!("not yet") }
    })
    .await
    .unwrap();
    // One file is no file any more, then nothing of the directory is there.
    std::fs::remove_file(world.path("second.yaml")).unwrap();
    nix::unistd::mkfifo(&world.path("second.yaml"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    world.parent("second.yaml", "degraded").await;
    world.kubectl(&["patch", "configmap", "second", "-p", r#"{"data":{"k":"edited"}}"#]).await;
    world.until(&at("second"), "it is put back", |object| object["data"]["k"] == "v").await;
    std::fs::rename(world.dir.path().join("addons"), world.dir.path().join("away")).unwrap();
    eventually("it is seen missing", LONG, async || {
        let complete =
            world.deck.replica(0).metric("quarterdeck_addon_source_complete", &[("source", "directory")]).await?;
        if complete < 0.5 { Ok(()) } else { bail!("{complete}") }
    })
    .await
    .unwrap();
    world.kubectl(&["delete", "configmap", "x"]).await;
    world.until_there(&at("x")).await;
    world.kubectl(&["patch", "configmap", "x", "-p", r#"{"data":{"k":"edited"}}"#]).await;
    world.until(&at("x"), "it is put back", |object| object["data"]["k"] == "v").await;

    // Also for a process that never saw it: what was read last is kept on disk.
    world.deck.replica(0).process().kill().await.unwrap();
    world.kubectl(&["delete", "configmap", "x"]).await;
    world.deck.replica(0).restart().unwrap();
    world.until_there(&at("x")).await;
}
