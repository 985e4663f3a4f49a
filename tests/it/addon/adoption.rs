//! Objects that were there before, and objects that only look like ours.

use http::Method;
use quarterdeck_it::{ControlPlane, Launch, Peer, eventually};
use serde_json::{Value, json};

use super::killed::picture::differences;
use super::{LONG, World, at, map};

/// kubectl's memory of what it applied.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

#[tokio::test]
async fn what_kubectl_applied_is_adopted() {
    let world = World::start(&[]).await;
    let file = world.dir.path().join("before.yaml");
    std::fs::write(&file, map("x", "Reconcile", "v").replace("{k: v}", "{k: old, extra: e}")).unwrap();
    world.apply(&file).await;
    let before = world.until_there(&at("x")).await;
    world.write("x.yaml", &map("x", "Reconcile", "v"));
    let after = world.until(&at("x"), "it is as the file says", |object| object["data"] == json!({"k": "v"})).await;
    assert_eq!(after["metadata"]["uid"], before["metadata"]["uid"]);
    let memory = |object: &Value| object["metadata"]["annotations"][LAST_APPLIED].clone();
    assert!(memory(&before).is_string(), "{before}");
    assert_eq!(memory(&after), memory(&before));
    world.write("stays.yaml", &map("stays", "Reconcile", "v"));
    world.parent("x.yaml", "ready").await;
    world.remove("x.yaml");
    world.until_gone(&at("x")).await;
}

/// "EnsureExists objects are never set members", also those that were.
#[tokio::test]
async fn what_is_only_to_exist_leaves_the_set() {
    let world = World::start(&[]).await;
    world.write("x.yaml", &map("x", "Reconcile", "v"));
    world.write("stays.yaml", &map("stays", "Reconcile", "v"));
    let before = world.until(&at("x"), "it is a member", is_member).await;
    world.write("x.yaml", &map("x", "EnsureExists", "v"));
    let after = world.until(&at("x"), "it is no member", |object| !is_member(object)).await;
    assert_eq!(after["metadata"]["uid"], before["metadata"]["uid"]);
}

#[tokio::test]
async fn copies_of_labels_are_not_ours() {
    let world = World::start(&[]).await;
    world.write(
        "x.yaml",
        &format!(
            "{}---\n{}",
            map("x", "Reconcile", "v"),
            map("kept", "Reconcile", "v")
                .replace("  labels:", "  annotations: {quarterdeck.dev/prune: keep}\n  labels:")
        ),
    );
    world.write("stays.yaml", &map("stays", "Reconcile", "v"));
    world.parent("x.yaml", "ready").await;
    // A copy with everything, managedFields included; one owned by a controller; one of another name space.
    let original = world.until_there(&at("x")).await;
    let copy = |name: &str| {
        let mut copy = original.clone();
        for field in ["uid", "resourceVersion", "creationTimestamp"] {
            copy["metadata"].as_object_mut().unwrap().remove(field);
        }
        copy["metadata"]["name"] = name.into();
        copy
    };
    world.send(Method::POST, "/api/v1/namespaces/default/configmaps", "application/json", &copy("copy")).await.unwrap();
    world.control_plane.namespace("elsewhere").await.unwrap();
    let mut elsewhere = copy("x");
    elsewhere["metadata"]["namespace"] = "elsewhere".into();
    world.send(Method::POST, "/api/v1/namespaces/elsewhere/configmaps", "application/json", &elsewhere).await.unwrap();
    world.remove("x.yaml");
    world.until_gone(&at("x")).await;
    for path in [at("copy"), at("kept"), "/api/v1/namespaces/elsewhere/configmaps/x".to_owned(), at("stays")] {
        world.until_there(&path).await;
    }
}

/// Where the objects of an adopted addon are, by the system that made them.
const SYSTEMS: [&str; 3] = ["manager", "kops", "addons"];

/// What a system made: an account, a map, a service, and pods.
fn installed(namespace: &str, labels: &str) -> String {
    format!(
        r#"apiVersion: v1
kind: ServiceAccount
metadata: {{name: web, namespace: {namespace}, labels: {{{labels}}}}}
---
apiVersion: v1
kind: ConfigMap
metadata: {{name: web, namespace: {namespace}, labels: {{{labels}}}}}
data: {{k: v}}
---
apiVersion: v1
kind: Service
metadata: {{name: web, namespace: {namespace}, labels: {{{labels}}}}}
spec:
  selector: {{app: web}}
  ports: [{{port: 80}}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: web, namespace: {namespace}, labels: {{{labels}}}}}
spec:
  replicas: 2
  selector: {{matchLabels: {{app: web}}}}
  template:
    metadata: {{labels: {{app: web}}}}
    spec:
      serviceAccountName: web
      containers: [{{name: main, image: example.com/main:1}}]
"#
    )
}

