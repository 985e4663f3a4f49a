//! The leader of two replicas ends or dies: how long until the other holds the Lease, and until it has
//! written the slice of a service made right then.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use quarterdeck_it::{Process, Signal};

use crate::api::{Change, Seen, Watch, seconds};
use crate::contestant::{Crew, Side, holder};
use crate::load::{NAMESPACE, service, service_name};
use crate::memory::CONTROLLERS;
use crate::report::{Collector, Goal, Report};
use crate::yard::{SLICES, Yard};

/// A fifth of the default time between two renewals.
const PHASE: Duration = Duration::from_millis(400);

/// How a leader goes, and what is to be reached.
struct Case {
    name: &'static str,
    signal: Signal,
    flags: &'static [&'static str],
    held: Goal,
    written: Goal,
    /// Turns of ours in a round: its hand-over is quick enough for a real 99th percentile.
    ours_in_a_round: usize,
}

const CASES: [Case; 3] = [
    Case {
        name: "SIGTERM of the leader",
        signal: Signal::SIGTERM,
        flags: &[],
        held: Goal::P99AtMost(0.25),
        written: Goal::P99AtMost(0.5),
        ours_in_a_round: 5,
    },
    Case {
        name: "SIGKILL, 15/10/2 s",
        signal: Signal::SIGKILL,
        flags: &[],
        held: Goal::P99AtMost(15.3),
        written: Goal::P99AtMost(15.6),
        ours_in_a_round: 1,
    },
    Case {
        name: "SIGKILL, 4/3/1 s",
        signal: Signal::SIGKILL,
        flags: &[
            "--leader-elect-lease-duration=4s",
            "--leader-elect-renew-deadline=3s",
            "--leader-elect-retry-period=1s",
        ],
        held: Goal::P99AtMost(4.3),
        written: Goal::P99AtMost(4.6),
        ours_in_a_round: 1,
    },
];

/// Measures all cases, both sides in turns.
pub(crate) async fn run(yard: &mut Yard, report: &mut Report) -> Result<()> {
    yard.fill(40, 2, 2).await?;
    for case in CASES {
        let mut held = Collector::new(format!("{} → other holder", case.name), "s", case.held);
        let mut written = Collector::new(format!("{} → first new slice", case.name), "s", case.written);
        for round in 0..report.rounds(5) {
            for side in Side::both(round) {
                let turns = if side == Side::Ours { case.ours_in_a_round } else { 1 };
                let mut crew = Crew::start(&yard.control_plane, &yard.http, side, &CONTROLLERS, 2, case.flags).await?;
                for _ in 0..turns {
                    // Deaths spread over the time between two renewals.
                    tokio::time::sleep(PHASE * u32::try_from(round % 5)?).await;
                    let (to_holder, to_slice) = fail_over(yard, &crew, side, case.signal).await?;
                    held.add(side, to_holder);
                    written.add(side, to_slice);
                    crew.handed_over().await?;
                }
                crew.stop().await?;
            }
        }
        report.take("failover", [held, written]);
    }
    Ok(())
}

/// Ends the leader; returns the seconds to the other's Lease and to its first slice.
async fn fail_over(yard: &Yard, crew: &Crew, side: Side, signal: Signal) -> Result<(f64, f64)> {
    let http = &yard.http;
    let services = format!("/api/v1/namespaces/{NAMESPACE}/services");
    let query = format!(
        "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases?fieldSelector=metadata.name%3D{}",
        side.lease()
    );
    let mut leases = http.watch(&query).await?;
    let old = holder(&leases.next().await?.object).to_owned();
    let mut slices = http.watch(SLICES).await?;
    // The old leader works: what it has written is not the new one's.
    let before = format!("before-{}", uid());
    http.create(&services, &selecting(&before)).await?;
    slice_of(&mut slices, &before).await?;

    let begun = Instant::now();
    crew.leader().signal(signal)?;
    let other = |seen: &Seen| !matches!(holder(&seen.object), "") && holder(&seen.object) != old;
    let held = leases.until("another holder of the Lease", other).await?;
    if !crew.processes().iter().any(Process::is_running) {
        bail!("both replicas ended");
    }
    // Made only now, so that the old leader, which may still be stopping, cannot serve it.
    let after = format!("after-{}", uid());
    http.create(&services, &selecting(&after)).await?;
    let written = slice_of(&mut slices, &after).await?;
    for name in [before, after] {
        http.delete(&format!("{services}/{name}")).await?;
        http.delete(&format!("{SLICES}?labelSelector=kubernetes.io%2Fservice-name%3D{name}")).await?;
    }
    Ok((seconds(begun, held.at), seconds(begun, written)))
}

/// A service like the first one under another name.
fn selecting(name: &str) -> serde_json::Value {
    let mut object = service(name);
    object["spec"]["selector"]["app.kubernetes.io/name"] = service_name(0).into();
    object
}

async fn slice_of(slices: &mut Watch, service: &str) -> Result<Instant> {
    let seen = slices.until("the slice of a new service", |seen| {
        seen.change != Change::Deleted && seen.object["metadata"]["labels"]["kubernetes.io/service-name"] == service
    });
    Ok(seen.await?.at)
}

/// A number that no other service of this run has.
fn uid() -> usize {
    use std::sync::atomic::{AtomicUsize, Ordering};
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    COUNT.fetch_add(1, Ordering::Relaxed)
}
