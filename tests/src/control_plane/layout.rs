//! Where a control plane keeps its files, and what its programs are started
//! with.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::server::Plan;
use crate::binaries::Binaries;
use crate::kubeconfig::{self, Credentials, Proof};
use crate::pki::Pki;
use crate::process::Launch;

/// Service addresses of both families; services default to IPv4.
const SERVICE_RANGE: &str = "10.96.0.0/16,fd00:10:96::/112";

/// The folder of one control plane.
pub(super) struct Layout {
    pub(super) folder: PathBuf,
    pub(super) binaries: Binaries,
    pub(super) pki: Pki,
    /// Do its processes outlive this one?
    pub(super) detached: bool,
}

impl Layout {
    /// Audit log of a kube-apiserver.
    pub(super) fn audit_log(&self, index: usize) -> PathBuf {
        self.folder.join(format!("logs/audit-{index}.log"))
    }

    /// Where the processes of a detached control plane are written down.
    pub(super) fn ledger(&self) -> PathBuf {
        ledger(&self.folder)
    }

    /// Text of a kubeconfig.
    pub(super) fn kubeconfig(&self, server: &str, credentials: &Credentials) -> Result<String> {
        let proof = match credentials {
            Credentials::User { name, groups } => {
                let groups: Vec<_> = groups.iter().map(String::as_str).collect();
                Proof::Certificate(self.pki.user(name, &groups)?)
            }
            Credentials::Token(token) => Proof::Token(token.clone()),
            Credentials::Anonymous => Proof::None,
        };
        Ok(kubeconfig::text(server, self.pki.server_ca(), &proof))
    }

    /// Text of a kubeconfig for etcd's HTTP gateway.
    pub(super) fn etcd_client(&self, url: &str) -> Result<String> {
        let pair = self.pki.etcd_client("harness")?;
        Ok(kubeconfig::text(url, self.pki.server_ca(), &Proof::Certificate(pair)))
    }

    /// A program with its log, as long-lived as the control plane.
    pub(super) fn launch(&self, name: &str, program: &str) -> Launch {
        Launch::new(name, self.binaries.path(program))
            .log(self.folder.join(format!("logs/{name}.log")))
            .detached(self.detached)
    }

    /// What asks a server whether it is ready.
    pub(super) fn plan(&self, launch: Launch, url: String) -> Result<Plan> {
        let name = launch.name();
        let (ready_path, probe) = if name == "etcd" {
            ("/readyz", self.etcd_client(&url)?)
        } else if name.starts_with("kube-apiserver") {
            ("/readyz", self.kubeconfig(&url, &Credentials::admin())?)
        } else {
            ("/healthz", self.kubeconfig(&url, &Credentials::Anonymous)?)
        };
        Ok(Plan { launch, url, ready_path: ready_path.to_owned(), probe })
    }

    /// etcd on two ports: for clients and for (no) other members.
    pub(super) fn etcd(&self, ports: &[u16], extra: &[String]) -> Result<Plan> {
        let url = format!("https://127.0.0.1:{}", ports[0]);
        let peer_url = format!("https://127.0.0.1:{}", ports[1]);
        let [ca, crt, key] = ["ca.crt", "etcd.crt", "etcd.key"].map(|file| self.pki_file(file));
        // What a try on a taken port left names that port.
        let data = self.folder.join(format!("etcd-{}", ports[1]));
        let launch = self
            .launch("etcd", "etcd")
            .arg("--name=it")
            .arg(format!("--data-dir={}", data.display()))
            .arg(format!("--listen-client-urls={url}"))
            .arg(format!("--advertise-client-urls={url}"))
            .arg(format!("--listen-peer-urls={peer_url}"))
            .arg(format!("--initial-advertise-peer-urls={peer_url}"))
            .arg(format!("--initial-cluster=it={peer_url}"))
            .arg(format!("--trusted-ca-file={ca}"))
            .arg(format!("--cert-file={crt}"))
            .arg(format!("--key-file={key}"))
            .arg("--client-cert-auth")
            .arg(format!("--peer-trusted-ca-file={ca}"))
            .arg(format!("--peer-cert-file={crt}"))
            .arg(format!("--peer-key-file={key}"))
            .arg("--peer-client-cert-auth")
            // Outlives SIGKILL of the process; only a crash of the machine
            // would lose data.
            .arg("--unsafe-no-fsync")
            .arg("--quota-backend-bytes=4294967296")
            .arg("--log-level=warn")
            .args(extra);
        self.plan(launch, url)
    }

    /// The kube-apiserver number `index`.
    pub(super) fn apiserver(&self, index: usize, port: u16, etcd: &str, extra: &[String]) -> Result<Plan> {
        let file = |name: &str| self.pki_file(name);
        let launch = self
            .launch(&format!("kube-apiserver-{index}"), "kube-apiserver")
            .arg("--bind-address=127.0.0.1")
            .arg(format!("--secure-port={port}"))
            // Endpoints of the kubernetes service cannot be loopback addresses;
            // these (TEST-NET-1) belong to nobody.
            .arg(format!("--advertise-address=192.0.2.{}", index + 1))
            .arg(format!("--etcd-servers={etcd}"))
            .arg(format!("--etcd-cafile={}", file("ca.crt")))
            .arg(format!("--etcd-certfile={}", file("etcd-client.crt")))
            .arg(format!("--etcd-keyfile={}", file("etcd-client.key")))
            .arg(format!("--tls-cert-file={}", file("apiserver.crt")))
            .arg(format!("--tls-private-key-file={}", file("apiserver.key")))
            .arg(format!("--client-ca-file={}", file("client-ca.crt")))
            .arg(format!("--requestheader-client-ca-file={}", file("front-proxy-ca.crt")))
            .arg("--requestheader-allowed-names=front-proxy-client")
            .arg("--requestheader-extra-headers-prefix=X-Remote-Extra-")
            .arg("--requestheader-group-headers=X-Remote-Group")
            .arg("--requestheader-username-headers=X-Remote-User")
            .arg(format!("--proxy-client-cert-file={}", file("front-proxy-client.crt")))
            .arg(format!("--proxy-client-key-file={}", file("front-proxy-client.key")))
            .arg("--service-account-issuer=https://kubernetes.default.svc")
            .arg(format!("--service-account-key-file={}", file("sa.pub")))
            .arg(format!("--service-account-signing-key-file={}", file("sa.key")))
            .arg("--authorization-mode=Node,RBAC")
            .arg("--allow-privileged=true")
            .arg(format!("--service-cluster-ip-range={SERVICE_RANGE}"))
            .arg(format!("--cert-dir={}", self.folder.join("pki").display()))
            .arg(format!("--audit-policy-file={}", self.folder.join("audit-policy.json").display()))
            .arg(format!("--audit-log-path={}", self.audit_log(index).display()))
            // Megabytes; never rotated, so that a reader sees all of it.
            .arg("--audit-log-maxsize=1000000")
            .args(extra);
        self.plan(launch, format!("https://127.0.0.1:{port}"))
    }

    /// Path of a file among the keys, as an argument.
    pub(super) fn pki_file(&self, name: &str) -> String {
        self.pki.path(name).display().to_string()
    }
}

/// The ledger in a control plane's folder.
pub(super) fn ledger(folder: &Path) -> PathBuf {
    folder.join("processes.json")
}
