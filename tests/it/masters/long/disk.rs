//! Disks that are full: under the state, under the log.

use anyhow::{Context, Result, ensure};
use quarterdeck_it::eventually;
use quarterdeck_it::masters::Masters;

use super::super::LONG;
use super::super::world::World;

/// A small disk.
const SIZE: &str = "size=256k";
/// Where the state and the logs of containers are on a master.
const PLACES: [&str; 2] = ["/var/lib/quarterdeck", "/var/log/pods"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn full_disks_keep_nobody_from_working() {
    if Masters::is_left_out() {
        return;
    }
    run().await.unwrap();
}

pub(super) async fn run() -> Result<()> {
    let world = World::bare().await?;
    for master in world.masters.all() {
        for place in PLACES {
            let options = format!("{SIZE},mode=755,uid=65532,gid=65532");
            master.run(&["mount", "-t", "tmpfs", "-o", &options, "tmpfs", place])?;
        }
    }
    let (world, _) = world.man().await?;
    fill(&world).await?;
    world.end().await
}

async fn fill(world: &World) -> Result<()> {
    let masters = &world.masters;
    let holder = world.leader(1, None).await?;
    for master in masters.all() {
        for place in PLACES {
            // It ends with an error, as it should.
            let written = master.run(&["dd", "if=/dev/zero", &format!("of={place}/full"), "bs=1k", "count=1k"]);
            let error = written.err().with_context(|| format!("{place} is not full"))?;
            ensure!(format!("{error:#}").contains("No space left"), "{error:#}");
        }
    }
    // There is something to say, and something to remember, that finds no room.
    let map = |value: &str| {
        format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: lantern\n  namespace: default\n  \
             labels: {{addonmanager.kubernetes.io/mode: Reconcile}}\ndata: {{colour: {value}}}\n"
        )
    };
    for (round, value) in ["red", "green"].into_iter().enumerate() {
        masters.addon("lantern.yaml", Some(&map(value)))?;
        eventually(&format!("the lantern is {value}"), LONG, || async {
            let found = world.get(1, "/api/v1/namespaces/default/configmaps/lantern").await?.context("not there")?;
            ensure!(found["data"]["colour"] == value, "{}", found["data"]);
            Ok(())
        })
        .await
        .with_context(|| masters.master(holder.master).logs())?;
        world.service(1, &format!("round-{round}"), "none").await?;
        world.addon_state(1, "lantern.yaml", "ready").await?;
    }
    for number in 1..=3 {
        let restarts = masters.until_mirror_ready(number, 1, LONG).await?;
        ensure!(restarts == 0, "master {number} was started again {restarts} times");
    }
    ensure!(world.leader(1, None).await? == holder, "the deck changed hands");
    world.judge(1)
}
