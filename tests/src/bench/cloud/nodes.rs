//! How soon a new node is initialised.

use std::time::Instant;

use anyhow::Result;

use super::hung_one::until_initialised;
use super::peer::CloudPeer;
use super::place::{Place, UNLIMITED, new_node, stop};
use crate::contestant::Side;
use crate::report::{Collector, Goal, Scale};

const CONTROLLER: &str = "cloud-node-controller";

/// Each side in its turn, on one server.
pub(super) async fn measure(scale: Scale) -> Result<Vec<Collector>> {
    let mut figure = Collector::new("tainted node → initialised", "s", Goal::P99AtMost(1.0));
    let place = Place::open(&[]).await?;
    let deck = place.deck(CONTROLLER, 1, &UNLIMITED).await?;
    each(&place, scale, Side::Ours, &mut figure).await?;
    stop(&deck).await?;
    let peer = CloudPeer::start(&place.control_plane, CONTROLLER).await?;
    each(&place, scale, Side::Go, &mut figure).await?;
    peer.stop().await?;
    Ok(vec![figure])
}

async fn each(place: &Place, scale: Scale, side: Side, figure: &mut Collector) -> Result<()> {
    let mut watch = place.http.watch("/api/v1/nodes").await?;
    for index in 0..scale.rounds(100) {
        let own = format!("new-{}-{index}", if side == Side::Ours { "ours" } else { "peer" });
        place.cloud.add_instance(&own).await?;
        let begun = Instant::now();
        place.http.create("/api/v1/nodes", &new_node(&own)).await?;
        figure.add(side, until_initialised(&mut watch, &own, begun).await?);
    }
    Ok(())
}
