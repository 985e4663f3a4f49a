//! The dashboard that we ship: every query of it finds data in a Prometheus that scraped a working deck.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use quarterdeck_it::{CloudSim, ControlPlane, Deck, eventually, repository};
use serde_json::{Value, json};

use super::observe::Prometheus;

const PATIENCE: Duration = Duration::from_secs(90);

/// Every query of the dashboard with the panel it belongs to; for all replicas.
fn queries() -> Result<Vec<(String, String)>> {
    let path = repository().join("deploy/grafana/quarterdeck.json");
    let board: Value = serde_json::from_str(&std::fs::read_to_string(&path)?).context("the dashboard")?;
    let mut all = Vec::new();
    for panel in board["panels"].as_array().context("panels")? {
        let title = panel["title"].as_str().context("a title")?;
        for target in panel["targets"].as_array().into_iter().flatten() {
            let query = target["expr"].as_str().with_context(|| title.to_owned())?;
            all.push((title.to_owned(), query.replace("$instance", ".*")));
        }
    }
    Ok(all)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_query_of_the_dashboard_finds_data() -> Result<()> {
    let control_plane = ControlPlane::start().await?;
    let cloud = CloudSim::builder().instances(["n-1"]).start().await?;
    let addons = tempfile::tempdir()?;
    let addon = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {
            "name": "lamp", "namespace": "default",
            "labels": { "addonmanager.kubernetes.io/mode": "Reconcile" },
        },
    });
    std::fs::write(addons.path().join("lamp.json"), addon.to_string())?;
    let deck = Deck::builder(&control_plane)
        .install_args([cloud.flag()])
        .args([cloud.flag(), format!("--addon-path={}", addons.path().display())])
        .start()
        .await?;
    deck.ready(PATIENCE).await?;
    deck.leader(PATIENCE).await?;

    let client = control_plane.admin().await?;
    let made = AtomicUsize::new(0);
    // A rate is of what happens while it is scraped.
    let make_service = async || -> Result<()> {
        let name = format!("web-{}", made.fetch_add(1, Ordering::Relaxed));
        let service = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": { "name": name },
            "spec": { "type": "LoadBalancer", "selector": { "app": "web" }, "ports": [{ "port": 80 }] },
        });
        let request = http::Request::post("/api/v1/namespaces/default/services");
        let request = request.header("content-type", "application/json").body(service.to_string().into_bytes())?;
        client.request::<Value>(request).await?;
        Ok(())
    };

    let prometheus = Prometheus::of(&control_plane, &deck).await?;
    let queries = queries()?;
    ensure!(queries.len() > 30, "{} queries", queries.len());
    for (panel, query) in queries {
        eventually(&format!("{panel:?} shows something"), PATIENCE, || async {
            make_service().await?;
            let found = prometheus.query(&query).await?;
            ensure!(found.iter().any(|value| value != "NaN"), "{query}: {found:?}");
            Ok(())
        })
        .await?;
    }
    Ok(())
}
