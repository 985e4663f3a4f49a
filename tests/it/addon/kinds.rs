//! Kinds that come and go: CRDs that are deleted, and kinds that no addon names any more.

use anyhow::bail;
use http::Method;
use quarterdeck_it::{ControlPlane, eventually};
use serde_json::{Value, json};

use super::{LONG, Terms, World, at, map};

const CRDS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const SHIPS: &str = "/apis/fleet.example/v1/namespaces/default/ships";

fn crd() -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "ships.fleet.example", "labels": {"addonmanager.kubernetes.io/mode": "Reconcile"}},
        "spec": {"group": "fleet.example", "scope": "Namespaced", "names": {"plural": "ships", "singular": "ship", "kind": "Ship"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}}}]},
    })
}

fn ship(name: &str) -> String {
    format!(
        "apiVersion: fleet.example/v1\nkind: Ship\nmetadata: {{name: {name}, namespace: default, labels: {{addonmanager.kubernetes.io/mode: Reconcile}}}}\nspec: {{sails: 3}}\n"
    )
}

fn at_sea(name: &str) -> String {
    format!("{SHIPS}/{name}")
}

impl World {
    /// A person changes a ship; it is put back.
    async fn keeps(&self, ship: &str) {
        let path = at_sea(ship);
        let patch = json!({"spec": {"sails": 4, "crew": 5}});
        let patched = format!("{path}?fieldManager=kubectl-edit");
        self.send(Method::PATCH, &patched, "application/merge-patch+json", &patch).await.unwrap();
        self.until(&path, "it is put back", |object| object["spec"] == json!({"sails": 3})).await;
    }

    async fn delete_crd(&self) {
        let path = format!("{CRDS}/ships.fleet.example");
        let uid = self.until_there(&path).await["metadata"]["uid"].clone();
        self.kubectl(&["delete", "crd", "ships.fleet.example", "--wait=false"]).await;
        let what = "this definition is gone";
        eventually(what, LONG, async || match self.get(&path).await? {
            Some(object) if object["metadata"]["uid"] == uid => bail!("{}", object["status"]),
            _ => Ok(()),
        })
        .await
        .unwrap();
    }

    /// The resources of which a replica watches the metadata, each with whether it was read whole.
    async fn watched(&self, replica: usize) -> anyhow::Result<Vec<(String, bool)>> {
        let status = self.deck.replica(replica).status().await?;
        let all = status.0["informers"].as_array().cloned().unwrap_or_default();
        let metadata = all.iter().filter(|informer| informer["form"] == "Metadata" || informer["form"] == "Observed");
        let resource = |informer: &Value| informer["resource"].as_str().unwrap_or_default().to_owned();
        Ok(metadata.map(|informer| (resource(informer), informer["synced"] == true)).collect())
    }

    async fn until_watched(&self, replica: usize, resource: &str, expected: bool) {
        let what = format!("replica {replica} watches {resource}: {expected}");
        // A follower looks at its directory once a minute.
        eventually(&what, 2 * LONG, async || {
            let watched = self.watched(replica).await?;
            let found = watched.iter().find(|(one, _)| one == resource).map(|(_, synced)| *synced);
            let fits = if expected { found == Some(true) } else { found.is_none() };
            if fits { Ok(()) } else { bail!("{watched:?}") }
        })
        .await
        .unwrap();
    }
}

