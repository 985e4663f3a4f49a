//! A real node: a kubelet with containerd in namespaces of its own (`hack/node`).

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use k8s_openapi::api::core::v1::Node as NodeObject;
use kube::api::{Api, Patch, PatchParams};
use nix::sys::signal::Signal;
use serde_json::json;

use super::ControlPlane;
use super::server::Server;
use crate::binaries::repository;
use crate::kubeconfig::Credentials;
use crate::pki::{self, Pki};
use crate::process::{Launch, Process, on_path};
use crate::wait::eventually;

/// This machine's end of the node's link; of a range that is kept for tests of networks (RFC 2544).
pub(super) const HOST_ADDRESS: &str = "198.18.77.1";
/// The node's end.
const NODE_ADDRESS: &str = "198.18.77.2";
/// Addresses of the node's pods.
const POD_RANGE: &str = "198.18.78.0/24";
/// Where pods are told that the server is.
const SERVICE_ADDRESS: &str = "10.96.0.1";
/// Name of the server's certificate for kubelets.
pub(super) const KUBELET_CLIENT: &str = "apiserver-kubelet-client";
/// How long the nodes of other tests are waited for.
const TURN: Duration = Duration::from_secs(1200);
/// How long a node may take to get ready.
const READY: Duration = Duration::from_secs(240);
/// How long a node may take to end, with everything in it.
const END: Duration = Duration::from_secs(30);

/// A real node beside a control plane. Dropping it ends every process of it.
pub struct Node {
    process: Process,
    folder: PathBuf,
    parts: PathBuf,
    /// Places pods on it; ends with it.
    _scheduler: Server,
}

impl Node {
    /// Its name.
    pub const NAME: &'static str = "qd-node";
    /// An image with busybox under all its names, among them `sh`, `cat`, `echo` and `sleep`.
    pub const SHELL_IMAGE: &'static str = "quarterdeck.dev/node/shell:1";
    /// The same with `kubectl`.
    pub const KUBECTL_IMAGE: &'static str = "quarterdeck.dev/node/kubectl:1";
    /// Where the machine around it is, for who is on its network.
    pub const HOST_ADDRESS: &'static str = HOST_ADDRESS;

    /// Whether somebody chose to go without a node on this machine (`QUARTERDECK_WITHOUT_NODE`, which
    /// `hack/test` sets where none can run): a test on one is then [skipped](crate::skip).
    pub fn is_left_out() -> bool {
        let left_out = std::env::var_os("QUARTERDECK_WITHOUT_NODE").is_some_and(|value| !value.is_empty());
        if left_out {
            crate::skip("no real node can run here (QUARTERDECK_WITHOUT_NODE is set)");
        }
        left_out
    }

    /// Folder of its state and logs.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The process that keeps it.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Folder of its static pods' manifests.
    pub fn manifests(&self) -> PathBuf {
        self.folder.join("manifests")
    }

    /// Gives it another image, from an archive.
    ///
    /// # Errors
    /// When containerd refuses.
    pub async fn load_image(&self, archive: &Path) -> Result<()> {
        self.ctr(&["images", "import", &archive.display().to_string()]).await
    }

    /// Gives one of its images another name, such as `docker.io/library/alpine:3`, for pods that ask
    /// for that; containerd wants it whole, with registry and tag.
    ///
    /// # Errors
    /// When containerd refuses.
    pub async fn name_image(&self, image: &str, name: &str) -> Result<()> {
        self.ctr(&["images", "tag", "--force", image, name]).await
    }

