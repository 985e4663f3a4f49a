//! Addon objects.

mod argo;
mod hostile;
mod keiko;
mod observed;
mod samples;
mod steps;

use super::*;

pub(super) const GROUP: &str = "/apis/addonmgr.keikoproj.io/v1alpha1";
/// The example of keiko's README, its templates filled in as its section on prereqs shows.
const EXAMPLE: &str = include_str!("objects/fluentd.yaml");

impl World {
    /// An Addon object, once it `fits`.
    pub(super) async fn until_addon(&self, name: &str, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        let (namespace, name) = name.split_once('/').unwrap_or(("addon-manager-system", name));
        self.until(&format!("{GROUP}/namespaces/{namespace}/addons/{name}"), what, fits).await
    }

    pub(super) async fn until_succeeded(&self, name: &str) -> Value {
        let what = format!("{name} has succeeded");
        self.until_addon(name, &what, |addon| addon["status"]["lifecycle"]["installed"] == "Succeeded").await
    }

    pub(super) async fn apply_text(&self, text: &str) {
        let file = self.dir.path().join("applied.yaml");
        std::fs::write(&file, text).unwrap();
        self.apply(&file).await;
    }

    /// A namespace for Addons, with the account that installs them and the manager's right to act as it.
    async fn addon_namespace(&self, namespace: &str) {
        self.kubectl(&["create", "namespace", namespace]).await;
        self.installer(namespace).await;
    }

    /// The account that installs the Addons of a namespace.
    async fn installer(&self, namespace: &str) {
        self.kubectl(&["-n", namespace, "create", "serviceaccount", INSTALLER]).await;
        let account = format!("{namespace}:{INSTALLER}");
        let binding = format!("installer-{namespace}");
        let subject = format!("--serviceaccount={account}");
        self.kubectl(&["create", "clusterrolebinding", &binding, "--clusterrole=cluster-admin", &subject]).await;
    }

    /// Follows the command that a blocked Addon tells.
    async fn grant(&self, addon: &Value) {
        let errors = addon["status"]["errors"][0].as_str().unwrap();
        let (_, commands) = errors.split_once("to allow it: ").unwrap();
        for command in commands.split(" && ") {
            let words: Vec<&str> = command.split(' ').skip(1).collect();
            self.kubectl(&words).await;
        }
    }
}

/// The smallest Addon there is.
pub(super) const ADDON_OF_ONE_MAP: &str = r#"apiVersion: addonmgr.keikoproj.io/v1alpha1
kind: Addon
metadata: {name: app, namespace: addons}
spec:
  pkgName: team/app
  pkgVersion: 1.0.0
  pkgType: composite
  pkgDescription: ""
  params: {namespace: addons}
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
                metadata: {name: app}
                data: {k: one}
"#;

/// The account that keiko's templates name.
pub(super) const INSTALLER: &str = "addon-manager-workflow-installer-sa";

