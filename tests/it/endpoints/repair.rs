//! What others change is put right, and what others own is left alone.

use anyhow::{Context, Result, ensure};
use quarterdeck_it::eventually;
use serde_json::{Value, json};

use super::bay::{Bay, PATIENCE, array, text};

const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_others_do_to_slices_and_endpoints_is_put_right() -> Result<()> {
    let bay = Bay::open().await?;
    bay.node("node", "zone-a").await?;
    bay.service("web", json!({ "app": "web" }), json!({ "clusterIP": "None" })).await?;
    bay.pod("one", json!({ "app": "web" }), "node", "10.1.0.1").await?;
    let right = [("10.1.0.1", true)];
    bay.shows("web", &right).await?;

    let slice = bay.slice_path("web").await?;
    let foreign = json!([{ "addresses": ["10.66.0.1"], "conditions": { "ready": true } }]);
    bay.patch(&slice, json!({ "endpoints": foreign })).await?;
    bay.slices_show("web", &right).await?;
    bay.patch(&slice, json!({ "endpoints": [] })).await?;
    bay.slices_show("web", &right).await?;
    bay.patch(&slice, json!({ "ports": [{ "name": "", "port": 6666, "protocol": "TCP" }] })).await?;
    slice_has(&bay, "web", "/ports/0/port", &json!(8080)).await?;
    bay.patch(&slice, json!({ "metadata": { "labels": { "service.kubernetes.io/headless": null } } })).await?;
    slice_has(&bay, "web", "/metadata/labels/service.kubernetes.io~1headless", &json!("")).await?;
    bay.delete(&bay.slice_path("web").await?).await?;
    bay.slices_show("web", &right).await?;
    bay.delete("endpoints/web").await?;
    bay.shows("web", &right).await?;

    // A slice under another manager is not ours, even for a service of ours.
    let labels = json!({ "kubernetes.io/service-name": "web", MANAGED_BY: "somebody" });
    let other =
        json!({ "metadata": { "name": "other", "labels": labels }, "addressType": "IPv4", "endpoints": foreign });
    bay.create("endpointslices", other).await?;
    // Nor one that we are told is not ours any more: it stays as it is, and there is another one.
    let lost = bay.slice_path_of("web", "endpointslice-controller.k8s.io").await?;
    bay.patch(&lost, json!({ "metadata": { "labels": { MANAGED_BY: "somebody" } } })).await?;
    let found = eventually("another slice", PATIENCE, async || {
        bay.slice_path_of("web", "endpointslice-controller.k8s.io").await
    })
    .await?;
    ensure!(found != lost, "{lost} was taken back");
    bay.ready("one", false).await?;
    let both = [("10.1.0.1", false), ("10.1.0.1", true), ("10.66.0.1", true)];
    bay.slices_show("web", &both).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_busy_foreign_writer_does_not_keep_changes_out() -> Result<()> {
    let bay = Bay::open().await?;
    bay.node("node", "zone-a").await?;
    bay.service("web", json!({ "app": "web" }), Value::Null).await?;
    bay.pod("one", json!({ "app": "web" }), "node", "10.1.0.1").await?;
    bay.shows("web", &[("10.1.0.1", true)]).await?;
    let slice = bay.slice_path("web").await?;
    let meddle = async {
        for number in 0..60 {
            let note = json!({ "metadata": { "annotations": { "example.org/note": number.to_string() } } });
            bay.patch(&slice, note.clone()).await?;
            bay.patch("endpoints/web", note).await?;
        }
        anyhow::Ok(())
    };
    let flip = async {
        for number in 0..30 {
            bay.ready("one", number % 2 == 1).await?;
        }
        bay.ready("one", false).await
    };
    tokio::try_join!(meddle, flip)?;
    bay.shows("web", &[("10.1.0.1", false)]).await?;
    // Annotations of others stay.
    slice_has(&bay, "web", "/metadata/annotations/example.org~1note", &json!("59")).await?;
    let endpoints = bay.endpoints("web").await?;
    ensure!(endpoints["metadata"]["annotations"]["example.org/note"] == "59", "{endpoints}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slices_mirror_what_people_write() -> Result<()> {
    let bay = Bay::open().await?;
    bay.create("services", json!({ "metadata": { "name": "db" }, "spec": { "ports": [{ "port": 5432 }] } })).await?;
    let subset = |ips: &[&str]| {
        let addresses: Vec<Value> = ips.iter().map(|ip| json!({ "ip": ip })).collect();
        json!([{ "addresses": addresses, "ports": [{ "port": 5432 }] }])
    };
    let metadata = json!({ "name": "db", "labels": { "team": "data" }, "annotations": { "example.org/note": "n" } });
    bay.create("endpoints", json!({ "metadata": metadata, "subsets": subset(&["10.5.0.1"]) })).await?;
    bay.slices_show("db", &[("10.5.0.1", true)]).await?;
    slice_has(&bay, "db", "/metadata/labels/team", &json!("data")).await?;
    slice_has(&bay, "db", "/metadata/annotations/example.org~1note", &json!("n")).await?;

    bay.patch("endpoints/db", json!({ "subsets": subset(&["10.5.0.1", "10.5.0.2"]) })).await?;
    let two = [("10.5.0.1", true), ("10.5.0.2", true)];
    bay.slices_show("db", &two).await?;
    bay.patch("endpoints/db", json!({ "subsets": subset(&["10.5.0.1", "10.5.0.2", "fd00:5::1"]) })).await?;
    bay.slices_show("db", &[two[0], two[1], ("fd00:5::1", true)]).await?;
    bay.patch("endpoints/db", json!({ "subsets": subset(&["10.5.0.1", "10.5.0.2"]) })).await?;
    bay.slices_show("db", &two).await?;

    // The mirror is put right.
    let slice = bay.slice_path("db").await?;
    bay.patch(&slice, json!({ "endpoints": [] })).await?;
    bay.slices_show("db", &two).await?;
    bay.patch(&slice, json!({ "metadata": { "labels": { "team": null } } })).await?;
    slice_has(&bay, "db", "/metadata/labels/team", &json!("data")).await?;
    bay.delete(&bay.slice_path("db").await?).await?;
    bay.slices_show("db", &two).await?;

    // It goes when it is told to, and when there is nothing to mirror.
    let skip = |value: Value| json!({ "metadata": { "labels": { "endpointslice.kubernetes.io/skip-mirror": value } } });
    bay.patch("endpoints/db", skip(json!("true"))).await?;
    bay.slices_show("db", &[]).await?;
    bay.patch("endpoints/db", skip(Value::Null)).await?;
    bay.slices_show("db", &two).await?;
    bay.delete("endpoints/db").await?;
    bay.slices_show("db", &[]).await?;
    bay.create("endpoints", json!({ "metadata": { "name": "db" }, "subsets": subset(&["10.5.0.3"]) })).await?;
    bay.slices_show("db", &[("10.5.0.3", true)]).await?;

    // With a selector the service has slices of pods instead.
    bay.node("node", "zone-a").await?;
    bay.pod("db-0", json!({ "app": "db" }), "node", "10.1.0.1").await?;
    bay.patch("services/db", json!({ "spec": { "selector": { "app": "db" } } })).await?;
    bay.shows("db", &[("10.1.0.1", true)]).await?;
    slice_has(
        &bay,
        "db",
        "/metadata/labels/endpointslice.kubernetes.io~1managed-by",
        &json!("endpointslice-controller.k8s.io"),
    )
    .await
}

async fn slice_has(bay: &Bay, service: &str, pointer: &str, wanted: &Value) -> Result<()> {
    eventually(&format!("the slice of {service} has {pointer} {wanted}"), PATIENCE, async || {
        let slice = bay.slice(service).await?;
        ensure!(slice.pointer(pointer) == Some(wanted), "{slice}");
        Ok(())
    })
    .await
}

impl Bay {
    /// Path of the one slice of a service that a manager has.
    async fn slice_path_of(&self, service: &str, manager: &str) -> Result<String> {
        let slices = self.slices(service).await?;
        let slice = slices.iter().find(|slice| slice["metadata"]["labels"][MANAGED_BY] == manager);
        let slice = slice.with_context(|| format!("{} slices of {service}, none of {manager}", slices.len()))?;
        ensure!(!array(&slice["endpoints"]).is_empty(), "no endpoints yet");
        Ok(format!("endpointslices/{}", text(&slice["metadata"]["name"])))
    }
}
