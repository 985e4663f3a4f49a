//! Two leaders at once: one stands still in the middle of a call, another one takes over, and the first one goes on.

use anyhow::{Context, Result, ensure};
use quarterdeck_it::cloud::{Call, Command, FailKind, Fault, Moment, Rule};
use quarterdeck_it::eventually;

use super::faults_world::{LONG, World};

const GET: &str = "loadbalancers.get";
const ENSURE: &str = "loadbalancers.ensure";

/// Calls that may change something.
fn changes(calls: &[Call]) -> impl Iterator<Item = &Call> {
    calls.iter().filter(|call| call.epoch > 0)
}

/// Waits until this replica leads, whatever the others do.
async fn leads(world: &World, index: usize) -> Result<()> {
    eventually(&format!("quarterdeck-{index} leads"), LONG, async || {
        ensure!(world.deck.replica(index).status().await?.leads(), "it does not");
        Ok(())
    })
    .await
    .with_context(|| world.log())
}

/// Two layers, each by itself: the cloud refuses the call of a past tenure that had arrived, whoever made it; and a
/// leader that comes to itself makes none, also where the cloud would take it.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_slept_through_its_tenure_changes_nothing() -> Result<()> {
    let world = World::start().await?;
    let first = world.deck.leader(LONG).await?;
    let (old, new) = (world.deck.replica(first), world.deck.replica(1 - first));
    // One call has arrived, and nothing was done yet. Of another one's load balancer nobody knows whether it was made:
    // it is looked for, and would be made next.
    let fail = Fault::Fail { error: FailKind::Unavailable, retry_after_ms: None, at: Moment::After };
    let hold = || Fault::Hold { at: Moment::Before };
    world.cloud.fault(Rule::new(ENSURE, fail).about("looked-for").times(1)).await?;
    world.cloud.fault(Rule::new(GET, hold()).about("looked-for").times(1)).await?;
    world.cloud.fault(Rule::new(ENSURE, hold()).about("arrived").times(1)).await?;
    let mut uids = vec![world.make_service("looked-for").await?];
    world.cloud.held(GET).await?;
    uids.push(world.make_service("arrived").await?);
    world.cloud.held(ENSURE).await?;
    let epoch =
        changes(&world.cloud.calls("*").await?).map(|call| call.epoch).max().context("it has changed things")?;

    old.process().pause().await?;
    leads(&world, 1 - first).await?;
    for name in ["looked-for", "arrived"] {
        world.serves(name).await?;
    }
    // What stood still goes on within the cloud, which has heard of the next tenure.
    world.cloud.heal().await?;
    eventually("the call of the past tenure has ended", LONG, async || {
        let calls = world.cloud.calls(ENSURE).await?;
        let late = calls.iter().rfind(|call| call.epoch == epoch).context("there was one")?;
        ensure!(late.outcome.as_deref() == Some("superseded") && !late.changed, "{late:?}");
        Ok(())
    })
    .await?;

    // From here on the cloud would take what the first one asks for.
    world.cloud.command(&Command::ForgetEpochs).await?;
    world.delete_service("arrived").await?;
    uids.pop();
    world.is_gone("arrived").await?;
    world.cloud.command(&Command::ForgetEpochs).await?;
    let before = world.cloud.calls("*").await?.len();
    old.process().resume()?;
    eventually("the first one has seen that it leads no more", LONG, async || {
        let status = old.status().await?;
        ensure!(!status.leads() && status.0["election"]["stopped"].is_string(), "{:#}", status.0["election"]);
        Ok(())
    })
    .await
    .with_context(|| world.log())?;
    uids.push(world.make_service("after").await?);
    world.serves("after").await?;
    let owners: Vec<&str> = uids.iter().map(String::as_str).collect();
    world.cloud.owned_by(&owners).await?;
    let calls = world.cloud.calls("*").await?;
    let past: Vec<_> = changes(&calls[before..]).filter(|call| call.epoch <= epoch).collect();
    ensure!(past.is_empty(), "calls of the tenure that ended: {past:#?}\n{}", world.log());
    ensure!(new.status().await?.leads(), "the second one leads still");
    world.tenures_never_go_back().await
}
