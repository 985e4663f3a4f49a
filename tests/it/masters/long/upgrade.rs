//! A rolling upgrade from the commit before: one manifest after the other is edited, and both versions run.

use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context, Result, bail, ensure};
use jiff::Timestamp;
use quarterdeck_it::masters::{Manifest, Masters, Requests, image};
use quarterdeck_it::{eventually, repository};
use tokio::process::Command;

use super::super::LONG;
use super::super::story::{answers, has_new_endpoints};
use super::super::world::{IMAGE, World};

/// Name of the image that is upgraded from.
const PREVIOUS: &str = "quarterdeck.dev/quarterdeck:previous";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn masters_are_upgraded_one_by_one_and_two_versions_never_write_at_once() {
    if Masters::is_left_out() {
        return;
    }
    run().await.unwrap();
}

pub(super) async fn run() -> Result<()> {
    let previous = image(&previous().await?, PREVIOUS).await?;
    let mut world = World::bare().await?;
    world.masters.load(&previous).await?;
    let newer = world.manifest.clone();
    let older = Manifest::shipped()?.image(PREVIOUS).arg("--fence=required");
    world.manifest = older.named_controllers().await?;
    let (world, _) = world.man().await?;
    upgrade(&world, &newer).await?;
    world.end().await
}

async fn upgrade(world: &World, newer: &Manifest) -> Result<()> {
    let (masters, safe) = (&world.masters, 1);
    world.backends(safe, "web", &["web-a", "web-b"]).await?;
    let web = world.service(safe, "web", "web").await?;
    answers(world, safe, web).await?;
    let requests = Requests::start(&masters.master(safe).network()?, web)?;
    // The leader comes last: the deck changes hands as seldom as can be.
    let leader = world.leader(safe, None).await?;
    let mut order = masters.others(leader.master);
    order.push(leader.master);
    for (turn, number) in order.into_iter().enumerate() {
        let (before, begun) = (world.leader(safe, None).await?, Timestamp::now());
        masters.deploy(number, Some(newer))?;
        // The old pod has to be gone before the new one is believed to be ready.
        eventually(&format!("master {number} runs the new image"), LONG, || async {
            let pod = masters.mirror_pod(number, safe).await?.context("it has no mirror pod")?;
            let statuses = pod.status.and_then(|status| status.container_statuses).unwrap_or_default();
            ensure!(
                pod.spec.is_some_and(|spec| spec.containers[0].image.as_deref() == Some(IMAGE)),
                "still the old one"
            );
            ensure!(statuses.iter().any(|status| status.ready), "{statuses:?}");
            Ok(())
        })
        .await
        .with_context(|| masters.master(number).logs())?;
        masters.until_serving(number, LONG).await?;
        has_new_endpoints(world, safe, &format!("turn-{turn}")).await?;
        if before.master == number {
            let after = world.leader(safe, Some(&before)).await?;
            ensure!(after.master != number, "{after:?} leads again at once");
            let gap = world.gap(&before, &after)?;
            let first = world.useful_write(begun, &before).await?;
            eprintln!("upgrade of the leader: first useful write after {first:.2} s, gap {gap:.3} s");
        }
        requests.check()?;
    }
    let answered = requests.finish()?;
    ensure!(answered > 0, "nobody asked");
    for number in 1..=3 {
        let pod = masters.mirror_pod(number, safe).await?.context("no mirror pod")?;
        let restarts = pod.status.and_then(|status| status.container_statuses).unwrap_or_default();
        ensure!(restarts.iter().all(|status| status.restart_count == 0), "{restarts:?}");
    }
    world.judge(2)
}

/// The program of the commit before: `QUARTERDECK_PREVIOUS`, else `hack/previous` builds it, which takes minutes.
async fn previous() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("QUARTERDECK_PREVIOUS") {
        return Ok(path.into());
    }
    let script = repository().join("hack/previous");
    let output = Command::new(&script).stdin(Stdio::null()).stderr(Stdio::inherit()).output().await?;
    if !output.status.success() {
        bail!("{}: {}", script.display(), output.status);
    }
    let text = String::from_utf8(output.stdout)?;
    Ok(text.lines().last().context("hack/previous printed no path")?.into())
}