#[tokio::test]
async fn a_kind_that_goes_is_told_and_its_objects_come_back_with_it() {
    let world = World::start(&["--addon-prune-protect=Ship.fleet.example"]).await;
    world.send(Method::POST, CRDS, "application/json", &crd()).await.unwrap();
    world.write("fleet.yaml", &format!("{}---\n{}", ship("one"), map("beside", "Reconcile", "v")));
    world.write("held.yaml", &ship("two"));
    world.parent("fleet.yaml", "ready").await;
    world.parent("held.yaml", "ready").await;
    world.remove("held.yaml");
    let held = world.parent("held.yaml", "held").await;
    assert_eq!(held["data"]["held"], "Ship.fleet.example/default/two\n");

    // Somebody deletes the definition, and with it all ships.
    world.delete_crd().await;
    world.until_error("fleet.yaml", &["document 1", "Ship.fleet.example/default/one", "no such kind"]).await;
    world.write("fleet.yaml", &format!("{}---\n{}", ship("one"), map("beside", "Reconcile", "w")));
    world.until(&at("beside"), "the rest of the file goes on", |object| object["data"]["k"] == "w").await;
    world.write("other.yaml", &map("other", "Reconcile", "v"));
    world.parent("other.yaml", "ready").await;
    let fleet = world.until_error("fleet.yaml", &["Ship.fleet.example/default/one", "no such kind"]).await;
    assert_eq!(fleet.lines().count(), 1, "{fleet}");
    // What was held is held; let go, there is nothing left to delete.
    let held = world.parent("held.yaml", "held").await;
    world.release(&held).await;
    world.until_no_parent("held.yaml").await;

    // The definition comes back.
    world.send(Method::POST, CRDS, "application/json", &crd()).await.unwrap();
    world.until_there(&at_sea("one")).await;
    world.parent("fleet.yaml", "ready").await;
    world.keeps("one").await;
    assert_eq!(world.get(&at_sea("two")).await.unwrap(), None);

    // One that an addon brings is made anew, and so is what it defines.
    world.write("definition.json", &crd().to_string());
    world.parent("definition.json", "ready").await;
    let uid = world.until_there(&at_sea("one")).await["metadata"]["uid"].clone();
    world.delete_crd().await;
    world.until(&at_sea("one"), "it is made anew", |object| object["metadata"]["uid"] != uid).await;
    world.parent("fleet.yaml", "ready").await;
    world.parent("definition.json", "ready").await;
    world.keeps("one").await;
}

#[tokio::test]
async fn kinds_that_nobody_names_are_not_watched() {
    const BUDGETS: &str = "poddisruptionbudgets.policy";
    let budget = "apiVersion: policy/v1\nkind: PodDisruptionBudget\nmetadata: {name: dns, namespace: default, labels: {addonmanager.kubernetes.io/mode: Reconcile}}\nspec: {maxUnavailable: 1, selector: {matchLabels: {app: dns}}}\n";
    let control_plane = ControlPlane::start().await.unwrap();
    let world = World::with(control_plane, Terms { replicas: 2, ..Terms::default() }).await;
    world.write("budget.yaml", budget);
    world.write("map.yaml", &map("x", "Reconcile", "v"));
    world.parent("budget.yaml", "ready").await;
    world.parent("map.yaml", "ready").await;
    let leader = world.deck.leader(LONG).await.unwrap();
    for replica in 0..2 {
        world.until_watched(replica, BUDGETS, true).await;
        world.until_watched(replica, "configmaps", true).await;
    }
    world.deck.ready(LONG).await.unwrap();

    let mut audit = world.control_plane.audit_from_now().unwrap();
    world.remove("budget.yaml");
    world.until_no_parent("budget.yaml").await;
    world.until_watched(leader, BUDGETS, false).await;
    // The follower looks when something changes, or once a minute.
    world.write("more.yaml", &map("more", "Reconcile", "v"));
    world.parent("more.yaml", "ready").await;
    world.until_watched(1 - leader, BUDGETS, false).await;
    // The others went on: changes are seen, and nothing was read anew.
    world.kubectl(&["label", "configmap", "x", "by=hand"]).await;
    world.until(&at("x"), "the label is gone", |object| object["metadata"]["labels"].get("by").is_none()).await;
    for replica in 0..2 {
        world.until_watched(replica, "configmaps", true).await;
    }
    world.control_plane.settle_audit().await.unwrap();
    let began = audit
        .filter(|event| {
            event.acting_user().ends_with(":quarterdeck-addons")
                && (event.request_uri.contains("sendInitialEvents=true") || event.verb == "list")
        })
        .unwrap();
    // The list of the members that were to go is the prune's own; Addon objects are asked for until
    // their definition is served.
    let own = [BUDGETS, "addons.addonmgr.keikoproj.io"];
    let lists: Vec<_> = began.iter().filter(|event| !own.contains(&&*event.resource())).collect();
    assert!(lists.is_empty(), "{lists:#?}");

    // The kind is named again.
    world.write("budget.yaml", budget);
    world.parent("budget.yaml", "ready").await;
    world.until_watched(leader, BUDGETS, true).await;
    world.kubectl(&["label", "poddisruptionbudget", "dns", "by=hand"]).await;
    let path = "/apis/policy/v1/namespaces/default/poddisruptionbudgets/dns";
    world.until(path, "the label is gone", |object| object["metadata"]["labels"].get("by").is_none()).await;
}
