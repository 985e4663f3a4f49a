//! addonctl as people run it.

mod channels;
mod create;
mod dashboard;
mod impostor;
mod look;
mod managers;
mod plan;
mod steer;
mod usage;
mod whole;

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result};
use kube::api::{Api, Patch, PatchParams};
use quarterdeck_api::addon::Addon;
use quarterdeck_it::deck::program_named;
use quarterdeck_it::{ControlPlane, eventually, repository};
use serde_json::{Value, json};
use tokio::process::Command;

/// Longest wait for anything.
const LONG: Duration = Duration::from_secs(60);
/// Namespace into which `create` puts Addons.
const NAMESPACE: &str = "addon-manager-system";

/// How a run of addonctl ended.
#[derive(Debug)]
struct Ran {
    code: i32,
    out: String,
    err: String,
}

impl Ran {
    /// What it printed, if it went well and had nothing else to say.
    fn fine(self) -> String {
        assert_eq!((self.code, self.err.as_str()), (0, ""), "{}", self.out);
        self.out
    }

    /// What it complained about.
    fn failed(self, code: i32) -> String {
        assert_eq!((self.code, self.out.as_str()), (code, ""), "{}", self.err);
        self.err
    }
}

/// The program, with nothing of this machine's user around it.
fn command(home: &Path, args: &[&str]) -> Result<Command> {
    let mut command = Command::new(program_named("addonctl")?);
    command.args(args).env_remove("KUBECONFIG").env("HOME", home).current_dir(home);
    for variable in ["KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"] {
        command.env_remove(variable);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    Ok(command)
}

async fn ended(mut command: Command) -> Result<Ran> {
    let output = tokio::time::timeout(LONG, command.output()).await.context("addonctl does not end")??;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(Ran { code: output.status.code().unwrap_or(-1), out: text(&output.stdout), err: text(&output.stderr) })
}

/// Runs addonctl in a folder, with no server anywhere.
async fn alone(home: &Path, args: &[&str]) -> Ran {
    ended(command(home, args).unwrap()).await.unwrap()
}

/// A control plane that serves Addons, and a folder for files.
struct World {
    control_plane: ControlPlane,
    client: kube::Client,
    home: tempfile::TempDir,
}

impl World {
    async fn start() -> Self {
        let control_plane = ControlPlane::start().await.unwrap();
        control_plane.namespace(NAMESPACE).await.unwrap();
        let client = control_plane.admin().await.unwrap();
        let world = Self { control_plane, client, home: tempfile::tempdir().unwrap() };
        world.kubectl(&["apply", "-f", "deploy/crds"]).await;
        eventually("addons are served", LONG, || async {
            Ok(world.addons(NAMESPACE).list(&Default::default()).await?)
        })
        .await
        .unwrap();
        world
    }

    fn addons(&self, namespace: &str) -> Api<Addon> {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// Writes a file and gives its path.
    fn file(&self, name: &str, text: &str) -> String {
        let path = self.home.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    /// A run of addonctl as an administrator that has not been started.
    fn command(&self, args: &[&str]) -> Command {
        let mut command = command(self.home.path(), args).unwrap();
        command.arg("--kubeconfig").arg(self.control_plane.admin_kubeconfig().unwrap());
        command
    }

    /// Runs addonctl as an administrator.
    async fn run(&self, args: &[&str]) -> Ran {
        ended(self.command(args)).await.unwrap()
    }

    async fn kubectl(&self, args: &[&str]) -> String {
        let mut command = Command::new(self.control_plane.program("kubectl"));
        command.env("KUBECONFIG", self.control_plane.admin_kubeconfig().unwrap()).env("HOME", self.home.path());
        command.current_dir(repository()).args(args).stdin(Stdio::null());
        let output = command.output().await.unwrap();
        assert!(output.status.success(), "kubectl {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Makes an Addon, with this status.
    async fn addon(&self, namespace: &str, name: &str, edit: impl FnOnce(&mut Value)) -> Addon {
        let mut addon = json!({
            "apiVersion": "addonmgr.keikoproj.io/v1alpha1", "kind": "Addon",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {
                "pkgName": name, "pkgVersion": "v1", "pkgType": "composite", "pkgDescription": "",
                "params": {"namespace": "deployed"},
            },
        });
        edit(&mut addon);
        let status = addon.as_object_mut().unwrap().remove("status");
        let api = self.addons(namespace);
        let made = api.create(&Default::default(), &serde_json::from_value(addon).unwrap()).await.unwrap();
        match status {
            Some(status) => self.tell(&made, status).await,
            None => made,
        }
    }

    /// Writes the status of an Addon, as the manager does.
    async fn tell(&self, addon: &Addon, status: Value) -> Addon {
        let patch = Patch::Merge(json!({"status": status}));
        self.addons(addon.namespace()).patch_status(addon.name(), &PatchParams::default(), &patch).await.unwrap()
    }
}
