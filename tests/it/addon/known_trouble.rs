//! What was wrong with kube-addon-manager, a test each, by the number of the report. Those that stand
//! elsewhere: a namespace that is being deleted (kubernetes#89254, `life.rs`), masters with different
//! manifests (kubernetes#55466, `skew.rs` and `directory.rs`).

use http::Method;
use quarterdeck_it::ControlPlane;
use serde_json::{Value, json};

use super::{LONG, Terms, World, at, map};

fn labelled(api: &str, kind: &str, metadata: &Value, rest: &Value) -> String {
    let mut object = json!({"apiVersion": api, "kind": kind, "metadata": metadata});
    object["metadata"]["labels"]["addonmanager.kubernetes.io/mode"] = "Reconcile".into();
    for (key, value) in rest.as_object().unwrap() {
        object[key] = value.clone();
    }
    object.to_string()
}

/// elastic/beats#7284, dashboard#1849: a person's own object with the label of cluster services was
/// deleted within a minute.
#[tokio::test]
async fn beats_7284_a_persons_object_with_the_label_stays() {
    let world = World::start(&[]).await;
    let theirs = map("theirs", "Reconcile", "v").replace(
        "addonmanager.kubernetes.io/mode: Reconcile",
        "kubernetes.io/cluster-service: 'true', addonmanager.kubernetes.io/mode: Reconcile",
    );
    let file = world.dir.path().join("theirs.yaml");
    std::fs::write(&file, theirs).unwrap();
    // With kubectl's own annotation, by which upstream's prune went.
    world.apply(&file).await;
    let uid = world.until_there(&at("theirs")).await["metadata"]["uid"].clone();
    // Addons of its kind and namespace come, change and go: all that upstream's prune asked for.
    world.write("one.yaml", &map("one", "Reconcile", "v"));
    world.write("other.yaml", &map("other", "Reconcile", "v"));
    world.parent("one.yaml", "ready").await;
    world.remove("one.yaml");
    world.until_gone(&at("one")).await;
    world.until_no_parent("one.yaml").await;
    let live = world.until_there(&at("theirs")).await;
    assert_eq!(live["metadata"]["uid"], uid);
    assert!(live["metadata"]["labels"].get("applyset.kubernetes.io/part-of").is_none(), "{live}");
}