/// The Addon of keiko's that made its objects by a workflow.
fn keikos_addon() -> String {
    let manifest =
        installed("addons", "app: web").lines().map(|line| format!("                {line}\n")).collect::<String>();
    super::objects::ADDON_OF_ONE_MAP
        .replace("  name: app,", "  name: app, finalizers: [delete.addonmgr.keikoproj.io],")
        .split("                apiVersion")
        .next()
        .unwrap()
        .to_owned()
        + &manifest
}

/// What stands of the objects and of what was made from them; without versions, managedFields and the
/// label that makes them members, but with it in the templates of pods. And uids and names of the pods.
async fn portrait(client: &kube::Client, namespace: &str) -> anyhow::Result<(Vec<Value>, Vec<Value>)> {
    let lists = [
        format!("/api/v1/namespaces/{namespace}/serviceaccounts"),
        format!("/api/v1/namespaces/{namespace}/configmaps"),
        format!("/api/v1/namespaces/{namespace}/services"),
        format!("/apis/apps/v1/namespaces/{namespace}/deployments"),
        format!("/apis/apps/v1/namespaces/{namespace}/replicasets"),
    ];
    let items = async |path: &str| -> anyhow::Result<Vec<Value>> {
        let list: Value = client.request(http::Request::get(path).body(Vec::new())?).await?;
        Ok(list["items"].as_array().cloned().unwrap_or_default())
    };
    let mut objects = Vec::new();
    for path in lists {
        let ours = |object: &Value| object["metadata"]["name"].as_str().is_some_and(|name| name.starts_with("web"));
        for mut object in items(&path).await?.into_iter().filter(ours) {
            let metadata = object["metadata"].as_object_mut().unwrap();
            metadata.remove("managedFields");
            metadata.remove("resourceVersion");
            if let Some(labels) = metadata.get_mut("labels").and_then(Value::as_object_mut) {
                labels.remove("applyset.kubernetes.io/part-of");
            }
            objects.push(object);
        }
    }
    let mut pods = items(&format!("/api/v1/namespaces/{namespace}/pods")).await?;
    let mut pods: Vec<Value> = pods
        .drain(..)
        .map(|pod| json!([pod["metadata"]["name"], pod["metadata"]["uid"], pod["metadata"]["labels"]]))
        .collect();
    pods.sort_by_key(Value::to_string);
    Ok((objects, pods))
}

/// Is the object a member of a set of ours?
fn is_member(object: &Value) -> bool {
    object["metadata"]["labels"]["applyset.kubernetes.io/part-of"].is_string()
}

