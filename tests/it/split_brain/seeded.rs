//! Each defence, taken away together with those that stand beside it, is missed by the checker; left standing alone it is
//! enough.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use quarterdeck_it::checker::{Law, Violation, check};
use quarterdeck_it::repository;
use tokio::process::Command;

use super::arena::{Arena, Fighters};
use super::mishaps::{self, SLOWER};
use super::pauses;

/// How often a scenario may miss: it stops a process at a moment that it cannot choose.
const TRIES: usize = 8;

/// The program that carries faults: `QUARTERDECK_SEEDED_BIN`, else built now.
async fn program() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("QUARTERDECK_SEEDED_BIN") {
        return Ok(path.into());
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let arguments =
        ["build", "--quiet", "-p", "quarterdeck", "--features", "seeded-bugs", "--bin", "quarterdeck-seeded"];
    let built = Command::new(cargo).args(arguments).current_dir(repository()).status().await?;
    if !built.success() {
        bail!("building quarterdeck-seeded: {built}");
    }
    let own = std::env::current_exe()?;
    own.ancestors()
        .map(|folder| folder.join("quarterdeck-seeded"))
        .find(|path| path.is_file())
        .with_context(|| format!("no quarterdeck-seeded above {}", own.display()))
}

/// The way to end a tenure that shows a fault.
#[derive(Clone, Copy)]
enum Way {
    SlowRenewals,
    PausedAtWork,
    HeldInFlight,
}

impl Way {
    async fn go(self, arena: &Arena, fighters: &Fighters) -> Result<()> {
        match self {
            Self::SlowRenewals => mishaps::slow_renewals(arena, fighters, &SLOWER).await,
            Self::PausedAtWork => pauses::paused_at_work(arena, fighters).await,
            Self::HeldInFlight => pauses::held_on_the_way(arena, fighters).await.map(drop),
        }
    }
}

/// Goes `way` with the seeded `bugs`; the writes that break the law since then.
async fn broken(arena: &Arena, bugs: &str, way: Way, law: Law) -> Result<Vec<String>> {
    let known = violations(arena, law).await?;
    let deck = arena.deck().program(program().await?).env("QUARTERDECK_SEEDED_BUGS", bugs);
    let fighters = match way {
        Way::SlowRenewals => arena.enter_with(deck, SLOWER.timing).await?,
        Way::PausedAtWork | Way::HeldInFlight => arena.enter(deck).await?,
    };
    way.go(arena, &fighters).await?;
    fighters.leave().await?;
    let mut all = violations(arena, law).await?;
    all.retain(|violation| !known.contains(violation));
    Ok(all)
}

/// What breaks the law, but for what managers say of themselves, which no fence looks at.
async fn violations(arena: &Arena, law: Law) -> Result<Vec<String>> {
    let mut history = arena.history().await?;
    history.writes.retain(|write| !write.own_name);
    Ok(check(&history, law).iter().map(Violation::to_string).collect())
}

/// Fails unless the bugs are seen in one of some tries, and what is left standing without `bug` is enough.
async fn is_caught(arena: &Arena, bug: &str, others: &str, way: Way, law: Law) -> Result<()> {
    let spared = broken(arena, others, way, law).await?;
    if !spared.is_empty() {
        bail!("without {others}, {bug} alone lets writes through: {spared:#?}");
    }
    is_missed(arena, bug, others, way, law).await
}

/// Fails unless the bugs are seen in one of some tries.
async fn is_missed(arena: &Arena, bug: &str, others: &str, way: Way, law: Law) -> Result<()> {
    for _ in 0..TRIES {
        if !broken(arena, &format!("{bug},{others}"), way, law).await?.is_empty() {
            return Ok(());
        }
    }
    bail!("nobody misses {bug}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_defence_is_missed_when_those_beside_it_are_off_too() {
    program().await.unwrap();
    let arena = Arena::open().await.unwrap();
    is_caught(&arena, "fence", "gate,preconditions", Way::HeldInFlight, Law::NothingLate).await.unwrap();
    arena.remove_fence().await.unwrap();
    is_caught(&arena, "gate", "preconditions", Way::PausedAtWork, Law::NothingUndone).await.unwrap();
    is_caught(&arena, "preconditions", "gate", Way::HeldInFlight, Law::NothingUndone).await.unwrap();
    // That a right deadline is enough here is shown, in less time, by the run without a fence.
    is_missed(&arena, "deadline", "preconditions", Way::SlowRenewals, Law::NothingLate).await.unwrap();
}
