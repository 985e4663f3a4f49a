//! The Go programs that work beside the servers.

use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Result;

use super::ControlPlane;
use super::server::Server;
use crate::binaries::{Binaries, Peer};
use crate::kubeconfig::Credentials;
use crate::process::Launch;

impl ControlPlane {
    /// Starts a kube-controller-manager with all controllers and the rights of
    /// a real one, and returns when it is healthy (which it is before it
    /// leads). Of a flag that is given twice the last counts; lists such as
    /// `--controllers` add up.
    ///
    /// # Errors
    /// When the program is missing and cannot be built, or does not get healthy.
    pub async fn start_kcm(&self, flags: &[&str]) -> Result<Server> {
        self.start_kcm_at(self.apiservers[0].url(), flags).await
    }

    /// [`ControlPlane::start_kcm`] at any URL: another kube-apiserver's or a
    /// [`crate::Proxy`]'s.
    ///
    /// # Errors
    /// As [`ControlPlane::start_kcm`].
    pub async fn start_kcm_at(&self, url: &str, flags: &[&str]) -> Result<Server> {
        let kubeconfig = self.peer_kubeconfig(url, "system:kube-controller-manager")?;
        let file = |name: &str| self.layout.pki_file(name);
        let common = [
            format!("--kubeconfig={kubeconfig}"),
            format!("--authentication-kubeconfig={kubeconfig}"),
            format!("--authorization-kubeconfig={kubeconfig}"),
            "--use-service-account-credentials=true".to_owned(),
            format!("--service-account-private-key-file={}", file("sa.key")),
            format!("--root-ca-file={}", file("ca.crt")),
            format!("--cluster-signing-cert-file={}", file("client-ca.crt")),
            format!("--cluster-signing-key-file={}", file("client-ca.key")),
        ];
        self.start_peer(Peer::Kcm, "kube-controller-manager", |launch, port| {
            launch.args(common.clone()).args(self.secure_serving(port)).args(flags.iter().copied())
        })
        .await
    }

    /// Starts a kube-scheduler, and returns when it is healthy.
    ///
    /// # Errors
    /// When the program is missing and cannot be built, or does not get healthy.
    pub async fn start_scheduler(&self, flags: &[&str]) -> Result<Server> {
        let url = self.apiservers[0].url();
        let kubeconfig = self.peer_kubeconfig(url, "system:kube-scheduler")?;
        self.start_peer(Peer::Scheduler, "kube-scheduler", |launch, port| {
            launch
                .arg(format!("--kubeconfig={kubeconfig}"))
                .arg(format!("--authentication-kubeconfig={kubeconfig}"))
                .arg(format!("--authorization-kubeconfig={kubeconfig}"))
                .args(self.secure_serving(port))
                .args(flags.iter().copied())
        })
        .await
    }

    /// Starts kwok for all nodes: a Node that is created becomes ready and gets
    /// a lease, pods on it run, become ready, and go when they are deleted.
    ///
    /// # Errors
    /// When the program is missing and cannot be built, or does not get healthy.
    pub async fn start_kwok(&self, flags: &[&str]) -> Result<Server> {
        let kubeconfig = self.admin_kubeconfig()?;
        // The stages must be there before their path is.
        let stages = Binaries::ensure(&[Peer::Kwok]).await?.path("kwok-stages.yaml");
        self.start_peer(Peer::Kwok, "kwok", |launch, port| {
            launch
                .arg(format!("--kubeconfig={}", kubeconfig.display()))
                .arg(format!("--config={}", stages.display()))
                .arg("--manage-all-nodes=true")
                .arg("--node-lease-duration-seconds=40")
                .arg("--node-ip=192.0.2.200")
                .arg("--cidr=10.244.0.0/16")
                .arg(format!("--server-address=127.0.0.1:{port}"))
                .args(flags.iter().copied())
        })
        .await
    }

    /// Starts the cloud-controller-manager of Kubernetes' libraries with its fake provider (`hack/cloud-peer`), which may
    /// do everything and holds no Lease, and returns when it is healthy.
    ///
    /// # Errors
    /// When the program is missing and cannot be built, or does not get healthy.
    pub async fn start_cloud_peer(&self, flags: &[&str]) -> Result<Server> {
        let kubeconfig = self.admin_kubeconfig()?.display().to_string();
        self.start_peer(Peer::CloudPeer, "cloud-peer/cloud-peer", |launch, port| {
            launch
                .arg(format!("--kubeconfig={kubeconfig}"))
                .arg(format!("--authentication-kubeconfig={kubeconfig}"))
                .arg(format!("--authorization-kubeconfig={kubeconfig}"))
                .arg("--leader-elect=false")
                .args(self.secure_serving(port))
                .args(flags.iter().copied())
        })
        .await
    }

    /// Peers that were found by [`ControlPlane::attach`].
    pub fn peers(&self) -> &[Server] {
        &self.peers
    }

    async fn start_peer(&self, peer: Peer, program: &str, complete: impl Fn(Launch, u16) -> Launch) -> Result<Server> {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        Binaries::ensure(&[peer]).await?;
        let short = program.rsplit('/').next().unwrap_or(program);
        let name = format!("{short}-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let scheme = if peer == Peer::Kwok { "http" } else { "https" };
        Server::launch(
            1,
            |ports| {
                let launch = complete(self.layout.launch(&name, program), ports[0]);
                self.layout.plan(launch, format!("{scheme}://127.0.0.1:{}", ports[0]))
            },
            &self.ledger,
        )
        .await
    }

    fn peer_kubeconfig(&self, url: &str, user: &str) -> Result<String> {
        let path = self.kubeconfig_at(url, &Credentials::user(user, &[]))?;
        Ok(path.display().to_string())
    }

    fn secure_serving(&self, port: u16) -> [String; 4] {
        [
            "--bind-address=127.0.0.1".to_owned(),
            format!("--secure-port={port}"),
            format!("--tls-cert-file={}", self.layout.pki_file("peer.crt")),
            format!("--tls-private-key-file={}", self.layout.pki_file("peer.key")),
        ]
    }
}
