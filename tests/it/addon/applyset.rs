//! ApplySets beside the real kubectl: each knows the sets of the other and leaves them alone.
//!
//! The tests are named after those of `kubernetes/kubectl:pkg/cmd/apply/apply_test.go` v0.36.3 whose
//! cases they hold our engine to.

use http::Method;
use quarterdeck_controllers::addon::applyset::id;
use quarterdeck_controllers::addon::ident::Ident;
use quarterdeck_it::Launch;
use quarterdeck_it::audit::Event;
use serde_json::{Value, json};

use super::{LONG, World, at, map};

const ID: &str = "applyset.kubernetes.io/id";
const PART_OF: &str = "applyset.kubernetes.io/part-of";
const TOOLING: &str = "applyset.kubernetes.io/tooling";
const KINDS: &str = "applyset.kubernetes.io/contains-group-kinds";
const NAMESPACES: &str = "applyset.kubernetes.io/additional-namespaces";
const MAPS: &str = "/api/v1/namespaces/kube-system/configmaps";

impl World {
    /// Runs kubectl with ApplySets; what it printed, and whether it went well.
    async fn kubectl_with_sets(&self, args: &[&str]) -> (String, bool) {
        let log = self.dir.path().join("kubectl-sets.log");
        let _ = std::fs::remove_file(&log);
        let kubectl = Launch::new("kubectl", self.control_plane.program("kubectl"))
            .args(args.iter().copied())
            .env("KUBECONFIG", self.control_plane.admin_kubeconfig().unwrap().display().to_string())
            .env("KUBECTL_APPLYSET", "true")
            .log(&log)
            .spawn()
            .unwrap();
        let exit = kubectl.wait(LONG).await.unwrap();
        (kubectl.log_text(), exit.success())
    }

    /// `kubectl apply --applyset --prune` of these manifests, which are all in the namespace that a
    /// parent which lives in one is in.
    async fn kubectl_applies(&self, namespace: &str, parent: &str, text: &str, more: &[&str]) -> (String, bool) {
        let file = self.dir.path().join("set.yaml");
        std::fs::write(&file, text).unwrap();
        let (file, parent) = (file.display().to_string(), format!("--applyset={parent}"));
        let mut args = vec!["-n", namespace, "apply", "-f", &file, &parent, "--prune"];
        args.extend(more);
        self.kubectl_with_sets(&args).await
    }

    /// Kills the replica: nobody of ours looks on.
    async fn without_us(&self) {
        self.deck.replica(0).process().kill().await.unwrap();
    }
}

fn name(object: &Value) -> String {
    object["metadata"]["name"].as_str().unwrap().to_owned()
}

fn plain(name: &str) -> String {
    format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\ndata: {{k: v}}\n")
}

fn in_system(name: &str) -> String {
    format!("{MAPS}/{name}")
}

/// TestApplySetParentValidation: kubectl makes the ids that we make, knows our parents for what they are,
/// and refuses them since they are another tool's; it changes nothing, not even with `--dry-run`
/// (TestApplySetDryRun).
#[tokio::test]
async fn parent_validation_and_dry_run() {
    let world = World::start(&[]).await;
    world.ready_for_addons().await;
    let kinds = [("configmaps", "ConfigMap/kube-system/dns"), ("secrets", "Secret/kube-system/dns")];
    for (resource, ident) in kinds {
        let parent = format!("{resource}/dns");
        let (text, good) = world.kubectl_applies("kube-system", &parent, &plain(resource), &["--dry-run=server"]).await;
        assert!(good && text.contains("server dry run"), "{text}");
        assert_eq!(world.get(&in_system(resource)).await.unwrap(), None);
        let (text, good) = world.kubectl_applies("kube-system", &parent, &plain(resource), &[]).await;
        assert!(good, "{text}");
        world.until_there(&in_system(resource)).await;
        let made = world.until_there(&format!("/api/v1/namespaces/kube-system/{resource}/dns")).await;
        assert_eq!(made["metadata"]["labels"][ID], id(&Ident::parse(ident).unwrap()).as_str());
    }
    world.write("ours.yaml", &map("ours", "Reconcile", "v"));
    world.write("more.yaml", &map("more", "Reconcile", "v"));
    let parent = world.parent("ours.yaml", "ready").await;
    world.apply_text(super::objects::ADDON_OF_ONE_MAP).await;
    world.until_succeeded("addons/app").await;
    let parents = [format!("configmap/{}", name(&parent)), "addons.addonmgr.keikoproj.io/app".to_owned()];
    for (parent, namespace) in parents.iter().zip(["kube-system", "addons"]) {
        for more in [&[][..], &["--dry-run=server"]] {
            let (text, good) = world.kubectl_applies(namespace, parent, &plain("theirs"), more).await;
            let refused = "is managed by tooling \"quarterdeck\" instead of \"kubectl\"";
            assert!(!good && text.contains(refused), "{text}");
        }
    }
    assert_eq!(world.get(&in_system("theirs")).await.unwrap(), None, "nothing was applied");
    let now = world.parent("ours.yaml", "ready").await;
    assert_eq!(now["metadata"]["resourceVersion"], parent["metadata"]["resourceVersion"]);
    world.until_there(&at("ours")).await;
}

