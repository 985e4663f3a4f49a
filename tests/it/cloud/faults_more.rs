//! What befalls a whole cloud for a while: others meddle with it, it throttles, it refuses the credentials.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use quarterdeck_it::cloud::{Command, FailKind, Fault, Moment, Rule};
use quarterdeck_it::eventually;

use super::Extent;
use super::faults_world::{LONG, World};

fn fail(error: FailKind, retry_after_ms: Option<u64>) -> Fault {
    Fault::Fail { error, retry_after_ms, at: Moment::Before }
}

/// kubernetes#53193: a load balancer that somebody else removed or changed stayed so.
#[tokio::test(flavor = "multi_thread")]
async fn drift_defect_what_others_do_to_load_balancers_is_put_right_or_told() -> Result<()> {
    let world = World::start().await?;
    let names = ["lost", "spoiled", "doubled", "unseen"];
    let mut uids = Vec::new();
    for name in names {
        uids.push(world.make_service(name).await?);
    }
    for name in names {
        world.serves(name).await?;
    }
    let [lost, spoiled, doubled, unseen] = uids.as_slice() else { unreachable!("four were made") };
    let ids = async |uid: &str| -> Result<BTreeSet<String>> {
        Ok(world.cloud.balancers_of(uid).await?.into_iter().map(|one| one.id).collect())
    };
    let first = ids(lost).await?;
    world.cloud.command(&Command::LoseLoadBalancer { uid: lost.clone() }).await?;
    world.cloud.command(&Command::SpoilLoadBalancer { uid: spoiled.clone() }).await?;
    let second = world.cloud.command(&Command::DuplicateLoadBalancer { uid: doubled.clone() }).await?;
    eventually("the load balancer is made again", LONG, async || {
        let now = ids(lost).await?;
        ensure!(now.len() == 1 && now.is_disjoint(&first), "{now:?}, before {first:?}");
        Ok(())
    })
    .await
    .with_context(|| world.log())?;
    eventually("the load balancer has its port again", LONG, async || {
        let own = world.cloud.balancers_of(spoiled).await?;
        ensure!(own.len() == 1 && own[0].ports.len() == 1, "{own:?}");
        Ok(())
    })
    .await
    .with_context(|| world.log())?;
    eventually("the duplicate is told of", LONG, async || {
        ensure!(world.said("DuplicateLoadBalancers").await? > 0);
        Ok(())
    })
    .await?;
    ensure!(ids(doubled).await?.contains(&second), "which of the two is right is for people to say");
    for name in names {
        world.serves(name).await?;
    }

    // Reads that lag see load balancers that are gone, and lack those that are there.
    let lag = Rule::new("loadbalancers.*", Fault::ReadLag { ms: 30_000 });
    world.cloud.fault(lag).await?;
    let late = world.make_service("late").await?;
    world.serves("late").await?;
    for name in ["doubled", "unseen"] {
        world.delete_service(name).await?;
    }
    for name in ["doubled", "unseen"] {
        world.is_gone(name).await?;
    }
    let before = world.cloud.calls("loadbalancers.list_owned").await?.len();
    eventually("lists have lagged", LONG, async || {
        ensure!(world.cloud.calls("loadbalancers.list_owned").await?.len() >= before + 3);
        Ok(())
    })
    .await?;
    world.cloud.heal().await?;
    world.cloud.owned_by(&[lost, spoiled, &late]).await?;
    ensure!(ids(unseen).await?.is_empty());
    world.tenures_never_go_back().await
}

/// kubernetes#75016, azure#5904: throttled managers threw more calls after those that were refused.
#[tokio::test(flavor = "multi_thread")]
async fn throttling_defect_a_storm_and_refused_credentials_pass() -> Result<()> {
    storm_and_refusal(Extent::Core).await
}

mod long {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn throttling_defect_a_storm_and_refused_credentials_pass() -> Result<()> {
        storm_and_refusal(Extent::Whole).await
    }
}

async fn storm_and_refusal(extent: Extent) -> Result<()> {
    let storm = if extent.is_whole() { 120 } else { 15 };
    let world = World::start().await?;
    let mut routes = vec![world.make_node("steady", 250).await?];
    world.routes_are(&routes).await?;
    world.ready("steady", false).await?;
    let mut uids = Vec::new();

    world.cloud.fault(Rule::new("*", fail(FailKind::Throttled, Some(200)))).await?;
    for name in ["s-0", "s-1", "s-2"] {
        uids.push(world.make_service(name).await?);
    }
    routes.push(world.make_node("n-0", 0).await?);
    let throttled = async || -> Result<usize> {
        let calls = world.cloud.calls("*").await?;
        Ok(calls.iter().filter(|call| call.outcome.as_deref() == Some("throttled")).count())
    };
    eventually("the storm has lasted", LONG * 5, async || {
        let refused = throttled().await?;
        ensure!(refused >= storm, "{refused} calls were refused");
        Ok(())
    })
    .await
    .with_context(|| world.log())?;
    let low = world.counts("rate_limit", &[("class", "read")], |rate| rate < 15.0).await?;
    // It is no reason to leave the cloud alone: it answers.
    world.cloud_becomes("sim", "it is not given up", |one| one["breaker"] == "closed").await?;
    world.cloud.heal().await?;
    for name in ["s-0", "s-1", "s-2"] {
        world.serves(name).await?;
    }
    world.initialized("n-0").await?;
    world.routes_are(&routes).await?;
    world.counts("rate_limit", &[("class", "read")], |rate| rate > low).await?;

    world.cloud.fault(Rule::new("*", fail(FailKind::Denied, None))).await?;
    uids.push(world.make_service("d-0").await?);
    world.delete_service("s-0").await?;
    routes.push(world.make_node("n-1", 1).await?);
    world.counts("trouble", &[("kind", "denied")], |is| is == 1.0).await?;
    world
        .cloud_becomes("sim", "it refuses us", |one| one["trouble"].as_str().is_some_and(|t| t.contains("denied")))
        .await?;
    eventually("an event tells of it", LONG, async || {
        ensure!(world.said("CloudProviderDenied").await? > 0);
        Ok(())
    })
    .await?;
    let before = world.cloud.calls("*").await?.len();
    eventually("more calls were refused", LONG, async || {
        ensure!(world.cloud.calls("*").await?.len() >= before + 5);
        Ok(())
    })
    .await?;
    ensure!(world.said("CloudProviderDenied").await? == 1, "one trouble, one event");
    ensure!(world.has_node("steady").await?, "a Node went while nobody could ask for it");
    ensure!(world.cloud.balancers_of(&uids[0]).await?.len() == 1, "nothing can be deleted without credentials");
    world.cloud.heal().await?;
    world.serves("d-0").await?;
    world.is_gone("s-0").await?;
    uids.remove(0);
    world.initialized("n-1").await?;
    world.routes_are(&routes).await?;
    world.counts("trouble", &[("kind", "denied")], |is| is == 0.0).await?;
    ensure!(world.has_node("steady").await?, "a live Node was deleted");
    let owners: Vec<&str> = uids.iter().map(String::as_str).collect();
    world.cloud.owned_by(&owners).await?;
    world.tenures_never_go_back().await
}
