//! The core: from bare machines to a Service that goes on answering while masters die and are cut off.

use super::story;
use super::world::World;
use quarterdeck_it::masters::Masters;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_bare_masters_to_a_service_that_outlives_them() {
    if Masters::is_left_out() {
        return;
    }
    let world = World::bare().await.unwrap();
    story::installed_and_started(&world).await.unwrap();
    story::image_is_closed(&world).await.unwrap();
    story::addons_bring_network_and_names(&world).await.unwrap();
    story::service_outlives_masters(&world).await.unwrap();
    world.end().await.unwrap();
}
