//! The fixture of a made-up cloud: made, then told.

use std::collections::BTreeMap;

use anyhow::Result;
use quarterdeck_cloud::model::{AddressKind, NodeAddress};
use quarterdeck_cloud::sim::{Command, ELSEWHERE, NewInstance, Power};

use crate::known::{Balancers, DualStack, Known, Labelled, Machine, Paths};
use crate::steering::Commanded;

/// Fills a made-up cloud with all that the cases need, and says what that is.
///
/// # Errors
/// When it cannot be filled.
pub async fn populate(cloud: &impl Commanded) -> Result<Known> {
    let running = vec![make(cloud, named("runs-1")).await?, make(cloud, named("runs-2")).await?];
    let stopped = make(cloud, NewInstance { power: Power::Stopped, ..named("stopped") }).await?;
    let terminated = make(cloud, NewInstance { power: Power::Terminated, ..named("terminated") }).await?;
    let address = |address: &str| NodeAddress { kind: AddressKind::InternalIp, address: address.to_owned() };
    let addresses = vec![address("2001:db8::1"), address("10.9.9.9")];
    let dual_stack = NewInstance { addresses: addresses.clone(), ..named("dual-stack") };
    let labels = BTreeMap::from([("example.com/rack".to_owned(), "r1".to_owned())]);
    let mut labelled = NewInstance { labels: labels.clone(), ..named("labelled") };
    labelled.labels.insert("node.kubernetes.io/forbidden".to_owned(), "x".to_owned());
    let account = cloud.dump().await?.state.account;
    Ok(Known {
        running,
        stopped: Some(stopped),
        terminated: Some(terminated),
        foreign: vec!["sim://another-account/sim-1a/i-1".to_owned(), format!("sim://{account}/sim-1a/malformed")],
        dual_stack: Some(DualStack { machine: make(cloud, dual_stack).await?, addresses }),
        labelled: Some(Labelled { machine: make(cloud, labelled).await?, labels }),
        load_balancers: Some(Balancers {
            elsewhere: BTreeMap::from([(ELSEWHERE.to_owned(), "true".to_owned())]),
            ..Balancers::default()
        }),
        routes: Some(Paths { within: "10.77.0.0/16".parse()?, foreign: None, many: 0, in_two_steps: false }),
        ..Known::default()
    })
}

fn named(name: &str) -> NewInstance {
    NewInstance::named(&format!("conformance-{name}"))
}

async fn make(cloud: &impl Commanded, new: NewInstance) -> Result<Machine> {
    let name = new.name.clone();
    // That of an earlier run, if there was one.
    let _ = cloud.command(Command::ForgetInstance { name: name.clone() }).await;
    let provider_id = cloud.command(Command::AddInstance(new)).await?;
    Ok(Machine { name, provider_id, addresses: Vec::new() })
}
