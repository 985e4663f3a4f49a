//! Channels.

mod edits;
mod hostile;
mod known_trouble;
mod pki;
mod prune;
mod store;

use super::*;

const ADDONS: &str = "/apis/addonmgr.keikoproj.io/v1alpha1/namespaces/kube-system/addons";
const MAP: &str = "/api/v1/namespaces/kube-system/configmaps/dns";

/// An index in a folder, and the manifests beside it.
struct Channel {
    dir: tempfile::TempDir,
}

impl Channel {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn flag(&self) -> String {
        format!("--channel={}", self.dir.path().join("index.yaml").display())
    }

    fn put(&self, name: &str, text: &str) {
        let new = self.dir.path().join(".new");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(&new, self.dir.path().join(name)).unwrap();
    }

    /// An index with one entry of the addon `dns`.
    fn offer(&self, version: &str, id: &str, value: &str) {
        self.put(&format!("{version}-{id}.yaml"), &manifest(value));
        self.put("index.yaml", &index(version, id));
    }
}

fn index(version: &str, id: &str) -> String {
    format!(
        "kind: Addons\nmetadata: {{name: test}}\nspec:\n  addons:\n  - name: dns\n    version: {version}\n    id: {id}\n    selector: {{k8s-addon: dns}}\n    manifest: {version}-{id}.yaml\n"
    )
}

fn manifest(value: &str) -> String {
    format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: dns, namespace: kube-system}}\ndata: {{k: {value}}}\n")
}

impl World {
    async fn until_value(&self, value: &str) {
        self.until(MAP, &format!("the value is {value}"), |map| map["data"]["k"] == value).await;
    }

    /// The note on the namespace that says which version is installed.
    async fn until_noted(&self, words: &[&str]) {
        let what = format!("the note says {words:?}");
        self.until("/api/v1/namespaces/kube-system", &what, |namespace| {
            let note = namespace["metadata"]["annotations"]["addons.k8s.io/dns"].as_str().unwrap_or_default();
            words.iter().all(|word| note.contains(word))
        })
        .await;
    }

    /// The mirror of an addon, once it `fits`.
    async fn until_mirror(&self, package: &str, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        let looked = eventually(what, LONG, async || {
            let list = self.get(ADDONS).await?.unwrap_or_default();
            let all = list["items"].as_array().cloned().unwrap_or_default();
            match all.into_iter().find(|addon| addon["spec"]["pkgName"] == package) {
                Some(addon) if fits(&addon) => Ok(addon),
                other => bail!("{other:?}"),
            }
        });
        looked.await.with_context(|| self.log()).unwrap()
    }
}

#[tokio::test]
async fn a_channels_addon_is_installed_updated_and_never_downgraded() {
    let channel = Channel::new();
    channel.offer("1.0.0", "a", "one");
    let world = World::start(&[&channel.flag()]).await;
    world.until_value("one").await;
    world.until_noted(&["\"version\":\"1.0.0\"", "\"id\":\"a\"", "\"manifestHash\""]).await;
    world.until_mirror("dns", "it is in the list", |addon| addon["status"]["health"] == "Ready").await;

    channel.offer("1.1.0", "a", "two");
    world.until_value("two").await;
    world.until_noted(&["\"version\":\"1.1.0\""]).await;

    // The same version with another id replaces it; an older version never does.
    channel.offer("1.1.0", "b", "three");
    world.until_value("three").await;
    world.until_noted(&["\"id\":\"b\""]).await;
    channel.offer("1.0.0", "c", "four");
    let kept = world
        .until_mirror("dns", "it says why it stays", |addon| {
            addon["status"]["reason"].as_str().unwrap_or_default().contains("never downgraded")
        })
        .await;
    assert_eq!(kept["status"]["health"], "Ready");
    assert_eq!(world.until_there(MAP).await["data"]["k"], "three");
    world.until_noted(&["\"version\":\"1.1.0\""]).await;
}

#[tokio::test]
async fn what_people_change_stays_until_a_new_version_and_is_told() {
    let channel = Channel::new();
    channel.offer("1.0.0", "a", "one");
    let world = World::start(&[&channel.flag()]).await;
    world.until_value("one").await;
    world.until_noted(&["1.0.0"]).await;
    world.kubectl(&["-n", "kube-system", "label", "configmap", "dns", "by=hand"]).await;
    world
        .until_mirror("dns", "the drift is told", |addon| {
            !addon["status"]["progress"]["drifted"].is_null() && addon["status"]["health"] == "Ready"
        })
        .await;
    assert_eq!(world.until_there(MAP).await["metadata"]["labels"]["by"], "hand");
    channel.offer("1.1.0", "a", "two");
    world.until_value("two").await;
    world.until(MAP, "the label is gone", |map| map["metadata"]["labels"].get("by").is_none()).await;
}

