//! The core: from bare machines to a Service that goes on answering while masters die and are cut off.

use anyhow::Result;
use quarterdeck_it::masters::Masters;

use super::story;
use super::world::World;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_bare_masters_to_a_service_that_outlives_them() {
    if Masters::is_left_out() {
        return;
    }
    run().await.unwrap();
}

pub(super) async fn run() -> Result<()> {
    let world = World::bare().await?;
    story::installed_and_started(&world).await?;
    story::image_is_closed(&world).await?;
    story::addons_bring_network_and_names(&world).await?;
    story::service_outlives_masters(&world).await?;
    world.end().await
}
