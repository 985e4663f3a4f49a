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
        let status =
            json!({"status": {"observedGeneration": live["metadata"]["generation"], "conditions": [condition]}});
        let path = format!("{}/status", deployment_at(name));
        self.send(Method::PATCH, &path, "application/merge-patch+json", &status).await.unwrap();
    }

    async fn until_verdicts(&self, file: &str, expected: &[&str]) -> Value {
        self.until_parent(file, &format!("{file} is {expected:?}"), |map| verdicts(map) == expected).await
    }

    async fn until_app_says(&self, value: &str) {
        self.until(&at("app"), &format!("app says {value}"), |map| map["data"]["k"] == value).await;
    }

    /// What is stored of revisions in a namespace: ConfigMaps or Secrets.
    async fn stored(&self, resource: &str, namespace: &str) -> Vec<Value> {
        let path = format!("/api/v1/namespaces/{namespace}/{resource}?labelSelector=quarterdeck.dev/revision-of");
        self.get(&path).await.unwrap().unwrap()["items"].as_array().unwrap().clone()
    }

    /// Waits until so much of revisions is stored in kube-system.
    async fn until_stored(&self, resource: &str, count: usize) {
        let path = format!("/api/v1/namespaces/kube-system/{resource}?labelSelector=quarterdeck.dev/revision-of");
        let what = format!("{count} {resource} are stored");
        self.until(&path, &what, |list| list["items"].as_array().map(Vec::len) == Some(count)).await;
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
    let (maps, secrets) =
        (world.stored("configmaps", "kube-system").await, world.stored("secrets", "kube-system").await);
    assert_eq!((maps.len(), secrets.len()), (1, 1));
    for piece in maps.iter().chain(&secrets) {
        assert_eq!(piece["metadata"]["ownerReferences"][0]["uid"], parent["metadata"]["uid"]);
    }
    assert!(unpacked(&maps[0]).contains("\"one\"") && !unpacked(&maps[0]).contains("secret-one"));
    assert!(unpacked(&secrets[0]).contains("secret-one"));

    world.write("app.yaml", &(file("two") + &deployment("web") + "---\n" + &map("only-two", "Reconcile", "v")));
    world.until_app_says("two").await;
    world.until_there(&at("only-two")).await;
    world.fails("web").await;
    // Back: what it changed is as it was, what it brought is gone.
    world.until_app_says("one").await;
    world.until_gone(&at("only-two")).await;
    world.until_gone(&deployment_at("web")).await;
    let parent = world.until_parent("app.yaml", "it is ready again", |map| map["data"]["state"] == "ready").await;
    assert_eq!(verdicts(&parent), ["bad", "good"]);
    let told = parent["data"]["rolledBack"].as_str().unwrap();
    assert!(told.contains("rolled back from") && told.contains("no image"), "{told}");
    let secret = world.until_there(SECRET).await;
    assert_eq!(secret["data"]["word"], "c2VjcmV0LW9uZQ==", "secret-one");
    let events = "/api/v1/namespaces/kube-system/events?fieldSelector=reason=RolledBack";
    world.until(events, "one event tells it", |list| list["items"].as_array().map(Vec::len) == Some(1)).await;

    // Whoever leads next goes on with it: the old revision is kept, and the bad one not tried again.
    let mut audit = world.control_plane.audit_from_now().unwrap();
    world.restarted().await;
    world.kubectl(&["patch", "configmap", "app", "--type=merge", "-p", r#"{"data":{"k":"hand"}}"#]).await;
    world.until_app_says("one").await;
    world.control_plane.settle_audit().await.unwrap();
    let again = audit.filter(|event| event.is_write() && event.request_uri.contains("/deployments/web")).unwrap();
    assert!(again.is_empty(), "the bad revision was applied again: {again:#?}");

    // Another revision is another matter, and what is not kept any more is not stored any more.
    world.write("app.yaml", &file("three"));
    world.until_app_says("three").await;
    world.until_verdicts("app.yaml", &["good", "bad", "good"]).await;
    world.until_stored("configmaps", 3).await;
    world.write("app.yaml", &file("four"));
    let parent = world.until_verdicts("app.yaml", &["good", "good", "bad"]).await;
    assert_eq!(parent["data"]["rolledBack"], Value::Null);
    world.until_stored("configmaps", 3).await;
    world.until_stored("secrets", 3).await;

    // By hand it is the same, through its mirror.
    let own = parent["metadata"]["name"].as_str().unwrap();
    let mirrored = |addon: &Value| addon["status"]["revisions"].as_array().is_some_and(|all| all.len() == 3);
    world.until_addon(&format!("kube-system/{own}"), "its mirror shows revisions", mirrored).await;
    world.addonctl(&["rollback", "app.yaml"]).await;
    world.until_app_says("three").await;
    world
        .until_parent("app.yaml", "it is ready, and tells", |map| {
            map["data"]["state"] == "ready" && !map["data"]["rolledBack"].is_null()
        })
        .await;
    let told = |addon: &Value| {
        addon["status"]["health"] == "Ready"
            && addon["status"]["reason"].as_str().is_some_and(|text| text.contains("asked for"))
    };
    world.until_addon(&format!("kube-system/{own}"), "its mirror tells", told).await;

    // At rest nothing is written, however much happens to others. Its mirror may still be on the way there.
    let turn = std::cell::Cell::new(0);
    let rest = eventually("it is at rest", LONG, async || {
        turn.set(turn.get() + 1);
        let value = format!("v{}", turn.get());
        world.control_plane.settle_audit().await?;
        let mut audit = world.control_plane.audit_from_now()?;
        world.write("other.yaml", &map("other", "Reconcile", &value));
        world.until(&at("other"), "the other one is applied", |map| map["data"]["k"] == *value).await;
        world.control_plane.settle_audit().await?;
        let writes = audit.filter(|event| {
            let uri = &event.request_uri;
            event.is_write() && (uri.contains(own) || maps.iter().any(|map| uri.contains(prefix(map))))
        })?;
        if writes.is_empty() { Ok(()) } else { bail!("{writes:#?}") }
    });
    rest.await.unwrap();
}

/// The part of the name of what is stored that all revisions of an addon share.
fn prefix(piece: &Value) -> &str {
    let name = piece["metadata"]["name"].as_str().unwrap();
    let end = name.match_indices('-').nth(2).map_or(name.len(), |(at, _)| at);
    &name[..end]
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
    world.until_app_says("two").await;

    // The server will never take this.
    let refused = deployment("never").replace("spec:\n  selector", "spec:\n  replicas: -1\n  selector");
    world.write("refused.yaml", &format!("{}{refused}", map("calm", "Reconcile", "two")));
    world.until_verdicts("refused.yaml", &["bad", "good"]).await;
    world.until(&at("calm"), "calm says one again", |map| map["data"]["k"] == "one").await;
    let parent = world.parent("refused.yaml", "ready").await;
    assert!(parent["data"]["rolledBack"].as_str().unwrap().contains("replicas"), "{parent}");
}

/// An Addon object of a map, and of more if that is said.
fn addon(annotations: &str, value: &str, more: &str) -> String {
    let more: String = more.lines().map(|line| format!("                {line}\n")).collect();
    format!(
        r#"apiVersion: addonmgr.keikoproj.io/v1alpha1
kind: Addon
metadata: {{name: app, namespace: addons, annotations: {{{annotations}}}}}
spec:
  pkgName: team/app
  pkgVersion: "{value}"
  pkgType: composite
  pkgDescription: ""
  params: {{namespace: addons}}
  lifecycle:
    install:
      template: |
        apiVersion: argoproj.io/v1alpha1
        kind: Workflow
        spec:
          entrypoint: entry
          serviceAccountName: addon-manager-workflow-installer-sa
          templates:
          - name: entry
            resource:
              action: apply
              manifest: |
                apiVersion: v1
                kind: ConfigMap
                metadata: {{name: app}}
                data: {{k: "{value}"}}
{more}"#
    )
}

const IN_ADDONS: &str = "/api/v1/namespaces/addons/configmaps/app";

/// The states of an Addon's revisions, the newest first.
fn states(addon: &Value) -> Vec<&str> {
    let all = addon["status"]["revisions"].as_array().into_iter().flatten();
    all.map(|revision| revision["state"].as_str().unwrap_or_default()).collect()
}

impl World {
    async fn until_states(&self, expected: &[&str]) -> Value {
        self.until_addon("addons/app", &format!("its revisions are {expected:?}"), |addon| states(addon) == expected)
            .await
    }

    async fn until_installed(&self, value: &str) {
        self.until(IN_ADDONS, &format!("it says {value}"), |map| map["data"]["k"] == value).await;
        self.until_addon("addons/app", &format!("{value} is told"), |addon| {
            addon["status"]["version"] == value && addon["status"]["health"] == "Ready"
        })
        .await;
    }

    /// Runs addonctl as an administrator and returns what it printed.
    async fn addonctl(&self, args: &[&str]) -> String {
        let program = quarterdeck_it::deck::program_named("addonctl").unwrap();
        let mut command = tokio::process::Command::new(program);
        command.args(args).arg("--kubeconfig").arg(self.control_plane.admin_kubeconfig().unwrap());
        let output = tokio::time::timeout(LONG, command.output()).await.unwrap().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(output.status.success(), "addonctl {args:?}: {}", text(&output.stderr));
        text(&output.stdout)
    }
}

#[tokio::test]
async fn a_person_goes_back_and_the_next_revision_goes_on() {
    let world = World::with_addons().await;
    let manual = "quarterdeck.dev/rollback: manual";
    world.apply_text(&addon(manual, "1", "")).await;
    world.until_installed("1").await;
    world.until_states(&["current"]).await;
    world.apply_text(&addon(manual, "2", "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: second}\n")).await;
    world.until_installed("2").await;
    world.until_states(&["current", "good"]).await;
    let second = "/api/v1/namespaces/addons/configmaps/second";
    world.until_there(second).await;
    // Beside the Addon, whose they are.
    let maps = world.stored("configmaps", "addons").await;
    assert_eq!(maps.len(), 2);
    assert!(maps.iter().all(|map| map["metadata"]["ownerReferences"][0]["kind"] == "Addon"));

    let said = world.addonctl(&["rollback", "app", "-n", "addons"]).await;
    assert!(said.starts_with("addon app to be rolled back to ") && said.ends_with(" (1)\n"), "{said}");
    world.until_installed("1").await;
    world.until_gone(second).await;
    let back = world.until_states(&["good", "current"]).await;
    let reason = back["status"]["reason"].as_str().unwrap();
    assert!(reason.starts_with("rolled back from 2 (") && reason.ends_with(": asked for"), "{reason}");
    assert!(world.addonctl(&["get", "app", "-n", "addons"]).await.contains("rolled back from 2"));
    let shown = world.addonctl(&["describe", "app", "-n", "addons"]).await;
    assert!(shown.contains("Revisions:") && shown.contains(" 1 current "), "{shown}");

    // It holds over a restart, and is kept like anything else.
    world.restarted().await;
    world.kubectl(&["-n", "addons", "delete", "configmap", "app"]).await;
    world.until_installed("1").await;
    assert_eq!(world.get(second).await.unwrap(), None);

    // Another spec is installed, and the word has no effect any more.
    world.apply_text(&addon(manual, "3", "")).await;
    world.until_installed("3").await;
    let told =
        |addon: &Value| addon["status"]["errors"][0].as_str().is_some_and(|text| text.contains("without effect"));
    world.until_addon("addons/app", "it says so", told).await;
    world.until_states(&["current", "good", "good"]).await;
    // By name, and to the one that a person gave up before.
    let hash = back["status"]["revisions"][0]["hash"].as_str().unwrap();
    world.addonctl(&["rollback", "app", "-n", "addons", "--to", &hash[..8]]).await;
    world.until_installed("2").await;
    world.until_there(second).await;

    // Off means off: what the source says counts, and nothing is kept.
    world.apply_text(&addon("quarterdeck.dev/rollback: \"off\"", "3", "")).await;
    world.until_installed("3").await;
    world.until_states(&[]).await;
    eventually("nothing is stored", LONG, async || {
        let left = world.stored("configmaps", "addons").await;
        if left.is_empty() { Ok(()) } else { bail!("{left:?}") }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn an_addon_that_is_not_healthy_in_time_goes_back_by_itself() {
    let world = World::with_addons().await;
    let auto = "quarterdeck.dev/rollback: auto, quarterdeck.dev/health-timeout: 3s";
    world.apply_text(&addon(auto, "1", "")).await;
    world.until_installed("1").await;
    // No controller makes it ready.
    let web = deployment("web").replace(&format!("\n  {MODE}"), "");
    world.apply_text(&addon(auto, "2", web.trim_end())).await;
    world.until_states(&["bad", "current"]).await;
    world.until_installed("1").await;
    world.until_gone("/apis/apps/v1/namespaces/addons/deployments/web").await;
    let back = world
        .until_addon("addons/app", "it tells", |addon| {
            addon["status"]["reason"].as_str().is_some_and(|text| text.contains("did not become healthy in time"))
        })
        .await;
    assert_eq!(back["status"]["lifecycle"]["installed"], "Failed");
    // What a person insists on is tried all the same, once.
    let hash = back["status"]["revisions"][0]["hash"].as_str().unwrap().to_owned();
    world.addonctl(&["rollback", "app", "-n", "addons", "--to", &hash]).await;
    world.until_there("/apis/apps/v1/namespaces/addons/deployments/web").await;
    let stays = |addon: &Value| addon["status"]["health"] == "Degraded" && addon["status"]["version"] == "2";
    world.until_addon("addons/app", "it stays", stays).await;
    world.apply_text(&addon(auto, "3", "")).await;
    world.until_installed("3").await;
    world.until_gone("/apis/apps/v1/namespaces/addons/deployments/web").await;
}