#[tokio::test]
async fn the_example_of_the_document_succeeds_without_argo() {
    let world = World::start(&[]).await;
    world.addon_namespace("addon-manager-system").await;
    world.apply_text(EXAMPLE).await;
    let blocked =
        world.until_addon("fluentd-addon", "it is blocked", |addon| addon["status"]["health"] == "Blocked").await;
    assert_eq!(world.get("/api/v1/namespaces/mynamespace").await.unwrap(), None, "nothing was made");
    world.grant(&blocked).await;
    let addon = world.until_succeeded("fluentd-addon").await;
    assert_eq!(addon["status"]["lifecycle"]["prereqs"], "Succeeded");
    assert_eq!(addon["status"]["version"], "v0.0.1");
    let account = world.until_there("/api/v1/namespaces/mynamespace/serviceaccounts/fluentd").await;
    assert_eq!(account["metadata"]["labels"]["app.kubernetes.io/managed-by"], "addonmgr.keikoproj.io");
    let map = world.until_there("/api/v1/namespaces/mynamespace/configmaps/fluentd").await;
    assert_eq!(map["data"]["server"], "hec.splunk.example.com");

    // What a person changes is put back.
    world
        .kubectl(&[
            "-n",
            "mynamespace",
            "patch",
            "configmap",
            "fluentd",
            "--type=merge",
            "-p",
            r#"{"data":{"server":"other"}}"#,
        ])
        .await;
    world
        .until("/api/v1/namespaces/mynamespace/configmaps/fluentd", "the server is put back", |map| {
            map["data"]["server"] == "hec.splunk.example.com"
        })
        .await;
    world.kubectl(&["-n", "mynamespace", "delete", "serviceaccount", "fluentd"]).await;
    world.until_there("/api/v1/namespaces/mynamespace/serviceaccounts/fluentd").await;

    // It goes, but for the namespace, which a person has to let go.
    world.kubectl(&["-n", "addon-manager-system", "delete", "addon", "fluentd-addon", "--wait=false"]).await;
    world.until_gone("/api/v1/namespaces/mynamespace/configmaps/fluentd").await;
    let held =
        world.until_addon("fluentd-addon", "its namespace is held", |addon| addon["status"]["held"].is_object()).await;
    let release = held["status"]["held"]["release"].as_str().unwrap().to_owned();
    let words: Vec<&str> = release.split(' ').skip(1).collect();
    world.kubectl(&words).await;
    world.until_gone(&format!("{GROUP}/namespaces/addon-manager-system/addons/fluentd-addon")).await;
    world
        .until("/api/v1/namespaces/mynamespace", "the namespace goes", |namespace| {
            !namespace["metadata"]["deletionTimestamp"].is_null()
        })
        .await;
}

pub(super) fn simple(name: &str, package: &str, dependencies: &str, value: &str) -> String {
    format!(
        r#"apiVersion: addonmgr.keikoproj.io/v1alpha1
kind: Addon
metadata: {{name: {name}, namespace: addons}}
spec:
  pkgName: {package}
  pkgVersion: 1.0.0
  pkgType: composite
  pkgDescription: ""
  pkgDeps: {dependencies}
  params: {{namespace: addons, data: {{value: {value}}}}}
  lifecycle:
    install:
      template: |
        apiVersion: argoproj.io/v1alpha1
        kind: Workflow
        spec:
          entrypoint: entry
          serviceAccountName: {INSTALLER}
          templates:
          - name: entry
            resource:
              action: apply
              manifest: |
                apiVersion: v1
                kind: ConfigMap
                metadata: {{name: {name}}}
                data: {{k: "{{{{workflow.parameters.value}}}}"}}
"#
    )
}

impl World {
    /// A world with the namespace `addons`, whose installer the manager may act as.
    pub(super) async fn with_addons() -> Self {
        let world = Self::start(&[]).await;
        world.ready_for_addons().await;
        world
    }

    pub(super) async fn ready_for_addons(&self) {
        self.addon_namespace("addons").await;
        self.let_act_in("addons").await;
    }

    /// As [`World::ready_for_addons`], for a namespace that is there.
    pub(super) async fn grant_installer(&self) {
        self.installer("addons").await;
        self.let_act_in("addons").await;
    }

    /// Lets the manager act as the account that installs in a namespace.
    async fn let_act_in(&self, namespace: &str) {
        let role = format!("--resource-name={INSTALLER}");
        let impersonate =
            ["-n", namespace, "create", "role", "act", "--verb=impersonate", "--resource=serviceaccounts", &role];
        self.kubectl(&impersonate).await;
        self.kubectl(&["-n", namespace, "create", "rolebinding", "act", "--role=act", "--user=quarterdeck"]).await;
    }
}

