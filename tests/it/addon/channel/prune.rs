//! `prune` of an entry, and what kOps left behind under an entry's `selector`.

use super::*;

const LABELS: &str = "{addon.kops.k8s.io/name: dns, app.kubernetes.io/managed-by: kops}";

fn labelled(namespace: &str, name: &str) -> String {
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}, namespace: {namespace}, labels: {LABELS}}}\ndata: {{k: v}}\n---\n"
    )
}

/// An entry with a `prune` of these kinds.
fn pruning(version: &str, kinds: &str) -> String {
    format!(
        "kind: Addons\nmetadata: {{name: test}}\nspec:\n  addons:\n  - name: dns\n    version: {version}\n    manifest: dns.yaml\n    prune:\n      kinds:\n{kinds}"
    )
}

fn kind(group: &str, kind: &str, more: &str) -> String {
    format!(
        "      - {{group: \"{group}\", kind: {kind}, labelSelector: \"addon.kops.k8s.io/name=dns,app.kubernetes.io/managed-by=kops\"{more}}}\n"
    )
}

fn path(namespace: &str, name: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/configmaps/{name}")
}

/// Applies text as a field manager, as kOps or as somebody else.
pub(super) async fn apply_as(control_plane: &ControlPlane, manager: &str, text: &str) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("objects.yaml");
    std::fs::write(&file, text).unwrap();
    let kubectl = Launch::new("kubectl", control_plane.program("kubectl"))
        .args(["apply", "--server-side", "--force-conflicts"])
        .args([format!("--field-manager={manager}"), "-f".to_owned(), file.display().to_string()])
        .env("KUBECONFIG", control_plane.admin_kubeconfig().unwrap().display().to_string())
        .log(dir.path().join("log"))
        .spawn()
        .unwrap();
    assert!(kubectl.wait(LONG).await.unwrap().success(), "{}", kubectl.log_text());
}

#[tokio::test]
async fn what_prune_finds_goes_and_nothing_else() {
    let control_plane = ControlPlane::start().await.unwrap();
    let namespace = format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: left, labels: {LABELS}}}\n---\n");
    let old = labelled("kube-system", "old") + &labelled("default", "elsewhere") + &labelled("kube-system", "dns");
    apply_as(&control_plane, "kops", &(old + &namespace)).await;
    apply_as(&control_plane, "somebody", &labelled("kube-system", "foreign")).await;
    let channel = Channel::new();
    channel.put("dns.yaml", &labelled("kube-system", "dns"));
    // A kind that is not served stops nothing; upstream fails the whole addon.
    let kinds = kind("gone.example.com", "Thing", "")
        + &kind("", "ConfigMap", ", namespaces: [kube-system]")
        + &kind("", "Namespace", "");
    channel.put("index.yaml", &pruning("1.0.0", &kinds));
    let world = World::on(control_plane, &[&channel.flag()]).await;
    world.until_gone(&path("kube-system", "old")).await;
    world.until_noted(&["1.0.0"]).await;
    let told = world.until_told("passed over").await;
    assert!(told.contains("Thing.gone.example.com"), "{told}");

    // A namespace waits for a person.
    let parent = world.until_parent("dns", "the namespace waits", |map| !map["data"]["candidates"].is_null()).await;
    assert!(parent["data"]["candidates"].as_str().unwrap().starts_with("Namespace//left "), "{parent}");
    assert_eq!((parent["data"]["state"].as_str(), parent["data"]["held"].is_null()), (Some("held"), true));
    for (namespace, name) in [("kube-system", "dns"), ("kube-system", "foreign"), ("default", "elsewhere")] {
        world.until_there(&path(namespace, name)).await;
    }
    let left = world.until_there("/api/v1/namespaces/left").await;
    assert!(left["metadata"]["deletionTimestamp"].is_null());
    world.release_candidates(&parent).await;
    world
        .until("/api/v1/namespaces/left", "it goes", |namespace| !namespace["metadata"]["deletionTimestamp"].is_null())
        .await;
    world.parent("dns", "ready").await;
    world.until_there(&path("kube-system", "foreign")).await;
}

