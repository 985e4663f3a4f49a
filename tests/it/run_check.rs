//! `hack/run --check`: what the README's first command promises.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use quarterdeck_it::deck::program_named;
use quarterdeck_it::eventually;
use quarterdeck_it::netns::Machine;
use serde_json::Value;
use tokio::process::Command;

const PATIENCE: Duration = Duration::from_secs(90);

#[tokio::test]
async fn the_demonstration_checks_itself() -> Result<()> {
    check(&[]).await
}

/// Beside a Go manager, a scheduler and fake nodes.
#[tokio::test]
async fn the_full_demonstration_checks_itself() -> Result<()> {
    check(&["--full"]).await
}

async fn check(flags: &[&str]) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let output = Command::new(program_named("deck")?)
        .arg("--check")
        .args(flags)
        .arg(format!("--dir={}", folder.path().join("run").display()))
        .output()
        .await?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(
        output.status.success() && said.contains("check passed"),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

/// `hack/run --cloud metal` as root: a client's call is answered through a gateway, and `stop` leaves nothing.
#[tokio::test]
async fn the_demonstration_of_metal_carries_packets_and_leaves_nothing() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let dir = folder.path().join("run");
    let deck = async |args: &[&str]| -> Result<String> {
        let output =
            Command::new(program_named("deck")?).args(args).arg(format!("--dir={}", dir.display())).output().await?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
        Ok(said)
    };
    let shown = async {
        let said = deck(&["--cloud=metal"]).await?;
        ensure!(said.contains("curl -s http://192.0.2.10/"), "{said}");
        let ledger: Value = serde_json::from_slice(&std::fs::read(dir.with_extension("metal.json"))?)?;
        let entries = ledger.as_array().context("a list")?;
        let pids = entries.iter().map(|one| Ok(i32::try_from(one["pid"].as_i64().context("a pid")?)?));
        let pids = pids.collect::<Result<Vec<i32>>>()?;
        let spaces: Vec<_> = pids.iter().map(|pid| std::fs::read_link(format!("/proc/{pid}/ns/net"))).collect();
        let client = entries.iter().position(|one| one["launch"]["name"] == "client").context("a client")?;
        let client = Machine::attach("client", pids[client])?;
        let answered = eventually("a node answers the client", PATIENCE, async || {
            let text = client.inside(|| {
                let mut stream = TcpStream::connect_timeout(&"192.0.2.10:80".parse()?, Duration::from_secs(5))?;
                stream.set_read_timeout(Some(Duration::from_secs(5)))?;
                stream.write_all(b"GET / HTTP/1.1\r\nHost: berth\r\nConnection: close\r\n\r\n")?;
                let mut text = String::new();
                stream.read_to_string(&mut text)?;
                Ok(text)
            })?;
            ensure!(text.contains("metal-") && text.contains("answers 192.0.2.200"), "{text}");
            Ok(())
        })
        .await;
        answered.map(|()| (pids, spaces))
    }
    .await;
    deck(&["stop"]).await?;
    let (pids, spaces) = shown?;
    let own = std::fs::read_link("/proc/self/ns/net")?;
    let theirs: Vec<_> = spaces.into_iter().flatten().filter(|space| *space != own).collect();
    ensure!(theirs.len() > 5, "they had namespaces of their own: {theirs:?}");
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let space = std::fs::read_link(entry.path().join("ns/net"));
        ensure!(space.is_err() || !theirs.contains(&space?), "{} is in a namespace of theirs", entry.path().display());
    }
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).into_owned();
        ensure!(!line.contains(&*folder.path().to_string_lossy()), "{line:?} still runs");
        let ours = pids.iter().any(|pid| entry.file_name() == *pid.to_string());
        ensure!(!ours || !line.contains("machines"), "{line:?} still runs");
    }
    Ok(())
}