#[tokio::test]
async fn dependents_wait_for_what_they_need_and_go_on_by_event() {
    let world = World::with_addons().await;
    world.apply_text(&simple("app", "team/app", "{core/net: ^1.0, core/dns: 1.0.0}", "one")).await;
    world
        .until_addon("addons/app", "it says what is missing", |addon| {
            let reason = addon["status"]["reason"].as_str().unwrap_or_default();
            addon["status"]["lifecycle"]["installed"] == "Validation Failed"
                && reason.contains("core/net:^1.0")
                && reason.contains("core/dns:1.0.0")
        })
        .await;
    world.apply_text(&simple("net", "core/net", "{}", "one")).await;
    world.until_succeeded("addons/net").await;
    assert_eq!(world.get("/api/v1/namespaces/addons/configmaps/app").await.unwrap(), None, "one of two is not enough");
    world.apply_text(&simple("dns", "core/dns", "{}", "one")).await;
    world.until_succeeded("addons/app").await;

    // What is installed is kept, whatever becomes of the others.
    world.kubectl(&["-n", "addons", "delete", "addon", "net"]).await;
    world.kubectl(&["-n", "addons", "delete", "configmap", "app"]).await;
    world.until_there("/api/v1/namespaces/addons/configmaps/app").await;
}

#[tokio::test]
async fn a_new_revision_prunes_what_it_no_longer_has_and_a_second_of_a_package_is_refused() {
    let world = World::with_addons().await;
    world.apply_text(&simple("app", "team/app", "{}", "one")).await;
    world.until_succeeded("addons/app").await;
    world.apply_text(&simple("twin", "team/app", "{}", "one")).await;
    world
        .until_addon("addons/twin", "the twin is refused", |addon| {
            addon["status"]["reason"].as_str().unwrap_or_default().contains("addons/app already")
        })
        .await;
    assert_eq!(world.get("/api/v1/namespaces/addons/configmaps/twin").await.unwrap(), None);
    world.kubectl(&["-n", "addons", "delete", "addon", "twin"]).await;

    let renamed = simple("app", "team/app", "{}", "two").replace("metadata: {name: app}", "metadata: {name: renamed}");
    world.apply_text(&renamed).await;
    world
        .until("/api/v1/namespaces/addons/configmaps/renamed", "the new one is there", |map| map["data"]["k"] == "two")
        .await;
    world.until_gone("/api/v1/namespaces/addons/configmaps/app").await;
    let addon = world.until_succeeded("addons/app").await;
    let inventory = addon["status"]["inventory"].as_array().unwrap();
    assert!(inventory.len() == 1 && inventory[0].as_str().unwrap().starts_with("ConfigMap/addons/renamed "), "{addon}");
    world.kubectl(&["-n", "addons", "delete", "addon", "app"]).await;
    world.until_gone("/api/v1/namespaces/addons/configmaps/renamed").await;
}

#[tokio::test]
async fn a_wrong_template_is_told_by_field_and_repaired() {
    let world = World::with_addons().await;
    let wrong = simple("app", "team/app", "{}", "one").replace("action: apply", "action: get");
    world.apply_text(&wrong).await;
    world
        .until_addon("addons/app", "the field is named", |addon| {
            let reason = addon["status"]["reason"].as_str().unwrap_or_default();
            addon["status"]["lifecycle"]["installed"] == "Validation Failed"
                && reason.contains("spec.lifecycle.install.template: spec.templates[0].resource.action")
        })
        .await;
    world.apply_text(&simple("app", "team/app", "{}", "one")).await;
    world.until_succeeded("addons/app").await;
}

