//! Beside a kube-addon-manager that is alive, addons are only looked at.

use http::Method;
use quarterdeck_it::audit::Event;
use quarterdeck_it::{ControlPlane, eventually};
use serde_json::{Value, json};

use super::{LONG, World, at, map};

const PODS: &str = "/api/v1/namespaces/kube-system/pods";
const NAME: &str = "kube-addon-manager-master-1";

fn pod() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": NAME, "labels": {"component": "kube-addon-manager"}},
        "spec": {"containers": [{"name": "manager", "image": "manager"}]},
    })
}

/// Whether this is a write of the engine's; what it tells in Events changes nothing.
fn changes_something(event: &Event) -> bool {
    event.is_write() && event.acting_user().ends_with(":quarterdeck-addons") && event.resource() != "events"
}

impl World {
    async fn until_metric(&self, name: &str, labels: &[(&str, &str)], expected: f64) {
        eventually(&format!("{name} is {expected}"), LONG, async || {
            let value = self.deck.replica(0).metric(name, labels).await?;
            if (value - expected).abs() < 0.5 { Ok(()) } else { anyhow::bail!("{value}") }
        })
        .await
        .unwrap();
    }

    async fn observes(&self, expected: f64) {
        self.until_metric("quarterdeck_addon_observing", &[], expected).await;
    }

    async fn end_predecessor(&self) {
        self.kubectl(&["-n", "kube-system", "delete", "pod", NAME, "--force", "--grace-period=0"]).await;
    }
}

#[tokio::test]
async fn a_predecessor_that_is_alive_has_the_word() {
    let control_plane = ControlPlane::start().await.unwrap();
    control_plane.namespace("kube-system").await.unwrap();
    let world = World::on(control_plane, &[]).await;
    world.send(Method::POST, PODS, "application/json", &pod()).await.unwrap();
    world.observes(1.0).await;
    world.write("x.yaml", &map("x", "Reconcile", "v"));
    world.until_metric("quarterdeck_addon_addons", &[("state", "observing")], 1.0).await;
    world.control_plane.settle_audit().await.unwrap();
    let writes = world.control_plane.audit().filter(changes_something).unwrap();
    assert!(writes.is_empty(), "{writes:#?}");
    world.end_predecessor().await;
    world.until_there(&at("x")).await;
    world.observes(0.0).await;
}

#[tokio::test]
async fn a_predecessor_that_comes_later_has_the_word_too() {
    let control_plane = ControlPlane::start().await.unwrap();
    control_plane.namespace("kube-system").await.unwrap();
    let world = World::on(control_plane, &[]).await;
    world.write("x.yaml", &map("x", "Reconcile", "v"));
    world.write("going.yaml", &map("going", "Reconcile", "v"));
    world.parent("x.yaml", "ready").await;
    world.parent("going.yaml", "ready").await;
    world.send(Method::POST, PODS, "application/json", &pod()).await.unwrap();
    world.observes(1.0).await;
    world.until_metric("quarterdeck_addon_addons", &[("state", "observing")], 2.0).await;
    let mut audit = world.control_plane.audit_from_now().unwrap();
    // A drift, an edit and a removal: looked at, and left.
    world.kubectl(&["label", "configmap", "x", "by=hand"]).await;
    world.write("z.yaml", &map("z", "Reconcile", "v"));
    world.until_metric("quarterdeck_addon_addons", &[("state", "observing")], 3.0).await;
    world.remove("going.yaml");
    world.until_metric("quarterdeck_addon_source_addons", &[], 2.0).await;
    world.control_plane.settle_audit().await.unwrap();
    let writes = audit.filter(changes_something).unwrap();
    assert!(writes.is_empty(), "{writes:#?}");
    world.until_there(&at("going")).await;
    world.end_predecessor().await;
    world.until(&at("x"), "the label is gone", |object| object["metadata"]["labels"].get("by").is_none()).await;
    world.until_there(&at("z")).await;
    world.until_gone(&at("going")).await;
    world.observes(0.0).await;
}
