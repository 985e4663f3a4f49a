//! Ways to end a tenure in which the leader stands still: what it was about to send goes out in another's tenure.

use anyhow::{Result, ensure};
use quarterdeck_it::audit::Event;
use quarterdeck_it::deck::{busy_since, renewed_lease};
use quarterdeck_it::eventually;
use quarterdeck_it::proxy::{Faults, Flow};

use super::LONG;
use super::arena::{Arena, Fighters, wrote_slice};

/// The leader stands still in the middle of its work, and goes on when another leads.
pub(super) async fn paused_at_work(arena: &Arena, fighters: &Fighters) -> Result<()> {
    let old = arena.leader(fighters).await?;
    let process = fighters.deck.replica(old).process();
    arena.load.two_rounds().await?;
    process.pause().await?;
    arena.taken_over(fighters, old).await?;
    process.resume()?;
    eventually("the sleeper has noticed", LONG, async || {
        ensure!(!fighters.deck.replica(old).status().await?.leads(), "it leads");
        Ok(())
    })
    .await?;
    arena.load.two_rounds().await
}

/// The leader stands still when writes have passed its gate and are on their way; they arrive when another leads. Returns
/// how the server answered them.
pub(super) async fn held_on_the_way(arena: &Arena, fighters: &Fighters) -> Result<Vec<Event>> {
    arena.load.two_rounds().await?;
    let old = loop {
        let old = arena.leader(fighters).await?;
        if hold_writes(arena, fighters, old).await? {
            break old;
        }
        arena.calm();
    };
    let process = fighters.deck.replica(old).process();
    process.pause().await?;
    arena.taken_over(fighters, old).await?;
    let mut audit = arena.control_plane.audit_from_now()?;
    arena.calm();
    let late = audit.wait_for("a late write", LONG, |event| wrote_slice(event, old)).await;
    process.resume()?;
    late?;
    arena.load.two_rounds().await?;
    // A renewal may have come the same way.
    let renewed = audit.filter(|event| renewed_lease(event, old) && event.succeeded())?;
    ensure!(renewed.is_empty(), "a late renewal was taken: {renewed:?}");
    audit.filter(|event| wrote_slice(event, old))
}

/// Holds back what the leader sends until writes are among it; false if another one leads before that.
async fn hold_writes(arena: &Arena, fighters: &Fighters, old: usize) -> Result<bool> {
    let proxy = &arena.proxies[old];
    let before = proxy.connections();
    proxy.set(Faults { to_server: Flow::Hold, ..Faults::none() });
    eventually("writes are on their way", LONG, async || {
        // One of them may be the Lease's, another the reader's.
        let busy = busy_since(proxy, &before);
        let deposed = arena.leader(fighters).await? != old;
        ensure!(busy.len() >= 3 || deposed, "busy: {busy:?}");
        Ok(!deposed)
    })
    .await
}
