//! Load balancers of a cloud that takes two seconds for each.

use std::collections::HashSet;
use std::time::Instant;

use anyhow::Result;
use quarterdeck_it::cloud::{Fault, Moment, Rule};

use super::peer::CloudPeer;
use super::place::{Place, count, has_address, name, service, services, stop};
use crate::api::{Http, seconds};
use crate::contestant::Side;
use crate::report::{Collector, Goal, Scale};

/// Services that are made at once.
const SERVICES: usize = 500;
/// Of the peer, which does them one after another: its time is scaled.
const OF_PEER: usize = 30;
/// How long the cloud takes for each, in milliseconds.
const EACH: u64 = 2_000;
const CONTROLLER: &str = "service-lb-controller";

/// Both sides at the same time, on two servers, with all limits and concurrencies as they are by default.
pub(super) async fn measure(scale: Scale) -> Result<Vec<Collector>> {
    let mut figure = Collector::new(
        format!("{SERVICES} Services, the cloud takes 2 s each, default flags (peer: {OF_PEER} Services, scaled)"),
        "s",
        Goal::AtMost(60.0),
    );
    let (ours, peers) = tokio::try_join!(ours(scale), peers(scale))?;
    figure.add(Side::Ours, ours);
    figure.add(Side::Go, peers);
    Ok(vec![figure])
}

async fn ours(scale: Scale) -> Result<f64> {
    let place = Place::open(&[]).await?;
    place.cloud.fault(Rule::new("loadbalancers.ensure", Fault::Delay { ms: EACH, at: Moment::Before })).await?;
    let deck = place.deck(CONTROLLER, 1, &[]).await?;
    let took = all_balanced(&place.http, scale.size(SERVICES)).await?;
    stop(&deck).await?;
    Ok(took)
}

async fn peers(scale: Scale) -> Result<f64> {
    let place = Place::open(&[]).await?;
    let peer = CloudPeer::start(&place.control_plane, CONTROLLER).await?;
    peer.behave(&[("ensure", EACH)], &[])?;
    let services = scale.size(OF_PEER);
    let took = all_balanced(&place.http, services).await?;
    peer.stop().await?;
    Ok(took / count(services)? * count(scale.size(SERVICES))?)
}

/// Makes Services, and returns the seconds until all of them show an address.
async fn all_balanced(http: &Http, number: usize) -> Result<f64> {
    let mut watch = http.watch(&services()).await?;
    let begun = Instant::now();
    let make = |http: Http, index: usize| async move {
        http.create(&services(), &service(&format!("balancer-{index:03}"), "LoadBalancer")).await
    };
    http.for_each(0..number, 32, make).await?;
    let (mut done, mut last) = (HashSet::new(), begun);
    while done.len() < number {
        let seen = watch.next().await?;
        if has_address(&seen.object) && done.insert(name(&seen.object).to_owned()) {
            last = seen.at;
        }
    }
    Ok(seconds(begun, last))
}
