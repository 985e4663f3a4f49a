//! Where the programs of the control plane are; `hack/cluster bin` builds them.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use parking_lot::Mutex;

/// A program that works beside etcd and kube-apiserver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Peer {
    /// kube-controller-manager.
    Kcm,
    /// kube-scheduler.
    Scheduler,
    /// kwok, which plays the kubelets of fake nodes.
    Kwok,
    /// A real kubelet with containerd, and a scheduler.
    Node,
    /// What `hack/masters` needs: a node's parts, the Go manager, a scheduler, kube-proxy and CoreDNS.
    Masters,
    /// Kubernetes' fake cloud provider as a plug-in: the program `cloud-shim/cloud-shim`.
    CloudShim,
    /// Python for the template of a plug-in: `cloud-template/venv`, and the protocol's code in `cloud-template/stubs`.
    CloudTemplate,
    /// The cloud-controller-manager of Kubernetes' libraries with its fake provider: the program
    /// `cloud-peer/cloud-peer`.
    CloudPeer,
    /// What installs charts: the program `helm/helm`.
    Helm,
}

impl Peer {
    /// The name that `hack/cluster --with` takes.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kcm => "kcm",
            Self::Scheduler => "scheduler",
            Self::Kwok => "kwok",
            Self::Node => "node",
            Self::Masters => "masters",
            Self::CloudShim => "cloud-shim",
            Self::CloudTemplate => "cloud-template",
            Self::CloudPeer => "cloud-peer",
            Self::Helm => "helm",
        }
    }

    /// Reads a name that `hack/cluster --with` takes.
    ///
    /// # Errors
    /// When no peer has that name.
    pub fn from_name(name: &str) -> Result<Self> {
        let all = [
            Self::Kcm,
            Self::Scheduler,
            Self::Kwok,
            Self::Node,
            Self::Masters,
            Self::CloudShim,
            Self::CloudTemplate,
            Self::CloudPeer,
            Self::Helm,
        ];
        all.into_iter()
            .find(|peer| peer.name() == name)
            .with_context(|| format!("no peer is named {name:?}: known are {}", all.map(Self::name).join(", ")))
    }
}

/// The folder of this repository.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests are in a folder of the repository")
}

/// Folder of what is built, and for what tests leave behind.
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| repository().join("target"), PathBuf::from)
}

/// A folder of built programs.
#[derive(Clone, Debug)]
pub struct Binaries {
    folder: PathBuf,
}

impl Binaries {
    /// Builds what is missing (minutes on a fresh machine, progress on stderr)
    /// and returns the folder; asked once a process for each set of peers.
    ///
    /// # Errors
    /// When `hack/cluster bin` cannot be run or does not end well.
    pub async fn ensure(peers: &[Peer]) -> Result<Self> {
        let mut peers = peers.to_vec();
        peers.sort_unstable();
        peers.dedup();
        tokio::task::spawn_blocking(move || Self::ensure_blocking(peers)).await.context("asking for the binaries")?
    }

    fn ensure_blocking(peers: Vec<Peer>) -> Result<Self> {
        static KNOWN: Mutex<Option<HashMap<Vec<Peer>, Binaries>>> = Mutex::new(None);
        // Held while building: a second asker waits instead of building too.
        let mut known = KNOWN.lock();
        let known = known.get_or_insert_default();
        if let Some(binaries) = known.get(&peers) {
            return Ok(binaries.clone());
        }
        let script = repository().join("hack/cluster");
        let with: Vec<_> = peers.iter().map(|peer| peer.name()).collect();
        let output = Command::new(&script)
            .args(["bin", "--with", &with.join(",")])
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()
            .with_context(|| format!("running {}", script.display()))?;
        if !output.status.success() {
            bail!("{} bin: {}", script.display(), output.status);
        }
        let text = String::from_utf8_lossy(&output.stdout);
        let folder = text.lines().last().map(PathBuf::from);
        let folder = folder.context("hack/cluster bin printed no folder")?;
        let binaries = Self { folder };
        known.insert(peers, binaries.clone());
        Ok(binaries)
    }

    /// Path of a program or file in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}
