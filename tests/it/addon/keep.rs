//! Whose changes stay: people's additions are taken back, those of controllers are kept; our own
//! writes start nothing.

use http::Method;
use serde_json::{Value, json};

use super::{World, at, map};

const FILE: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: dns, namespace: default, labels: {addonmanager.kubernetes.io/mode: Reconcile}}
spec:
  replicas: 1
  selector: {matchLabels: {app: dns}}
  template:
    metadata: {labels: {app: dns}}
    spec:
      containers:
      - {name: dns, image: "dns:1", env: [{name: A, value: "1"}], ports: [{containerPort: 53, protocol: UDP}], resources: {requests: {cpu: 1000m, memory: 0.5Gi}}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: dns, namespace: default, labels: {addonmanager.kubernetes.io/mode: Reconcile}}
rules: [{apiGroups: [""], resources: [services], verbs: [list]}]
---
apiVersion: v1
kind: ConfigMap
metadata: {name: dns, namespace: default, labels: {addonmanager.kubernetes.io/mode: Reconcile}}
data: {k: v}
---
apiVersion: v1
kind: Secret
metadata: {name: dns, namespace: default, labels: {addonmanager.kubernetes.io/mode: Reconcile}}
stringData: {password: secret}
"#;

const DEPLOYMENT: &str = "/apis/apps/v1/namespaces/default/deployments/dns";
const ROLE: &str = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/roles/dns";

