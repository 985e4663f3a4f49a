mod balancers;
mod faults;
mod instances;
mod routes;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{Command, NewInstance, Settings, Sim};
use crate::model::*;
use crate::provider::{CallCtx, LoadBalancers as _};

/// A call of a cluster in a tenure.
fn call(cluster: &str, epoch: u64) -> CallCtx {
    CallCtx {
        deadline: Instant::now() + Duration::from_secs(60),
        cancel: CancellationToken::new(),
        lease_epoch: epoch,
        op_id: Uuid::new_v4(),
        cluster: ClusterId(cluster.into()),
    }
}

fn owner(cluster: &str, uid: &str) -> Owner {
    Owner {
        cluster: ClusterId(cluster.into()),
        namespace: "default".to_owned(),
        name: format!("service-{uid}"),
        uid: uid.to_owned(),
    }
}

fn spec(owner: Owner) -> LoadBalancerSpec {
    let port =
        Port { name: String::new(), protocol: Protocol::Tcp, port: 80, node_port: 30080, app_protocol: String::new() };
    LoadBalancerSpec {
        owner,
        ports: vec![port],
        ipv6: vec![false],
        addresses: Vec::new(),
        source_ranges: Vec::new(),
        external_traffic: ExternalTraffic::Cluster,
        health_check_node_port: 0,
        affinity: None,
        annotations: Default::default(),
        backends: vec![Backend { name: "node-1".to_owned(), provider_id: String::new(), addresses: Vec::new() }],
    }
}

fn node(name: &str, provider_id: Option<&str>) -> NodeRef {
    NodeRef { name: name.into(), provider_id: provider_id.map(Into::into) }
}

fn ready(outcome: LbOutcome) -> (Vec<Ingress>, Handle, String) {
    match outcome {
        LbOutcome::Ready { ingress, handle, fingerprint } => (ingress, handle, fingerprint),
        other => panic!("{other:?}"),
    }
}

fn set(sim: &Sim, settings: Settings) {
    sim.command(Command::SetSettings(settings)).unwrap();
}

#[tokio::test]
async fn calls_of_an_older_tenure_are_refused_for_each_cluster_alone() {
    let sim = Sim::default();
    sim.ensure(&call("a", 7), &spec(owner("a", "1")), None).await.unwrap();
    let old = sim.ensure(&call("a", 6), &spec(owner("a", "2")), None).await.unwrap_err();
    assert_eq!(old.outcome(), "superseded", "{old}");
    sim.ensure(&call("b", 1), &spec(owner("b", "1")), None).await.unwrap();
    assert_eq!(sim.state().balancers.len(), 2, "what was refused was not done");
    sim.command(Command::ForgetEpochs).unwrap();
    sim.ensure(&call("a", 6), &spec(owner("a", "2")), None).await.unwrap();
}

#[tokio::test]
async fn the_journal_tells_what_was_asked_in_which_tenure() {
    let sim = Sim::default();
    let want = spec(owner("a", "1"));
    for _ in 0..2 {
        sim.ensure(&call("a", 3), &want, None).await.unwrap();
    }
    let calls = sim.calls();
    let told: Vec<_> = calls.iter().map(|call| (call.epoch, call.changed, call.outcome.as_deref())).collect();
    assert_eq!(told, [(3, true, Some("ok")), (3, false, Some("ok"))]);
    assert!(calls[0].subjects.contains(&"default/service-1".to_owned()));
    sim.command(Command::ClearCalls).unwrap();
    assert!(sim.calls().is_empty());
}

#[tokio::test]
async fn a_change_is_answered_when_it_is_kept() {
    let sim = Arc::new(Sim::kept(Default::default()));
    let mut versions = sim.versions();
    let making = {
        let sim = Arc::clone(&sim);
        tokio::spawn(async move { sim.ensure(&call("a", 1), &spec(owner("a", "1")), None).await })
    };
    versions.changed().await.unwrap();
    let version = *versions.borrow_and_update();
    assert!(!making.is_finished());
    sim.keep(version);
    ready(making.await.unwrap().unwrap());
}

#[tokio::test(start_paused = true)]
async fn what_comes_to_be_by_itself_is_kept_too() {
    let sim = Arc::new(Sim::kept(Default::default()));
    set(&sim, Settings { provision_ms: 1_000, ..Settings::default() });
    let mut versions = sim.versions();
    let keeping = {
        let sim = Arc::clone(&sim);
        tokio::spawn(async move {
            loop {
                let version = sim.state().version;
                sim.keep(version);
                versions.changed().await.unwrap();
            }
        })
    };
    let want = spec(owner("a", "1"));
    sim.ensure(&call("a", 1), &want, None).await.unwrap();
    tokio::time::advance(Duration::from_secs(2)).await;
    let made = tokio::time::timeout(Duration::from_secs(60), sim.ensure(&call("a", 1), &want, None)).await;
    ready(made.expect("it is answered").unwrap());
    keeping.abort();
}

#[test]
fn two_instances_of_one_name_are_refused() {
    let sim = Sim::default();
    let id = sim.command(Command::AddInstance(NewInstance::named("node-1"))).unwrap().id;
    assert_eq!(id, "sim://sim-account/sim-1a/i-1");
    let twice = sim.command(Command::AddInstance(NewInstance::named("node-1"))).unwrap_err();
    assert_eq!(twice.outcome(), "conflict");
    assert_eq!(sim.state().instances.len(), 1);
}
