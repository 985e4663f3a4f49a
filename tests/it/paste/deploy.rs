//! The pages on deploying.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use quarterdeck_it::deck::program;
use quarterdeck_it::{Binaries, ControlPlane, Node, Peer, ReservedPort, Signal, eventually, repository};
use tokio::process::Command;

use super::room::Room;
use super::systemd::{Systemd, is_confined};

/// The pages, and what their tests have at hand beside a shell.
pub(super) const PAGES: [(&str, &[&str]); 4] = [
    ("docs/deploy/static-pod.md", &["kubelet"]),
    ("docs/deploy/kustomize.md", &[]),
    ("docs/deploy/helm.md", &[]),
    ("docs/deploy/systemd.md", &["systemd"]),
];

/// Lets namespaces go that are deleted; nothing else is controlled.
const NAMESPACES: [&str; 1] = ["--controllers=namespace-controller"];

#[tokio::test]
async fn kustomize() -> Result<()> {
    if Room::is_left_out() {
        return Ok(());
    }
    let control_plane = ControlPlane::start().await?;
    let room = Room::open(&control_plane).await?;
    room.paste("docs/deploy/kustomize.md", &[]).await
}

#[tokio::test]
async fn helm() -> Result<()> {
    if Room::is_left_out() {
        return Ok(());
    }
    let helm = Binaries::ensure(&[Peer::Helm]).await?.path("helm/helm");
    let control_plane = ControlPlane::start().await?;
    let _namespaces = control_plane.start_kcm(&NAMESPACES).await?;
    let room = Room::open(&control_plane).await?;
    room.bring("helm", &helm)?;
    room.paste("docs/deploy/helm.md", &[]).await
}

/// The whole page on a real node, whose kubelet runs the image. Without one, what takes none.
#[tokio::test]
async fn static_pod() -> Result<()> {
    if Room::is_left_out() {
        return Ok(());
    }
    if Node::is_left_out() {
        let control_plane = ControlPlane::start().await?;
        let room = Room::open(&control_plane).await?;
        return room.paste("docs/deploy/static-pod.md", &[]).await;
    }
    let archive = image().await?;
    let control_plane = ControlPlane::builder().node().start().await?;
    control_plane.node().load_image(&archive).await?;
    let room = Room::open_on_node(&control_plane).await?;
    room.paste("docs/deploy/static-pod.md", &["kubelet"]).await
}

/// The image, in the layout that users get.
async fn image() -> Result<tempfile::TempPath> {
    let folder = quarterdeck_it::target().join("it");
    std::fs::create_dir_all(&folder)?;
    let file = tempfile::Builder::new().prefix("image-").suffix(".tar").tempfile_in(&folder)?.into_temp_path();
    let output = Command::new(repository().join("hack/image"))
        .args(["--debug", "--program"])
        .arg(program()?)
        .arg("--out")
        .arg(&file)
        .kill_on_drop(true)
        .output()
        .await?;
    ensure!(output.status.success(), "hack/image: {}", String::from_utf8_lossy(&output.stderr));
    Ok(file)
}

/// Stands for cargo, which would build what the tests run anew: what was built takes the place of a release.
const CARGO: &str =
    "#!/bin/sh\n[ \"$1\" = build ] || exit 1\nmkdir -p target/release\nln -sf PROGRAM target/release/quarterdeck\n";

/// How long a service may take to be started again.
const LONG: Duration = Duration::from_secs(90);
/// A sign of life is waited for only so long.
const IMPATIENT: &str = "\
mkdir -p /etc/systemd/system/quarterdeck.service.d
printf '[Service]\\nWatchdogSec=4s\\n' > /etc/systemd/system/quarterdeck.service.d/impatient.conf
systemctl daemon-reload
systemctl restart quarterdeck
";

/// Where the service's log goes, since no journal is kept.
const IN_A_FILE: &str = "\
mkdir -p /etc/systemd/system/quarterdeck.service.d
printf '[Service]\\nStandardOutput=append:LOG\\nStandardError=append:LOG\\n' > /etc/systemd/system/quarterdeck.service.d/log.conf
";

#[tokio::test]
async fn systemd_unit() -> Result<()> {
    if Room::is_left_out() || Systemd::is_left_out() {
        return Ok(());
    }
    let control_plane = ControlPlane::start().await?;
    let mut room = Room::open(&control_plane).await?;
    room.bring_script("cargo", &CARGO.replace("PROGRAM", &program()?.display().to_string()))?;
    // Masters have addresses of their own, tests have not; and nobody keeps a journal here.
    let port = ReservedPort::take()?;
    let path = "--addon-path=/etc/kubernetes/addons";
    let flags = format!("{path} --bind-address=127.0.0.1 --secure-port={}", port.port());
    room.fill(path, &flags);
    room.run(&format!("sed -i 's|{path}|&|' deploy/systemd/quarterdeck.env")).await?;
    let systemd = Systemd::boot(&room).await?;
    room.run(&IN_A_FILE.replace("LOG", &room.path("quarterdeck.log").display().to_string())).await?;

    let page = "docs/deploy/systemd.md";
    room.paste_part(page, &["systemd"], |part| part.split("## Leave").next().unwrap_or_default().to_owned()).await?;
    eventually("systemd is told who leads", LONG, || async {
        let status = room.run("systemctl show -p StatusText quarterdeck").await?;
        ensure!(status.contains("StatusText=leads"), "{status}");
        Ok(())
    })
    .await?;
    let before = systemd.processes("quarterdeck.service")?;
    is_confined(*before.first().context("the service has no process")?)?;

    // One that stands still is ended and started again; the others are let go on.
    room.run(IMPATIENT).await?;
    let [stuck] = systemd.processes("quarterdeck.service")?[..] else { bail!("one process") };
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(stuck), Signal::SIGSTOP)?;
    eventually("another process has taken its place", LONG, || async {
        let now = systemd.processes("quarterdeck.service")?;
        ensure!(!now.is_empty() && !now.contains(&stuck), "{now:?}");
        room.run("systemctl is-active quarterdeck").await.map(drop)
    })
    .await?;
    let restarts = room.run("systemctl show -p NRestarts quarterdeck").await?;
    ensure!(restarts.contains("NRestarts=1"), "{restarts}");
    room.run("rm -r /etc/systemd/system/quarterdeck.service.d").await?;
    room.paste_part(page, &["systemd"], |part| format!("## {}", part.split("## Leave").nth(1).unwrap_or_default()))
        .await
}
