//! A cloud that hangs for one Service and one node: what becomes of the others.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use quarterdeck_it::cloud::{Fault, Moment, Rule};
use quarterdeck_it::eventually;

use super::peer::CloudPeer;
use super::place::{Place, UNLIMITED, has_address, is_tainted, name, new_node, service, services, stop};
use crate::api::{Http, Watch, seconds};
use crate::contestant::{LONG, Side};
use crate::report::{Collector, Goal, Scale};

/// For how long the peer is watched. What hangs does so to its end.
const WATCHED: Duration = Duration::from_secs(30);
/// Services and nodes that are not the one whose calls hang.
const OTHERS: usize = 10;
const CONTROLLERS: &str = "cloud-node-controller,service-lb-controller";

pub(super) async fn measure(scale: Scale) -> Result<Vec<Collector>> {
    let watched = WATCHED.as_secs();
    let of = |what: &str| {
        let name = format!("one {what} (peer: {watched} s is the end of the measurement, nothing came of it)");
        Collector::new(name, "s", Goal::None)
    };
    let mut balanced = of("Service's call hangs: another Service made → its address");
    let mut initialised = of("node's call hangs: another tainted node → initialised");
    let mut hanging = Collector::new("a hung call still hung so long after it began", "s", Goal::None);
    ours(scale, &mut balanced, &mut initialised).await?;
    peers(scale, &mut balanced, &mut initialised, &mut hanging).await?;
    Ok(vec![balanced, initialised, hanging])
}

async fn ours(scale: Scale, balanced: &mut Collector, initialised: &mut Collector) -> Result<()> {
    let place = Place::open(&[]).await?;
    let deck = place.deck(CONTROLLERS, 1, &UNLIMITED).await?;
    for (method, subject) in
        [("loadbalancers.*", format!("{}/first", super::place::NAMESPACE)), ("instances.*", "first".to_owned())]
    {
        place.cloud.fault(Rule::new(method, Fault::Hang { at: Moment::Before }).about(&subject)).await?;
    }
    place.cloud.add_instance("first").await?;
    first(&place.http).await?;
    eventually("both hang", LONG, async || {
        let held = place.cloud.dump().await?.held;
        let hangs = |of: &str| held.iter().any(|held| held.method.starts_with(of));
        ensure!(hangs("loadbalancers.") && hangs("instances."), "{held:?}");
        Ok(())
    })
    .await?;
    let mut services_seen = place.http.watch(&services()).await?;
    let mut nodes_seen = place.http.watch("/api/v1/nodes").await?;
    for index in 0..scale.rounds(OTHERS) {
        let own = format!("other-{index}");
        place.cloud.add_instance(&own).await?;
        let begun = Instant::now();
        place.http.create(&services(), &service(&own, "LoadBalancer")).await?;
        balanced.add(Side::Ours, until_balanced(&mut services_seen, &own, begun).await?);
        let begun = Instant::now();
        place.http.create("/api/v1/nodes", &new_node(&own)).await?;
        initialised.add(Side::Ours, until_initialised(&mut nodes_seen, &own, begun).await?);
    }
    stop(&deck).await
}

async fn peers(
    scale: Scale,
    balanced: &mut Collector,
    initialised: &mut Collector,
    hanging: &mut Collector,
) -> Result<()> {
    let place = Place::open(&[]).await?;
    let peer = CloudPeer::start(&place.control_plane, CONTROLLERS).await?;
    peer.behave(&[], &["ensure first", "metadata first"])?;
    first(&place.http).await?;
    eventually("both hang", LONG, async || {
        let calls = peer.calls()?;
        for call in ["ensure first", "metadata first"] {
            ensure!(calls.iter().any(|one| one == call), "{calls:?}");
        }
        Ok(())
    })
    .await?;
    let hung = Instant::now();
    let watched = WATCHED.mul_f64(if scale.size(10) == 10 { 1.0 } else { 0.2 });
    let mut services_seen = place.http.watch(&services()).await?;
    let mut nodes_seen = place.http.watch("/api/v1/nodes").await?;
    let begun = Instant::now();
    place.http.create(&services(), &service("other", "LoadBalancer")).await?;
    place.http.create("/api/v1/nodes", &new_node("other")).await?;
    let (service, node) = tokio::join!(
        tokio::time::timeout(watched, until_balanced(&mut services_seen, "other", begun)),
        tokio::time::timeout(watched, until_initialised(&mut nodes_seen, "other", begun)),
    );
    balanced.add(Side::Go, service.unwrap_or(Ok(watched.as_secs_f64()))?);
    initialised.add(Side::Go, node.unwrap_or(Ok(watched.as_secs_f64()))?);
    let list = place.http.get(&services()).await?;
    let done = list["items"].as_array().into_iter().flatten().any(|one| name(one) == "first" && has_address(one));
    ensure!(!done, "the first Service has an address although its call hangs");
    hanging.add(Side::Go, hung.elapsed().as_secs_f64());
    peer.stop().await
}

/// The Service and the node whose calls hang.
async fn first(http: &Http) -> Result<()> {
    http.create(&services(), &service("first", "LoadBalancer")).await?;
    http.create("/api/v1/nodes", &new_node("first")).await
}

async fn until_balanced(watch: &mut Watch, own: &str, begun: Instant) -> Result<f64> {
    let seen = watch
        .until("the Service has an address", |seen| name(&seen.object) == own && has_address(&seen.object))
        .await?;
    Ok(seconds(begun, seen.at))
}

/// Seconds until a node lost its taint.
pub(super) async fn until_initialised(watch: &mut Watch, own: &str, begun: Instant) -> Result<f64> {
    let seen =
        watch.until("the node is initialised", |seen| name(&seen.object) == own && !is_tainted(&seen.object)).await?;
    Ok(seconds(begun, seen.at))
}
