//! `needsPKI`, as kOps' Test_InstallPKI and GetRequiredUpdates have it
//! (kops:channels/pkg/channels/addons_test.go): what is missing is made, what is there is left alone.

use base64::Engine as _;

use super::*;

const SECRETS: &str = "/api/v1/namespaces/kube-system/secrets";
const ISSUERS: &str = "/apis/cert-manager.io/v1/namespaces/kube-system/issuers";

/// cert-manager's definition, as far as it matters here.
const DEFINITION: &str = r#"
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: issuers.cert-manager.io}
spec:
  group: cert-manager.io
  scope: Namespaced
  names: {kind: Issuer, plural: issuers, singular: issuer}
  versions:
  - name: v1
    served: true
    storage: true
    schema: {openAPIV3Schema: {type: object, properties: {spec: {type: object, x-kubernetes-preserve-unknown-fields: true}}}}
"#;

fn entries(names: &[&str]) -> String {
    let entry = |name: &&str| format!("  - {{name: {name}, version: 1.0.0, manifest: {name}.yaml, needsPKI: true}}\n");
    format!("kind: Addons\nmetadata: {{name: test}}\nspec:\n  addons:\n{}", names.iter().map(entry).collect::<String>())
}

impl World {
    async fn define_issuers(&self) {
        let file = self.dir.path().join("issuers.yaml");
        std::fs::write(&file, DEFINITION).unwrap();
        self.apply(&file).await;
    }
}

fn uid(object: &Value) -> String {
    object["metadata"]["uid"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_ca_comes_at_once_and_its_issuer_with_cert_manager() {
    let channel = Channel::new();
    channel.put("dns.yaml", &manifest("one"));
    channel.put("index.yaml", &entries(&["dns"]));
    let world = World::start(&[&channel.flag()]).await;
    // The missing kind is told, and stops nothing else.
    world.until_value("one").await;
    world.until_noted(&["1.0.0"]).await;
    let secret = world.until_there(&format!("{SECRETS}/dns-ca")).await;
    assert_eq!(secret["type"], "kubernetes.io/tls");
    let told = |map: &Value| map["data"]["errors"].as_str().unwrap_or_default().contains("needsPKI, its issuer: ");
    let parent = world.until_parent("dns", "the missing issuer is told", told).await;
    assert_eq!(parent["data"]["state"], "degraded");

    world.define_issuers().await;
    let issuer = world.until_there(&format!("{ISSUERS}/dns")).await;
    assert_eq!(issuer["spec"]["ca"]["secretName"], "dns-ca");
    world.parent("dns", "ready").await;

    // Twice is fine: a new version changes neither.
    channel.put("dns.yaml", &manifest("two"));
    channel.put("index.yaml", &entries(&["dns"]).replace("1.0.0", "1.1.0"));
    world.until_value("two").await;
    world.until_noted(&["1.1.0"]).await;
    assert_eq!(uid(&world.until_there(&format!("{SECRETS}/dns-ca")).await), uid(&secret));
    assert_eq!(uid(&world.until_there(&format!("{ISSUERS}/dns")).await), uid(&issuer));

    // The key is in the Secret alone.
    let key = secret["data"]["tls.key"].as_str().unwrap().to_owned();
    let pem = String::from_utf8(base64::engine::general_purpose::STANDARD.decode(&key).unwrap()).unwrap();
    let line = pem.lines().nth(1).unwrap();
    let events = world.get("/api/v1/events").await.unwrap().unwrap().to_string();
    let parents = world.get("/api/v1/configmaps").await.unwrap().unwrap().to_string();
    for text in [world.deck.replica(0).process().log_text(), events, parents] {
        assert!(!text.contains(line) && !text.contains(&key), "the key is told");
    }
}

#[tokio::test]
async fn what_is_missing_is_made_again_and_what_is_there_is_left_alone() {
    let control_plane = ControlPlane::start().await.unwrap();
    let channel = Channel::new();
    let (dns, other) = (manifest("one"), manifest("one").replace("name: dns", "name: other"));
    channel.put("dns.yaml", &dns);
    channel.put("other.yaml", &other);
    channel.put("index.yaml", &entries(&["dns", "other"]));
    let client = control_plane.admin().await.unwrap();
    // Somebody's own CA.
    let own = serde_json::json!({
        "apiVersion": "v1", "kind": "Secret", "type": "Opaque",
        "metadata": {"name": "other-ca", "namespace": "kube-system"}, "stringData": {"mine": "alone"},
    });
    let request = Request::post(SECRETS).header("content-type", "application/json");
    let own: Value = client.request(request.body(own.to_string().into_bytes()).unwrap()).await.unwrap();
    let world = World::on(control_plane, &[&channel.flag()]).await;
    world.define_issuers().await;
    for name in ["dns", "other"] {
        world.until_there(&format!("{ISSUERS}/{name}")).await;
        world.parent(name, "ready").await;
    }
    let kept = world.until_there(&format!("{SECRETS}/other-ca")).await;
    assert_eq!((uid(&kept), &kept["data"]), (uid(&own), &own["data"]));

    // Either of the two that is missing is made, the other one stays, and nothing is applied for it.
    let map = world.until_there(MAP).await;
    let (secret, issuer) =
        (world.until_there(&format!("{SECRETS}/dns-ca")).await, world.until_there(&format!("{ISSUERS}/dns")).await);
    world.kubectl(&["-n", "kube-system", "delete", "secret", "dns-ca"]).await;
    let before = uid(&secret);
    let secret = world.until(&format!("{SECRETS}/dns-ca"), "a new CA", |secret| uid(secret) != before).await;
    world.kubectl(&["-n", "kube-system", "delete", "issuers.cert-manager.io", "dns"]).await;
    let before = uid(&issuer);
    world.until(&format!("{ISSUERS}/dns"), "a new issuer", |issuer| uid(issuer) != before).await;
    assert_eq!(uid(&world.until_there(&format!("{SECRETS}/dns-ca")).await), uid(&secret));
    assert_eq!(world.until_there(MAP).await["metadata"]["resourceVersion"], map["metadata"]["resourceVersion"]);
}
