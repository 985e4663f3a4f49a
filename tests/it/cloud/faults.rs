//! Every fault of a cloud, and a leader killed at every point that matters: afterwards all is as it should be.
//!
//! A small part of the matrix runs always, the whole of it in [`long`].

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, bail, ensure};
use quarterdeck_it::cloud::{FailKind, Fault, Moment, Rule};
use quarterdeck_it::eventually;

use super::Extent;
use super::faults_world::{LONG, World};

const ENSURE: &str = "loadbalancers.ensure";
const DELETE: &str = "loadbalancers.ensure_deleted";
/// Calls that change something, for each Service in each of its two lives, at most: tries after a fault, asking again
/// while it is being made, and drift.
const BUDGET: usize = 16;

/// Faults of the calls that make and delete load balancers; the first ones are the small part.
fn faults(extent: Extent) -> Vec<Fault> {
    let fail = |error, at| Fault::Fail { error, retry_after_ms: Some(200), at };
    let mut faults = vec![
        fail(FailKind::Unavailable, Moment::After),
        fail(FailKind::Throttled, Moment::Before),
        Fault::Hang { at: Moment::After },
        Fault::FailAtStep { step: 1 },
        Fault::StuckPending,
        Fault::ErrorLb,
    ];
    if extent.is_whole() {
        faults.extend(
            FailKind::ALL.into_iter().flat_map(|error| [fail(error, Moment::Before), fail(error, Moment::After)]),
        );
        faults.extend((0..6).map(|step| Fault::FailAtStep { step }));
        faults.extend([
            Fault::Hang { at: Moment::Before },
            Fault::Delay { ms: 700, at: Moment::Before },
            Fault::Delay { ms: 700, at: Moment::After },
            Fault::BlockThread { ms: 700 },
            Fault::Panic,
        ]);
    }
    // Whoever implements it elsewhere is not called again: nothing is to be healed.
    faults.retain(|fault| !matches!(fault, Fault::Fail { error: FailKind::ImplementedElsewhere, .. }));
    faults
}

/// Faults of what all nodes share, by method.
fn shared_faults(extent: Extent) -> Vec<(&'static str, Fault)> {
    let fail = |error, at| Fault::Fail { error, retry_after_ms: Some(200), at };
    let mut faults = vec![
        ("instances.get_many", Fault::Partial { keep: 0 }),
        ("routes.create", fail(FailKind::Unavailable, Moment::After)),
        ("routes.list", Fault::Partial { keep: 0 }),
    ];
    if extent.is_whole() {
        faults.extend([
            ("instances.get_many", Fault::Partial { keep: 1 }),
            ("instances.get_many", Fault::WrongAccount { account: "another".to_owned() }),
            ("instances.get_many", Fault::PoisonNode { name: "n-0".to_owned() }),
            ("instances.get_many", Fault::Hang { at: Moment::Before }),
            ("instances.get_many", fail(FailKind::Denied, Moment::Before)),
            ("instances.get_many", fail(FailKind::Throttled, Moment::Before)),
            ("routes.list", Fault::Partial { keep: 1 }),
            ("routes.list", Fault::ReadLag { ms: 30_000 }),
            ("routes.list", fail(FailKind::Unavailable, Moment::Before)),
            ("routes.create", fail(FailKind::Conflict, Moment::Before)),
            ("routes.create", Fault::Hang { at: Moment::After }),
            ("routes.delete", fail(FailKind::Unavailable, Moment::After)),
            ("*", fail(FailKind::Unavailable, Moment::Before)),
        ]);
    }
    faults
}

/// For how long a cloud lies about its machines, in ms: more than twice as long as it takes to believe it.
const LIES: u64 = 40_000;

/// Whether a cloud says with it that machines are gone, which are not.
fn lies(method: &str, fault: &Fault) -> bool {
    method == "instances.get_many" && matches!(fault, Fault::Partial { .. } | Fault::WrongAccount { .. })
}

/// Whether it befalls every call until it is healed.
fn lasts(fault: &Fault) -> bool {
    matches!(fault, Fault::StuckPending | Fault::ErrorLb)
}

/// Puts a fault on each Service's calls of a method, has something done, and takes the faults away when each has
/// befallen its Service.
async fn befall<F: Future<Output = Result<()>>>(
    world: &World,
    method: &str,
    faults: &BTreeMap<String, Fault>,
    act: F,
) -> Result<()> {
    let before = world.cloud.calls(method).await?.len();
    for (name, fault) in faults {
        // What lasts until it is healed befalls every call, and all else one.
        let rule = Rule::new(method, fault.clone()).about(name);
        world.cloud.fault(if lasts(fault) { rule } else { rule.times(1) }).await?;
    }
    act.await?;
    eventually(&format!("every Service has had its {method}"), LONG, async || {
        let calls = world.cloud.calls(method).await?;
        let struck: BTreeSet<&String> = calls.iter().skip(before).flat_map(|call| &call.subjects).collect();
        let spared: Vec<_> = faults.keys().filter(|name| !struck.contains(name)).collect();
        ensure!(spared.is_empty(), "not yet {spared:?}");
        Ok(())
    })
    .await?;
    world.cloud.heal().await
}

