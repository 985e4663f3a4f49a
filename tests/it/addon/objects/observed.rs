//! What an Addon's containers, or Argo, made is shown, and left alone.

use http::Method;
use serde_json::json;

use super::*;

const ADDON: &str = "addons/argo-addon";

fn labelled(kind: &str, namespace: &str, name: &str, labels: &Value) -> Value {
    let pods = json!({"metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let metadata = json!({"name": name, "namespace": namespace, "labels": labels});
    match kind {
        "Service" => json!({
            "apiVersion": "v1", "kind": kind, "metadata": metadata, "spec": {"ports": [{"port": 80}], "selector": {"app": name}},
        }),
        _ => json!({
            "apiVersion": "apps/v1", "kind": kind, "metadata": metadata,
            "spec": {"replicas": 1, "selector": {"matchLabels": {"app": name}}, "template": pods},
        }),
    }
}

/// `Kind/namespace/name status` of what the status shows.
fn shown(addon: &Value) -> Vec<String> {
    let all = addon["status"]["resources"].as_array().into_iter().flatten();
    let word = |one: &Value, field: &str| one[field].as_str().unwrap_or_default().to_owned();
    all.map(|one| {
        format!("{}/{}/{} {}", word(one, "kind"), word(one, "namespace"), word(one, "name"), word(one, "status"))
    })
    .collect()
}

impl World {
    async fn until_shown(&self, expected: &[&str]) -> Value {
        self.until_addon(ADDON, &format!("it shows {expected:?}"), |addon| shown(addon) == expected).await
    }

    async fn make(&self, object: &Value) {
        let (plural, prefix) = match object["kind"].as_str() {
            Some("Service") => ("services", "/api/v1"),
            Some("ReplicaSet") => ("replicasets", "/apis/apps/v1"),
            _ => ("deployments", "/apis/apps/v1"),
        };
        let namespace = object["metadata"]["namespace"].as_str().unwrap();
        let path = format!("{prefix}/namespaces/{namespace}/{plural}");
        self.send(Method::POST, &path, "application/json", object).await.unwrap();
    }
}

#[tokio::test]
async fn what_others_made_is_shown_wherever_the_addon_is_and_left_alone() {
    let world = World::with_addons().await;
    for namespace in ["target", "elsewhere"] {
        world.kubectl(&["create", "namespace", namespace]).await;
    }
    let labels = json!({
        "app.kubernetes.io/name": "argo-addon", "app.kubernetes.io/part-of": "argo-addon",
        "app.kubernetes.io/managed-by": "addonmgr.keikoproj.io",
    });
    let text = "apiVersion: addonmgr.keikoproj.io/v1alpha1\nkind: Addon\nmetadata: {name: argo-addon, namespace: addons}\nspec:\n  pkgName: addon-argo-workflow\n  pkgVersion: v3.4.8\n  pkgType: composite\n  pkgDescription: Argo\n  params: {namespace: target}\n  selector: {matchLabels: {app.kubernetes.io/part-of: argo-addon}}\n";
    world.make(&labelled("Deployment", "addons", "controller", &labels)).await;
    world.apply_text(text).await;
    world.until_succeeded(ADDON).await;
    world.until_shown(&["Deployment/addons/controller InProgress"]).await;
    // Of another addon, of nobody, in a namespace that is not the Addon's: not shown.
    let mut others = labels.clone();
    others["app.kubernetes.io/part-of"] = "other".into();
    world.make(&labelled("Service", "target", "others", &others)).await;
    world.make(&labelled("Service", "target", "nobodys", &json!({"app": "x"}))).await;
    world.make(&labelled("Service", "elsewhere", "metrics", &labels)).await;
    world.make(&labelled("Service", "target", "metrics", &labels)).await;
    let all = world.until_shown(&["Service/target/metrics Ready", "Deployment/addons/controller InProgress"]).await;
    assert_eq!(all["status"]["notManaged"], json!(["Service/target/metrics", "Deployment.apps/addons/controller"]));
    assert_eq!(all["status"]["resources"][1]["group"], "apps");
    let link = all["status"]["resources"][1]["link"].as_str().unwrap();
    assert!(world.get(link).await.unwrap().is_some(), "{link}");

    // What tells nothing new is not written down.
    let before = all["metadata"]["resourceVersion"].clone();
    world.kubectl(&["-n", "addons", "label", "deployment", "controller", "a=b"]).await;
    let mut audit = world.control_plane.audit_from_now().unwrap();
    let status = json!({"status": {"observedGeneration": 1, "replicas": 1, "updatedReplicas": 1, "readyReplicas": 1, "availableReplicas": 1,
        "conditions": [{"type": "Available", "status": "True"}, {"type": "Progressing", "status": "True", "reason": "NewReplicaSetAvailable"}]}});
    let path = "/apis/apps/v1/namespaces/addons/deployments/controller";
    world.send(Method::PATCH, &format!("{path}/status"), "application/merge-patch+json", &status).await.unwrap();
    let ready = world.until_shown(&["Service/target/metrics Ready", "Deployment/addons/controller Ready"]).await;
    assert_ne!(ready["metadata"]["resourceVersion"], before);
    world.kubectl(&["-n", "target", "delete", "service", "metrics"]).await;
    world.until_shown(&["Deployment/addons/controller Ready"]).await;
    world.control_plane.settle_audit().await.unwrap();
    let writes = audit
        .filter(|event| event.is_write() && event.name() == "argo-addon" && event.resource().starts_with("addons"))
        .unwrap();
    assert_eq!(writes.len(), 2, "{writes:#?}");

    // Not repaired, and not pruned.
    world.kubectl(&["-n", "addons", "scale", "deployment", "controller", "--replicas=3"]).await;
    world.kubectl(&["-n", "addons", "delete", "addon", "argo-addon"]).await;
    let left = world.until_there(path).await;
    assert_eq!(left["spec"]["replicas"], 3);
}
