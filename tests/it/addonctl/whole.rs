//! An addon's life beside a real manager, by addonctl alone: created, waited for, planned, changed, removed.

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::Api;
use quarterdeck_it::{Deck, eventually};
use serde_json::Value;

use super::{LONG, NAMESPACE, World, ended};

/// The account that generated templates name.
const INSTALLER: &str = "addon-manager-workflow-installer-sa";

fn map(name: &str, value: &str) -> String {
    format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\ndata:\n  x: {value}\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_addon_lives_by_addonctl_alone() {
    let world = World::start().await;
    world.kubectl(&["-n", NAMESPACE, "create", "serviceaccount", INSTALLER]).await;
    let subject = format!("--serviceaccount={NAMESPACE}:{INSTALLER}");
    world.kubectl(&["create", "clusterrolebinding", "installer", "--clusterrole=cluster-admin", &subject]).await;
    let addons = world.home.path().join("addons");
    std::fs::create_dir(&addons).unwrap();
    let args = ["--controllers=addon-controller".to_owned(), format!("--addon-path={}", addons.display())];
    let _deck = Deck::builder(&world.control_plane).replicas(1).args(args).start().await.unwrap();

    let prereqs = world.file(
        "prereqs.yaml",
        "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: {{workflow.parameters.namespace}}\n",
    );
    let install = world.file("install.yaml", &(map("kept", "one") + "---\n" + &map("dropped", "one")));
    let create = ["create", "core/app", "-n", "deep", "-v", "v1", "--prereqs", &prereqs, "--install", &install];
    world.run(&create).await.fine();
    // It may not act as the account yet, and says what would let it.
    let blocked = eventually("the addon is blocked", LONG, || async {
        let addon: Value = serde_json::from_str(&world.run(&["get", "core-app", "-o=json"]).await.fine())?;
        anyhow::ensure!(addon["status"]["health"] == "Blocked", "{}", addon["status"]);
        Ok(addon)
    })
    .await
    .unwrap();
    assert!(world.run(&["describe", "core-app"]).await.fine().contains("to allow it: "));
    let error = blocked["status"]["errors"][0].as_str().unwrap();
    for command in error.split_once("to allow it: ").unwrap().1.split(" && ") {
        world.kubectl(&command.split(' ').skip(1).collect::<Vec<_>>()).await;
    }
    let ran = world.run(&["wait", "core-app", "--for=healthy", "--timeout=55s"]).await;
    assert_eq!((ran.code, ran.out.as_str()), (0, "addon core-app healthy\n"), "{}", ran.err);
    let maps: Api<ConfigMap> = Api::namespaced(world.client.clone(), "deep");
    assert_eq!(maps.get("kept").await.unwrap().data.unwrap()["x"], "one");
    let row = world.run(&["get", "core-app", "-n", NAMESPACE]).await.fine();
    assert!(row.contains("core/app   v1        Succeeded   Ready"), "{row}");

    // What is there is what it wants; what it would want next is told before.
    let plan = world.run(&["plan", "core-app"]).await;
    assert_eq!((plan.code, plan.err.as_str()), (0, ""), "{}", plan.out);
    assert!(plan.out.ends_with("No changes: 3 objects are as they should be\n"), "{}", plan.out);
    world.file("install.yaml", &map("kept", "two"));
    let next = world.run(&[&create[..], &["--dryrun"]].concat()).await.fine();
    let next = world.file("next.yaml", &next);
    let plan = world.run(&["plan", "-f", &next]).await;
    assert_eq!(plan.code, 2, "{}", plan.err);
    for line in ["    +   x: two", "  - prune  ConfigMap/deep/dropped", "  ~ change ConfigMap/deep/kept"] {
        assert!(plan.out.lines().any(|found| found == line), "{line:?} in:\n{}", plan.out);
    }
    world.run(&create).await.fine();
    eventually("the next revision is there", LONG, || async {
        anyhow::ensure!(maps.get("kept").await?.data.unwrap()["x"] == "two", "not yet");
        anyhow::ensure!(maps.get_opt("dropped").await?.is_none(), "not pruned yet");
        let plan = world.run(&["plan", "core-app"]).await;
        anyhow::ensure!(plan.code == 0, "{}", plan.out);
        Ok(())
    })
    .await
    .unwrap();

    // It goes, but for its namespace, which a person lets go.
    let deleting = tokio::spawn(ended(world.command(&["delete", "core-app", "--wait", "--timeout=55s"])));
    let shown = eventually("the namespace waits for a person", LONG, || async {
        let ran = world.run(&["prune", "core-app"]).await;
        anyhow::ensure!(ran.out.contains("  Namespace//deep"), "{} {}", ran.out, ran.err);
        Ok(ran.out)
    })
    .await
    .unwrap();
    assert!(shown.contains("to release: addonctl prune core-app --confirm="), "{shown}");
    world.run(&["prune", "core-app", "--confirm"]).await.fine();
    let ran = deleting.await.unwrap().unwrap();
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(ran.out.ends_with("addon core-app deleted\n"), "{}", ran.out);
    assert!(maps.get_opt("kept").await.unwrap().is_none());
}
