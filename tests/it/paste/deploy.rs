//! The pages on deploying.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use quarterdeck_it::deck::program;
use quarterdeck_it::{Binaries, ControlPlane, Peer, repository};
use tokio::process::Command;

use super::room::Room;

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

/// What takes no kubelet; the rest of the page is pasted where there is one.
#[tokio::test]
async fn static_pod_up_to_the_kubelet() -> Result<()> {
    if Room::is_left_out() {
        return Ok(());
    }
    let control_plane = ControlPlane::start().await?;
    let room = Room::open(&control_plane).await?;
    room.paste("docs/deploy/static-pod.md", &[]).await
}

/// Stands for cargo, which would build what the tests run anew: what was built takes the place of a release.
const CARGO: &str = "#!/bin/sh\n[ \"$1\" = build ] || exit 1\nmkdir -p target/release\nln -sf PROGRAM target/release/quarterdeck\n";

/// Programs of Debian's package systemd, unpacked, with the libraries that they need.
pub(crate) async fn systemd(name: &str) -> Result<(Vec<String>, String)> {
    let mut folders = Vec::new();
    for package in PACKAGES {
        let script = repository().join("hack/lib/debian.sh");
        let output = Command::new(&script).arg(package).output().await?;
        ensure!(output.status.success(), "{package}: {}", String::from_utf8_lossy(&output.stderr));
        folders.push(String::from_utf8(output.stdout)?.trim().to_owned());
    }
    let program = folders
        .iter()
        .flat_map(|folder| ["bin", "usr/bin", "lib/systemd"].map(|place| format!("{folder}/{place}/{name}")))
        .find(|path| Path::new(path).is_file());
    let program = program.with_context(|| format!("no {name} in the package"))?;
    let triple = format!("{}-linux-gnu", std::env::consts::ARCH);
    let libraries = folders
        .iter()
        .flat_map(|folder| ["lib", "usr/lib"].map(|place| format!("{folder}/{place}/{triple}")))
        .flat_map(|place| [format!("{place}/systemd"), place])
        .filter(|place| Path::new(place).is_dir());
    Ok((vec![program], libraries.collect::<Vec<_>>().join(":")))
}

/// What systemd's programs are linked with, besides what every machine has.
const PACKAGES: [&str; 2] = ["systemd", "libsystemd-shared"];

#[tokio::test]
async fn systemd_unit_up_to_its_start() -> Result<()> {
    if Room::is_left_out() {
        return Ok(());
    }
    let control_plane = ControlPlane::start().await?;
    let room = Room::open(&control_plane).await?;
    room.bring_script("cargo", &CARGO.replace("PROGRAM", &program()?.display().to_string()))?;
    for name in ["systemd-sysusers", "systemd-tmpfiles", "systemd-analyze"] {
        let (program, libraries) = systemd(name).await?;
        let script = format!("#!/bin/sh\nLD_LIBRARY_PATH={libraries} exec {} \"$@\"\n", program[0]);
        room.bring_script(name, &script)?;
    }
    room.paste("docs/deploy/systemd.md", &[]).await
}
