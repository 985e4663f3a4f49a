//! One control plane: etcd, kube-apiservers over it, users, peers.

mod builder;
mod layout;
mod ledger;
mod node;
mod objects;
mod peers;
mod server;
mod shared;
mod users;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use http::Request;
use serde_json::{Value, json};

pub use builder::Builder;
pub use node::Node;
pub use server::Server;
pub use shared::shared;

use crate::audit::AuditReader;
use crate::kubeconfig;
use crate::wait::eventually;
use layout::Layout;
use ledger::Ledger;

/// A running control plane. Dropping it ends its processes and removes its
/// folder (kept when the test is panicking, so that logs can be read).
pub struct ControlPlane {
    /// Peers that [`ControlPlane::attach`] found.
    peers: Vec<Server>,
    node: Option<Node>,
    apiservers: Vec<Server>,
    etcd: Server,
    layout: Layout,
    ledger: Arc<Ledger>,
    keep_folder: bool,
}

impl ControlPlane {
    /// Settings of a control plane to start.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Starts one kube-apiserver over one etcd with the default settings.
    ///
    /// # Errors
    /// When a program is missing and cannot be built, or does not get ready.
    pub async fn start() -> Result<Self> {
        Self::builder().start().await
    }

    /// Folder of its keys, kubeconfigs, data and logs.
    pub fn folder(&self) -> &Path {
        &self.layout.folder
    }

    /// Path of a built program, such as `kubectl`.
    pub fn program(&self, name: &str) -> PathBuf {
        self.layout.binaries.path(name)
    }

    /// The kube-apiserver number `index`, from 0.
    ///
    /// # Panics
    /// When there are not that many.
    pub fn apiserver(&self, index: usize) -> &Server {
        &self.apiservers[index]
    }

    /// All kube-apiservers.
    pub fn apiservers(&self) -> &[Server] {
        &self.apiservers
    }

    /// The etcd server.
    pub fn etcd(&self) -> &Server {
        &self.etcd
    }

    /// Drops all history in etcd up to now; returns the revision it kept.
    ///
    /// kube-apiserver still serves what its watch cache holds; restart it to
    /// make a watch or a continued list from before the compaction end in 410.
    ///
    /// # Errors
    /// When etcd does not answer.
    pub async fn compact_etcd(&self) -> Result<u64> {
        let status = self.etcd_call("/v3/maintenance/status", &json!({})).await?;
        let revision = status["header"]["revision"].as_str().context("etcd told no revision")?;
        let body = json!({ "revision": revision, "physical": true });
        self.etcd_call("/v3/kv/compaction", &body).await?;
        revision.parse().with_context(|| format!("etcd's revision {revision:?}"))
    }

    async fn etcd_call(&self, path: &str, body: &Value) -> Result<Value> {
        let client = kubeconfig::client(&self.layout.etcd_client(self.etcd.url())?).await?;
        let request = Request::post(path).body(body.to_string().into_bytes())?;
        client.request(request).await.with_context(|| format!("etcd {path}"))
    }

    /// Reader of what the kube-apiservers log, from their first start on.
    pub fn audit(&self) -> AuditReader {
        AuditReader::new((0..self.apiservers.len()).map(|index| self.layout.audit_log(index)).collect())
    }

    /// Reader of what is logged from now on; see [`ControlPlane::settle_audit`].
    ///
    /// # Errors
    /// When a log cannot be read.
    pub fn audit_from_now(&self) -> Result<AuditReader> {
        let mut reader = self.audit();
        reader.skip_to_end()?;
        Ok(reader)
    }

    /// Returns when every request that was answered before this call is in the
    /// audit logs: a client may see an answer before its line is written. Ask
    /// this before claiming that something did *not* happen.
    ///
    /// # Errors
    /// When a server does not answer, or keeps no audit log.
    pub async fn settle_audit(&self) -> Result<()> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        for index in 0..self.apiservers.len() {
            let mut reader = AuditReader::new(vec![self.layout.audit_log(index)]);
            reader.skip_to_end()?;
            let number = COUNT.fetch_add(1, Ordering::Relaxed);
            let marker = format!("/api/v1/namespaces/default?settle={}-{number}", std::process::id());
            let client = self.admin_at(index).await?;
            client.request_text(Request::get(&marker).body(Vec::new())?).await?;
            reader.wait_for("the marker request", Duration::from_secs(10), |event| event.request_uri == marker).await?;
        }
        Ok(())
    }

    /// Waits until every server is ready.
    ///
    /// # Errors
    /// When one is not within `timeout`.
    pub async fn wait_ready(&self, timeout: Duration) -> Result<()> {
        self.etcd.wait_ready(timeout).await?;
        for server in &self.apiservers {
            server.wait_ready(timeout).await?;
        }
        Ok(())
    }

    /// All its servers: etcd, the kube-apiservers, and the peers that
    /// [`ControlPlane::attach`] found.
    pub fn servers(&self) -> impl Iterator<Item = &Server> {
        [&self.etcd].into_iter().chain(&self.apiservers).chain(&self.peers)
    }

    /// Does every server run?
    pub fn all_running(&self) -> bool {
        self.servers().all(Server::is_running)
    }

    /// Ready for use: `/readyz`, then the namespaces that the server makes by
    /// itself, with the service account that pods need.
    async fn prepare(&self) -> Result<()> {
        let client = self.admin().await?;
        for namespace in ["default", "kube-system"] {
            let path = format!("/api/v1/namespaces/{namespace}");
            eventually(&format!("namespace {namespace}"), Duration::from_secs(30), || async {
                let answer = client.request::<Value>(Request::get(&path).body(Vec::new())?).await;
                answer.map(drop).map_err(|error| anyhow!(error))
            })
            .await?;
            objects::default_service_account(&client, namespace).await?;
        }
        self.admin_kubeconfig()?;
        Ok(())
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        if self.layout.detached {
            return;
        }
        drop(self.node.take());
        // Killed here, so that nothing writes into the folder any more.
        for server in self.apiservers.iter().chain([&self.etcd]) {
            server.kill_now();
        }
        if !self.keep_folder && !std::thread::panicking() {
            let _ = std::fs::remove_dir_all(self.folder());
        }
    }
}

/// Ends with an error unless every tool that the harness runs is there.
fn check_tools() -> Result<()> {
    for tool in ["setpriv", "setsid"] {
        if !crate::process::on_path(tool) {
            bail!("{tool} is missing: install util-linux");
        }
    }
    Ok(())
}
