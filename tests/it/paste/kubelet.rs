//! What a kubelet does with a master's manifests, as far as pages about managers need it: the command of each is run as a process of
//! the room, again when its manifest changes, and no more when that is gone; an object shows that the pod is there. A real kubelet is in
//! `tests/it/node.rs`, and in the test of the page on static pods.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use quarterdeck_it::{Process, Signal};
use serde_json::{Value, json};
use tokio::process::Command;

use super::room::Room;

/// How long a process may take to end.
const END: Duration = Duration::from_secs(40);
/// How often manifests are looked at.
const PERIOD: Duration = Duration::from_millis(200);

/// What runs for one manifest.
struct Running {
    text: String,
    process: Process,
    /// The pod that shows it.
    pod: String,
}

/// Runs the manifests of a room until it is dropped.
pub(super) struct Kubelet<'a> {
    room: &'a Room,
    kubectl: PathBuf,
    /// Flags that every program of this name is given besides: masters have addresses of their own, tests have not.
    besides: BTreeMap<&'static str, Vec<String>>,
    running: BTreeMap<PathBuf, Running>,
}

impl<'a> Kubelet<'a> {
    pub(super) fn new(room: &'a Room, kubectl: PathBuf) -> Self {
        Self { room, kubectl, besides: BTreeMap::new(), running: BTreeMap::new() }
    }

    /// Gives every program of this name these flags besides.
    pub(super) fn besides(mut self, program: &'static str, flags: &[String]) -> Self {
        self.besides.insert(program, flags.to_vec());
        self
    }

    /// Keeps the manifests running while `work` goes on.
    pub(super) async fn beside<T>(mut self, work: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return done,
                looked = self.look() => looked?,
            }
            tokio::select! {
                done = &mut work => return done,
                () = tokio::time::sleep(PERIOD) => {}
            }
        }
    }

    /// One look at the manifests.
    async fn look(&mut self) -> Result<()> {
        let folder = self.room.path("kubernetes/manifests");
        let mut there = BTreeMap::new();
        for entry in std::fs::read_dir(&folder)? {
            let path = entry?.path();
            // It may be gone again, or half written: the next look will tell.
            let Ok(text) = std::fs::read_to_string(&path) else { continue };
            there.insert(path, text);
        }
        let gone: Vec<PathBuf> = self
            .running
            .iter()
            .filter(|(path, running)| there.get(*path) != Some(&running.text))
            .map(|(path, _)| path.clone())
            .collect();
        for path in gone {
            if let Some(running) = self.running.remove(&path) {
                self.end(running).await?;
            }
        }
        for (path, text) in there {
            let runs = self.running.get(&path).is_some_and(|running| running.process.is_running());
            if !runs && let Some(running) = self.start(&path, text).await? {
                self.running.insert(path, running);
            }
        }
        Ok(())
    }

    async fn start(&self, path: &Path, text: String) -> Result<Option<Running>> {
        let args = ["create", "--dry-run=client", "--validate=false", "-o", "json", "-f"];
        let Ok(pod) = self.kubectl(&args, Some(path)).await else { return Ok(None) };
        let pod: Value = serde_json::from_str(&pod)?;
        let name = pod["metadata"]["name"].as_str().context("a name")?.to_owned();
        let container = &pod["spec"]["containers"][0];
        let mut command: Vec<String> = serde_json::from_value(container["command"].clone())?;
        let besides = self.besides.iter().find(|(program, _)| command.first().is_some_and(|first| first == *program));
        command.extend(besides.into_iter().flat_map(|(_, flags)| flags.clone()));
        let mut launch = self.room.launch(&name, &command)?;
        for variable in container["env"].as_array().into_iter().flatten() {
            let part = |key: &str| variable[key].as_str().unwrap_or_default().to_owned();
            launch = launch.env(part("name"), part("value"));
        }
        let process = launch.spawn()?;
        let shown = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": { "name": format!("{name}-master"), "namespace": "kube-system", "labels": pod["metadata"]["labels"] },
            "spec": { "nodeName": "master", "containers": [{ "name": "main", "image": container["image"] }] },
        });
        let file = self.room.path(&format!("{name}.json"));
        std::fs::write(&file, shown.to_string())?;
        self.kubectl(&["apply", "-f"], Some(&file)).await?;
        Ok(Some(Running { text, process, pod: format!("{name}-master") }))
    }

    async fn end(&self, running: Running) -> Result<()> {
        if running.process.is_running() {
            running.process.signal(Signal::SIGTERM)?;
            running.process.wait(END).await?;
        }
        let args =
            ["-n", "kube-system", "delete", "pod", &running.pod, "--force", "--grace-period=0", "--ignore-not-found"];
        self.kubectl(&args, None).await.map(drop)
    }

    async fn kubectl(&self, args: &[&str], file: Option<&Path>) -> Result<String> {
        let output = Command::new(&self.kubectl)
            .args(args)
            .args(file)
            .env("KUBECONFIG", self.room.kubeconfig())
            .kill_on_drop(true)
            .output()
            .await?;
        ensure!(output.status.success(), "kubectl {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

impl Drop for Kubelet<'_> {
    fn drop(&mut self) {
        for running in self.running.values() {
            // It may have ended by itself.
            let _ = running.process.signal(Signal::SIGKILL);
        }
    }
}