/// kubectl#555: the last object of a namespace, and the last file of all, were never removed.
/// gardener#358: roles were not, nor were other kinds that stood on no list.
#[tokio::test]
async fn kubectl_555_and_gardener_358_the_last_object_goes_whatever_its_kind() {
    let world = World::start(&[]).await;
    world.control_plane.namespace("apart").await.unwrap();
    let role = labelled(
        "rbac.authorization.k8s.io/v1",
        "Role",
        &json!({"name": "last", "namespace": "apart"}),
        &json!({"rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]}),
    );
    let account = labelled("v1", "ServiceAccount", &json!({"name": "last", "namespace": "apart"}), &json!({}));
    let class = labelled(
        "storage.k8s.io/v1",
        "StorageClass",
        &json!({"name": "last"}),
        &json!({"provisioner": "example.com/none"}),
    );
    world.write("only.json", &[role, account, class].join("\n"));
    let paths = [
        "/apis/rbac.authorization.k8s.io/v1/namespaces/apart/roles/last",
        "/api/v1/namespaces/apart/serviceaccounts/last",
        "/apis/storage.k8s.io/v1/storageclasses/last",
    ];
    for path in paths {
        world.until_there(path).await;
    }
    world.parent("only.json", "ready").await;
    world.remove("only.json");
    for path in paths {
        world.until_gone(path).await;
    }
    world.until_no_parent("only.json").await;
}

/// kubernetes#80575, kubernetes#98966: every master applied and deleted at the same time. And
/// kubernetes#88214: with an underscore in the host's name none did.
#[tokio::test]
async fn kubernetes_80575_and_88214_one_replica_writes_whatever_the_hosts_are_called() {
    let control_plane = ControlPlane::start().await.unwrap();
    let terms = Terms { replicas: 3, args: &["--replica-name=master_1"], ..Terms::default() };
    let world = World::with(control_plane, terms).await;
    world.write("x.yaml", &map("x", "Reconcile", "v"));
    world.parent("x.yaml", "ready").await;
    let leader = world.deck.leader(LONG).await.unwrap();
    world.kubectl(&["label", "configmap", "x", "by=hand"]).await;
    world.until(&at("x"), "the label is gone", |object| object["metadata"]["labels"].get("by").is_none()).await;
    world.until_drift_of("x.yaml", 1).await;
    for (index, replica) in world.deck.replicas().iter().enumerate() {
        let name = "quarterdeck_addon_applied_total";
        let text = replica.get("/metrics").await.unwrap();
        let wrote = text.lines().any(|line| line.starts_with(name));
        assert_eq!(wrote, index == leader, "replica {index}; {leader} leads");
    }
    // What such a host reads is written down under a name that a Lease may have.
    let leases = "/apis/coordination.k8s.io/v1/namespaces/quarterdeck-replicas/leases";
    world
        .until(leases, "a Lease", |list| {
            let items = list["items"].as_array().cloned().unwrap_or_default();
            items
                .iter()
                .any(|lease| lease["metadata"]["name"].as_str().is_some_and(|name| name.starts_with("master-1-")))
        })
        .await;
}

impl World {
    /// Waits until the parent of a file counts so many repairs.
    async fn until_drift_of(&self, file: &str, count: u32) {
        let text = count.to_string();
        self.until_parent(file, "a repair is counted", |map| map["data"]["drift"] == text.as_str()).await;
    }
}

/// kubernetes#93762: what only has to exist was overwritten when the manager started again.
#[tokio::test]
async fn kubernetes_93762_a_start_overwrites_nothing_that_only_has_to_exist() {
    let world = World::start(&[]).await;
    world.write("x.yaml", &map("x", "EnsureExists", "from-file"));
    world.until_there(&at("x")).await;
    world.kubectl(&["patch", "configmap", "x", "-p", r#"{"data":{"k":"by-hand"}}"#]).await;
    let before = world.until_there(&at("x")).await;
    world.deck.replica(0).process().kill().await.unwrap();
    world.write("x.yaml", &map("x", "EnsureExists", "from-new-file"));
    let mut audit = world.control_plane.audit_from_now().unwrap();
    world.deck.replica(0).restart().unwrap();
    // It has looked at the file once something else of it is there.
    world.write("witness.yaml", &map("witness", "Reconcile", "v"));
    world.parent("witness.yaml", "ready").await;
    world.parent("x.yaml", "ready").await;
    world.control_plane.settle_audit().await.unwrap();
    let writes = audit.filter(|event| event.is_write() && event.succeeded() && event.name() == "x").unwrap();
    assert!(writes.is_empty(), "{writes:#?}");
    assert_eq!(world.until_there(&at("x")).await["metadata"]["resourceVersion"], before["metadata"]["resourceVersion"]);
}

/// kubernetes#37641: after an upgrade that renamed an object the old one ran beside the new one.
#[tokio::test]
async fn kubernetes_37641_an_object_that_a_new_version_renames_does_not_run_twice() {
    let world = World::start(&[]).await;
    world.write("dns.yaml", &[map("dns-v19", "Reconcile", "v"), map("dns-config", "Reconcile", "v")].join("---\n"));
    world.until_there(&at("dns-v19")).await;
    let config = world.until_there(&at("dns-config")).await["metadata"]["uid"].clone();
    world.parent("dns.yaml", "ready").await;
    world.write("dns.yaml", &[map("dns-v20", "Reconcile", "v"), map("dns-config", "Reconcile", "v")].join("---\n"));
    world.until_there(&at("dns-v20")).await;
    world.until_gone(&at("dns-v19")).await;
    assert_eq!(world.until_there(&at("dns-config")).await["metadata"]["uid"], config);
}

/// kubernetes#34513: what a resizer set was taken back each minute.
#[tokio::test]
async fn kubernetes_34513_a_resizer_is_not_fought() {
    let world = World::start(&[]).await;
    let container = json!({"name": "main", "image": "example.com/main:1"});
    let deployment = labelled(
        "apps/v1",
        "Deployment",
        &json!({"name": "sized", "namespace": "default"}),
        &json!({"spec": {
            "selector": {"matchLabels": {"app": "sized"}},
            "template": {"metadata": {"labels": {"app": "sized"}}, "spec": {"containers": [container]}},
        }}),
    );
    world.write("sized.json", &deployment);
    let path = "/apis/apps/v1/namespaces/default/deployments/sized";
    world.until_there(path).await;
    let size = json!({"spec": {"replicas": 3, "template": {"spec": {"containers": [
        {"name": "main", "resources": {"requests": {"cpu": "100m"}}},
    ]}}}});
    let sized = world
        .send(Method::PATCH, &format!("{path}?fieldManager=pod-nanny"), "application/strategic-merge-patch+json", &size)
        .await
        .unwrap();
    // Real drift beside it is put back, and what the resizer set stays.
    world.kubectl(&["set", "image", "deployment/sized", "main=example.com/other:1"]).await;
    let container = |object: &Value| object["spec"]["template"]["spec"]["containers"][0].clone();
    let live = world.until(path, "the image", |object| container(object)["image"] == "example.com/main:1").await;
    assert_eq!(container(&live)["resources"], container(&sized)["resources"]);
    assert_eq!(live["spec"]["replicas"], 3);
    // Once: nothing of what the resizer set was taken for drift.
    world.until_drift_of("sized.json", 1).await;
}
