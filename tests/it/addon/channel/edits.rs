//! Keys of ConfigMaps and Secrets that users edited: they stay, also when a new version is installed.

use quarterdeck_it::Turnstile;
use quarterdeck_it::deck::USER;
use serde_json::json;

use super::*;

const SECRET: &str = "/api/v1/namespaces/kube-system/secrets/dns";

fn settings(value: &str) -> String {
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: dns, namespace: kube-system}}\ndata: {{a: {value}, b: {value}}}\n---\n\
         apiVersion: v1\nkind: Secret\nmetadata: {{name: dns, namespace: kube-system}}\nstringData: {{s: {value}, t: {value}}}\n"
    )
}

impl Channel {
    fn settings(&self, version: &str, value: &str) {
        self.put(&format!("{version}-a.yaml"), &settings(value));
        self.put("index.yaml", &index(version, "a"));
    }
}

impl World {
    async fn edit(&self, kind: &str, patch: &Value) {
        self.kubectl(&["-n", "kube-system", "patch", kind, "dns", "--type=merge", "-p", &patch.to_string()]).await;
    }

    /// Waits for the values of the ConfigMap and, in clear, of the Secret.
    async fn until_settings(&self, [a, b, s, t]: [&str; 4]) {
        self.until(MAP, &format!("a {a}, b {b}"), |map| map["data"] == json!({"a": a, "b": b})).await;
        let coded = |text: &str| {
            use base64::Engine as _;
            base64::engine::general_purpose::STANDARD.encode(text)
        };
        let wanted = json!({"s": coded(s), "t": coded(t)});
        self.until(SECRET, &format!("s {s}, t {t}"), |secret| secret["data"] == wanted).await;
    }
}

#[tokio::test]
async fn edited_keys_stay_until_the_new_version_is_asked_for() {
    let channel = Channel::new();
    channel.settings("1.0.0", "one");
    let world = World::start(&[&channel.flag()]).await;
    world.until_settings(["one"; 4]).await;
    world.until_noted(&["1.0.0"]).await;
    world.edit("configmap", &json!({"data": {"a": "mine"}})).await;
    world.edit("secret", &json!({"stringData": {"s": "mine"}})).await;
    world.until_parent("dns", "the edits are told", |map| !map["data"]["drifted"].is_null()).await;

    channel.settings("1.1.0", "two");
    world.until_settings(["mine", "two", "mine", "two"]).await;
    world.until_noted(&["1.1.0"]).await;
    let parent = world.parent("dns", "ready").await;
    let noted = "ConfigMap/kube-system/dns data.a\nSecret/kube-system/dns data.s\n";
    assert_eq!((parent["data"]["edited"].as_str(), parent["data"]["drifted"].is_null()), (Some(noted), true));
    world.until_told("UserEditsKept").await;

    // By now these keys are ours: what was noted keeps them, also over a restart.
    world.deck.replica(0).process().kill().await.unwrap();
    world.deck.replica(0).restart().unwrap();
    world.deck.ready(LONG).await.unwrap();
    channel.settings("1.2.0", "three");
    world.until_settings(["mine", "three", "mine", "three"]).await;

    // Asked for, the version comes whole, and the question goes with it.
    world
        .kubectl(&["-n", "kube-system", "annotate", "configmap", "dns", "quarterdeck.dev/take-new-version=true"])
        .await;
    world.until_settings(["three", "three", "mine", "three"]).await;
    world.until(MAP, "the annotation is gone", |map| map["metadata"]["annotations"].is_null()).await;
    world
        .until_parent("dns", "one is noted", |map| {
            map["data"]["edited"] == "Secret/kube-system/dns data.s\n" && map["data"]["state"] == "ready"
        })
        .await;
    channel.settings("1.3.0", "four");
    world.until_settings(["four", "four", "mine", "four"]).await;
}

