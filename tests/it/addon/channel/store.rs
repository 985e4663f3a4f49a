//! What a channel said last, in the cluster.

use super::*;

const SECRETS: &str = "/api/v1/namespaces/quarterdeck-replicas/secrets?labelSelector=quarterdeck.dev/channel";

impl World {
    /// The Secrets of the one channel, once they `fit`: the head, and the number of pieces.
    async fn until_kept(&self, what: &str, fits: impl Fn(&Value, usize) -> bool) -> Value {
        let looked = eventually(what, LONG, async || {
            let list = self.get(SECRETS).await?.unwrap_or_default();
            let all = list["items"].as_array().cloned().unwrap_or_default();
            let head = all.iter().find(|secret| !secret["data"]["digest"].is_null());
            match head {
                Some(head) if fits(head, all.len() - 1) => Ok(head.clone()),
                _ => bail!("{} secrets", all.len()),
            }
        });
        looked.await.with_context(|| self.log()).unwrap()
    }
}

/// A master that comes to lead and cannot read the channel, with nothing on its disk.
#[tokio::test]
async fn a_leader_without_the_channel_goes_on_with_what_the_cluster_has() {
    let channel = Channel::new();
    channel.offer("1.0.0", "a", "one");
    let state = tempfile::tempdir().unwrap();
    let dir = state.path().join("state");
    let world =
        World::start(&[&channel.flag(), &format!("--state-dir={}", dir.display()), "--channel-repair-drift"]).await;
    world.until_value("one").await;
    let first = world.until_kept("the first reading is kept", |_, pieces| pieces == 1).await;
    channel.offer("1.1.0", "a", "two");
    world.until_value("two").await;
    world.until_noted(&["1.1.0"]).await;
    // The pieces of the reading before are gone.
    let kept = world
        .until_kept("the second reading is kept", |head, pieces| {
            head["data"]["digest"] != first["data"]["digest"] && pieces == 1
        })
        .await;
    world.parent("dns", "ready").await;

    let replica = world.deck.replica(0);
    replica.process().kill().await.unwrap();
    std::fs::remove_dir_all(&dir).unwrap();
    for file in std::fs::read_dir(channel.dir.path()).unwrap() {
        std::fs::remove_file(file.unwrap().path()).unwrap();
    }
    world.kubectl(&["-n", "kube-system", "delete", "configmap", "dns"]).await;
    replica.restart().unwrap();
    // It knows the manifest, and puts it back.
    world.until_value("two").await;
    world.parent("dns", "ready").await;
    let after = world.until_kept("it still is kept", |_, pieces| pieces == 1).await;
    assert_eq!(after["metadata"]["resourceVersion"], kept["metadata"]["resourceVersion"], "nothing was written");

    // The channel is back, with something new.
    channel.offer("1.2.0", "a", "three");
    world.until_value("three").await;
}

/// Damage is never used, and never means that anything is gone.
#[tokio::test]
async fn a_damaged_reading_is_told_and_not_used() {
    let channel = Channel::new();
    channel.offer("1.0.0", "a", "one");
    let state = tempfile::tempdir().unwrap();
    let dir = state.path().join("state");
    let world = World::start(&[&channel.flag(), &format!("--state-dir={}", dir.display())]).await;
    world.until_value("one").await;
    world.until_noted(&["1.0.0"]).await;
    let head = world.until_kept("the reading is kept", |_, pieces| pieces == 1).await;
    let replica = world.deck.replica(0);
    replica.process().kill().await.unwrap();
    std::fs::remove_dir_all(&dir).unwrap();
    let index = channel.dir.path().join("index.yaml");
    let text = std::fs::read_to_string(&index).unwrap();
    std::fs::remove_file(&index).unwrap();
    let name = head["metadata"]["name"].as_str().unwrap();
    world
        .kubectl(&[
            "-n",
            "quarterdeck-replicas",
            "patch",
            "secret",
            name,
            "--type=merge",
            "-p",
            r#"{"stringData":{"digest":"0000000000000000000000000000000000000000000000000000000000000000"}}"#,
        ])
        .await;
    replica.restart().unwrap();
    let told = eventually("the damage is told", LONG, async || {
        let log = replica.process().log_text();
        if log.contains("is damaged") { Ok(()) } else { bail!("not yet") }
    });
    told.await.with_context(|| world.log()).unwrap();
    world.until_value("one").await;
    // What is read anew takes its place.
    channel.put("index.yaml", &text);
    world.until_kept("a good reading is kept", |now, _| now["data"]["digest"] == head["data"]["digest"]).await;
}
