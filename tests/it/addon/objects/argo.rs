//! Templates that Argo runs; the test is Argo's controller.

use http::Method;
use serde_json::json;

use super::steps::with_templates;
use super::*;

const WORKFLOWS: &str = "/apis/argoproj.io/v1alpha1/namespaces/addons/workflows";

impl World {
    async fn install_argo(&self) {
        let crd = json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": "workflows.argoproj.io"},
            "spec": {"group": "argoproj.io", "scope": "Namespaced",
                "names": {"plural": "workflows", "singular": "workflow", "kind": "Workflow", "shortNames": ["wf"]},
                "versions": [{"name": "v1alpha1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {
                    "type": "object", "x-kubernetes-preserve-unknown-fields": true}}}]},
        });
        let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
        self.send(Method::POST, path, "application/json", &crd).await.unwrap();
    }

    /// The Workflow of an Addon, once there is one that is not `before`.
    async fn until_workflow(&self, addon: &str, before: &str) -> Value {
        let looked = eventually("its Workflow is there", LONG, async || {
            let list = self.get(&format!("{WORKFLOWS}?labelSelector=app.kubernetes.io/name={addon}")).await?;
            let mut items = list.and_then(|mut list| Some(list["items"].as_array_mut()?.drain(..).collect::<Vec<_>>()));
            match items.as_mut().and_then(Vec::pop) {
                Some(workflow) if workflow["metadata"]["uid"] != before => Ok(workflow),
                other => bail!("{other:?}"),
            }
        });
        looked.await.with_context(|| self.log()).unwrap()
    }

    /// Argo's word about a Workflow.
    async fn says(&self, workflow: &Value, phase: &str, message: &str) {
        let path = format!("{WORKFLOWS}/{}", workflow["metadata"]["name"].as_str().unwrap());
        let status = json!({"status": {"phase": phase, "message": message}});
        self.send(Method::PATCH, &path, "application/merge-patch+json", &status).await.unwrap();
    }
}

fn suspended(name: &str) -> String {
    with_templates(name, "          - {name: entry, suspend: {}}\n")
}

#[tokio::test]
async fn argo_is_given_what_is_not_in_the_grammar_and_watched() {
    let world = World::with_addons().await;
    world.apply_text(&suspended("app")).await;
    world
        .until_addon("addons/app", "nobody runs it", |addon| {
            let reason = addon["status"]["reason"].as_str().unwrap_or_default();
            addon["status"]["lifecycle"]["installed"] == "Validation Failed"
                && reason.contains("spec.lifecycle.install.template: spec.templates[0].suspend")
                && reason.contains("does not serve workflows.argoproj.io")
        })
        .await;
    world.install_argo().await;
    let workflow = world.until_workflow("app", "").await;
    let addon = world
        .until_addon("addons/app", "it is pending", |addon| addon["status"]["lifecycle"]["installed"] == "Pending");
    let addon = addon.await;
    let revision = &addon["status"]["checksum"].as_str().unwrap()[..8];
    let metadata = &workflow["metadata"];
    assert_eq!(metadata["name"], format!("app-install-{revision}-wf"));
    assert_eq!(metadata["labels"]["workflows.argoproj.io/controller-instanceid"], "addon-manager-workflow-controller");
    assert_eq!(metadata["labels"]["app.kubernetes.io/managed-by"], "addonmgr.keikoproj.io");
    let owner = &metadata["ownerReferences"][0];
    assert_eq!((&owner["kind"], &owner["uid"]), (&json!("Addon"), &addon["metadata"]["uid"]));
    let spec = &workflow["spec"];
    assert_eq!(
        (&spec["activeDeadlineSeconds"], &spec["ttlStrategy"]["secondsAfterCompletion"]),
        (&json!(300), &json!(259_200))
    );
    let parameters = spec["arguments"]["parameters"].as_array().unwrap();
    assert!(parameters.contains(&json!({"name": "namespace", "value": "addons"})), "{parameters:?}");
    assert!(parameters.contains(&json!({"name": "value", "value": "one"})), "{parameters:?}");

    // From here on it is seen: nothing is asked.
    world.says(&workflow, "Running", "first").await;
    let says =
        |text: &'static str| move |addon: &Value| addon["status"]["reason"].as_str().unwrap_or_default().contains(text);
    world.until_addon("addons/app", "it says what Argo says", says("first")).await;
    let mut audit = world.control_plane.audit_from_now().unwrap();
    world.says(&workflow, "Running", "second").await;
    world.until_addon("addons/app", "it says what Argo says", says("second")).await;
    world.says(&workflow, "Succeeded", "").await;
    world.until_succeeded("addons/app").await;
    world.control_plane.settle_audit().await.unwrap();
    let asked = audit
        .filter(|event| {
            event.resource().starts_with("workflows") && event.verb == "get" && event.impersonated_user.is_some()
        })
        .unwrap();
    assert!(asked.is_empty(), "{asked:#?}");
    let told = world.until_events("addons", "app", &["Created", "Submitted", "Completed"]).await;
    let name = metadata["name"].as_str().unwrap();
    assert!(told.iter().any(|event| event.contains(&format!("Created Workflow addons/{name}"))), "{told:#?}");

    // One that fails is told, and tried again with a new Workflow; the old one counts once.
    world.apply_text(&suspended("other")).await;
    let first = world.until_workflow("other", "").await;
    world.says(&first, "Failed", "child 'x' failed").await;
    world
        .until_addon("addons/other", "it failed", |addon| {
            addon["status"]["lifecycle"]["installed"] == "Failed"
                && addon["status"]["reason"].as_str().unwrap_or_default().contains("child 'x' failed")
        })
        .await;
    let second = world.until_workflow("other", first["metadata"]["uid"].as_str().unwrap()).await;
    world.says(&second, "Succeeded", "").await;
    let addon = world.until_succeeded("addons/other").await;
    assert_eq!(addon["status"]["progress"]["steps"]["install"]["failedRounds"], 1);
    world.kubectl(&["-n", "addons", "delete", "addon", "app", "other"]).await;
}
