//! Beside a kube-addon-manager that is alive, addons are only looked at.

use http::Method;
use quarterdeck_it::{ControlPlane, eventually};
use serde_json::json;

use super::{LONG, World, at, map};

#[tokio::test]
async fn a_predecessor_that_is_alive_has_the_word() {
    let control_plane = ControlPlane::start().await.unwrap();
    control_plane.namespace("kube-system").await.unwrap();
    let world = World::on(control_plane, &[]).await;
    let pods = "/api/v1/namespaces/kube-system/pods";
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "kube-addon-manager-master-1", "labels": {"component": "kube-addon-manager"}},
        "spec": {"containers": [{"name": "manager", "image": "manager"}]},
    });
    world.send(Method::POST, pods, "application/json", &pod).await.unwrap();
    let observing = async |expected: f64| {
        eventually("the metric says whether we observe", LONG, async || {
            let value = world.deck.replica(0).metric("quarterdeck_addon_observing", &[]).await?;
            if (value - expected).abs() < 0.5 { Ok(()) } else { anyhow::bail!("{value}") }
        })
        .await
        .unwrap();
    };
    observing(1.0).await;
    world.write("x.yaml", &map("x", "Reconcile", "v"));
    eventually("the addon is looked at", LONG, async || {
        let value = world.deck.replica(0).metric("quarterdeck_addon_addons", &[("state", "observing")]).await?;
        if value > 0.5 { Ok(()) } else { anyhow::bail!("{value}") }
    })
    .await
    .unwrap();
    world.control_plane.settle_audit().await.unwrap();
    let writes = world
        .control_plane
        .audit()
        .filter(|event| event.is_write() && event.acting_user().ends_with(":quarterdeck-addons"))
        .unwrap();
    assert!(writes.is_empty(), "{writes:#?}");
    world
        .kubectl(&["-n", "kube-system", "delete", "pod", "kube-addon-manager-master-1", "--force", "--grace-period=0"])
        .await;
    world.until_there(&at("x")).await;
    observing(0.0).await;
}