#[tokio::test]
async fn what_people_add_is_taken_back_and_what_controllers_add_stays() {
    let world = World::start(&["--addon-override-managers=some-tool"]).await;
    world.write("dns.yaml", FILE);
    world.applied("dns.yaml").await;
    let good = world.until_there(DEPLOYMENT).await;
    let container = |object: &Value| object["spec"]["template"]["spec"]["containers"].clone();

    // A controller's hand: a sidecar, an annotation, and the scale subresource.
    let sidecar = json!({"metadata": {"annotations": {"controller": "was here"}}, "spec": {"template": {"spec": {"containers": [{"name": "sidecar", "image": "s"}]}}}});
    let strategic = "application/strategic-merge-patch+json";
    world
        .send(Method::PATCH, &format!("{DEPLOYMENT}?fieldManager=some-controller"), strategic, &sidecar)
        .await
        .unwrap();
    let scale = json!({"spec": {"replicas": 5}});
    world
        .send(
            Method::PATCH,
            &format!("{DEPLOYMENT}/scale?fieldManager=kube-controller-manager"),
            "application/merge-patch+json",
            &scale,
        )
        .await
        .unwrap();

    // A person's: a container, a variable, a port, an annotation, a rule, a key; and another tool's.
    let patch = json!({"metadata": {"annotations": {"person": "was here"}}, "spec": {"template": {"spec": {"containers": [
        {"name": "debug", "image": "d"},
        {"name": "dns", "env": [{"name": "B", "value": "2"}], "ports": [{"containerPort": 9153, "protocol": "TCP"}]},
    ]}}}});
    world.kubectl(&["patch", "deployment", "dns", "-p", &patch.to_string()]).await;
    let rule = json!({"rules": [{"apiGroups": [""], "resources": ["services"], "verbs": ["list"]}, {"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]});
    world.kubectl(&["patch", "role", "dns", "--type=merge", "-p", &rule.to_string()]).await;
    world.kubectl(&["patch", "configmap", "dns", "--type=merge", "-p", r#"{"data":{"added":"by hand"}}"#]).await;
    world
        .send(
            Method::PATCH,
            &format!("{}?fieldManager=some-tool", at("dns")),
            "application/merge-patch+json",
            &json!({"data": {"tool": "x"}}),
        )
        .await
        .unwrap();

    let names = |object: &Value| -> Vec<String> {
        container(object)
            .as_array()
            .into_iter()
            .flatten()
            .map(|one| one["name"].as_str().unwrap_or_default().to_owned())
            .collect()
    };
    let ours = |object: &Value| {
        container(object).as_array().and_then(|all| all.iter().find(|one| one["name"] == "dns").cloned())
    };
    let now = world
        .until(DEPLOYMENT, "the person's additions are gone", |object| {
            !names(object).contains(&"debug".to_owned())
                && ours(object) == ours(&good)
                && object["metadata"]["annotations"].get("person").is_none()
        })
        .await;
    assert!(names(&now).contains(&"sidecar".to_owned()), "{now}");
    assert_eq!(now["metadata"]["annotations"]["controller"], "was here");
    assert_eq!(now["spec"]["replicas"], 5, "an autoscaler's replicas are its own");
    world
        .until(ROLE, "the rule is gone", |object| object["rules"].as_array().is_some_and(|rules| rules.len() == 1))
        .await;
    world.until(&at("dns"), "the keys are gone", |object| object["data"] == json!({"k": "v"})).await;

    // A person who scales is reverted.
    world.kubectl(&["scale", "deployment", "dns", "--replicas=7"]).await;
    world.until(DEPLOYMENT, "the file's replicas", |object| object["spec"]["replicas"] == 1).await;
    world.applied("dns.yaml").await;
}

/// Each change costs one read and the writes that put it back; our own writes cost nothing.
#[tokio::test]
async fn our_own_writes_start_nothing() {
    let world = World::start(&[]).await;
    world.write("dns.yaml", FILE);
    world.applied("dns.yaml").await;
    let mut audit = world.control_plane.audit_from_now().unwrap();
    for round in 0..3 {
        let label = format!("round={round}");
        world.kubectl(&["label", "configmap", "dns", "--overwrite", &label]).await;
        world
            .until(&at("dns"), "the label is gone", |object| object["metadata"]["labels"].get("round").is_none())
            .await;
    }
    world.until_drift("dns.yaml", 3).await;
    world.control_plane.settle_audit().await.unwrap();
    let of_ours = |event: &quarterdeck_it::audit::Event| {
        event.acting_user().ends_with(":quarterdeck-addons") && event.verb != "watch"
    };
    let events = audit.filter(|event| of_ours(event) && event.succeeded()).unwrap();
    let count = |name: &str, resource: &str, verb: &str| {
        events.iter().filter(|event| event.name() == name && event.resource() == resource && event.verb == verb).count()
    };
    assert_eq!(count("dns", "configmaps", "get"), 3, "{events:#?}");
    // One write takes the field back, one applies.
    assert_eq!(count("dns", "configmaps", "patch"), 6);
    for untouched in ["deployments.apps", "roles.rbac.authorization.k8s.io", "secrets"] {
        assert!(events.iter().all(|event| event.resource() != untouched), "{untouched}");
    }
    assert!(events.iter().all(|event| event.verb != "list"), "nothing is listed");
}

#[tokio::test]
async fn an_object_that_stands_in_two_files_belongs_to_the_first() {
    let world = World::start(&[]).await;
    world.write("a.yaml", &map("x", "Reconcile", "a"));
    world.until(&at("x"), "it is made", |object| object["data"]["k"] == "a").await;
    world.write("b.yaml", &map("x", "Reconcile", "b"));
    world.parent("b.yaml", "degraded").await;
    assert_eq!(world.until_there(&at("x")).await["data"]["k"], "a");
    let uid = world.until_there(&at("x")).await["metadata"]["uid"].clone();
    // It moves with its file, and is never deleted in between.
    world.remove("a.yaml");
    world.until(&at("x"), "it is the other file's now", |object| object["data"]["k"] == "b").await;
    world.parent("b.yaml", "ready").await;
    assert_eq!(world.until_there(&at("x")).await["metadata"]["uid"], uid);
}

#[tokio::test]
async fn what_a_person_applies_on_the_server_is_taken_back() {
    let world = World::start(&[]).await;
    world.write("x.yaml", &map("x", "Reconcile", "v"));
    world.write("other.yaml", &map("other", "Reconcile", "v"));
    world.parent("x.yaml", "ready").await;
    let file = world.dir.path().join("theirs.yaml");
    std::fs::write(&file, map("x", "Reconcile", "w").replace("{k: w}", "{k: w, added: by hand}")).unwrap();
    let path = file.display().to_string();
    world.kubectl(&["apply", "--server-side", "--force-conflicts", "-f", &path]).await;
    let back = world.until(&at("x"), "it is as the file says", |object| object["data"] == json!({"k": "v"})).await;
    let managers = back["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    assert!(managers.iter().all(|entry| entry["manager"] != "kubectl"), "{managers:#?}");
    world.parent("x.yaml", "ready").await;
}

#[tokio::test]
async fn what_is_changed_again_and_again_is_told_and_left_for_a_while() {
    let world = World::start(&[]).await;
    world.write("x.yaml", &map("x", "Reconcile", "v"));
    world.write("other.yaml", &map("other", "Reconcile", "v"));
    world.parent("x.yaml", "ready").await;
    // Somebody who does not give up; the sixth time within a minute it is theirs.
    let fighting = async {
        for round in 0.. {
            let label = format!("round={round}");
            world.kubectl(&["label", "configmap", "x", "--overwrite", &label]).await;
            world.until(&at("x"), "it is put back", |object| object["metadata"]["labels"].get("round").is_none()).await;
        }
    };
    let told = world.until_error("x.yaml", &["ConfigMap/default/x", "again and again"]);
    tokio::select! {
        () = fighting => unreachable!("it has no end"),
        errors = told => assert!(errors.contains("5 times"), "{errors}"),
    }
    // The others are kept.
    world.kubectl(&["label", "configmap", "other", "by=hand"]).await;
    world.until(&at("other"), "the label is gone", |object| object["metadata"]["labels"].get("by").is_none()).await;
    world.parent("other.yaml", "ready").await;
}
