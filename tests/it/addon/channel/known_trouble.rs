//! What was wrong with kOps' channels, and what their own tests ask for
//! (kops:channels/pkg/channels/{apply_channel,readiness}_test.go, pkg/applylib), a test each. Those that
//! stand elsewhere: an addon that is dropped from its index (kops#13962), an edit that nobody sees, an
//! unknown kind in `prune`.

use http::Method;
use serde_json::json;

use super::*;

/// Entries of one version, each with a manifest of its name.
fn entries(version: &str, names: &[&str], more: &str) -> String {
    let entry = |name: &&str| format!("  - {{name: {name}, version: {version}, id: a, manifest: {name}.yaml{more}}}\n");
    format!("kind: Addons\nmetadata: {{name: test}}\nspec:\n  addons:\n{}", names.iter().map(entry).collect::<String>())
}

const KIND: &str = "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {name: things.example.com}\nspec:\n  group: example.com\n  scope: Namespaced\n  names: {kind: Thing, plural: things, singular: thing}\n  versions:\n  - {name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}}\n---\n";

fn thing(value: &str) -> String {
    format!(
        "apiVersion: example.com/v1\nkind: Thing\nmetadata: {{name: odd, namespace: default}}\nvalue: {value}\nstatus: {{conditions: [{{type: Healthy, status: 'False'}}, {{type: Progressing, status: 'False'}}]}}\n---\n"
    )
}

/// kops#16148, kops#18657: one condition that a rule took for bad kept an addon from ever being noted, and
/// had it applied again each minute. And an object beside its definition, in either order, failed once.
#[tokio::test]
async fn kops_16148_an_odd_condition_blocks_nothing() {
    let channel = Channel::new();
    channel.put("dns.yaml", &(thing("one") + KIND + &manifest("one")));
    channel.put("index.yaml", &entries("1.0.0", &["dns"], ""));
    let world = World::start(&[&channel.flag()]).await;
    world.until_noted(&["1.0.0"]).await;
    let path = "/apis/example.com/v1/namespaces/default/things/odd";
    assert_eq!(world.until_there(path).await["value"], "one");
    channel.put("dns.yaml", &(thing("two") + KIND + &manifest("two")));
    channel.put("index.yaml", &entries("1.1.0", &["dns"], ""));
    world.until_noted(&["1.1.0"]).await;
    world.until(path, "the second version", |thing| thing["value"] == "two").await;
    world.until_value("two").await;
}

/// Addons came in the random order of a map: one whose kind another brings failed, or did not. And one
/// object's error stopped its addon.
#[tokio::test]
async fn the_order_of_addons_does_not_matter() {
    let channel = Channel::new();
    channel.put("dns.yaml", &(thing("one") + &manifest("one")));
    channel.put("kinds.yaml", KIND);
    let bad = "apiVersion: v1\nkind: Service\nmetadata: {name: Bad_Name, namespace: default}\nspec: {}\n---\n";
    channel.put("bad.yaml", &(bad.to_owned() + &manifest("v").replace("name: dns", "name: beside-bad")));
    channel.put("index.yaml", &entries("1.0.0", &["bad", "dns", "kinds"], ""));
    let world = World::start(&[&channel.flag()]).await;
    world.until_there("/apis/example.com/v1/namespaces/default/things/odd").await;
    world.until_noted(&["1.0.0"]).await;
    world.until_there("/api/v1/namespaces/kube-system/configmaps/beside-bad").await;
    world.until_error("bad", &["Service/default/Bad_Name"]).await;
    let notes = world.until_there("/api/v1/namespaces/kube-system").await["metadata"]["annotations"].clone();
    assert_eq!((notes["addons.k8s.io/kinds"].is_null(), notes["addons.k8s.io/bad"].is_null()), (false, true));
}

/// kOps looked for a label that it does not set any more: no master was ever marked. An install marks
/// nobody (Test_NeedsRollingUpdate).
#[tokio::test]
async fn an_update_marks_the_control_plane() {
    let channel = Channel::new();
    channel.put("dns.yaml", &manifest("one"));
    let more = ", needsRollingUpdate: control-plane";
    channel.put("index.yaml", &entries("1.0.0", &["dns"], more));
    let world = World::start(&[&channel.flag()]).await;
    for (name, role) in [("master", "control-plane"), ("worker", "node")] {
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": {format!("node-role.kubernetes.io/{role}"): ""}}});
        world.send(Method::POST, "/api/v1/nodes", "application/json", &node).await.unwrap();
    }
    let mark = |node: &Value| node["metadata"]["annotations"].get("kops.k8s.io/needs-update").cloned();
    world.until_noted(&["1.0.0"]).await;
    assert_eq!(mark(&world.until_there("/api/v1/nodes/master").await), None, "an install marks nobody");
    channel.put("index.yaml", &entries("1.1.0", &["dns"], more));
    world.until("/api/v1/nodes/master", "it is marked", |node| mark(node) == Some("".into())).await;
    world.until_noted(&["1.1.0"]).await;
    assert_eq!(mark(&world.until_there("/api/v1/nodes/worker").await), None);
}

