//! A new process over unchanged addons of all sources: one list of each kind, and nothing is written.

use std::collections::BTreeMap;

use quarterdeck_it::audit::{Event, Stage};
use quarterdeck_it::deck::USER;

use super::*;

/// Addons of each source.
const MANY: usize = 7;
/// What a process writes besides addons.
const UNHEEDED: [&str; 2] = ["events", "leases.coordination.k8s.io"];

/// The objects of an addon, of several kinds.
fn objects(namespace: &str, name: &str) -> String {
    let labels = "labels: {addonmanager.kubernetes.io/mode: Reconcile}";
    format!(
        r#"apiVersion: v1
kind: ConfigMap
metadata: {{name: {name}, namespace: {namespace}, {labels}}}
data: {{k: v}}
---
apiVersion: v1
kind: Secret
metadata: {{name: {name}, namespace: {namespace}, {labels}}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {{name: {name}, namespace: {namespace}, {labels}}}
rules: [{{apiGroups: [""], resources: [pods], verbs: [get]}}]
"#
    )
}

impl World {
    /// Waits until all addons are as they should be, and returns when nothing more is to be written of
    /// them: a file that came last is in the list.
    async fn until_all_rest(&self, witness: &str) {
        let file = format!("{witness}.yaml");
        self.write(&file, &map(witness, "Reconcile", "v"));
        self.parent(&file, "ready").await;
        self.until_mirror(&file, "it is in the list", |addon| addon["status"]["health"] == "Ready").await;
        let path = "/apis/addonmgr.keikoproj.io/v1alpha1/addons";
        self.until(path, "all are ready", |list| {
            let ready = |addon: &Value| {
                addon["status"]["health"] == "Ready" && addon["status"]["lifecycle"]["installed"] == "Succeeded"
            };
            list["items"].as_array().is_some_and(|all| all.len() > 3 * MANY && all.iter().all(ready))
        })
        .await;
        eventually("this process has seen all of them", LONG, async || {
            let ready = self.deck.replica(0).metric("quarterdeck_addon_addons", &[("state", "ready")]).await?;
            if ready > (3 * MANY) as f64 { Ok(()) } else { bail!("{ready}") }
        })
        .await
        .unwrap();
        self.control_plane.settle_audit().await.unwrap();
    }
}

#[tokio::test]
async fn a_restart_lists_each_kind_once_and_writes_nothing() {
    let channel = tempfile::tempdir().unwrap();
    let mut index = "kind: Addons\nmetadata: {name: it}\nspec:\n  addons:\n".to_owned();
    for number in 0..MANY {
        let name = format!("ch{number}");
        std::fs::write(channel.path().join(format!("{name}.yaml")), objects("kube-system", &name)).unwrap();
        index +=
            &format!("  - {{name: {name}, version: 1.0.0, selector: {{k8s-addon: {name}}}, manifest: {name}.yaml}}\n");
    }
    std::fs::write(channel.path().join("index.yaml"), index).unwrap();
    let flag = format!("--channel={}", channel.path().join("index.yaml").display());
    let world = World::start(&[&flag]).await;
    world.ready_for_addons().await;
    for number in 0..MANY {
        world.write(&format!("dir{number}.yaml"), &objects("default", &format!("dir{number}")));
    }
    let addon = |number: usize| {
        let indented = |text: String| text.lines().map(|line| format!("                {line}\n")).collect::<String>();
        let head = super::objects::ADDON_OF_ONE_MAP.split("                apiVersion").next().unwrap();
        let name = format!("obj{number}");
        head.replace("name: app,", &format!("name: {name},")).replace("team/app", &format!("team/{name}"))
            + &indented(objects("addons", &name))
    };
    world.apply_text(&(0..MANY).map(addon).collect::<Vec<_>>().join("---\n")).await;
    world.until_all_rest("first").await;

    world.deck.replica(0).process().kill().await.unwrap();
    world.control_plane.settle_audit().await.unwrap();
    let mut audit = world.control_plane.audit_from_now().unwrap();
    world.deck.replica(0).restart().unwrap();
    world.until_all_rest("second").await;
    let ours = audit.filter(|event| event.user.username == USER && event.code() < 300).unwrap();
    let writes = ours.iter().filter(|event| {
        event.is_write()
            && !event.is_dry_run()
            && !UNHEEDED.contains(&&*event.resource())
            && !event.resource().contains("review")
    });
    let writes: Vec<&Event> = writes.filter(|event| !event.request_uri.contains("second")).collect();
    let told: Vec<_> = writes.iter().map(|event| (&event.verb, &event.request_uri, &event.request_object)).collect();
    assert!(told.is_empty(), "{told:#?}");
    // A list, or a watch that begins with one, of each kind and selection; what an informer resumes, and
    // the barrier's look at how far the server is, begin with none of the objects.
    let mut lists: BTreeMap<String, usize> = BTreeMap::new();
    for event in &ours {
        let (path, query) = event.request_uri.split_once('?').unwrap_or((&event.request_uri, ""));
        let initial = event.verb == "list" || query.contains("sendInitialEvents=true");
        let selector = query.split('&').filter(|pair| pair.contains("Selector=")).collect::<Vec<_>>().join("&");
        let is_probe = selector.contains("fieldSelector=metadata.name");
        let began = event.stage == Stage::ResponseStarted || event.verb == "list";
        if initial && began && !is_probe && event.object_ref.is_some() {
            *lists.entry(format!("{path} {selector}")).or_default() += 1;
        }
    }
    let of =
        |word: &str| lists.iter().filter(|(list, _)| list.contains(word)).map(|(_, count)| *count).collect::<Vec<_>>();
    assert!(lists.values().all(|count| *count == 1), "{lists:#?}");
    for (resource, expected) in [("/secrets ", 1), ("/roles ", 1), ("/addons ", 1), ("/configmaps ", 2)] {
        assert_eq!(of(resource).len(), expected, "{resource}: {lists:#?}");
    }
}
