//! Ways to end a tenure in which no process stands still.

use std::time::Duration;

use anyhow::{Result, ensure};
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{Api, Patch, PatchParams};
use quarterdeck_it::deck::renewed_lease;
use quarterdeck_it::proxy::{Faults, Flow};
use serde_json::json;

use super::LONG;
use super::arena::{Arena, Fighters, server_of};

/// How slow a network is in [`slow_renewals`], and the Lease timing that it is just not too slow for.
pub(super) struct Slowness {
    /// D, renew deadline and retry period.
    pub(super) timing: [&'static str; 3],
    /// How late renewals are answered: in time for the try, `(W − retry)/2`, and for the connection's pings, 2 s.
    late_answer: Duration,
    /// How long a write is on its way: less than its time, T + 250 ms.
    long_way: Duration,
}

/// T = 1 s, W = 5.2 s.
pub(super) const SLOW: Slowness = Slowness {
    timing: [
        "--leader-elect-lease-duration=8s",
        "--leader-elect-renew-deadline=6s",
        "--leader-elect-retry-period=200ms",
    ],
    late_answer: Duration::from_millis(1700),
    long_way: Duration::from_millis(1000),
};

/// T = 0.75 s, W = 3.9 s: slower for what the Lease allows. With the deadline counted from the answers, what is let out at the
/// end lands up to 0.4 s after another has taken over: late answer − g − 2T + long way.
pub(super) const SLOWER: Slowness = Slowness {
    timing: [
        "--leader-elect-lease-duration=6s",
        "--leader-elect-renew-deadline=5s",
        "--leader-elect-retry-period=200ms",
    ],
    late_answer: Duration::from_millis(1700),
    long_way: Duration::from_millis(800),
};

/// Renewals are answered late, then no more arrive; writes are long on their way all the time. A deadline that counts from
/// the answers lets writes out that land in the next tenure.
pub(super) async fn slow_renewals(arena: &Arena, fighters: &Fighters, slowness: &Slowness) -> Result<()> {
    let old = loop {
        let old = arena.leader(fighters).await?;
        if renews_no_more(arena, old, slowness).await? {
            break old;
        }
        arena.calm();
    };
    arena.taken_over(fighters, old).await?;
    arena.calm();
    Ok(())
}

/// Slows a leader's network, then cuts its renewals off; false if the connection that carried them was given up before that.
async fn renews_no_more(arena: &Arena, old: usize, slowness: &Slowness) -> Result<bool> {
    arena.load.pause();
    let lease = arena.lease_connection(old).await?;
    let proxy = &arena.proxies[old];
    proxy.set(Faults { delay_to_server: slowness.long_way, ..Faults::none() });
    proxy.set_one(lease, Faults::slow_answers(slowness.late_answer));
    arena.load.resume();
    let mut audit = arena.control_plane.audit_from_now()?;
    audit.wait_for_count("slow renewals", 2, LONG, |event| renewed_lease(event, old) && event.succeeded()).await?;
    // It must not renew on a connection made anew either.
    proxy.set_new(Faults::black_hole());
    Ok(proxy.set_one(lease, Faults { to_server: Flow::Swallow, ..Faults::slow_answers(slowness.late_answer) }))
}

/// The leader's network holds everything back, and delivers it when another leads.
pub(super) async fn partition(arena: &Arena, fighters: &Fighters) -> Result<()> {
    lose_network(arena, fighters, Faults::partition()).await
}

/// The leader's network loses everything.
pub(super) async fn black_hole(arena: &Arena, fighters: &Fighters) -> Result<()> {
    lose_network(arena, fighters, Faults::black_hole()).await
}

/// What the leader sends arrives, and it hears nothing.
pub(super) async fn lost_answers(arena: &Arena, fighters: &Fighters) -> Result<()> {
    lose_network(arena, fighters, Faults::lost_answers()).await
}

async fn lose_network(arena: &Arena, fighters: &Fighters, faults: Faults) -> Result<()> {
    let old = arena.leader(fighters).await?;
    arena.proxies[old].set(faults);
    arena.taken_over(fighters, old).await?;
    arena.calm();
    Ok(())
}

/// The leader's kube-apiserver dies and comes back.
pub(super) async fn server_dies(arena: &Arena, fighters: &Fighters) -> Result<()> {
    let old = arena.leader(fighters).await?;
    arena.kill_server(server_of(old)).await?;
    arena.taken_over(fighters, old).await?;
    arena.control_plane.apiserver(server_of(old)).start().await
}

/// The holder's clock seems to be a century ahead, then one behind: nobody takes over from one that renews, and everybody
/// from one that is dead.
pub(super) async fn wrong_clocks(arena: &Arena, fighters: &Fighters) -> Result<()> {
    let old = arena.leader(fighters).await?;
    for year in ["2126", "1926", "2126"] {
        let mut audit = arena.control_plane.audit_from_now()?;
        set_renew_time(arena, year).await?;
        audit.wait_for_count("renewals", 3, LONG, |event| renewed_lease(event, old) && event.succeeded()).await?;
        ensure!(arena.leader(fighters).await? == old, "a wall clock was believed");
    }
    fighters.deck.replica(old).process().kill().await?;
    set_renew_time(arena, "2126").await?;
    arena.taken_over(fighters, old).await?;
    Ok(())
}

/// Writes another time into the Lease than the holder did.
async fn set_renew_time(arena: &Arena, year: &str) -> Result<()> {
    let leases: Api<Lease> = Api::namespaced(arena.control_plane.admin().await?, "kube-system");
    let time = json!({ "spec": { "renewTime": format!("{year}-01-01T00:00:00.000000Z") } });
    leases.patch("quarterdeck", &PatchParams::default(), &Patch::Merge(time)).await?;
    Ok(())
}
