//! Revisions that are gone back to, by themselves and by hand.

use http::Method;
use serde_json::json;

use super::*;

const MODE: &str = "labels: {addonmanager.kubernetes.io/mode: Reconcile}";

/// A file: a map and a Secret that say `value`.
fn file(value: &str) -> String {
    format!(
        "{}---\napiVersion: v1\nkind: Secret\nmetadata:\n  name: hidden\n  {MODE}\nstringData: {{word: secret-{value}}}\n",
        map("app", "Reconcile", value)
    )
}

fn deployment(name: &str) -> String {
    format!(
        "---\napiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: {name}\n  {MODE}\nspec:\n  selector: {{matchLabels: {{app: {name}}}}}\n  template:\n    metadata: {{labels: {{app: {name}}}}}\n    spec: {{containers: [{{name: main, image: nowhere.example/none}}]}}\n"
    )
}

fn deployment_at(name: &str) -> String {
    format!("/apis/apps/v1/namespaces/default/deployments/{name}")
}

const SECRET: &str = "/api/v1/namespaces/default/secrets/hidden";

/// What a parent says of its revisions.
fn said(parent: &Value) -> Value {
    serde_json::from_str(parent["data"]["revisions"].as_str().unwrap_or("null")).unwrap()
}

/// The verdicts on a parent's revisions, the newest first.
fn verdicts(parent: &Value) -> Vec<String> {
    let said = said(parent);
    let kept = said["kept"].as_array().into_iter().flatten();
    kept.map(|kept| kept["verdict"].as_str().unwrap_or_default().to_owned()).collect()
}

impl World {
    /// Says of a Deployment, as its controller would, that it will not get ready.
    async fn fails(&self, name: &str) {
        let condition = json!({
            "type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": "no image",
        });
        let live = self.until_there(&deployment_at(name)).await;
        let status = json!({"status": {"observedGeneration": live["metadata"]["generation"], "conditions": [condition]}});
        let path = format!("{}/status", deployment_at(name));
        self.send(Method::PATCH, &path, "application/merge-patch+json", &status).await.unwrap();
    }

    async fn until_verdicts(&self, file: &str, expected: &[&str]) -> Value {
        self.until_parent(file, &format!("{file} is {expected:?}"), |map| verdicts(map) == expected).await
    }

    async fn until_value(&self, value: &str) {
        self.until(&at("app"), &format!("app says {value}"), |map| map["data"]["k"] == value).await;
    }

    /// What is stored of revisions in a namespace: ConfigMaps or Secrets.
    async fn stored(&self, resource: &str, namespace: &str) -> Vec<Value> {
        let path = format!("/api/v1/namespaces/{namespace}/{resource}?labelSelector=quarterdeck.dev/revision-of");
        self.get(&path).await.unwrap().unwrap()["items"].as_array().unwrap().clone()
    }

    async fn restarted(&self) {
        self.deck.replica(0).process().kill().await.unwrap();
        self.deck.replica(0).restart().unwrap();
    }
}

/// What is stored, unpacked.
fn unpacked(piece: &Value) -> String {
    use base64::Engine as _;
    use std::io::Read as _;
    let text = [&piece["data"]["piece"], &piece["binaryData"]["piece"]].into_iter().find_map(Value::as_str).unwrap();
    let bytes = base64::engine::general_purpose::STANDARD.decode(text).unwrap();
    let mut unpacked = String::new();
    flate2::read::ZlibDecoder::new(&bytes[..]).read_to_string(&mut unpacked).unwrap();
    unpacked
}