/// TestApplySetParentManagement: the parent lists kinds and further namespaces exactly, and before
/// anything new is made; an object that says that it belongs to a set is refused.
#[tokio::test]
async fn parent_management() {
    let world = World::start(&[]).await;
    world.control_plane.namespace("other").await.unwrap();
    let secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: s, namespace: other, labels: {addonmanager.kubernetes.io/mode: Reconcile}}\n";
    world.write("x.yaml", &map("x", "Reconcile", "v"));
    world.write("z.yaml", &map("z", "Reconcile", "v"));
    let parent = world.parent("x.yaml", "ready").await;
    let facts = |parent: &Value| {
        let annotations = &parent["metadata"]["annotations"];
        (annotations[KINDS].clone(), annotations[NAMESPACES].clone())
    };
    assert_eq!(facts(&parent), (json!("ConfigMap"), json!("default")));
    assert!(parent["metadata"]["annotations"][TOOLING].as_str().unwrap().starts_with("quarterdeck/v"));
    let expected = id(&Ident::parse(&format!("ConfigMap/kube-system/{}", name(&parent))).unwrap());
    assert_eq!(parent["metadata"]["labels"][ID], expected.as_str());
    assert_eq!(world.until_there(&at("x")).await["metadata"]["labels"][PART_OF], expected.as_str());

    let mut audit = world.control_plane.audit_from_now().unwrap();
    let labelled = map("l", "Reconcile", "v").replace("labels: {", &format!("labels: {{{PART_OF}: some-set, "));
    world.write("x.yaml", &[map("x", "Reconcile", "v"), secret.to_owned(), labelled].join("---\n"));
    world.until_there("/api/v1/namespaces/other/secrets/s").await;
    world.until_error("x.yaml", &["says that the object belongs to another set"]).await;
    assert_eq!(world.get(&at("l")).await.unwrap(), None);
    world.write("x.yaml", secret);
    world.until_gone(&at("x")).await;
    let both = (json!("ConfigMap,Secret"), json!("default,other"));
    let last = (json!("Secret"), json!("other"));
    world.until_parent("x.yaml", "it is the exact set", |parent| facts(parent) == last).await;
    world.control_plane.settle_audit().await.unwrap();
    let writes = audit.filter(|event| event.is_write() && event.succeeded()).unwrap();
    let at = |what: &str, fits: &dyn Fn(&Event) -> bool| writes.iter().position(fits).expect(what);
    let is_parent = |event: &Event| event.name() == name(&parent);
    let wider = at("a wider parent", &|event| {
        is_parent(event) && event.response_object.as_ref().is_some_and(|map| facts(map) == both)
    });
    let made = at("a new object", &|event| event.resource() == "secrets" && event.name() == "s");
    let deleted = at("a delete", &|event| event.verb == "delete" && event.name() == "x");
    let exact = at("the exact parent", &|event| {
        is_parent(event) && event.response_object.as_ref().is_some_and(|map| facts(map) == last)
    });
    assert!(wider < made && made < deleted && deleted < exact, "{wider} {made} {deleted} {exact}");
}

