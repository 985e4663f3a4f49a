//! The harness itself.

use std::time::Instant;

use quarterdeck_it::ControlPlane;

#[tokio::test]
async fn starts() {
    let begun = Instant::now();
    let control_plane = ControlPlane::start().await.unwrap();
    println!("ready in {:?}", begun.elapsed());
    control_plane.namespace("a").await.unwrap();
}
