//! Health by rules of the operator's own.

use http::Method;
use quarterdeck_it::deck::program;
use serde_json::json;

use super::*;

const RULES: &str = "- group: fleet.example
  kind: Ship
  ready: self.status.phase == 'Afloat'
  degraded: has(self.status.phase) && self.status.phase == 'Sunk'
  message: \"'at ' + self.status.place\"
";
const SHIP: &str = "/apis/fleet.example/v1/namespaces/default/ships/one";

#[tokio::test]
async fn a_kind_is_judged_by_its_rule() {
    let rules = tempfile::tempdir().unwrap();
    let file = rules.path().join("rules.yaml");
    std::fs::write(&file, RULES).unwrap();
    let world = World::start(&[&format!("--addon-health-rules={}", file.display())]).await;
    let label = json!({"addonmanager.kubernetes.io/mode": "Reconcile"});
    let open = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let crd = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "ships.fleet.example", "labels": label},
        "spec": {"group": "fleet.example", "scope": "Namespaced", "names": {"plural": "ships", "singular": "ship", "kind": "Ship"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": open}}]},
    });
    let ship = json!({
        "apiVersion": "fleet.example/v1", "kind": "Ship", "spec": {"sails": 3},
        "metadata": {"name": "one", "namespace": "default", "labels": label},
    });
    world.write("fleet.json", &format!("{crd}\n{ship}"));
    let told = async |state: &str, words: &[&str]| {
        let fits = |map: &Value| {
            let unhealthy = map["data"]["unhealthy"].as_str().unwrap_or_default();
            map["data"]["state"] == state && words.iter().all(|word| unhealthy.contains(word))
        };
        world.until_parent("fleet.json", &format!("it is {state}"), fits).await
    };
    let says = async |status: Value| {
        let path = format!("{SHIP}?fieldManager=shipyard");
        let patch = json!({"status": status});
        world.send(Method::PATCH, &path, "application/merge-patch+json", &patch).await.unwrap();
    };
    // Without a status the rule cannot be evaluated, and that is told.
    told("progressing", &["Ship.fleet.example/default/one", "its health rule, degraded: ", "status"]).await;
    says(json!({"phase": "Built", "place": "the dock"})).await;
    told("progressing", &["progressing: at the dock"]).await;
    says(json!({"phase": "Afloat"})).await;
    told("ready", &[]).await;
    says(json!({"phase": "Sunk", "place": "sea"})).await;
    told("degraded", &["degraded: at sea"]).await;
    says(json!({"phase": "Afloat"})).await;
    told("ready", &[]).await;
}

#[tokio::test]
async fn a_bad_rule_is_refused_at_the_start() {
    let rules = tempfile::tempdir().unwrap();
    let file = rules.path().join("rules.yaml");
    std::fs::write(&file, RULES.replace("'Afloat'", "")).unwrap();
    let flag = format!("--addon-health-rules={}", file.display());
    let output = tokio::process::Command::new(program().unwrap()).arg(flag).output().await.unwrap();
    assert!(!output.status.success());
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("rules.yaml, line 3, rule 1 (Ship.fleet.example), ready: "), "{told}");
}
