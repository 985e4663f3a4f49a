//! Addon objects.

use super::*;

const GROUP: &str = "/apis/addonmgr.keikoproj.io/v1alpha1";
/// The example of keiko's README, its templates filled in as its section on prereqs shows.
const EXAMPLE: &str = include_str!("objects/fluentd.yaml");

impl World {
    /// An Addon object, once it `fits`.
    async fn until_addon(&self, name: &str, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        let (namespace, name) = name.split_once('/').unwrap_or(("addon-manager-system", name));
        self.until(&format!("{GROUP}/namespaces/{namespace}/addons/{name}"), what, fits).await
    }

    async fn until_succeeded(&self, name: &str) -> Value {
        let what = format!("{name} has succeeded");
        self.until_addon(name, &what, |addon| addon["status"]["lifecycle"]["installed"] == "Succeeded").await
    }

    async fn apply_text(&self, text: &str) {
        let file = self.dir.path().join("applied.yaml");
        std::fs::write(&file, text).unwrap();
        self.apply(&file).await;
    }

    /// A namespace for Addons, with the account that installs them and the manager's right to act as it.
    async fn addon_namespace(&self, namespace: &str) {
        self.kubectl(&["create", "namespace", namespace]).await;
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

/// The account that keiko's templates name.
const INSTALLER: &str = "addon-manager-workflow-installer-sa";

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
