//! The Go cloud-controller-manager with Kubernetes' fake provider (`hack/cloud-peer`), and how to steer it.

use std::path::PathBuf;

use anyhow::{Context, Result};
use quarterdeck_it::{ControlPlane, Server};
use serde_json::json;
use tempfile::TempDir;

use super::place::UNLIMITED;

/// A running one.
pub(super) struct CloudPeer {
    server: Server,
    folder: TempDir,
}

impl CloudPeer {
    /// Starts one with these controllers and defaults else, but for the limits of its client; its provider answers at
    /// once.
    pub(super) async fn start(control_plane: &ControlPlane, controllers: &str) -> Result<Self> {
        let folder = TempDir::with_prefix("quarterdeck-peer-")?;
        std::fs::write(behaviour(&folder), "{}")?;
        let flags = [
            format!("--controllers={controllers}"),
            // Its own: any name but those of providers that Kubernetes once held.
            "--cloud-provider=fake".to_owned(),
            format!("--peer-behaviour={}", behaviour(&folder).display()),
            format!("--peer-calls={}", calls(&folder).display()),
        ];
        let flags: Vec<&str> = flags.iter().map(String::as_str).chain(UNLIMITED).collect();
        Ok(Self { server: control_plane.start_cloud_peer(&flags).await?, folder })
    }

    /// Has calls of each of these methods take so many milliseconds, and those of `hangs` not end: a method, or
    /// `METHOD SUBJECT`.
    pub(super) fn behave(&self, delays: &[(&str, u64)], hangs: &[&str]) -> Result<()> {
        let delays: serde_json::Map<_, _> = delays.iter().map(|(name, ms)| ((*name).to_owned(), json!(ms))).collect();
        let new = self.folder.path().join("behaviour.new");
        std::fs::write(&new, json!({ "delayMillis": delays, "hangs": hangs }).to_string())?;
        Ok(std::fs::rename(new, behaviour(&self.folder))?)
    }

    /// The calls that its provider got, as `METHOD SUBJECT`.
    pub(super) fn calls(&self) -> Result<Vec<String>> {
        let text = std::fs::read_to_string(calls(&self.folder)).context("what the peer's provider was asked")?;
        Ok(text.lines().map(str::to_owned).collect())
    }

    /// Ends it. It has no orderly end: it goes at once, whatever it is doing.
    pub(super) async fn stop(&self) -> Result<()> {
        self.server.stop().await.map(drop)
    }
}

fn behaviour(folder: &TempDir) -> PathBuf {
    folder.path().join("behaviour.json")
}

fn calls(folder: &TempDir) -> PathBuf {
    folder.path().join("calls")
}