#[tokio::test(flavor = "multi_thread")]
async fn load_balancers_are_as_they_should_be_after_every_fault() -> Result<()> {
    load_balancers_after_faults(Extent::Core).await
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_and_routes_are_as_they_should_be_after_every_fault() -> Result<()> {
    nodes_and_routes_after_faults(Extent::Core).await
}

#[tokio::test(flavor = "multi_thread")]
async fn leaders_that_are_killed_at_any_point_leave_one_load_balancer_and_no_finalizer() -> Result<()> {
    leaders_killed(Extent::Core).await
}

/// The whole matrix.
mod long {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn load_balancers_are_as_they_should_be_after_every_fault() -> Result<()> {
        load_balancers_after_faults(Extent::Whole).await
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn nodes_and_routes_are_as_they_should_be_after_every_fault() -> Result<()> {
        nodes_and_routes_after_faults(Extent::Whole).await
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn leaders_that_are_killed_at_any_point_leave_one_load_balancer_and_no_finalizer() -> Result<()> {
        leaders_killed(Extent::Whole).await
    }
}

async fn load_balancers_after_faults(extent: Extent) -> Result<()> {
    let world = World::start().await?;
    let faults: BTreeMap<String, Fault> =
        faults(extent).into_iter().enumerate().map(|(index, fault)| (format!("f-{index}"), fault)).collect();

    let mut uids = Vec::new();
    befall(&world, ENSURE, &faults, async {
        for name in faults.keys() {
            uids.push(world.make_service(name).await?);
        }
        Ok(())
    })
    .await?;
    for name in faults.keys() {
        world.serves(name).await?;
    }
    let owners: Vec<&str> = uids.iter().map(String::as_str).collect();
    world.cloud.owned_by(&owners).await?;

    befall(&world, DELETE, &faults, async {
        for name in faults.keys() {
            world.delete_service(name).await?;
        }
        Ok(())
    })
    .await?;
    for name in faults.keys() {
        world.is_gone(name).await?;
    }
    world.cloud.owned_by(&[]).await?;

    let calls = world.cloud.calls("loadbalancers.*").await?;
    // What is in the making is asked about for as long as it takes.
    for (name, _) in faults.iter().filter(|(_, fault)| !lasts(fault)) {
        for method in [ENSURE, DELETE] {
            let count = calls.iter().filter(|call| call.method == method && call.subjects.contains(name)).count();
            ensure!(count <= BUDGET, "{count} calls of {method} for {name} ({:?})", faults[name]);
        }
    }
    world.tenures_never_go_back().await
}

async fn nodes_and_routes_after_faults(extent: Extent) -> Result<()> {
    let world = World::start().await?;
    let mut wanted = Vec::new();
    for (index, (method, fault)) in shared_faults(extent).into_iter().enumerate() {
        let name = format!("n-{index}");
        if index == 0 {
            // Something to lose before anything goes wrong.
            wanted.push(world.make_node("steady", 250).await?);
            world.routes_are(&wanted).await?;
        }
        let before = world.cloud.calls(method).await?.len();
        let lasts = matches!(fault, Fault::Partial { .. } | Fault::WrongAccount { .. } | Fault::ReadLag { .. });
        let rule = Rule::new(method, fault.clone());
        world.cloud.fault(if lasts { rule } else { rule.times(2) }).await?;
        // One that lives, and whose kubelet does not answer: the cloud is asked about it.
        world.ready("steady", false).await?;
        wanted.push(world.make_node(&name, index).await?);
        if method == "routes.delete" {
            let (_, gone) = wanted.remove(1);
            world.remove_node(&gone).await?;
        }
        eventually(&format!("{method} has had its {fault:?}"), LONG, async || {
            let calls = world.cloud.calls(method).await?.split_off(before);
            ensure!(calls.len() >= if lasts { 2 } else { 1 }, "{} calls", calls.len());
            // Lies that last longer than a proof takes: two answers 15 s apart.
            let span = calls.last().map_or(0, |call| call.at) - calls[0].at;
            ensure!(!lies(method, &fault) || span > LIES || !extent.is_whole(), "it has lied for {span} ms");
            Ok(())
        })
        .await?;
        world.cloud.heal().await?;
        world.routes_are(&wanted).await?;
        for (_, name) in &wanted {
            ensure!(world.has_node(name).await?, "{name} lives, and its Node was deleted by {method} with {fault:?}");
        }
        world.initialized(&name).await?;
        world.ready("steady", true).await?;
    }
    world.tenures_never_go_back().await
}

async fn leaders_killed(extent: Extent) -> Result<()> {
    let world = World::start().await?;
    let hold = |method: &str, at| Rule::new(method, Fault::Hold { at }).times(1);
    let made = [
        ("before it is made, with the finalizer set", hold(ENSURE, Moment::Before)),
        ("when it is made, and its handle not known", hold(ENSURE, Moment::After)),
        // It is in the making first, which tells its handle.
        ("when its handle is known, and no status written", hold(ENSURE, Moment::After).skip(1)),
    ];
    let chosen = if extent.is_whole() { &made[..] } else { &made[1..2] };
    let mut uids = Vec::new();
    for (index, (point, rule)) in chosen.iter().enumerate() {
        let name = format!("k-{index}");
        world.cloud.fault(rule.clone().about(&name)).await?;
        uids.push(world.make_service(&name).await?);
        world.kill_leader_when_held(ENSURE, point).await?;
        world.serves(&name).await?;
        let owners: Vec<&str> = uids.iter().map(String::as_str).collect();
        world.cloud.owned_by(&owners).await?;
    }
    world.cloud.fault(hold(DELETE, Moment::After).about("k-0")).await?;
    world.delete_service("k-0").await?;
    world.kill_leader_when_held(DELETE, "when it is deleted, and the finalizer is there").await?;
    world.is_gone("k-0").await?;
    let owners: Vec<&str> = uids[1..].iter().map(String::as_str).collect();
    world.cloud.owned_by(&owners).await?;
    if world.cloud.calls(ENSURE).await?.iter().all(|call| call.epoch == 0) {
        bail!("calls say nothing of their tenure");
    }
    world.tenures_never_go_back().await
}
