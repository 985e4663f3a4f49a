//! The cases of upstream's own test suite, on samples of the same shape (`keikoproj/addon-manager`:
//! `test-bdd`, `docs/examples`, `config/argo`).

use http::Method;
use serde_json::json;

use super::*;

const AUTOSCALER: &str = include_str!("../samples/clusterautoscaler.yaml");
const ROUTER: &str = include_str!("../samples/eventrouter.yaml");
const ARGO: &str = include_str!("../samples/argo.yaml");
const LABELS: [&str; 4] = ["name", "version", "part-of", "managed-by"];

fn labels(object: &Value) -> [&str; 4] {
    LABELS.map(|label| object["metadata"]["labels"][format!("app.kubernetes.io/{label}")].as_str().unwrap_or_default())
}

impl World {
    /// Ends the Pod of an Addon's step as a kubelet would.
    async fn end_pod(&self, addon: &str) {
        let path = "/api/v1/namespaces/addon-manager-system/pods";
        let selected = format!("{path}?labelSelector=quarterdeck.dev/addon={addon}");
        let pod = self.until(&selected, "the step has a Pod", |list| !list["items"][0].is_null()).await;
        let name = pod["items"][0]["metadata"]["name"].as_str().unwrap();
        let status = json!({"status": {"phase": "Succeeded"}});
        self.send(Method::PATCH, &format!("{path}/{name}/status"), "application/merge-patch+json", &status)
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn keiko_b10_the_samples_live_as_upstreams_tests_want() {
    let world = World::start(&[]).await;
    world.addon_namespace("addon-manager-system").await;
    world.let_act_in("addon-manager-system").await;
    world.apply_text(AUTOSCALER).await;
    world.apply_text(ROUTER).await;
    world.apply_text(ARGO).await;
    // A status appears, and both steps succeed.
    for name in ["cluster-autoscaler", "event-router"] {
        let addon = world.until_succeeded(name).await;
        let status = &addon["status"];
        assert_eq!(status["lifecycle"]["prereqs"], "Succeeded", "{status}");
        assert!(status["starttime"].as_i64().unwrap() > 1_700_000_000_000, "{status}");
        assert_eq!(status["checksum"].as_str().unwrap().len(), 64);
    }
    // The parameters are copied.
    let map = world.until_there("/api/v1/namespaces/event-router/configmaps/router").await;
    assert_eq!(map["data"]["config.json"], r#"{"sink": "stdout"}"#);
    let scaler = world.until_there("/apis/apps/v1/namespaces/autoscaler/deployments/scaler").await;
    let container = &scaler["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(container["env"][0]["value"], "eu-north-1");
    assert_eq!(container["command"][1], "--discovery=tag=scaler/enabled,cluster/harbour.cluster.local");
    // The default labels stand on the Deployment, not on its pods.
    let router = world.until_there("/apis/apps/v1/namespaces/event-router/deployments/event-router").await;
    assert_eq!(labels(&router), ["event-router", "v0.2", "event-router", "addonmgr.keikoproj.io"]);
    assert_eq!(router["metadata"]["labels"]["app"], "event-router");
    assert_eq!(labels(&scaler), ["cluster-autoscaler", "v0.1", "cluster-autoscaler", "addonmgr.keikoproj.io"]);
    assert_eq!(router["spec"]["template"]["metadata"]["labels"], json!({"app": "event-router"}));
    // Argo's addon lists its resources.
    let argo = world
        .until_addon("addon-manager-argo-addon", "it lists two", |addon| {
            addon["status"]["resources"].as_array().is_some_and(|all| all.len() == 2)
        })
        .await;
    let names: Vec<&str> =
        argo["status"]["resources"].as_array().unwrap().iter().filter_map(|one| one["name"].as_str()).collect();
    assert_eq!(names, ["workflow-controller-metrics", "workflow-controller"]);
    // A duplicate is refused.
    world.apply_text(&ROUTER.replacen("name: event-router", "name: event-router-2", 1)).await;
    world
        .until_addon("event-router-2", "the duplicate is refused", |addon| {
            addon["status"]["lifecycle"]["installed"] == "Validation Failed"
                && addon["status"]["reason"].as_str().unwrap_or_default().contains("event-router already")
        })
        .await;
    // The delete step runs first; then all of it goes but the namespace.
    // Its delete step would hit what is the first one's: it never did anything, and does not run.
    world.kubectl(&["-n", "addon-manager-system", "delete", "addon", "event-router-2"]).await;
    let kept = world.until_there("/apis/apps/v1/namespaces/event-router/deployments/event-router").await;
    assert_eq!(kept["metadata"]["uid"], router["metadata"]["uid"]);
    world.kubectl(&["-n", "addon-manager-system", "delete", "addon", "event-router", "--wait=false"]).await;
    world.end_pod("event-router").await;
    world.until_gone("/apis/apps/v1/namespaces/event-router/deployments/event-router").await;
    let held =
        world.until_addon("event-router", "its namespace is held", |addon| addon["status"]["held"].is_object()).await;
    assert_eq!(held["status"]["held"]["members"], json!(["Namespace//event-router"]));
    assert_eq!(held["status"]["lifecycle"]["installed"], "Deleting");
}