#[tokio::test]
async fn three_systems_are_taken_over_and_no_pod_notices() {
    let control_plane = ControlPlane::builder().with(&[Peer::Kcm]).start().await.unwrap();
    let _kcm = control_plane.start_kcm(&[]).await.unwrap();
    let (client, dir) = (control_plane.admin().await.unwrap(), tempfile::tempdir().unwrap());
    let kubectl = async |args: &[&str]| {
        let kubeconfig = control_plane.admin_kubeconfig().unwrap().display().to_string();
        let launch = Launch::new("kubectl", control_plane.program("kubectl")).args(args.iter().copied());
        let run = launch.env("KUBECONFIG", kubeconfig).log(dir.path().join("log")).spawn().unwrap();
        assert!(run.wait(LONG).await.unwrap().success(), "kubectl {args:?}: {}", run.log_text());
    };
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let managers = installed("manager", "addonmanager.kubernetes.io/mode: Reconcile");
    let kopss = installed("kops", "k8s-addon: web");
    let keikos = installed(
        "addons",
        "app: web, app.kubernetes.io/name: app, app.kubernetes.io/version: 1.0.0, app.kubernetes.io/part-of: app, app.kubernetes.io/managed-by: addonmgr.keikoproj.io",
    );
    for namespace in SYSTEMS {
        control_plane.namespace(namespace).await.unwrap();
    }
    kubectl(&["apply", "-f", &file("manager.yaml", &managers)]).await;
    kubectl(&["apply", "--server-side", "--field-manager=kops", "-f", &file("kops.yaml", &kopss)]).await;
    let hash: String = {
        use sha2::Digest as _;
        sha2::Sha256::digest(kopss.trim().as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
    };
    let note = format!(r#"addons.k8s.io/web={{"channel":"s3://b/c","manifestHash":"{hash}","systemGeneration":1}}"#);
    kubectl(&["annotate", "namespace", "kops", &note]).await;
    kubectl(&["apply", "-f", &file("addons.yaml", &keikos)]).await;
    let crd = quarterdeck_it::repository().join("deploy/crds/addons.addonmgr.keikoproj.io.yaml");
    kubectl(&["apply", "-f", &crd.display().to_string()]).await;
    kubectl(&["wait", "--for=condition=Established", "crd/addons.addonmgr.keikoproj.io"]).await;
    kubectl(&["apply", "-f", &file("addon.yaml", &keikos_addon())]).await;
    let status = json!({"status": {"checksum": "1a2b3c4d", "lifecycle": {"prereqs": "Succeeded", "installed": "Succeeded"}, "reason": "", "starttime": 1}});
    kubectl(&[
        "-n",
        "addons",
        "patch",
        "addon",
        "app",
        "--subresource=status",
        "--type=merge",
        "-p",
        &status.to_string(),
    ])
    .await;
    let mut before = Vec::new();
    for namespace in SYSTEMS {
        let portrait = eventually("the pods are there", LONG, async || {
            let (objects, pods) = portrait(&client, namespace).await?;
            // What the Go controllers still have to say of it is said.
            let updated = objects.iter().any(|object| {
                let conditions = object["status"]["conditions"].as_array().into_iter().flatten();
                object["status"]["updatedReplicas"] == 2
                    && object["status"]["unavailableReplicas"] == 2
                    && conditions.filter(|one| one["reason"] == "ReplicaSetUpdated").count() == 1
            });
            let counted = objects.iter().any(|object| object["status"]["fullyLabeledReplicas"] == 2);
            if pods.len() == 2 && updated && counted {
                Ok((objects, pods))
            } else {
                anyhow::bail!("{pods:?} {objects:#?}")
            }
        });
        before.push(portrait.await.unwrap());
    }

    // The three of them change hands.
    std::fs::create_dir(dir.path().join("channel")).unwrap();
    file("channel/web.yaml", &kopss);
    let index = "kind: Addons\nmetadata: {name: it}\nspec:\n  addons:\n  - {name: web, namespace: kops, selector: {k8s-addon: web}, manifest: web.yaml}\n";
    let flag = format!("--channel={}", file("channel/index.yaml", index));
    let world = World::on(control_plane, &[&flag]).await;
    // Its account had all rights under keiko, too.
    world.grant_installer().await;
    world.write("web.yaml", &managers);
    for namespace in SYSTEMS {
        for path in ["api/v1", "apis/apps/v1"] {
            let resources: &[&str] =
                if path == "api/v1" { &["serviceaccounts", "configmaps", "services"] } else { &["deployments"] };
            for resource in resources {
                let path = format!("/{path}/namespaces/{namespace}/{resource}/web");
                world.until(&path, "it is a member", is_member).await;
            }
        }
    }
    world
        .until_addon("addons/app", "it is adopted", |addon| {
            addon["status"]["inventory"].as_array().is_some_and(|all| all.len() == 4)
        })
        .await;
    let is_quiet = async |witness: &str| {
        // What was to be written of the others comes before what the witness, and its mirror, say.
        world.write(&format!("{witness}.yaml"), &map(witness, "Reconcile", "v"));
        world.parent(&format!("{witness}.yaml"), "ready").await;
        world
            .until_mirror(&format!("{witness}.yaml"), "it is in the list", |addon| addon["status"]["health"] == "Ready")
            .await;
        world.control_plane.settle_audit().await.unwrap();
    };
    is_quiet("witness-0").await;
    for (namespace, before) in SYSTEMS.iter().zip(&before) {
        let (objects, pods) = portrait(&client, namespace).await.unwrap();
        assert_eq!(differences(&before.0, &objects), "", "{namespace}");
        assert_eq!(pods, before.1, "{namespace}");
    }
    // The second pass, and that of a new process, write nothing.
    let mut audit = world.control_plane.audit_from_now().unwrap();
    is_quiet("witness-1").await;
    world.deck.replica(0).process().kill().await.unwrap();
    world.deck.replica(0).restart().unwrap();
    is_quiet("witness-2").await;
    let writes = audit
        .filter(|event| {
            let unheeded = ["events", "leases.coordination.k8s.io"].contains(&&*event.resource());
            let ours = event.user.username == quarterdeck_it::deck::USER && event.impersonated_user.is_some();
            event.is_write() && ours && !unheeded && !event.is_dry_run() && !event.request_uri.contains("witness")
        })
        .unwrap();
    assert!(writes.is_empty(), "{writes:#?}");
    for (namespace, before) in SYSTEMS.iter().zip(&before) {
        let (objects, pods) = portrait(&client, namespace).await.unwrap();
        assert_eq!(differences(&before.0, &objects), "", "{namespace}");
        assert_eq!(pods, before.1, "{namespace}");
    }
}
