//! The addon controller on a real control plane.

mod account;
mod adoption;
mod applyset;
mod brake;
mod channel;
mod directory;
mod health_rules;
mod hostile;
mod keep;
mod keiko_trouble;
mod killed;
mod kinds;
mod known_trouble;
mod life;
mod links;
mod objects;
mod observe;
mod recall;
mod restart;
mod rollback;
mod skew;
mod transitions;
mod update;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use http::Request;
use quarterdeck_it::{ControlPlane, Deck, Launch, eventually};
use serde_json::Value;

/// Longest wait for anything.
const LONG: Duration = Duration::from_secs(60);

/// A control plane, a directory of addons, and one replica that keeps them.
struct World {
    control_plane: ControlPlane,
    deck: Deck,
    client: kube::Client,
    dir: tempfile::TempDir,
}

/// How a world differs from others.
struct Terms<'a> {
    controllers: &'a str,
    replicas: usize,
    /// Flags of the replicas.
    args: &'a [&'a str],
    /// Flags of `quarterdeck install`.
    install: &'a [&'a str],
}

impl Default for Terms<'_> {
    fn default() -> Self {
        Self { controllers: "addon-controller", replicas: 1, args: &[], install: &[] }
    }
}

impl World {
    async fn start(args: &[&str]) -> Self {
        let control_plane = ControlPlane::start().await.unwrap();
        Self::on(control_plane, args).await
    }

    async fn on(control_plane: ControlPlane, args: &[&str]) -> Self {
        Self::with(control_plane, Terms { args, ..Terms::default() }).await
    }

