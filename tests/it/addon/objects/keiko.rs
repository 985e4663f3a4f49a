//! Beside keiko's addon-manager.

use http::Method;
use quarterdeck_it::eventually;
use serde_json::json;

use super::*;

const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/addon-manager-system/leases";
const LEASE: &str = "addonmgr.keikoproj.io";

impl World {
    async fn until_observing_objects(&self, expected: f64) {
        let what = format!("Addon objects are only looked at: {expected}");
        let looked = eventually(&what, LONG, async || {
            let value = self.deck.replica(0).metric("quarterdeck_addon_observing_objects", &[]).await?;
            if (value - expected).abs() < 0.5 { Ok(()) } else { anyhow::bail!("{value}") }
        });
        looked.await.with_context(|| self.log()).unwrap();
    }

    /// keiko's Lease, renewed just now.
    async fn hold(&self, seconds: u32) {
        let lease = json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {"name": LEASE, "namespace": "addon-manager-system"},
            "spec": {"holderIdentity": "addon-manager-0", "leaseDurationSeconds": seconds, "renewTime": "2026-01-01T00:00:00.000000Z"},
        });
        self.send(Method::POST, LEASES, "application/json", &lease).await.unwrap();
    }
}

#[tokio::test]
async fn while_keikos_controller_lives_addon_objects_are_left_to_it_and_adopted_when_it_stops() {
    let world = World::with_addons().await;
    world.kubectl(&["create", "namespace", "addon-manager-system"]).await;
    world.apply_text(&simple("first", "team/first", "{}", "one")).await;
    world.until_succeeded("addons/first").await;
    world.hold(3600).await;
    world.until_observing_objects(1.0).await;
    let mut audit = world.control_plane.audit_from_now().unwrap();
    world.apply_text(&simple("app", "team/app", "{}", "one")).await;
    world.apply_text(&simple("new", "team/new", "{}", "one")).await;
    // What keiko installs, as it writes it: the checksum comes before the word.
    let path = format!("{GROUP}/namespaces/addons/addons/app/status");
    for installed in ["Pending", "Succeeded"] {
        let status = json!({"status": {"checksum": "1a2b3c4d", "lifecycle": {"prereqs": installed, "installed": installed}, "reason": "", "starttime": 1}});
        world.send(Method::PATCH, &path, "application/merge-patch+json", &status).await.unwrap();
    }
    world.kubectl(&["-n", "addons", "delete", "configmap", "first"]).await;
    eventually("all three are only looked at", LONG, async || {
        let labels = [("source", "addon"), ("state", "observing")];
        let value = world.deck.replica(0).metric("quarterdeck_addon_addons", &labels).await?;
        if (value - 3.0).abs() < 0.5 { Ok(()) } else { anyhow::bail!("{value}") }
    })
    .await
    .with_context(|| world.log())
    .unwrap();
    // Files are nothing to keiko.
    world.write("x.yaml", &map("x", "Reconcile", "v"));
    world.until_there(&at("x")).await;
    world.control_plane.settle_audit().await.unwrap();
    let writes = audit
        .filter(|event| {
            let ours = event.impersonated_user.is_some() && !event.is_dry_run();
            event.is_write() && ours && (event.namespace() == "addons" || event.resource().starts_with("addons"))
        })
        .unwrap();
    assert!(writes.is_empty(), "{writes:#?}");
    let log = world.deck.replica(0).process().log_text();
    assert!(log.contains("keiko's addon-manager is alive"));

    // Nobody renews it any more.
    let expired = json!({"spec": {"leaseDurationSeconds": 1}});
    world.send(Method::PATCH, &format!("{LEASES}/{LEASE}"), "application/merge-patch+json", &expired).await.unwrap();
    world.until_observing_objects(0.0).await;
    world.until_succeeded("addons/new").await;
    world.until_there("/api/v1/namespaces/addons/configmaps/first").await;
    let adopted = world
        .until_addon("addons/app", "it is adopted", |addon| {
            addon["status"]["checksum"].as_str().unwrap_or_default().len() == 64
        })
        .await;
    assert_eq!(adopted["status"]["lifecycle"]["installed"], "Succeeded");
    let told = world.until_events("addons", "app", &["Completed"]).await;
    assert!(told.iter().any(|event| event.contains("nothing is run")), "{told:?}");
}
