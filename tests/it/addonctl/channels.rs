//! `channels apply channel` on a real server.

use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Node, Secret};
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};

use super::World;

fn map(name: &str, value: &str) -> String {
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {name}\n  namespace: default\n  labels: {{k8s-addon: dns}}\ndata:\n  a: {value}\n  b: {value}\n"
    )
}

fn index(entries: &str) -> String {
    format!("kind: Addons\nmetadata:\n  name: test\nspec:\n  addons:\n{entries}")
}

/// What is noted of an addon on a namespace.
async fn note(world: &World, name: &str) -> Option<Value> {
    let api: Api<Namespace> = Api::all(world.client.clone());
    let annotations = api.get("kube-system").await.unwrap().metadata.annotations.unwrap_or_default();
    annotations.get(&format!("addons.k8s.io/{name}")).map(|text| serde_json::from_str(text).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_is_shown_and_applied_by_the_documents_rules() {
    let world = World::start().await;
    world.file("v1.yaml", &(map("dns", "one") + "---\n" + &map("old", "one")));
    world.file("v2.yaml", &map("dns", "two"));
    world.file("past.yaml", &map("dns", "past"));
    let entry = |version: &str, manifest: &str, more: &str| {
        format!(
            "  - name: dns\n    version: {version}\n    selector: {{k8s-addon: dns}}\n    manifest: {manifest}\n    id: x\n{more}"
        )
    };
    let past = entry("9.0.0", "past.yaml", "    kubernetesVersion: \"<1.6.0\"\n");
    let channel = world.file("channel.yaml", &index(&(past.clone() + &entry("1.4.0", "v1.yaml", ""))));
    let show = ["channels", "apply", "channel", &channel];
    let yes = [&show[..], &["--yes"]].concat();
    let rows = |text: &str| -> Vec<Vec<String>> {
        text.lines().map(|line| line.split_whitespace().map(str::to_owned).collect()).collect()
    };
    let shown = world.run(&show).await.fine();
    assert_eq!(rows(&shown)[..2], [vec!["NAME", "CURRENT", "UPDATE", "PKI"], vec!["dns", "-", "1.4.0", "no"]]);
    assert!(shown.ends_with("\nMust specify --yes to update\n"), "{shown}");
    assert_eq!(note(&world, "dns").await, None, "it was only asked");

    let done = world.run(&yes).await.fine();
    assert!(done.ends_with("Updated \"dns\" to 1.4.0\n") && !done.contains("--yes"), "{done}");
    let maps: Api<ConfigMap> = Api::namespaced(world.client.clone(), "default");
    assert_eq!(maps.get("dns").await.unwrap().data.unwrap()["a"], "one");
    let noted = note(&world, "dns").await.unwrap();
    assert_eq!((&noted["version"], &noted["id"], &noted["channel"]), (&json!("1.4.0"), &json!("x"), &json!(channel)));
    assert_eq!(world.run(&show).await.fine(), "No update required\n");
    let listed = world.run(&["channels", "get", "addons"]).await.fine();
    assert_eq!(rows(&listed)[1][..2], ["kube-system", "dns"]);

    // A person's edit stays, also through the next version; other keys are updated.
    let edit = Patch::Merge(json!({"data": {"b": "mine"}}));
    let person = PatchParams { field_manager: Some("kubectl-edit".to_owned()), ..PatchParams::default() };
    maps.patch("dns", &person, &edit).await.unwrap();
    assert_eq!(world.run(&show).await.fine(), "No update required\n");
    let prune = "    needsRollingUpdate: all\n    prune:\n      kinds:\n      - kind: ConfigMap\n        labelSelector: k8s-addon=dns\n        namespaces: [default]\n";
    world.file("channel.yaml", &index(&(entry("1.4.0", "v1.yaml", "") + &entry("1.5.0", "v2.yaml", prune) + &past)));
    let nodes: Api<Node> = Api::all(world.client.clone());
    let node = json!({"metadata": {"name": "n1"}});
    nodes.create(&Default::default(), &serde_json::from_value(node).unwrap()).await.unwrap();
    let shown = world.run(&show).await.fine();
    assert_eq!(rows(&shown)[1], ["dns", "1.4.0", "1.5.0", "no"]);
    world.run(&yes).await.fine();
    let data = maps.get("dns").await.unwrap().data.unwrap();
    assert_eq!((&*data["a"], &*data["b"]), ("two", "mine"));
    assert!(maps.get_opt("old").await.unwrap().is_none(), "it is pruned");
    assert!(nodes.get("n1").await.unwrap().metadata.annotations.unwrap().contains_key("kops.k8s.io/needs-update"));

    // Never back to an older version, and nothing goes with an index that is empty or broken.
    world.file("channel.yaml", &index(&entry("1.4.0", "v1.yaml", "")));
    assert_eq!(world.run(&show).await.fine(), "No update required\n");
    world.file("channel.yaml", "");
    assert_eq!(world.run(&yes).await.fine(), "No update required\n");
    world.file("channel.yaml", "kind: [");
    assert_eq!(world.run(&yes).await.code, 1);
    assert!(maps.get_opt("dns").await.unwrap().is_some());
    assert_eq!(note(&world, "dns").await.unwrap()["version"], "1.5.0");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_addons_trouble_is_not_the_others() {
    let world = World::start().await;
    world.file("good.yaml", &map("good", "one"));
    // A definition, and an object of it in the same file.
    world.file(
        "crd.yaml",
        "apiVersion: things.example.com/v1\nkind: Thing\nmetadata: {name: t, namespace: default}\n---\napiVersion: \
         apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {name: things.things.example.com}\nspec:\n  group: \
         things.example.com\n  scope: Namespaced\n  names: {kind: Thing, plural: things, singular: thing}\n  versions:\n  - {name: v1, \
         served: true, storage: true, schema: {openAPIV3Schema: {type: object}}}\n",
    );
    world.file("nowhere.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\n---\n{}\n");
    world.file("homeless.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\n");
    let entry = |name: &str, more: &str| format!("  - name: {name}\n    manifest: {name}.yaml\n    id: x\n{more}");
    let wrong = format!("    manifestHash: \"{}\"\n", "0".repeat(64));
    let all = entry("good", &wrong).replace("name: good", "name: forged")
        + &entry("good", "")
        + &entry("crd", "")
        + &entry("nowhere", "")
        + &entry("homeless", "")
        + &entry("missing", "")
        + &entry("odd", "").replace("id: x", "id: 1");
    let channel = world.file("channel.yaml", &index(&all));
    let second = world.file("second.yaml", &index(&entry("good", "").replace("id: x", "id: other")));
    let ran = world.run(&["channels", "apply", "channel", &channel, &second, "--yes"]).await;
    assert_eq!(ran.code, 1, "{}", ran.err);
    for line in ["Updated \"good\"", "Updated \"crd\""] {
        assert!(ran.out.contains(line), "{line}: {} {}", ran.out, ran.err);
    }
    for line in [
        "addon forged: ",
        "its hash is ",
        "addon nowhere: ",
        "addon homeless: ConfigMap//x: it names no namespace",
        "addon missing: ",
        "addon good is another channel's",
        "spec.addons[6].id: 1 is not text",
        "5 of the channels' addons could not be handled",
    ] {
        assert!(ran.err.contains(line), "{line}: {}", ran.err);
    }
    assert_eq!(note(&world, "good").await.unwrap()["id"], "x");
    for name in ["forged", "homeless", "nowhere", "missing"] {
        assert_eq!(note(&world, name).await, None, "{name}");
    }
    let error = world.run(&["channels", "apply", "channel", "well-known"]).await.failed(1);
    assert!(error.contains("is neither a URL nor a path"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ca_and_an_issuer_are_made_once() {
    let world = World::start().await;
    world.file("app.yaml", &map("app", "one"));
    let channel =
        world.file("channel.yaml", &index("  - name: app\n    manifest: app.yaml\n    id: x\n    needsPKI: true\n"));
    let args = ["channels", "apply", "channel", &channel, "--yes"];
    // Without cert-manager the addon is not noted as installed, and is tried again.
    let ran = world.run(&args).await;
    assert_eq!(ran.code, 1, "{}", ran.err);
    assert!(ran.err.contains("its issuer (of cert-manager)"), "{}", ran.err);
    assert_eq!(note(&world, "app").await, None);
    let secrets: Api<Secret> = Api::namespaced(world.client.clone(), "kube-system");
    let first = secrets.get("app-ca").await.unwrap();
    assert_eq!(first.type_.as_deref(), Some("kubernetes.io/tls"));
    let definition = world.file(
        "issuers.yaml",
        "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {name: issuers.cert-manager.io}\nspec:\n  \
         group: cert-manager.io\n  scope: Namespaced\n  names: {kind: Issuer, plural: issuers, singular: issuer}\n  versions:\n  - \
         {name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}}\n",
    );
    world.kubectl(&["apply", "-f", &definition]).await;
    world.kubectl(&["wait", "--for=condition=Established", "--timeout=60s", "crd/issuers.cert-manager.io"]).await;
    quarterdeck_it::eventually("issuers can be made", super::LONG, || async {
        let ran = world.run(&args).await;
        anyhow::ensure!(ran.code == 0, "{}", ran.err);
        Ok(())
    })
    .await
    .unwrap();
    assert_eq!(secrets.get("app-ca").await.unwrap().data, first.data, "an existing CA is left as it is");
    let issuer = world.kubectl(&[
        "get",
        "issuers.cert-manager.io",
        "app",
        "-n",
        "kube-system",
        "-o",
        "jsonpath={.spec.ca.secretName}",
    ]);
    assert_eq!(issuer.await, "app-ca");
    assert_eq!(world.run(&args).await.fine(), "No update required\n");
}
