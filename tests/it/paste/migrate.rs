//! The guides from what people run today.

use std::time::Duration;

use anyhow::{Context, Result};
use quarterdeck_it::{Binaries, ControlPlane, Peer, ReservedPort};
use serde_json::{Value, json};
use tokio::process::Command;

use super::kubelet::Kubelet;
use super::room::Room;

/// The guides, and what their tests have at hand beside a shell.
pub(super) const PAGES: [(&str, &[&str]); 4] = [
    ("docs/migrate/kube-controller-manager.md", &[]),
    ("docs/migrate/kube-addon-manager.md", &[]),
    ("docs/migrate/keikoproj-addon-manager.md", &[]),
    ("docs/migrate/kops-channels.md", &[]),
];

/// What every program of a master here is told of its place: addresses are shared with other tests.
fn own_port(port: &ReservedPort) -> [String; 2] {
    ["--bind-address=127.0.0.1".to_owned(), format!("--secure-port={}", port.port())]
}

/// A manifest of a static pod.
fn manifest(name: &str, command: &[&str], env: &Value) -> String {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": name, "namespace": "kube-system", "labels": { "component": name } },
        "spec": { "containers": [{ "name": name, "image": "example.com/image", "command": command, "env": env }] },
    })
    .to_string()
}

/// kubeadm's manifest of the Go manager, as far as it is about flags; its Lease expires soon.
fn go_manager(program: &str) -> String {
    let flags = [
        "--kubeconfig=/etc/kubernetes/controller-manager.conf",
        "--authentication-kubeconfig=/etc/kubernetes/controller-manager.conf",
        "--authorization-kubeconfig=/etc/kubernetes/controller-manager.conf",
        "--use-service-account-credentials=true",
        "--service-account-private-key-file=/etc/kubernetes/pki/sa.key",
        "--root-ca-file=/etc/kubernetes/pki/server-ca.crt",
        "--leader-elect-lease-duration=4s",
        "--leader-elect-renew-deadline=3s",
        "--leader-elect-retry-period=500ms",
        "--controllers=*",
    ];
    let flags: Vec<String> = flags.iter().map(|flag| format!("    - {flag}\n")).collect();
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: kube-controller-manager\n  namespace: kube-system\n  labels:\n    \
         component: kube-controller-manager\nspec:\n  containers:\n  - name: kube-controller-manager\n    image: example.com/image\n    \
         command:\n    - {program}\n{}",
        flags.concat()
    )
}

#[tokio::test]
async fn kube_controller_manager() -> Result<()> {
    if Room::is_left_out() {
        return Ok(());
    }
    let go = Binaries::ensure(&[Peer::Kcm]).await?.path("kube-controller-manager");
    let control_plane = ControlPlane::start().await?;
    let mut room = Room::open(&control_plane).await?;
    room.bring("kube-controller-manager", &go)?;
    let (go_port, port) = (ReservedPort::take()?, ReservedPort::take()?);
    room.fill("ask 10257", &format!("ask {}", go_port.port()));
    room.fill("ask 10267", &format!("ask {}", port.port()));
    std::fs::write(
        room.path("kubernetes/manifests/kube-controller-manager.yaml"),
        go_manager("kube-controller-manager"),
    )?;
    let kubelet = Kubelet::new(&room, control_plane.program("kubectl"))
        .besides("kube-controller-manager", &own_port(&go_port))
        .besides("quarterdeck", &own_port(&port));
    kubelet.beside(room.paste("docs/migrate/kube-controller-manager.md", &[])).await
}

const ADDONS: &str = "\
apiVersion: v1
kind: ConfigMap
metadata:
  name: lighthouse
  namespace: kube-system
  labels: {addonmanager.kubernetes.io/mode: Reconcile}
data:
  light: 'on'
---
apiVersion: v1
kind: ConfigMap
metadata:
  name: logbook
  namespace: kube-system
  labels: {addonmanager.kubernetes.io/mode: EnsureExists}
data:
  entry: first
";

/// The script that it is, of the sources that the control plane is built from.
async fn addon_manager() -> Result<std::path::PathBuf> {
    let output = Command::new("go")
        .args(["list", "-mod=readonly", "-m", "-f", "{{.Dir}}", "k8s.io/kubernetes"])
        .current_dir(quarterdeck_it::repository().join("hack/controlplane"))
        .output()
        .await
        .context("running go")?;
    let folder = String::from_utf8(output.stdout)?;
    Ok(std::path::Path::new(folder.trim()).join("cluster/addons/addon-manager"))
}

#[tokio::test]
async fn kube_addon_manager() -> Result<()> {
    if Room::is_left_out() {
        return Ok(());
    }
    let control_plane = ControlPlane::start().await?;
    let room = Room::open(&control_plane).await?;
    let port = ReservedPort::take()?;
    let scripts = addon_manager().await?;
    for name in ["kube-addons.sh", "kube-addons-main.sh"] {
        std::fs::copy(scripts.join(name), room.path("opt").join(name)).with_context(|| name.to_owned())?;
    }
    let (lighthouse, logbook) = ADDONS.split_once("---\n").context("two files")?;
    std::fs::create_dir(room.path("kubernetes/addons"))?;
    for (name, text) in [("lighthouse.yaml", lighthouse), ("logbook.yaml", logbook)] {
        std::fs::write(room.path("kubernetes/addons").join(name), text)?;
    }
    let env = json!([
        { "name": "KUBECTL_BIN", "value": room.path("bin/kubectl") },
        { "name": "KUBECTL_OPTS", "value": "--kubeconfig=/etc/kubernetes/admin.conf" },
        { "name": "TEST_ADDON_CHECK_INTERVAL_SEC", "value": "1" },
        { "name": "ADDON_MANAGER_LEADER_ELECTION", "value": "false" },
    ]);
    let command = ["bash", "-c", "cd /opt && exec bash kube-addons-main.sh"];
    let text = manifest("kube-addon-manager", &command, &env);
    std::fs::write(room.path("kubernetes/manifests/kube-addon-manager.yaml"), text)?;
    let kubelet = Kubelet::new(&room, control_plane.program("kubectl")).besides("quarterdeck", &own_port(&port));
    let work = async {
        let made = "for name in lighthouse logbook; do kubectl -n kube-system wait --for=create --timeout=120s configmap/$name; done";
        room.run(made).await?;
        room.paste("docs/migrate/kube-addon-manager.md", &[]).await
    };
    kubelet.beside(work).await
}

