//! Settings and start of a control plane.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Once};

use anyhow::{Context, Result, bail};
use futures::future::join_all;

use super::layout::Layout;
use super::ledger::Ledger;
use super::server::Server;
use super::{ControlPlane, check_tools, node};
use crate::audit::AuditPolicy;
use crate::binaries::{Binaries, Peer, target};
use crate::pki::Pki;

/// Settings of a control plane to start.
#[derive(Clone, Debug)]
pub struct Builder {
    apiservers: usize,
    apiserver_args: Vec<String>,
    etcd_args: Vec<String>,
    audit: AuditPolicy,
    folder: Option<PathBuf>,
    detached: bool,
    keep_folder: bool,
    peers: Vec<Peer>,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            apiservers: 1,
            apiserver_args: Vec::new(),
            etcd_args: Vec::new(),
            audit: AuditPolicy::default(),
            folder: None,
            detached: false,
            keep_folder: false,
            peers: Vec::new(),
        }
    }
}

impl Builder {
    /// Number of kube-apiservers over the one etcd; default 1.
    #[must_use]
    pub fn apiservers(mut self, count: usize) -> Self {
        self.apiservers = count;
        self
    }

    /// Adds arguments to every kube-apiserver. Of one that is given twice the
    /// last counts (lists add up).
    #[must_use]
    pub fn apiserver_args<I, S>(mut self, args: I) -> Self
    where
        I: IntoIterator<Item = S>,
        S: Into<String>,
    {
        self.apiserver_args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Adds arguments to etcd.
    #[must_use]
    pub fn etcd_args<I, S>(mut self, args: I) -> Self
    where
        I: IntoIterator<Item = S>,
        S: Into<String>,
    {
        self.etcd_args.extend(args.into_iter().map(Into::into));
        self
    }

    /// What goes into the audit log.
    #[must_use]
    pub fn audit(mut self, policy: AuditPolicy) -> Self {
        self.audit = policy;
        self
    }

    /// Has the peers' programs built before anything starts; start them with
    /// [`ControlPlane::start_kcm`] and the like.
    #[must_use]
    pub fn with(mut self, peers: &[Peer]) -> Self {
        self.peers.extend(peers);
        self
    }

    /// Has a real node beside it, and a scheduler; one machine has one at a time, so this waits until
    /// the node of another test is gone. Needs root.
    #[must_use]
    pub fn node(self) -> Self {
        self.with(&[Peer::Node])
    }

    /// Folder for keys, data and logs; default: one under the target folder.
    #[must_use]
    pub fn folder(mut self, folder: impl Into<PathBuf>) -> Self {
        self.folder = Some(folder.into());
        self
    }

    /// Keeps the folder when the control plane is dropped.
    #[must_use]
    pub fn keep_folder(mut self) -> Self {
        self.keep_folder = true;
        self
    }

    /// Lets the processes outlive this one; [`ControlPlane::attach`] finds them.
    #[must_use]
    pub fn detached(mut self) -> Self {
        self.detached = true;
        self.keep_folder = true;
        self
    }

    /// Starts it, and returns when every server is ready.
    ///
    /// # Errors
    /// When a program is missing and cannot be built, or a server does not get
    /// ready; the error carries the end of its log.
    pub async fn start(self) -> Result<ControlPlane> {
        if self.apiservers == 0 {
            bail!("a control plane has at least one kube-apiserver");
        }
        check_tools()?;
        let has_node = self.peers.contains(&Peer::Node);
        if has_node {
            node::check_machine()?;
        }
        let binaries = Binaries::ensure(&self.peers).await?;
        let folder = match &self.folder {
            Some(folder) => std::path::absolute(folder)?,
            None => scratch_folder()?,
        };
        for part in ["pki", "logs", "kubeconfigs"] {
            let path = folder.join(part);
            std::fs::create_dir_all(&path).with_context(|| format!("creating {}", path.display()))?;
        }
        let pki = Pki::open(&folder.join("pki"))?;
        pki.serving("etcd", &["127.0.0.1", "localhost"])?;
        let reached = ["127.0.0.1", "localhost", node::HOST_ADDRESS, "10.96.0.1", "kubernetes", "kubernetes.default"];
        pki.serving("apiserver", &reached)?;
        pki.serving("peer", &["127.0.0.1", "localhost"])?;
        pki.front_proxy_client("front-proxy-client")?;
        pki.store("etcd-client", &pki.etcd_client("kube-apiserver")?)?;
        self.audit.write(&folder.join("audit-policy.json"))?;
        let mut apiserver_args = Vec::new();
        if has_node {
            pki.store(node::KUBELET_CLIENT, &pki.user("kube-apiserver-kubelet-client", &["system:masters"])?)?;
            apiserver_args = node::apiserver_args(&pki);
        }
        // Of what is given twice the caller's word counts.
        apiserver_args.extend(self.apiserver_args);

        let layout = Layout { folder, binaries, pki, detached: self.detached };
        let ledger = Arc::new(Ledger::new(layout.ledger(), self.detached));
        let etcd = Server::launch(2, |ports| layout.etcd(ports, &self.etcd_args), &ledger).await?;
        // If one fails, the others and etcd end with their handles; detached
        // ones are in the ledger, and end here.
        let apiservers = join_all((0..self.apiservers).map(|index| {
            let (layout, etcd, ledger) = (&layout, &etcd, &ledger);
            let args = &apiserver_args;
            Server::launch(1, move |ports| layout.apiserver(index, ports[0], etcd.url(), args), ledger)
        }))
        .await;
        let apiservers = apiservers.into_iter().collect::<Result<Vec<_>>>();
        let apiservers = match apiservers {
            Ok(apiservers) => apiservers,
            Err(error) => {
                ledger.end_all().await?;
                return Err(error);
            }
        };
        let (peers, node) = (Vec::new(), None);
        let mut control_plane =
            ControlPlane { apiservers, etcd, peers, node, keep_folder: self.keep_folder, layout, ledger };
        control_plane.prepare().await?;
        if has_node {
            control_plane.start_node().await?;
        }
        Ok(control_plane)
    }
}

/// A new folder for a control plane of this process. Folders of processes that
/// have ended are removed first: they were kept for someone to read the logs.
fn scratch_folder() -> Result<PathBuf> {
    static CLEANED: Once = Once::new();
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let base = target().join("it");
    CLEANED.call_once(|| remove_abandoned(&base));
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let folder = base.join(format!("{}-{number}", std::process::id()));
    if folder.exists() {
        let removed = std::fs::remove_dir_all(&folder);
        removed.with_context(|| format!("removing {}", folder.display()))?;
    }
    Ok(folder)
}

fn remove_abandoned(base: &Path) {
    let entries = std::fs::read_dir(base).into_iter().flatten().flatten();
    for entry in entries {
        let name = entry.file_name();
        let owner = name.to_str().and_then(|name| name.split_once('-')).map(|(pid, _)| pid);
        if owner.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}
