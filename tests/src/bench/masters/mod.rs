//! quarterdeck as a static pod on three real masters: how soon it serves, what it holds, and how soon another one works
//! when the leader's machine dies or its pod is taken away.
//!
//! It is the release build in an image as `hack/image --debug` lays it out. A *useful write* is one of a controller that
//! a kube-apiserver admitted, by the audit logs; there is something to write all the time.

mod work;

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use jiff::Timestamp;
use quarterdeck_it::deck::program;
use quarterdeck_it::eventually;
use quarterdeck_it::masters::{Holder, Manifest, Masters, first_useful, image};

use crate::contestant::Side;
use crate::report::{Collector, Goal, Report};
use work::Work;

/// Time that anything gets.
const LONG: Duration = Duration::from_secs(300);
/// A fifth of the default time between two renewals.
const PHASE: Duration = Duration::from_millis(400);
/// How often a pod is asked whether it serves.
const LOOK: Duration = Duration::from_millis(10);
/// Name of the image.
const IMAGE: &str = "quarterdeck.dev/quarterdeck:bench";
/// What is asked of a lease of four seconds.
const SHORT: [&str; 3] =
    ["--leader-elect-lease-duration=4s", "--leader-elect-renew-deadline=3s", "--leader-elect-retry-period=500ms"];

/// Measures all of it.
pub(crate) async fn run(report: &mut Report) -> Result<()> {
    if Masters::is_left_out() {
        report.note("Masters cannot run on this machine: their figures are missing.");
        return Ok(());
    }
    let image = image(&program()?, IMAGE).await?;
    let masters = Masters::start(&image).await?;
    let usual = Manifest::shipped()?.image(IMAGE).arg("--fence=required").named_controllers().await?;
    masters.man(&usual, LONG).await?;
    let rounds = report.rounds(5);

    let mut serving = Collector::new("static pod file written → serving its probes", "s", Goal::AtMost(2.0));
    for round in 0..rounds {
        let standby = standby(&masters).await?;
        let asked = masters.others(standby)[round % 2];
        masters.deploy(standby, None)?;
        masters.until_no_mirror(standby, asked, LONG).await?;
        serving.add(Side::Ours, until_serves(&masters, standby, &usual).await?);
        masters.until_mirror_ready(standby, asked, LONG).await?;
    }
    report.take("masters", [serving]);

    let mut removed = Collector::new("leader's pod removed → first useful write elsewhere", "s", Goal::P99AtMost(0.6));
    let mut upgraded =
        Collector::new("leader's manifest edited → first useful write elsewhere", "s", Goal::P99AtMost(0.6));
    for round in 0..rounds {
        removed.add(Side::Ours, relieved(&masters, None, &usual).await?);
        let edited = usual.clone().edition(round);
        upgraded.add(Side::Ours, relieved(&masters, Some(&edited), &usual).await?);
    }
    report.take("masters", [removed, upgraded]);

    let [mut followers, mut leaders] = [("standby", 20.0), ("leader", 30.0)]
        .map(|(who, most)| Collector::new(format!("resident memory of the {who}"), "MiB", Goal::AtMost(most)));
    let leader = holder(&masters).await?;
    for master in masters.all() {
        let (pid, collector) = (
            *master.quarterdeck_pids()?.first().context("no process")?,
            if master.number() == leader.master { &mut leaders } else { &mut followers },
        );
        collector.add(Side::Ours, resident(pid)?);
    }
    report.take("masters", [followers, leaders]);

    let short = SHORT.iter().fold(usual.clone(), |manifest, flag| manifest.arg(flag));
    for (lease, manifest, most) in [("15 s", &usual, 15.6), ("4 s", &short, 4.6)] {
        for master in masters.all() {
            masters.deploy(master.number(), Some(manifest))?;
        }
        until_all_ready(&masters, 1).await?;
        let name = format!("leader's machine killed, lease of {lease} → first useful write elsewhere");
        let mut killed = Collector::new(name, "s", Goal::P99AtMost(most));
        for round in 0..rounds {
            tokio::time::sleep(PHASE * u32::try_from(round % 5)?).await;
            killed.add(Side::Ours, lost(&masters).await?);
        }
        report.take("masters", [killed]);
    }
    masters.stop().await
}

/// Writes the manifest; seconds until the probes would be answered with success.
async fn until_serves(masters: &Masters, number: usize, manifest: &Manifest) -> Result<f64> {
    let (master, begun) = (masters.master(number), Instant::now());
    masters.deploy(number, Some(manifest))?;
    while master.get("/livez").await.is_err() || master.get("/readyz").await.is_err() {
        anyhow::ensure!(begun.elapsed() < LONG, "it does not serve\n{}", master.logs());
        tokio::time::sleep(LOOK).await;
    }
    Ok(begun.elapsed().as_secs_f64())
}

/// Takes the leader's pod away, or changes it; seconds to another's first useful write. Everything is as it was afterwards.
async fn relieved(masters: &Masters, edited: Option<&Manifest>, usual: &Manifest) -> Result<f64> {
    let leader = holder(masters).await?;
    let safe = masters.others(leader.master)[0];
    let work = Work::start(masters.client(safe).await?).await?;
    let begun = Timestamp::now();
    masters.deploy(leader.master, edited)?;
    let seconds = useful(masters, begun, &leader).await?;
    work.stop().await;
    if edited.is_none() {
        masters.until_no_mirror(leader.master, safe, LONG).await?;
        masters.deploy(leader.master, Some(usual))?;
    }
    until_all_ready(masters, safe).await?;
    Ok(seconds)
}

/// Kills the leader's machine; seconds to another's first useful write. It is healed afterwards.
async fn lost(masters: &Masters) -> Result<f64> {
    let leader = holder(masters).await?;
    let safe = masters.others(leader.master)[0];
    let work = Work::start(masters.client(safe).await?).await?;
    let begun = Timestamp::now();
    masters.kill(leader.master).await?;
    let seconds = useful(masters, begun, &leader).await?;
    work.stop().await;
    masters.heal(leader.master).await?;
    until_all_ready(masters, safe).await?;
    Ok(seconds)
}

async fn useful(masters: &Masters, begun: Timestamp, old: &Holder) -> Result<f64> {
    let audit = parking_lot::Mutex::new(masters.audit());
    eventually("a useful write of the next epoch", LONG, || async {
        let act = first_useful(audit.lock().read()?, begun, &old.token).context("none yet")?;
        Ok(act.answered.duration_since(begun).as_secs_f64())
    })
    .await
}

async fn holder(masters: &Masters) -> Result<Holder> {
    masters.until_held(1, None, LONG).await
}

/// A master that does not lead.
async fn standby(masters: &Masters) -> Result<usize> {
    Ok(masters.others(holder(masters).await?.master)[0])
}

async fn until_all_ready(masters: &Masters, asked: usize) -> Result<()> {
    for master in masters.all() {
        masters.until_serving(master.number(), LONG).await?;
        masters.until_mirror_ready(master.number(), asked, LONG).await?;
    }
    Ok(())
}

/// Resident memory of a process in MiB.
fn resident(pid: i32) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("it has ended")?;
    let kib: f64 = line.split_whitespace().next().context("no number")?.parse()?;
    Ok(kib / 1024.0)
}
