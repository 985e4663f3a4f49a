//! Addons by people who mean no good, or do not know better.

use serde_json::json;

use super::steps::with_templates;
use super::*;

fn manifest(name: &str, manifest: &str) -> String {
    let lines: String = manifest.lines().map(|line| format!("                {line}\n")).collect();
    with_templates(
        name,
        &format!(
            "          - name: entry\n            resource:\n              action: apply\n              manifest: |\n{lines}"
        ),
    )
}

fn map_with(metadata: &str) -> String {
    format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{{metadata}}}\n")
}

impl World {
    /// The Addon is refused, and says so with these words; nobody else is hurt.
    async fn until_refused(&self, name: &str, words: &[&str]) {
        self.until_addon(&format!("addons/{name}"), &format!("{name} says {words:?}"), |addon| {
            let status = &addon["status"];
            let told = format!("{} {}", status["reason"], status["errors"]);
            let succeeded = status["lifecycle"]["installed"] == "Succeeded";
            !succeeded && words.iter().all(|word| told.contains(word))
        })
        .await;
    }
}

#[tokio::test]
async fn keiko_b11_77_hostile_addons_are_refused_by_field_and_hurt_nobody() {
    let world = World::with_addons().await;
    world.kubectl(&["create", "namespace", "team"]).await;
    world.apply_text(&simple("victim", "team/victim", "{}", "one")).await;
    world.until_succeeded("addons/victim").await;
    let victim = world.until_there("/api/v1/namespaces/addons/configmaps/victim").await;

    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
    for level in 1..10 {
        let before = level - 1;
        bomb.push_str(&format!("a{level}: &a{level} [{}]\n", vec![format!("*a{before}"); 9].join(", ")));
    }
    let deep = format!("data: {}{}\n", "[".repeat(5_000), "]".repeat(5_000));
    let large = format!("data: {{k: \"{}\"}}\n", "x".repeat(1 << 20));
    let hostile = [
        ("bomb", manifest("bomb", &format!("{}{bomb}", map_with("name: bomb"))), vec!["spec.templates[0].resource.manifest"]),
        ("deep", manifest("deep", &format!("{}{deep}", map_with("name: deep"))), vec!["spec.templates[0].resource.manifest"]),
        ("large", manifest("large", &format!("{}{large}", map_with("name: large"))), vec!["bytes"]),
        ("thief", manifest("thief", &map_with("name: victim")), vec!["addon/addons/victim", "comes first"]),
        (
            "label",
            manifest("label", &map_with("name: l, labels: {applyset.kubernetes.io/part-of: applyset-x}")),
            vec!["metadata.labels", "another set"],
        ),
        ("dots", manifest("dots", &map_with("name: ..")), vec!["metadata.name"]),
        ("slash", manifest("slash", &map_with("name: a/b")), vec!["metadata.name"]),
        ("outside", manifest("outside", &map_with("name: x, namespace: ../kube-system")), vec!["metadata.namespace"]),
        (
            "account",
            simple("account", "team/account", "{}", "one")
                .replace(&format!("serviceAccountName: {INSTALLER}"), "serviceAccountName: kube-system/admin"),
            vec!["spec.serviceAccountName"],
        ),
        (
            "user",
            simple("user", "team/user", "{}", "one")
                .replace(&format!("serviceAccountName: {INSTALLER}"), "serviceAccountName: \"x\\nImpersonate-Group: system:masters\""),
            vec!["spec.serviceAccountName"],
        ),
        // As it stands in YAML, and as a shell reads it.
        (
            "value",
            simple("value", "team/value", "{}", "one")
                .replace("value: one", "value: \"x\\nkind: Secret\"")
                .replace("\"{{workflow.parameters.value}}\"", "{{workflow.parameters.value}}"),
            vec!["several lines"],
        ),
        (
            "shell",
            with_templates(
                "shell",
                "          - name: entry\n            container: {image: i, command: [sh, -c], args: [\"echo {{workflow.parameters.value}}\"]}\n",
            )
            .replace("value: one", "value: \"$(id)\""),
            vec!["spec.templates[0].container.args[0]"],
        ),
        ("nothing", with_templates("nothing", "").replace("kind: Workflow\n", "kind: Workflow\n        x: [1, null]\n"), vec!["spec"]),
    ];
    for (_, text, _) in &hostile {
        // A template may be larger than an annotation.
        let file = world.dir.path().join("hostile.yaml");
        std::fs::write(&file, text).unwrap();
        world.kubectl(&["create", "-f", &file.display().to_string()]).await;
    }
    for (name, _, words) in &hostile {
        world.until_refused(name, words).await;
    }
    // A namespace that is no name is refused at the door.
    let posted = json!({
        "apiVersion": "addonmgr.keikoproj.io/v1alpha1", "kind": "Addon",
        "metadata": {"name": "params", "namespace": "addons"},
        "spec": {"pkgName": "p", "pkgVersion": "1", "pkgType": "composite", "pkgDescription": "", "params": {"namespace": "../x"}},
    });
    let path = format!("{GROUP}/namespaces/addons/addons");
    let refused = world.send(http::Method::POST, &path, "application/json", &posted).await.unwrap_err();
    assert!(refused.to_string().contains("spec.params.namespace"), "{refused}");

    // Nobody was hurt: the victim's object is its own, its Addon is kept, and others are installed.
    let now = world.until_there("/api/v1/namespaces/addons/configmaps/victim").await;
    assert_eq!((&now["metadata"]["uid"], &now["data"]), (&victim["metadata"]["uid"], &victim["data"]));
    world.kubectl(&["-n", "addons", "delete", "configmap", "victim"]).await;
    world.until_there("/api/v1/namespaces/addons/configmaps/victim").await;
    world.apply_text(&simple("good", "team/good", "{}", "one")).await;
    world.until_succeeded("addons/good").await;
    // What never did anything goes at once, and takes nothing along.
    for (name, _, _) in &hostile {
        world.kubectl(&["-n", "addons", "delete", "addon", name]).await;
    }
    assert_eq!(world.until_there("/api/v1/namespaces/addons/configmaps/victim").await["data"], victim["data"]);
}