#[tokio::test]
async fn edits_of_what_kops_installed_are_kept_and_its_secrets_are_no_drift() {
    let control_plane = ControlPlane::start().await.unwrap();
    let channel = Channel::new();
    channel.settings("1.0.0", "one");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("old.yaml");
    std::fs::write(&file, settings("one")).unwrap();
    let kubectl = async |args: &[&str]| {
        let launch = Launch::new("kubectl", control_plane.program("kubectl")).args(args.iter().copied());
        let kubeconfig = control_plane.admin_kubeconfig().unwrap().display().to_string();
        let run = launch.env("KUBECONFIG", kubeconfig).log(dir.path().join("log")).spawn().unwrap();
        assert!(run.wait(LONG).await.unwrap().success(), "kubectl {args:?}: {}", run.log_text());
    };
    kubectl(&["apply", "--server-side", "--field-manager=kops", "-f", &file.display().to_string()]).await;
    let note = r#"{"version":"1.0.0","channel":"s3://b/c","id":"a","systemGeneration":1}"#;
    kubectl(&["annotate", "namespace", "kube-system", &format!("addons.k8s.io/dns={note}")]).await;
    let world = World::on(control_plane, &[&channel.flag()]).await;
    let labelled = |object: &Value| !object["metadata"]["labels"]["applyset.kubernetes.io/part-of"].is_null();
    world.until(SECRET, "the Secret is taken over", labelled).await;
    world
        .until_parent("dns", "it is as it was", |map| {
            map["data"]["state"] == "ready" && map["data"]["drifted"].is_null()
        })
        .await;
    world.edit("configmap", &json!({"data": {"b": "mine"}})).await;
    world.edit("secret", &json!({"stringData": {"t": "mine"}})).await;
    channel.settings("1.1.0", "two");
    world.until_settings(["two", "mine", "two", "mine"]).await;
    world.until_noted(&["1.1.0"]).await;
}

/// Before anything of the object changes hands its edits stand on the parent: whoever is killed there has
/// lost nothing.
#[tokio::test]
async fn a_crash_between_note_and_apply_loses_no_edit() {
    const OBJECT: usize = 1;
    let channel = Channel::new();
    channel.settings("1.0.0", "one");
    let is_object = |path: &str| path.split('?').next().is_some_and(|path| path == MAP).then_some(OBJECT);
    let turnstile = Turnstile::start(is_object).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let control_plane = ControlPlane::builder()
        .audit(Turnstile::policy(USER))
        .apiserver_args(turnstile.apiserver_args(folder.path()).unwrap())
        .start()
        .await
        .unwrap();
    let world = World::on(control_plane, &[&channel.flag(), "--leader-elect=false"]).await;
    world.until_settings(["one"; 4]).await;
    world.until_noted(&["1.0.0"]).await;
    world.edit("configmap", &json!({"data": {"a": "mine"}})).await;
    world.until_parent("dns", "the edit is told", |map| !map["data"]["drifted"].is_null()).await;
    // From here on no write of the object comes through.
    turnstile.limit([(OBJECT, 0)].into());
    channel.settings("1.1.0", "two");
    let stands = eventually("the object is about to be written", LONG, async || {
        if turnstile.standing().contains(&OBJECT) { Ok(()) } else { bail!("not yet") }
    });
    stands.await.with_context(|| world.log()).unwrap();
    let parent = world.parent_now("dns").await.unwrap().unwrap();
    assert_eq!(parent["data"]["edited"], "ConfigMap/kube-system/dns data.a\n", "noted first, written second");
    world.deck.replica(0).process().kill().await.unwrap();
    turnstile.open();
    assert_eq!(world.until_there(MAP).await["data"], json!({"a": "mine", "b": "one"}));
    world.deck.replica(0).restart().unwrap();
    world.until_settings(["mine", "two", "two", "two"]).await;
    world.until_noted(&["1.1.0"]).await;
    world.parent("dns", "ready").await;
}