#[tokio::test]
async fn an_addon_that_leaves_goes_and_an_empty_or_broken_index_removes_nothing() {
    let channel = Channel::new();
    channel.offer("1.0.0", "a", "one");
    let world = World::start(&[&channel.flag()]).await;
    world.until_value("one").await;
    world.until_noted(&["1.0.0"]).await;
    let state = || async {
        let parents = "/api/v1/namespaces/kube-system/configmaps?labelSelector=quarterdeck.dev/addon-source=channel";
        world.get(parents).await.unwrap().unwrap()["items"].as_array().unwrap().len()
    };
    for broken in ["", "kind: Addons\nspec: {addons: []}\n", "kind: Addons\nspec: ["] {
        channel.put("index.yaml", broken);
        // A second addon shows that the reading after it went through.
        world.write("beside.yaml", &map(&format!("beside-{}", broken.len()), "Reconcile", "v"));
        world.until_there(&at(&format!("beside-{}", broken.len()))).await;
        assert_eq!(state().await, 1, "{broken:?}");
        world.until_value("one").await;
    }
    channel.put("other.yaml", &manifest("x").replace("name: dns", "name: other"));
    channel
        .put("index.yaml", "kind: Addons\nspec:\n  addons:\n  - {name: other, version: 1.0.0, manifest: other.yaml}\n");
    world.until_gone(MAP).await;
    world.until_there("/api/v1/namespaces/kube-system/configmaps/other").await;
    // It is forgotten, too: when it comes back it is installed.
    world
        .until("/api/v1/namespaces/kube-system", "the note is gone", |namespace| {
            namespace["metadata"]["annotations"].get("addons.k8s.io/dns").is_none()
        })
        .await;
    channel.offer("1.0.0", "a", "back");
    world.until_value("back").await;
}

#[tokio::test]
async fn files_are_in_the_list_too() {
    let world = World::start(&[]).await;
    world.write("x.yaml", &map("x", "Reconcile", "v"));
    let mirror = world.until_mirror("x.yaml", "it is in the list", |addon| addon["status"]["health"] == "Ready").await;
    assert_eq!(mirror["metadata"]["labels"]["quarterdeck.dev/mirror"], "directory");
    assert_eq!(mirror["status"]["lifecycle"]["installed"], "Succeeded");
    let list = world.kubectl(&["get", "addons", "-A"]).await;
    let line = list.lines().find(|line| line.contains("x.yaml")).unwrap().to_owned();
    assert!(line.contains("Ready") && line.contains("Succeeded"), "{list}");
    // What somebody writes on it is put back; with the file it goes.
    let name = mirror["metadata"]["name"].as_str().unwrap();
    world
        .kubectl(&[
            "-n",
            "kube-system",
            "patch",
            "addon",
            name,
            "--type=merge",
            "-p",
            r#"{"spec":{"pkgDescription":"x"}}"#,
        ])
        .await;
    world
        .until_mirror("x.yaml", "its description is back", |addon| addon["spec"]["pkgDescription"] == "file x.yaml")
        .await;
    world.remove("x.yaml");
    world.until_gone(&format!("{ADDONS}/{name}")).await;
}

#[tokio::test]
async fn what_kops_installed_is_taken_over_in_place() {
    let channel = Channel::new();
    channel.offer("1.0.0", "a", "one");
    let control_plane = ControlPlane::start().await.unwrap();
    let hash = {
        // As kOps notes it: the hash of the manifest without the space around it.
        use sha2::Digest as _;
        let digest = sha2::Sha256::digest(manifest("one").trim().as_bytes());
        digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    };
    let note = format!(r#"{{"channel":"s3://b/c","id":"a","manifestHash":"{hash}","systemGeneration":1}}"#);
    let dir = tempfile::tempdir().unwrap();
    let kubectl = async |args: &[&str]| {
        let launch = Launch::new("kubectl", control_plane.program("kubectl")).args(args.iter().copied());
        let kubeconfig = control_plane.admin_kubeconfig().unwrap();
        let run =
            launch.env("KUBECONFIG", kubeconfig.display().to_string()).log(dir.path().join("log")).spawn().unwrap();
        assert!(run.wait(LONG).await.unwrap().success(), "kubectl {args:?}: {}", run.log_text());
    };
    let old = dir.path().join("old.yaml");
    std::fs::write(&old, manifest("one") + "  \n").unwrap();
    kubectl(&["apply", "--server-side", "--field-manager=kops", "-f", &old.display().to_string()]).await;
    kubectl(&["annotate", "namespace", "kube-system", &format!("addons.k8s.io/dns={note}")]).await;
    let client = control_plane.admin().await.unwrap();
    let before: Value = client.request(Request::get(MAP).body(Vec::new()).unwrap()).await.unwrap();

    let world = World::on(control_plane, &[&channel.flag()]).await;
    let adopted = world
        .until(MAP, "it is taken over", |map| !map["metadata"]["labels"]["applyset.kubernetes.io/part-of"].is_null())
        .await;
    world
        .until_mirror("dns", "it is ready, and as it was", |addon| {
            addon["status"]["health"] == "Ready" && addon["status"]["progress"]["drifted"].is_null()
        })
        .await;
    assert_eq!((&adopted["metadata"]["uid"], &adopted["data"]), (&before["metadata"]["uid"], &before["data"]));

    // A new version without the key: kOps' field goes with it.
    channel.put(
        "2.0.0-a.yaml",
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: dns, namespace: kube-system}\ndata: {new: key}\n",
    );
    channel.put("index.yaml", &index("2.0.0", "a"));
    let updated = world.until(MAP, "the new key is there", |map| map["data"]["new"] == "key").await;
    assert_eq!(updated["data"].as_object().unwrap().len(), 1, "{updated}");
    assert_eq!(updated["metadata"]["uid"], before["metadata"]["uid"]);
}