/// What the other leaves of an Addon that it installed.
const SEXTANT: &str = r#"
kubectl create namespace addon-manager-system
kubectl apply -f deploy/crds/addons.addonmgr.keikoproj.io.yaml
kubectl -n addon-manager-system create deployment addon-manager-controller-manager --image=example.com/image
kubectl wait --for=condition=Established crd/addons.addonmgr.keikoproj.io --timeout=60s
kubectl apply -f - <<'YAML'
apiVersion: addonmgr.keikoproj.io/v1alpha1
kind: Addon
metadata: {name: sextant, namespace: addon-manager-system}
spec:
  pkgName: sextant
  pkgVersion: 1.0.0
  pkgType: composite
  pkgDescription: installed by keiko's addon-manager
  params: {namespace: sextant}
YAML
kubectl -n addon-manager-system patch addon sextant --subresource=status --type=merge \
  -p '{"status":{"checksum":"5d1a2b3c","lifecycle":{"prereqs":"Succeeded","installed":"Succeeded"},"reason":"","resources":[],"starttime":1700000000000}}'
"#;

/// Renews the Lease of the other for as long as its Deployment asks for a replica.
async fn renew(control_plane: &ControlPlane) -> Result<()> {
    let client = control_plane.admin().await?;
    let group = "/apis/apps/v1/namespaces/addon-manager-system/deployments/addon-manager-controller-manager";
    let leases = "/apis/coordination.k8s.io/v1/namespaces/addon-manager-system/leases/addonmgr.keikoproj.io";
    loop {
        let deployment: Value = client.request(http::Request::get(group).body(Vec::new())?).await?;
        if deployment["spec"]["replicas"] == 1 {
            let lease = json!({
                "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
                "metadata": { "name": "addonmgr.keikoproj.io", "namespace": "addon-manager-system" },
                "spec": {
                    "holderIdentity": "keiko", "leaseDurationSeconds": 15,
                    "renewTime": jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string(),
                },
            });
            let request = http::Request::patch(format!("{leases}?fieldManager=keiko&force=true"))
                .header("content-type", "application/apply-patch+yaml");
            client.request::<Value>(request.body(lease.to_string().into_bytes())?).await?;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

#[tokio::test]
async fn keikoproj_addon_manager() -> Result<()> {
    if Room::is_left_out() {
        return Ok(());
    }
    let control_plane = ControlPlane::start().await?;
    let room = Room::open(&control_plane).await?;
    let port = ReservedPort::take()?;
    room.run(SEXTANT).await?;
    let kubelet = Kubelet::new(&room, control_plane.program("kubectl")).besides("quarterdeck", &own_port(&port));
    tokio::select! {
        done = kubelet.beside(room.paste("docs/migrate/keikoproj-addon-manager.md", &[])) => done,
        ended = renew(&control_plane) => ended.context("the other manager's Lease"),
    }
}

/// What kOps leaves of a channel that it installed.
const COMPASS: &str = r#"
mkdir -p /etc/kubernetes/channel
cat > /etc/kubernetes/channel/compass.yaml <<'YAML'
apiVersion: v1
kind: ConfigMap
metadata:
  name: compass
  namespace: kube-system
  labels: {k8s-addon: compass}
data:
  points: north
YAML
cat > /etc/kubernetes/channel/index.yaml <<'YAML'
kind: Addons
metadata:
  name: navigation
spec:
  addons:
    - name: compass
      version: 1.0.0
      selector: {k8s-addon: compass}
      manifest: compass.yaml
YAML
kubectl apply --server-side --field-manager=kops -f /etc/kubernetes/channel/compass.yaml
kubectl annotate namespace kube-system \
  'addons.k8s.io/compass={"version":"1.0.0","channel":"s3://bucket/index.yaml","manifestHash":"'"$(sed -e '$a\' /etc/kubernetes/channel/compass.yaml | head -c -1 | sha256sum | cut -d' ' -f1)"'"}'
quarterdeck install --kubeconfig=/etc/kubernetes/admin.conf
"#;

#[tokio::test]
async fn kops_channels() -> Result<()> {
    if Room::is_left_out() {
        return Ok(());
    }
    let control_plane = ControlPlane::start().await?;
    let room = Room::open(&control_plane).await?;
    let port = ReservedPort::take()?;
    room.run(COMPASS).await?;
    let theirs = manifest("kops-channels", &["sleep", "infinity"], &json!([]));
    std::fs::write(room.path("kubernetes/manifests/kops-channels.manifest"), theirs)?;
    let kubelet = Kubelet::new(&room, control_plane.program("kubectl")).besides("quarterdeck", &own_port(&port));
    kubelet.beside(room.paste("docs/migrate/kops-channels.md", &[])).await
}