#[tokio::test]
async fn what_is_too_much_at_once_waits() {
    let control_plane = ControlPlane::start().await.unwrap();
    let old: String = (0..12).map(|number| labelled("kube-system", &format!("old-{number}"))).collect();
    apply_as(&control_plane, "kops", &old).await;
    let channel = Channel::new();
    channel.put("dns.yaml", &labelled("kube-system", "dns"));
    channel.put("index.yaml", &pruning("1.0.0", &kind("", "ConfigMap", "")));
    let world = World::on(control_plane, &[&channel.flag()]).await;
    let braked = |map: &Value| map["data"]["candidates"].as_str().is_some_and(|lines| lines.lines().count() == 12);
    let parent = world.until_parent("dns", "twelve wait", braked).await;
    assert!(parent["data"]["candidates"].as_str().unwrap().lines().all(|line| line.ends_with(" brake")), "{parent}");
    world.until_noted(&["1.0.0"]).await;
    world.until_there(&path("kube-system", "old-11")).await;
    // A restart forgets nothing of it.
    world.deck.replica(0).process().kill().await.unwrap();
    world.deck.replica(0).restart().unwrap();
    world.deck.ready(LONG).await.unwrap();
    world.parent("dns", "held").await;
    world.release_candidates(&parent).await;
    for number in 0..12 {
        world.until_gone(&path("kube-system", &format!("old-{number}"))).await;
    }
    world.parent("dns", "ready").await;
    world.until_there(&path("kube-system", "dns")).await;
}

#[tokio::test]
async fn what_kops_left_behind_is_told_and_goes_when_confirmed() {
    let control_plane = ControlPlane::start().await.unwrap();
    let selected = |text: String| text.replace(LABELS, "{k8s-addon: dns}");
    let role = "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: {name: left, labels: {k8s-addon: dns}}\nrules: []\n";
    let old = selected(labelled("kube-system", "dns") + &labelled("default", "left")) + role;
    apply_as(&control_plane, "kops", &old).await;
    apply_as(&control_plane, "somebody", &selected(labelled("kube-system", "foreign"))).await;
    apply_as(&control_plane, "kops", &labelled("kube-system", "unselected")).await;
    let channel = Channel::new();
    channel.put("1.0.0-a.yaml", &selected(labelled("kube-system", "dns")));
    channel.put("index.yaml", &index("1.0.0", "a"));
    let client = control_plane.admin().await.unwrap();
    let note = r#"{"version":"0.9.0","channel":"s3://b/c","id":"a","systemGeneration":1}"#;
    let patch = serde_json::json!({"metadata": {"annotations": {"addons.k8s.io/dns": note}}}).to_string();
    let request =
        Request::patch("/api/v1/namespaces/kube-system").header("content-type", "application/merge-patch+json");
    client.request::<Value>(request.body(patch.into_bytes()).unwrap()).await.unwrap();
    let world = World::on(control_plane, &[&channel.flag()]).await;
    let parent = world.until_parent("dns", "they are told", |map| !map["data"]["candidates"].is_null()).await;
    let lines = parent["data"]["candidates"].as_str().unwrap();
    let objects: Vec<&str> = lines.lines().map(|line| line.split(' ').next().unwrap()).collect();
    assert_eq!(objects, ["ConfigMap/default/left", "ClusterRole.rbac.authorization.k8s.io//left"], "{lines}");
    world.parent("dns", "ready").await;
    world.until_told("AdoptionCandidates").await;
    let mirror = world
        .until_mirror("dns", "the list has them", |addon| !addon["status"]["progress"]["candidates"].is_null())
        .await;
    assert_eq!(mirror["status"]["progress"]["candidatesPlan"], parent["data"]["candidatesPlan"]);
    world.until_there(&path("default", "left")).await;

    world.release_candidates(&parent).await;
    world.until_gone(&path("default", "left")).await;
    world.until_gone("/apis/rbac.authorization.k8s.io/v1/clusterroles/left").await;
    world.until_parent("dns", "nothing waits", |map| map["data"]["candidates"].is_null()).await;
    for name in ["dns", "foreign", "unselected"] {
        world.until_there(&path("kube-system", name)).await;
    }
}

impl World {
    /// Releases what the parent says waits beside the inventory, by its own command.
    pub(super) async fn release_candidates(&self, parent: &Value) {
        let command = parent["data"]["candidatesRelease"].as_str().unwrap().to_owned();
        let words: Vec<&str> = command.split(' ').skip(1).collect();
        self.kubectl(&words).await;
    }

    /// The message of the first event with a word in its reason or message, once there is one.
    pub(super) async fn until_told(&self, word: &str) -> String {
        let what = format!("an event says {word}");
        let looked = eventually(&what, LONG, async || {
            let events = self.get("/api/v1/events").await?.unwrap_or_default();
            let all = events["items"].as_array().cloned().unwrap_or_default();
            let text = |event: &Value| format!("{} {}", event["reason"], event["message"]);
            match all.iter().map(text).find(|text| text.contains(word)) {
                Some(text) => Ok(text),
                None => bail!("{} events", all.len()),
            }
        });
        looked.await.with_context(|| self.log()).unwrap()
    }
}