/// TestApplySetInvalidLiveParent, TestApplySetUpdateConflictsAreRetried: what somebody did to a parent is
/// put right, over any conflict; one that was given to another tool is refused, and so is an object's
/// removal on its word.
#[tokio::test]
async fn invalid_live_parent_and_conflicts() {
    let world = World::start(&[]).await;
    world.write("x.yaml", &map("x", "Reconcile", "v"));
    world.write("z.yaml", &map("z", "Reconcile", "v"));
    let parent = world.parent("x.yaml", "ready").await;
    let path = format!("{MAPS}/{}", name(&parent));
    let good = |map: &Value| {
        map["metadata"]["annotations"][KINDS] == "ConfigMap"
            && map["metadata"]["labels"][ID] == parent["metadata"]["labels"][ID]
    };
    for damage in [
        json!({"metadata": {"annotations": {KINDS: "Secret,does-not-exist"}}}),
        json!({"metadata": {"annotations": {KINDS: null}}}),
        json!({"metadata": {"annotations": {NAMESPACES: "nowhere"}}}),
    ] {
        // Another manager owns the field now: our apply has to be forced.
        let by = format!("{path}?fieldManager=somebody");
        world.send(Method::PATCH, &by, "application/merge-patch+json", &damage).await.unwrap();
        world
            .until(&path, "it is put right", |map| good(map) && map["metadata"]["annotations"][NAMESPACES] == "default")
            .await;
    }
    // A wrong id is put right with the next change, and what the inventory listed is not forgotten.
    for (id, name) in [(json!("somethingelse"), "changed"), (Value::Null, "x")] {
        let damage = json!({"metadata": {"labels": {ID: id}}});
        world.send(Method::PATCH, &path, "application/merge-patch+json", &damage).await.unwrap();
        let before = if name == "x" { "changed" } else { "x" };
        world.write("x.yaml", &map(name, "Reconcile", "v"));
        world.until(&path, "it is put right", good).await;
        world.until_gone(&at(before)).await;
    }
    world.parent("x.yaml", "ready").await;
    for damage in [
        json!({"metadata": {"annotations": {TOOLING: "helm/v1"}}}),
        json!({"metadata": {"annotations": {TOOLING: "example.com/tool/why/v1"}}}),
    ] {
        let before = world.until_there(&path).await;
        let damaged = world.send(Method::PATCH, &path, "application/merge-patch+json", &damage).await.unwrap();
        world.write("x.yaml", &map("renamed", "Reconcile", "v"));
        world.write(
            "z.yaml",
            &map(&format!("z{}", damaged["metadata"]["resourceVersion"].as_str().unwrap()), "Reconcile", "v"),
        );
        world.parent("z.yaml", "ready").await;
        assert_eq!(world.until_there(&at("x")).await["metadata"]["deletionTimestamp"], Value::Null);
        let now = world.until_there(&path).await;
        assert_eq!(now["metadata"]["resourceVersion"], damaged["metadata"]["resourceVersion"], "nobody took it: {now}");
        // Given back, it goes on as if nothing had been.
        let mend = json!({"metadata": {"annotations": {TOOLING: before["metadata"]["annotations"][TOOLING]}}});
        world.write("x.yaml", &map("x", "Reconcile", "v"));
        world.send(Method::PATCH, &path, "application/merge-patch+json", &mend).await.unwrap();
        world.parent("x.yaml", "ready").await;
    }
    world.write("x.yaml", &map("renamed", "Reconcile", "v"));
    world.until_gone(&at("x")).await;
    world.until_there(&at("renamed")).await;
}

