//! Masters whose directories differ: the leader's counts, a take-over removes no more than an edit
//! may, and a follower does nothing.

use quarterdeck_it::{Deck, eventually};

use super::{LONG, World, at, map};

/// Waits until the one replica of a deck leads.
async fn leads(deck: &Deck) {
    deck.leader(LONG).await.unwrap();
}

async fn digest(deck: &Deck) -> f64 {
    eventually("the directory was read", LONG, || {
        deck.replica(0).metric("quarterdeck_addon_source_digest", &[("source", "directory")])
    })
    .await
    .unwrap()
}

/// Five objects, as many as three files need to be more than the brake lets go.
fn five(file: usize) -> String {
    (0..5).map(|n| map(&format!("f{file}-{n}"), "Reconcile", "v")).collect::<Vec<_>>().join("---\n")
}

#[tokio::test]
async fn a_take_over_by_a_master_with_other_files_is_no_disaster() {
    let world = World::start(&[]).await;
    let first = &world.deck;
    let theirs = tempfile::tempdir().unwrap();
    let on_theirs = |name: &str, text: &str| {
        std::fs::write(theirs.path().join(".new"), text).unwrap();
        std::fs::rename(theirs.path().join(".new"), theirs.path().join(name)).unwrap();
    };
    world.write("shared.yaml", &map("shared", "Reconcile", "new"));
    for file in 0..3 {
        world.write(&format!("f{file}.yaml"), &five(file));
    }
    on_theirs("shared.yaml", &map("shared", "Reconcile", "old"));
    for file in ["shared.yaml", "f0.yaml", "f1.yaml", "f2.yaml"] {
        world.parent(file, "ready").await;
    }
    let all: Vec<String> =
        (0..3).flat_map(|file| (0..5).map(move |n| at(&format!("f{file}-{n}")))).chain([at("shared")]).collect();
    let mut uids = Vec::new();
    for path in &all {
        uids.push(world.until_there(path).await["metadata"]["uid"].clone());
    }

    // A master with older and fewer files stands by: it is seen, and changes nothing.
    let args = ["--controllers=addon-controller".to_owned(), format!("--addon-path={}", theirs.path().display())];
    let second = Deck::builder(&world.control_plane).replicas(1).args(args).without_install().start().await.unwrap();
    second.ready(LONG).await.unwrap();
    leads(first).await;
    #[expect(clippy::float_cmp, reason = "it is a digest")]
    let differ = digest(first).await != digest(&second).await;
    assert!(differ, "an alert compares these");
    assert_eq!(world.until_there(&at("shared")).await["data"]["k"], "new");

    // It takes over: its content counts, and what it lacks is held.
    first.replica(0).process().stop(LONG).await.unwrap();
    leads(&second).await;
    world.until(&at("shared"), "the new leader's content", |object| object["data"]["k"] == "old").await;
    for file in 0..3 {
        let parent = world.parent(&format!("f{file}.yaml"), "held").await;
        assert!(parent["data"]["heldReason"].as_str().unwrap().contains("15 objects"), "{parent}");
    }
    world.parent("shared.yaml", "ready").await;

    // The other one is back and follows: nothing goes to and fro.
    let mut audit = world.control_plane.audit_from_now().unwrap();
    first.replica(0).restart().unwrap();
    first.ready(LONG).await.unwrap();
    digest(first).await;
    on_theirs("witness.yaml", &map("witness", "Reconcile", "v"));
    world.parent("witness.yaml", "ready").await;
    world.control_plane.settle_audit().await.unwrap();
    let writes = audit
        .filter(|event| {
            // The list of addons follows a moment later.
            let told = ["events", "addons.addonmgr.keikoproj.io"].contains(&&*event.resource());
            event.is_write() && event.acting_user().ends_with(":quarterdeck-addons") && !told
        })
        .unwrap();
    assert!(!writes.is_empty());
    assert!(writes.iter().all(|event| event.name().contains("witness")), "{writes:#?}");

    // The first one leads again: all is as it was, and never was away. One file that it lacks is one
    // file that is gone.
    second.replica(0).process().stop(LONG).await.unwrap();
    leads(first).await;
    world.until(&at("shared"), "the leader's content", |object| object["data"]["k"] == "new").await;
    for file in ["shared.yaml", "f0.yaml", "f1.yaml", "f2.yaml"] {
        world.parent(file, "ready").await;
    }
    for (path, uid) in all.iter().zip(&uids) {
        assert_eq!(world.until_there(path).await["metadata"]["uid"], *uid, "{path}");
    }
    world.until_gone(&at("witness")).await;
    world.until_no_parent("witness.yaml").await;
}