    async fn with(control_plane: ControlPlane, terms: Terms<'_>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("addons")).unwrap();
        let mut flags = vec![
            format!("--controllers={}", terms.controllers),
            format!("--addon-path={}", dir.path().join("addons").display()),
        ];
        flags.extend(terms.args.iter().map(|arg| (*arg).to_owned()));
        let deck = Deck::builder(&control_plane).replicas(terms.replicas).args(flags);
        let deck = deck.install_args(terms.install.iter().copied()).start().await.unwrap();
        let client = control_plane.admin().await.unwrap();
        Self { control_plane, deck, client, dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("addons").join(name)
    }

    /// Writes a file as careful people do: complete, by a rename.
    fn write(&self, name: &str, text: &str) {
        let new = self.path(".new");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(&new, self.path(name)).unwrap();
    }

    fn remove(&self, name: &str) {
        std::fs::remove_file(self.path(name)).unwrap();
    }

    /// An object by its path below the server; `None` for its 404.
    async fn get(&self, path: &str) -> Result<Option<Value>> {
        let request = Request::get(path).body(Vec::new())?;
        match self.client.request::<Value>(request).await {
            Ok(object) => Ok(Some(object)),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    async fn send(&self, method: http::Method, path: &str, kind: &str, body: &Value) -> Result<Value> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", kind)
            .body(body.to_string().into_bytes())?;
        Ok(self.client.request::<Value>(request).await?)
    }

    /// Waits until the object is there and `fits`.
    async fn until(&self, path: &str, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        let looked = eventually(what, LONG, async || match self.get(path).await? {
            Some(object) if fits(&object) => Ok(object),
            Some(object) => bail!("{}", without_noise(object)),
            None => bail!("{path} is not there"),
        });
        looked.await.with_context(|| self.log()).unwrap()
    }

    async fn until_there(&self, path: &str) -> Value {
        self.until(path, path, |_| true).await
    }

    async fn until_gone(&self, path: &str) {
        let what = format!("{path} is gone");
        let looked = eventually(&what, LONG, async || match self.get(path).await? {
            None => Ok(()),
            Some(object) => bail!("{}", without_noise(object)),
        });
        looked.await.with_context(|| self.log()).unwrap();
    }

    /// The parent of a file as it is.
    async fn parent_now(&self, file: &str) -> Result<Option<Value>> {
        let all =
            self.get("/api/v1/namespaces/kube-system/configmaps?labelSelector=quarterdeck.dev/addon-source").await?;
        let all = all
            .and_then(|mut list| Some(list["items"].as_array_mut()?.drain(..).collect::<Vec<_>>()))
            .unwrap_or_default();
        Ok(all.into_iter().find(|map| map["metadata"]["annotations"]["quarterdeck.dev/addon"] == file))
    }

    /// The parent of a file, once it `fits`.
    async fn until_parent(&self, file: &str, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        let looked = eventually(what, LONG, async || match self.parent_now(file).await? {
            Some(map) if fits(&map) => Ok(map),
            Some(map) => bail!("{}", map["data"]),
            None => bail!("{file} has no parent"),
        });
        looked.await.with_context(|| self.log()).unwrap()
    }

    /// The parent of a file, once it is in this state.
    async fn parent(&self, file: &str, state: &str) -> Value {
        self.until_parent(file, &format!("{file} is {state}"), |map| map["data"]["state"] == state).await
    }

    /// The parent of a file, once all of it was applied: without controllers a Deployment never gets
    /// ready.
    async fn applied(&self, file: &str) -> Value {
        let applied = |map: &Value| {
            let healthless = map["data"]["state"] == "progressing" && !map["data"]["unhealthy"].is_null();
            map["data"]["state"] == "ready" || (healthless && map["data"]["version"] != "")
        };
        self.until_parent(file, &format!("{file} is applied"), applied).await
    }

    /// Waits until the parent of a file tells an error with all these words; returns all its errors.
    async fn until_error(&self, file: &str, words: &[&str]) -> String {
        let errors = |map: &Value| map["data"]["errors"].as_str().unwrap_or_default().to_owned();
        let fits = |map: &Value| errors(map).lines().any(|line| words.iter().all(|word| line.contains(word)));
        let parent = self.until_parent(file, &format!("{file} tells {words:?}"), fits).await;
        assert_eq!(parent["data"]["state"], "degraded", "{parent}");
        errors(&parent)
    }

    async fn until_no_parent(&self, file: &str) {
        let what = format!("{file} has no parent");
        let looked = eventually(&what, LONG, async || match self.parent_now(file).await? {
            None => Ok(()),
            Some(map) => bail!("{}", map["data"]),
        });
        looked.await.with_context(|| self.log()).unwrap();
    }

    /// Releases what the parent says is held, by its own command.
    async fn release(&self, parent: &Value) {
        let command = parent["data"]["release"].as_str().unwrap().to_owned();
        let words: Vec<&str> = command.split(' ').skip(1).collect();
        self.kubectl(&words).await;
    }

    /// Runs kubectl as an administrator and returns what it printed.
    async fn kubectl(&self, args: &[&str]) -> String {
        let kubeconfig = self.control_plane.admin_kubeconfig().unwrap();
        let log = self.dir.path().join("kubectl.log");
        let _ = std::fs::remove_file(&log);
        let kubectl = Launch::new("kubectl", self.control_plane.program("kubectl"))
            .args(args.iter().copied())
            .env("KUBECONFIG", kubeconfig.display().to_string())
            .log(&log)
            .spawn()
            .unwrap();
        let exit = kubectl.wait(LONG).await.unwrap();
        assert!(exit.success(), "kubectl {args:?}: {}", kubectl.log_text());
        kubectl.log_text()
    }

    async fn apply(&self, path: &Path) {
        self.kubectl(&["apply", "-f", &path.display().to_string()]).await;
    }

    fn log(&self) -> String {
        let text = self.deck.replica(0).process().log_text();
        let lines: Vec<&str> = text.lines().collect();
        format!("the replica's log ends:\n{}", lines[lines.len().saturating_sub(40)..].join("\n"))
    }
}

fn without_noise(mut object: Value) -> Value {
    if let Some(metadata) = object["metadata"].as_object_mut() {
        metadata.remove("managedFields");
    }
    object
}

fn map(name: &str, mode: &str, value: &str) -> String {
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {name}\n  labels: {{addonmanager.kubernetes.io/mode: {mode}}}\ndata: {{k: {value}}}\n"
    )
}

fn at(name: &str) -> String {
    format!("/api/v1/namespaces/default/configmaps/{name}")
}

impl World {
    /// Waits until the parent of a file says that this many objects were put back.
    async fn until_drift(&self, file: &str, count: u32) {
        let what = format!("{count} repairs");
        let looked = eventually(&what, LONG, async || {
            let parent = self.applied(file).await;
            if parent["data"]["drift"].as_str() == Some(&*count.to_string()) {
                Ok(())
            } else {
                bail!("{}", parent["data"])
            }
        });
        looked.await.with_context(|| self.log()).unwrap();
    }
}