/// TestApplySet_ClusterScopedCustomResourceParent, TestApplyWithPruneV2: kubectl prunes its sets, under
/// whatever parent, and we ours, side by side; neither takes what is the other's. A set whose tooling
/// is changed to kubectl's is kubectl's, members and all.
#[tokio::test]
async fn prune_v2_beside_each_other() {
    let world = World::start(&[]).await;
    let crd = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "sets.example.com", "labels": {"applyset.kubernetes.io/is-parent-type": "true"}},
        "spec": {
            "group": "example.com", "scope": "Cluster", "names": {"plural": "sets", "kind": "Set"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object"}}}],
        },
    });
    world.apply_text(&crd.to_string()).await;
    world.kubectl(&["wait", "--for=condition=Established", "crd/sets.example.com"]).await;
    let own = id(&Ident::parse("Set.example.com//mine").unwrap());
    let set = json!({
        "apiVersion": "example.com/v1", "kind": "Set",
        "metadata": {"name": "mine", "labels": {ID: own}, "annotations": {TOOLING: "kubectl/v1.36.3", KINDS: ""}},
    });
    world.apply_text(&set.to_string()).await;
    let two = [plain("one"), plain("two")].join("---\n");
    let (text, good) = world.kubectl_applies("default", "sets.example.com/mine", &two, &[]).await;
    assert!(good, "{text}");
    assert_eq!(world.until_there(&at("one")).await["metadata"]["labels"][PART_OF], own.as_str());

    // We refuse what is in its set, and touch it not.
    let before = world.until_there(&at("one")).await;
    world.write(
        "x.yaml",
        &[map("one", "Reconcile", "ours"), map("x", "Reconcile", "v"), map("z", "Reconcile", "v")].join("---\n"),
    );
    world.until_error("x.yaml", &["ConfigMap/default/one", &own, "of another tool"]).await;
    assert_eq!(world.until_there(&at("one")).await, before);
    // It prunes its own, and we do not mind.
    let (text, good) = world.kubectl_applies("default", "sets.example.com/mine", &plain("one"), &[]).await;
    assert!(good && text.contains("configmap/two pruned"), "{text}");
    let ours = |name: &str| map(name, "Reconcile", "v").replace("  labels", "  namespace: kube-system\n  labels");
    world.write("x.yaml", &[ours("x"), ours("z")].join("---\n"));
    let parent = world.parent("x.yaml", "ready").await;
    world.until_gone(&at("x")).await;
    assert_eq!(world.until_there(&at("one")).await["metadata"]["uid"], before["metadata"]["uid"]);

    // Handed over by its tooling annotation, our set is one of kubectl's.
    world.without_us().await;
    let path = format!("{MAPS}/{}", name(&parent));
    let tooling = |word: &Value| json!({"metadata": {"annotations": {TOOLING: word}}});
    let patch = tooling(&json!("kubectl/v1.36.3"));
    world.send(Method::PATCH, &path, "application/merge-patch+json", &patch).await.unwrap();
    let (text, good) =
        world.kubectl_applies("kube-system", &format!("configmap/{}", name(&parent)), &plain("x"), &[]).await;
    assert!(good && text.contains("configmap/z pruned"), "{text}");
    world.until_gone(&in_system("z")).await;
    world.until_there(&in_system("x")).await;
    // And handed back it is ours again.
    let patch = tooling(&parent["metadata"]["annotations"][TOOLING]);
    world.send(Method::PATCH, &path, "application/merge-patch+json", &patch).await.unwrap();
    world.deck.replica(0).restart().unwrap();
    world.until_there(&in_system("z")).await;
    world.parent("x.yaml", "ready").await;
}

/// TestApplyWithPruneV2Fail: what cannot be deleted stays in the inventory and is told, the rest goes,
/// and it goes too once it may.
#[tokio::test]
async fn prune_v2_fail() {
    let world = World::start(&[]).await;
    let all = ["a", "b", "c"].map(|name| map(name, "Reconcile", "v")).join("---\n");
    world.write("x.yaml", &all);
    world.write("z.yaml", &map("z", "Reconcile", "v"));
    world.parent("x.yaml", "ready").await;
    let policy = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy", "metadata": {"name": "stuck"},
        "spec": {
            "matchConstraints": {"resourceRules": [
                {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["DELETE"], "resources": ["configmaps"]},
            ]},
            "validations": [{"expression": "oldObject.metadata.name != 'b'", "message": "it is stuck"}],
        },
    });
    let binding = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": "stuck"}, "spec": {"policyName": "stuck", "validationActions": ["Deny"]},
    });
    world.apply_text(&[policy.to_string(), binding.to_string()].join("\n---\n")).await;
    let dry = format!("{}?dryRun=All", at("b"));
    quarterdeck_it::eventually("the policy is in force", LONG, async || {
        match world.send(Method::DELETE, &dry, "application/json", &json!({})).await {
            Err(error) if error.to_string().contains("stuck") => Ok(()),
            other => anyhow::bail!("{other:?}"),
        }
    })
    .await
    .unwrap();
    world.write("x.yaml", &map("c", "Reconcile", "v"));
    world.until_gone(&at("a")).await;
    world.until_error("x.yaml", &["removing ConfigMap/default/b", "it is stuck"]).await;
    let parent = world.parent("x.yaml", "degraded").await;
    let inventory = parent["data"]["inventory"].as_str().unwrap();
    assert!(inventory.contains("/b ") && inventory.contains("/c ") && !inventory.contains("/a "), "{inventory}");
    world.kubectl(&["delete", "validatingadmissionpolicybinding", "stuck"]).await;
    world.until_gone(&at("b")).await;
    world.parent("x.yaml", "ready").await;
    world.until_there(&at("c")).await;
}