/// On a real kubelet: a script decides which step runs, its pod goes once that is noted, and a step
/// that fails is tried again with the spec that mends it.
#[tokio::test]
async fn containers_run_once_a_revision_and_leave_nothing() {
    use quarterdeck_it::Node;
    if Node::is_left_out() {
        return;
    }
    let world = World::on(ControlPlane::builder().node().start().await.unwrap(), &[]).await;
    world.ready_for_addons().await;
    world.control_plane.let_pods_run_in("addons").await.unwrap();
    let with_script = |script: &str| {
        let image = Node::SHELL_IMAGE;
        simple("app", "team/app", "{}", "one").replace(
            "            resource:\n",
            &format!(
                "            steps:\n            - - {{name: flip, template: flip}}\n            - - {{name: made, template: made, when: \"{{{{steps.flip.outputs.result}}}} == heads\"}}\n          - name: flip\n            script:\n              image: {image}\n              command: [sh]\n              source: {script}\n          - name: made\n            resource:\n"
            ),
        )
    };
    world.apply_text(&with_script("exit 3")).await;
    let failed = world
        .until_addon("addons/app", "the step has failed", |addon| addon["status"]["lifecycle"]["installed"] == "Failed")
        .await;
    assert!(failed["status"]["reason"].as_str().unwrap().contains("flip"), "{}", failed["status"]);
    assert_eq!(world.get("/api/v1/namespaces/addons/configmaps/app").await.unwrap(), None);
    world.apply_text(&with_script("echo heads")).await;
    world.until_succeeded("addons/app").await;
    world.until_there("/api/v1/namespaces/addons/configmaps/app").await;
    let pods = || async {
        let list = world.get("/api/v1/namespaces/addons/pods").await.unwrap().unwrap();
        let succeeded = list["items"].as_array().unwrap().iter().filter(|pod| pod["status"]["phase"] == "Succeeded");
        succeeded.count()
    };
    assert_eq!(pods().await, 0, "the pod of a step that is noted is gone");

    // Nothing of it runs again: what is applied is kept all the same.
    let mut audit = world.control_plane.audit_from_now().unwrap();
    world.kubectl(&["-n", "addons", "delete", "configmap", "app"]).await;
    world.until_there("/api/v1/namespaces/addons/configmaps/app").await;
    world.control_plane.settle_audit().await.unwrap();
    let created =
        audit.filter(|event| event.resource() == "pods" && event.verb == "patch" && event.succeeded()).unwrap();
    assert!(created.is_empty(), "{created:#?}");
}

#[tokio::test]
async fn an_addon_that_keiko_installed_is_adopted_and_nothing_runs() {
    let world = World::with_addons().await;
    // Not in the grammar, and there is no Argo: it could not even run.
    let strange = simple("app", "team/app", "{}", "one").replace("action: apply", "action: get");
    let paused = strange.replace(
        "namespace: addons}\nspec",
        "namespace: addons, annotations: {quarterdeck.dev/paused: \"true\"}}\nspec",
    );
    assert_ne!(paused, strange);
    world.apply_text(&paused).await;
    world.until_addon("addons/app", "it is paused", |addon| addon["status"]["health"] == "Paused").await;
    let status = serde_json::json!({"status": {"checksum": "1a2b3c4d", "lifecycle": {"prereqs": "Succeeded", "installed": "Succeeded"}, "reason": "", "starttime": 1}});
    let path = format!("{GROUP}/namespaces/addons/addons/app");
    world.send(http::Method::PATCH, &format!("{path}/status"), "application/merge-patch+json", &status).await.unwrap();
    world.kubectl(&["-n", "addons", "annotate", "addon", "app", "quarterdeck.dev/paused-"]).await;
    let addon = world
        .until_addon("addons/app", "it is adopted", |addon| {
            addon["status"]["health"] == "Ready" && addon["status"]["checksum"].as_str().unwrap_or_default().len() == 64
        })
        .await;
    assert_eq!(addon["status"]["lifecycle"]["installed"], "Succeeded");
    assert_eq!(world.get("/api/v1/namespaces/addons/configmaps/app").await.unwrap(), None);
    // A new spec is new work.
    world.apply_text(&simple("app", "team/app", "{}", "one")).await;
    world.until_there("/api/v1/namespaces/addons/configmaps/app").await;
    world.until_succeeded("addons/app").await;
}