#[tokio::test]
async fn a_revision_that_fails_is_given_up_for_the_last_good_one() {
    let world = World::start(&["--addon-rollback=auto"]).await;
    world.write("app.yaml", &file("one"));
    let parent = world.until_verdicts("app.yaml", &["good"]).await;
    // It is kept beside the parent and goes with it; what is secret stays in Secrets.
    let (maps, secrets) = (world.stored("configmaps", "kube-system").await, world.stored("secrets", "kube-system").await);
    assert_eq!((maps.len(), secrets.len()), (1, 1));
    for piece in maps.iter().chain(&secrets) {
        assert_eq!(piece["metadata"]["ownerReferences"][0]["uid"], parent["metadata"]["uid"]);
    }
    assert!(unpacked(&maps[0]).contains("\"one\"") && !unpacked(&maps[0]).contains("secret-one"));
    assert!(unpacked(&secrets[0]).contains("secret-one"));

    world.write("app.yaml", &(file("two") + &deployment("web") + "---\n" + &map("only-two", "Reconcile", "v")));
    world.until_value("two").await;
    world.until_there(&at("only-two")).await;
    world.fails("web").await;
    // Back: what it changed is as it was, what it brought is gone.
    world.until_value("one").await;
    world.until_gone(&at("only-two")).await;
    world.until_gone(&deployment_at("web")).await;
    let parent = world.until_parent("app.yaml", "it is ready again", |map| map["data"]["state"] == "ready").await;
    assert_eq!(verdicts(&parent), ["bad", "good"]);
    let told = parent["data"]["rolledBack"].as_str().unwrap();
    assert!(told.contains("rolled back from") && told.contains("no image"), "{told}");
    let secret = world.until_there(SECRET).await;
    assert_eq!(secret["data"]["word"], "c2VjcmV0LW9uZQ==", "secret-one");
    let events = world.get("/api/v1/namespaces/kube-system/events?fieldSelector=reason=RolledBack").await.unwrap().unwrap();
    assert_eq!(events["items"].as_array().map(Vec::len), Some(1), "{events}");

    // Whoever leads next goes on with it: the old revision is kept, and the bad one not tried again.
    let mut audit = world.control_plane.audit_from_now().unwrap();
    world.restarted().await;
    world.kubectl(&["patch", "configmap", "app", "--type=merge", "-p", r#"{"data":{"k":"hand"}}"#]).await;
    world.until_value("one").await;
    world.control_plane.settle_audit().await.unwrap();
    let web = |event: &quarterdeck_it::AuditEvent| event.is_write() && event.request_uri.contains("/deployments/web");
    assert!(audit.filter(web).unwrap().is_empty(), "the bad revision was applied again");

    // Another revision is another matter, and what is not kept any more is not stored any more.
    world.write("app.yaml", &file("three"));
    world.until_value("three").await;
    world.until_verdicts("app.yaml", &["good", "bad", "good"]).await;
    assert_eq!(world.stored("configmaps", "kube-system").await.len(), 3);
    world.write("app.yaml", &file("four"));
    let parent = world.until_verdicts("app.yaml", &["good", "good", "bad"]).await;
    assert_eq!(parent["data"]["rolledBack"], Value::Null);
    assert_eq!(world.stored("configmaps", "kube-system").await.len(), 3);
    assert_eq!(world.stored("secrets", "kube-system").await.len(), 3);

    // At rest nothing is written or looked for.
    world.control_plane.settle_audit().await.unwrap();
    let mut audit = world.control_plane.audit_from_now().unwrap();
    world.write("other.yaml", &map("other", "Reconcile", "v"));
    world.until_verdicts("other.yaml", &["good"]).await;
    world.control_plane.settle_audit().await.unwrap();
    let own = parent["metadata"]["name"].as_str().unwrap();
    let first = world.stored("configmaps", "kube-system").await;
    let first = first.iter().filter(|map| map["metadata"]["annotations"]["quarterdeck.dev/addon"] == "app.yaml");
    let names: Vec<String> = first.filter_map(|map| Some(map["metadata"]["name"].as_str()?.to_owned())).collect();
    let about = |event: &quarterdeck_it::AuditEvent| {
        event.is_write() && (event.request_uri.contains(own) || names.iter().any(|name| event.request_uri.contains(name)))
    };
    let writes = audit.filter(about).unwrap();
    assert!(writes.is_empty(), "{writes:#?}");

    // Who wants none of it gets rid of what was stored.
    assert!(!names.is_empty());
}

#[tokio::test]
async fn definitions_are_never_gone_back_from_and_refusals_are() {
    let world = World::start(&["--addon-rollback=auto"]).await;
    let crd = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "ships.fleet.example", "labels": {"addonmanager.kubernetes.io/mode": "Reconcile"}},
        "spec": {"group": "fleet.example", "scope": "Namespaced", "names": {"plural": "ships", "singular": "ship", "kind": "Ship"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object"}}}]},
    });
    world.write("crd.yaml", &map("app", "Reconcile", "one"));
    world.write("refused.yaml", &map("calm", "Reconcile", "one"));
    world.until_verdicts("crd.yaml", &["good"]).await;
    world.until_verdicts("refused.yaml", &["good"]).await;

    world.write("crd.yaml", &format!("{}---\n{crd}\n{}", map("app", "Reconcile", "two"), deployment("web")));
    world.until_there("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/ships.fleet.example").await;
    world.fails("web").await;
    world.until_error("crd.yaml", &["has failed", "no image", "CustomResourceDefinitions differ"]).await;
    let parent = world.until_verdicts("crd.yaml", &["bad", "good"]).await;
    assert_eq!(parent["data"]["rolledBack"], Value::Null);
    world.until_value("two").await;

    // The server will never take this.
    let refused = deployment("never").replace("spec:\n  selector", "spec:\n  replicas: -1\n  selector");
    world.write("refused.yaml", &format!("{}{refused}", map("calm", "Reconcile", "two")));
    world.until_verdicts("refused.yaml", &["bad", "good"]).await;
    world.until(&at("calm"), "calm says one again", |map| map["data"]["k"] == "one").await;
    let parent = world.parent("refused.yaml", "ready").await;
    assert!(parent["data"]["rolledBack"].as_str().unwrap().contains("replicas"), "{parent}");
}