    async fn ctr(&self, args: &[&str]) -> Result<()> {
        let first = self.first_process().context("the node has no process")?;
        let address = format!("/proc/{first}/root/run/containerd/containerd.sock");
        let output = tokio::process::Command::new(self.parts.join("bin/ctr"))
            .args(["--address", &address, "--namespace", "k8s.io"])
            .args(args)
            .output()
            .await
            .context("running ctr")?;
        if !output.status.success() {
            bail!("ctr {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(())
    }

    /// The node's first process, as this machine numbers it.
    pub fn first_process(&self) -> Option<i32> {
        // The script, the one that made the namespaces, the first in them.
        child_of(child_of(self.process.pid())?)
    }

    /// The ends of its logs, for messages.
    fn logs(&self) -> String {
        logs(&self.folder, &self.process)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if self.process.launch().is_detached() || self.process.signal(Signal::SIGTERM).is_err() {
            return;
        }
        // It removes its cgroups before it ends; whatever is left after this is killed with it.
        let latest = Instant::now() + END;
        while self.process.is_running() && Instant::now() < latest {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn logs(folder: &Path, process: &Process) -> String {
    let end = |name: &str| {
        let text = std::fs::read(folder.join(name)).unwrap_or_default();
        let text = String::from_utf8_lossy(&text).into_owned();
        let lines: Vec<&str> = text.lines().collect();
        format!("\n{name} ends with:\n  {}", lines[lines.len().saturating_sub(10)..].join("\n  "))
    };
    format!("{}{}{}", process.log_end(), end("containerd.log"), end("kubelet.log"))
}

/// The first child of a process.
fn child_of(parent: i32) -> Option<i32> {
    std::fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
        let (_, fields) = stat.rsplit_once(')')?;
        (fields.split_whitespace().nth(1)?.parse() == Ok(parent)).then_some(pid)
    })
}

/// Ends with an error that says what this machine lacks for a node.
pub(super) fn check_machine() -> Result<()> {
    let user = std::fs::metadata("/proc/self").context("asking for the user's id")?.uid();
    if user != 0 {
        bail!("a node needs root: namespaces, mounts and cgroups are its own");
    }
    if !Path::new("/sys/fs/cgroup/memory").is_dir() {
        bail!("a node needs cgroups of version 1 (/sys/fs/cgroup/memory is not there)");
    }
    for (tool, package) in [
        ("unshare", "util-linux"),
        ("nsenter", "util-linux"),
        ("flock", "util-linux"),
        ("mount", "mount"),
        ("ip", "iproute2"),
        ("hostname", "hostname"),
    ] {
        if !on_path(tool) {
            bail!("a node needs {tool}: install {package}");
        }
    }
    Ok(())
}

/// What a kube-apiserver has to be told for a node.
pub(super) fn apiserver_args(pki: &Pki) -> Vec<String> {
    let file = |end: &str| pki.path(&format!("{KUBELET_CLIENT}.{end}")).display().to_string();
    vec![
        // The node's link is made later.
        "--bind-address=0.0.0.0".to_owned(),
        format!("--kubelet-client-certificate={}", file("crt")),
        format!("--kubelet-client-key={}", file("key")),
        "--kubelet-preferred-address-types=InternalIP".to_owned(),
    ]
}

impl ControlPlane {
    /// The real node that was asked for with [`super::Builder::node`].
    ///
    /// # Panics
    /// When none was.
    pub fn node(&self) -> &Node {
        self.node.as_ref().expect("ControlPlane::builder().node() was asked for")
    }

    /// Starts the node, and returns when it is ready and takes pods.
    pub(super) async fn start_node(&mut self) -> Result<()> {
        let folder = self.folder().join("node");
        let parts = self.program("node");
        // The links that lead to the parts must not be followed by a program in another root.
        let parts = parts.canonicalize().with_context(|| format!("{} is not there", parts.display()))?;
        self.write_settings(&folder, &parts)?;
        let launch = Launch::new("node", repository().join("hack/node/start"))
            .args([folder.display().to_string(), parts.display().to_string()])
            .log(self.folder().join("logs/node.log"))
            .detached(self.layout.detached);
        let process = launch.spawn()?;
        self.ledger.add(&launch, &format!("https://{NODE_ADDRESS}:10250"), &process)?;
        let outcome = self.until_node_is_ready(&folder, &process).await;
        outcome.with_context(|| format!("the node{}", logs(&folder, &process)))?;
        let scheduler = self.start_scheduler(&[]).await?;
        let node = Node { process, folder, parts, _scheduler: scheduler };
        self.node = Some(node);
        for namespace in ["default", "kube-system"] {
            self.let_pods_run_in(namespace).await.with_context(|| self.node().logs())?;
        }
        Ok(())
    }

    /// Everything that the node is told, as files.
    fn write_settings(&self, folder: &Path, parts: &Path) -> Result<()> {
        for name in ["cni", "manifests"] {
            std::fs::create_dir_all(folder.join(name)).with_context(|| format!("creating {}", folder.display()))?;
        }
        let port = self.apiserver(0).address().port();
        let user = Credentials::user(&format!("system:node:{}", Node::NAME), &["system:nodes"]);
        let kubeconfig = self.layout.kubeconfig(&format!("https://{HOST_ADDRESS}:{port}"), &user)?;
        let settings = format!(
            "NODE_NAME={}\nNODE_ADDRESS={NODE_ADDRESS}\nHOST_ADDRESS={HOST_ADDRESS}\nPOD_RANGE={POD_RANGE}\n\
             SERVICE_ADDRESS={SERVICE_ADDRESS}\nSERVER_PORT={port}\n",
            Node::NAME
        );
        let kubelet = json!({
            "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
            "failCgroupV1": false, "cgroupDriver": "cgroupfs", "failSwapOn": false,
            "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
            "authentication": {
                "anonymous": { "enabled": false }, "webhook": { "enabled": true },
                "x509": { "clientCAFile": self.layout.pki_file("client-ca.crt") },
            },
            "authorization": { "mode": "Webhook" },
            "resolvConf": folder.join("resolv.conf"),
            "volumePluginDir": folder.join("volume-plugins"),
            "staticPodPath": folder.join("manifests"),
            "syncFrequency": "10s",
            // The disk is the machine's: how full it is, is none of a test's business.
            "evictionHard": { "memory.available": "10Mi", "nodefs.available": "0%", "nodefs.inodesFree": "0%", "imagefs.available": "0%" },
            "imageGCHighThresholdPercent": 100, "imageGCLowThresholdPercent": 99,
        });
        let network = json!({
            "cniVersion": "0.4.0", "name": "node",
            "plugins": [{
                "type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": false, "hairpinMode": true,
                "ipam": {
                    "type": "host-local", "dataDir": "/var/lib/cni/networks",
                    "ranges": [[{ "subnet": POD_RANGE }]], "routes": [{ "dst": "0.0.0.0/0" }],
                },
            }],
        });
        for (name, text) in [
            ("node.env", settings),
            ("kubelet.yaml", serde_json::to_string_pretty(&kubelet)?),
            ("kubelet.conf", kubeconfig),
            // Nobody answers names: a refusal comes at once.
            ("resolv.conf", "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n".to_owned()),
            ("cni/node.conflist", serde_json::to_string_pretty(&network)?),
            ("containerd.toml", containerd(folder, parts)),
        ] {
            pki::write(&folder.join(name), &text)?;
        }
        Ok(())
    }

    async fn until_node_is_ready(&self, folder: &Path, process: &Process) -> Result<()> {
        let ended = || anyhow!("its process has ended");
        let alone = folder.join("alone");
        let turn = eventually("the nodes of others are gone", TURN, || async {
            match (process.is_running(), alone.exists()) {
                (false, _) => Ok(Err(ended())),
                (true, true) => Ok(Ok(())),
                (true, false) => bail!("another node runs on this machine"),
            }
        });
        turn.await??;
        let nodes: Api<NodeObject> = Api::all(self.admin().await?);
        let ready = eventually("the node is ready", READY, || async {
            if !process.is_running() {
                return Ok(Err(ended()));
            }
            let node = nodes.get(Node::NAME).await?;
            let conditions = node.status.and_then(|status| status.conditions).unwrap_or_default();
            match conditions.into_iter().find(|condition| condition.type_ == "Ready") {
                Some(ready) if ready.status == "True" => Ok(Ok(())),
                Some(ready) => bail!("{}", ready.message.unwrap_or_default()),
                None => bail!("it says nothing of itself yet"),
            }
        });
        ready.await??;
        // The server taints each new node; the controller that would take that away may not run.
        let free = Patch::Merge(json!({ "spec": { "taints": null } }));
        nodes.patch(Node::NAME, &PatchParams::default(), &free).await.context("taking the node's taints away")?;
        Ok(())
    }
}

/// containerd's settings (version 1.6).
fn containerd(folder: &Path, parts: &Path) -> String {
    let (folder, parts) = (folder.display(), parts.display());
    format!(
        r#"version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.aufs"]
[grpc]
  address = "/run/containerd/containerd.sock"
[plugins."io.containerd.internal.v1.opt"]
  path = "{folder}/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "quarterdeck.dev/node/pause:1"
  # Without CAP_SYS_RESOURCE nobody may lower it.
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{parts}/cni"
    conf_dir = "{folder}/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        BinaryName = "{parts}/bin/runc"
        SystemdCgroup = false
"#
    )
}