/// Every master applied everything: without an election each write was made by all.
#[tokio::test]
async fn one_of_several_masters_applies() {
    let channel = Channel::new();
    channel.offer("1.0.0", "a", "one");
    let control_plane = ControlPlane::start().await.unwrap();
    let flag = channel.flag();
    let world = World::with(control_plane, Terms { args: &[&flag], replicas: 2, ..Terms::default() }).await;
    world.until_noted(&["1.0.0"]).await;
    channel.offer("1.1.0", "a", "two");
    world.until_noted(&["1.1.0"]).await;
    world.until_value("two").await;
    world.parent("dns", "ready").await;
    world.control_plane.settle_audit().await.unwrap();
    let writes = world.control_plane.audit().filter(|event| {
        event.is_write() && event.succeeded() && event.resource() == "configmaps" && event.name() == "dns"
    });
    assert_eq!(writes.unwrap().len(), 2, "one for each version");
}

/// Two channels that define one name took turns in each pass, for ever.
#[tokio::test]
async fn of_two_channels_with_one_name_the_first_keeps_it() {
    let (first, second) = (Channel::new(), Channel::new());
    first.offer("1.0.0", "a", "one");
    second.offer("2.0.0", "b", "two");
    second.put("beside.yaml", &manifest("first").replace("name: dns", "name: beside"));
    let beside = |version: &str| format!("  - {{name: beside, version: {version}, manifest: beside.yaml}}\n");
    second.put("index.yaml", &(index("2.0.0", "b") + &beside("1.0.0")));
    let world = World::start(&[&first.flag(), &second.flag()]).await;
    world.until_value("one").await;
    world.until_noted(&["1.0.0"]).await;
    world.until_there("/api/v1/namespaces/kube-system/configmaps/beside").await;
    let before = world.until_there(MAP).await;
    for (version, value) in [("1.1.0", "second"), ("1.2.0", "third")] {
        second.put("beside.yaml", &manifest(value).replace("name: dns", "name: beside"));
        second.put("index.yaml", &(index("2.0.0", "b") + &beside(version)));
        // The other addon shows that the second channel was read and handled.
        let path = "/api/v1/namespaces/kube-system/configmaps/beside";
        world.until(path, "the other addon is updated", |map| map["data"]["k"] == value).await;
    }
    let after = world.until_there(MAP).await;
    assert_eq!(after["metadata"]["resourceVersion"], before["metadata"]["resourceVersion"]);
    world.until_noted(&["1.0.0"]).await;
    let told =
        |map: &Value| map["data"]["errors"].as_str().unwrap_or_default().contains("stands later and is passed over");
    let parent = world.until_parent("dns", "the other channel is told", told).await;
    assert_eq!(parent["data"]["state"], "ready", "it does no harm");
    let log = world.deck.replica(0).process().log_text();
    assert!(log.contains("which stands first and keeps it"), "{}", world.log());
}

/// apply_channel_test.go: a note on another namespace says nothing about this one's; and a note that cannot
/// be read is taken for none.
#[tokio::test]
async fn a_note_on_another_namespace_masks_nothing() {
    let channel = Channel::new();
    channel.offer("1.0.0", "a", "one");
    let control_plane = ControlPlane::start().await.unwrap();
    let client = control_plane.admin().await.unwrap();
    let note = r#"{"version":"9.0.0","id":"z","manifestHash":"x","systemGeneration":1}"#;
    for (namespace, note) in [("default", note), ("kube-system", "{broken")] {
        let patch = json!({"metadata": {"annotations": {"addons.k8s.io/dns": note}}}).to_string();
        let request = Request::patch(format!("/api/v1/namespaces/{namespace}"))
            .header("content-type", "application/merge-patch+json");
        client.request::<Value>(request.body(patch.into_bytes()).unwrap()).await.unwrap();
    }
    let world = World::on(control_plane, &[&channel.flag()]).await;
    world.until_value("one").await;
    world.until_noted(&["\"version\":\"1.0.0\""]).await;
    let default = world.until_there("/api/v1/namespaces/default").await;
    assert_eq!(default["metadata"]["annotations"]["addons.k8s.io/dns"], note);
    assert!(world.deck.replica(0).process().log_text().contains("taken for none"));
}

/// readiness_test.go: a channel that cannot be read is told, and no master is unready for it.
#[tokio::test]
async fn a_channel_that_cannot_be_read_is_told_and_costs_no_readiness() {
    let channel = Channel::new();
    // The deck waits until it is ready.
    let world = World::start(&[&channel.flag()]).await;
    let complete = async |wanted: f64| {
        let replica = world.deck.replica(0);
        let what = format!("complete is {wanted}");
        let looked = eventually(&what, LONG, async || {
            let now = replica.metric("quarterdeck_addon_source_complete", &[("source", "channel")]).await?;
            if (now - wanted).abs() < 0.1 { Ok(()) } else { bail!("{now}") }
        });
        looked.await.with_context(|| world.log()).unwrap();
    };
    complete(0.0).await;
    channel.offer("1.0.0", "a", "one");
    world.until_value("one").await;
    complete(1.0).await;
    std::fs::remove_file(channel.dir.path().join("index.yaml")).unwrap();
    complete(0.0).await;
    world.deck.ready(LONG).await.unwrap();
    world.until_value("one").await;
}

/// pkg/applylib: what kubectl had applied or edited moves to the new manager, so that fields that the
/// manifest does not have any more go.
#[tokio::test]
async fn stale_fields_of_kubectl_go_with_the_next_version() {
    const LAST_APPLIED: &str = "f:kubectl.kubernetes.io/last-applied-configuration";
    let channel = Channel::new();
    let account = |rest: &str| {
        format!(
            "apiVersion: v1\nkind: ServiceAccount\nmetadata:\n  name: dns\n  namespace: kube-system\n  labels: {{k8s-addon: dns{rest}}}\n"
        )
    };
    channel.put("1.0.0-a.yaml", &account(""));
    channel.put("index.yaml", &index("1.0.0", "a"));
    let control_plane = ControlPlane::start().await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let old = dir.path().join("old.yaml");
    std::fs::write(&old, account(", stale: 'true'") + "secrets: [{name: stale}]\n").unwrap();
    let kubectl = async |args: &[&str]| {
        let launch = Launch::new("kubectl", control_plane.program("kubectl")).args(args.iter().copied());
        let kubeconfig = control_plane.admin_kubeconfig().unwrap().display().to_string();
        let run = launch.env("KUBECONFIG", kubeconfig).log(dir.path().join("log")).spawn().unwrap();
        assert!(run.wait(LONG).await.unwrap().success(), "kubectl {args:?}: {}", run.log_text());
    };
    kubectl(&["apply", "-f", &old.display().to_string()]).await;
    kubectl(&["-n", "kube-system", "annotate", "serviceaccount", "dns", "by=hand"]).await;
    let world = World::on(control_plane, &[&channel.flag()]).await;
    let path = "/api/v1/namespaces/kube-system/serviceaccounts/dns";
    let clean = |account: &Value| {
        let meta = &account["metadata"];
        meta["labels"]["stale"].is_null() && account["secrets"].is_null() && meta["annotations"]["by"].is_null()
    };
    let account = world.until(path, "what is stale is gone", clean).await;
    assert_eq!(account["metadata"]["labels"]["k8s-addon"], "dns");
    // What it remembers of its own apply is all that kubectl keeps.
    let memory = json!({"f:metadata": {"f:annotations": {LAST_APPLIED: {}}}});
    let managers = account["metadata"]["managedFields"].as_array().unwrap();
    let kubectls = |entry: &&Value| entry["manager"].as_str().unwrap().starts_with("kubectl");
    assert!(managers.iter().filter(kubectls).all(|entry| entry["fieldsV1"] == memory), "{account}");
}

/// addon.go: what the entry prunes goes even if the apply failed, and then the apply is tried again: the old
/// object may be in the new one's way.
#[tokio::test]
async fn what_is_in_the_way_is_pruned_and_the_apply_tried_again() {
    let control_plane = ControlPlane::start().await.unwrap();
    let service = |name: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: kube-system, labels: {{addon: dns}}}}\nspec: {{type: NodePort, ports: [{{port: 53, nodePort: 30053}}]}}\n"
        )
    };
    prune::apply_as(&control_plane, "kops", &service("old")).await;
    let channel = Channel::new();
    channel.put("dns.yaml", &service("new"));
    let prune = ", prune: {kinds: [{group: '', kind: Service, labelSelector: 'addon=dns'}]}";
    channel.put("index.yaml", &entries("1.0.0", &["dns"], prune));
    let world = World::on(control_plane, &[&channel.flag()]).await;
    world.until_there("/api/v1/namespaces/kube-system/services/new").await;
    world.until_gone("/api/v1/namespaces/kube-system/services/old").await;
    world.until_noted(&["1.0.0"]).await;
}
