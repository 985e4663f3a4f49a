//! The status page in a real browser, on three real replicas: what it shows, to whom, and that it follows a failover.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use base64::Engine as _;
use http::Request;
use quarterdeck_it::audit::Event;
use quarterdeck_it::deck::group;
use quarterdeck_it::{CloudSim, ControlPlane, Deck, eventually, repository, skip};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::Command;

/// Time that anything gets on a loaded machine.
const LONG: Duration = Duration::from_secs(60);
/// Time for all that the browser does.
const BROWSING: Duration = Duration::from_secs(400);
const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/quarterdeck-replicas/leases";
/// Says where screenshots are to be written, when somebody wants them.
const SCREENSHOTS: &str = "QUARTERDECK_SCREENSHOTS";

/// The folder with Chromium and Playwright; what keeps it from being had where it cannot be.
async fn browser() -> Result<PathBuf, String> {
    let script = repository().join("hack/browser");
    let output = Command::new(&script).output().await.map_err(|error| format!("{}: {error}", script.display()))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(said.lines().last().unwrap_or("hack/browser says nothing").to_owned());
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().into())
}

/// Writes a user's certificate and key for the browser.
fn certificate(control_plane: &ControlPlane, user: &str) -> Result<(PathBuf, PathBuf)> {
    let kubeconfig = std::fs::read_to_string(control_plane.kubeconfig(user, &[])?)?;
    let write = |ending: &str, field: &str| -> Result<PathBuf> {
        let data = kubeconfig
            .lines()
            .find_map(|line| line.trim().strip_prefix(field))
            .with_context(|| format!("no {field}"))?;
        let path = control_plane.folder().join(format!("{user}.{ending}"));
        std::fs::write(&path, base64::engine::general_purpose::STANDARD.decode(data.trim())?)?;
        Ok(path)
    };
    Ok((write("crt", "client-certificate-data:")?, write("key", "client-key-data:")?))
}

async fn send(control_plane: &ControlPlane, request: Request<Vec<u8>>) -> Result<Value> {
    Ok(control_plane.admin().await?.request::<Value>(request).await?)
}

/// Makes the Lease of a replica that is not there, whose clock says this.
async fn made_up(control_plane: &ControlPlane, name: &str, clock: &str) -> Result<Value> {
    let lease = json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": { "name": name },
        "spec": { "holderIdentity": format!("{name}_1"), "leaseDurationSeconds": 40, "renewTime": clock },
    });
    let request = Request::post(LEASES).header("content-type", "application/json");
    send(control_plane, request.body(lease.to_string().into_bytes())?).await
}

async fn renew(control_plane: &ControlPlane, name: &str, clock: &str) -> Result<()> {
    let patch = json!({ "spec": { "renewTime": clock } }).to_string().into_bytes();
    let request = Request::patch(format!("{LEASES}/{name}")).header("content-type", "application/merge-patch+json");
    send(control_plane, request.body(patch)?).await.map(drop)
}

/// A master of this name, as a replica tells.
fn master<'s>(status: &'s Value, name: &str) -> Result<&'s Value> {
    let masters = status["masters"].as_array().context("no masters")?;
    masters.iter().find(|master| master["name"] == name).with_context(|| format!("no {name} among {masters:?}"))
}

/// Writes the directory of addons: one that is well, and one that the server refuses.
fn addons(folder: &Path) -> Result<()> {
    let map = |name: &str, namespace: &str| {
        let labels = json!({ "addonmanager.kubernetes.io/mode": "Reconcile" });
        let metadata = json!({ "name": name, "namespace": namespace, "labels": labels });
        json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata }).to_string()
    };
    std::fs::write(folder.join("lamp.json"), map("lamp", "default"))?;
    std::fs::write(folder.join("torn.json"), map("torn", "no-such-namespace"))?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_page_follows_a_failover() -> Result<()> {
    let browser = match browser().await {
        Ok(folder) => folder,
        Err(reason) => {
            skip(&reason);
            return Ok(());
        }
    };
    let control_plane = ControlPlane::builder().start().await?;
    let (cloud, folder) = (CloudSim::builder().instances(["n-1"]).start().await?, tempfile::tempdir()?);
    addons(folder.path())?;
    let deck = Deck::builder(&control_plane)
        .install_args([cloud.flag()])
        .args([cloud.flag(), format!("--addon-path={}", folder.path().display())])
        .start()
        .await?;
    deck.ready(LONG).await?;
    let first = deck.leader(LONG).await?;
    let others: Vec<usize> = (0..3).filter(|index| *index != first).collect();
    let name = |index: usize| format!("quarterdeck-{index}");
    let teller = deck.replica(others[0]);

    let status = eventually("every replica has said who and where it is", LONG, async || {
        let status = teller.status().await?.0;
        for index in 0..3 {
            let shown = master(&status, &name(index))?;
            ensure!(shown["alive"] == true && shown["leads"] == (index == first), "{shown}");
            ensure!(format!("https://{}", shown["address"].as_str().unwrap_or_default()) == deck.replica(index).url());
            ensure!(shown["certificate_sha256"].as_str().is_some_and(|pin| pin.len() == 64), "{shown}");
        }
        let held = status["addons"].as_array().context("no addons")?.iter().any(|addon| addon["state"] == "degraded");
        ensure!(held, "{}", status["addons"]);
        ensure!(status["history"][0]["replica"] == name(first).as_str(), "{}", status["history"]);
        Ok(status)
    })
    .await?;
    assert_eq!(status["cloud"][0]["breaker"], "closed", "{}", status["cloud"]);
    // What clients make of it is what was sent: none of it is lost on the way.
    let typed: quarterdeck_api::status::Status = serde_json::from_value(status.clone())?;
    assert!(typed.others.is_empty(), "{:?}", typed.others);
    assert_eq!(serde_json::to_value(&typed)?, status);

    control_plane.bind("viewer", "quarterdeck-viewer").await?;
    let (crt, key) = certificate(&control_plane, "viewer")?;
    let given = json!({
        "folder": browser, "url": format!("{}/status", teller.url()), "certificate": crt, "key": key,
        "leader": name(first), "others": others.iter().map(|index| name(*index)).collect::<Vec<_>>(),
        "addons": { "good": "lamp.json", "bad": "torn.json" }, "screenshots": std::env::var(SCREENSHOTS).ok(),
    });
    let watched = watch(&given, async |wish| match wish {
        "kill the leader" => {
            deck.replica(first).process().kill().await?;
            // Clocks that lie: one lives in the past and renews once more, one lived in the future and is dead.
            made_up(&control_plane, "slow-clock", "1999-01-01T00:00:00.000000Z").await?;
            made_up(&control_plane, "dead-future", "2099-01-01T00:00:00.000000Z").await.map(drop)
        }
        other => bail!("{other}?"),
    });
    tokio::time::timeout(BROWSING, watched).await.context("the browser takes too long")??;

    // The page has seen the dead master go by now; whoever renews lives, whatever its clock says.
    let status = eventually("the master whose clock was ahead is dead", LONG, async || {
        let status = teller.status().await?.0;
        ensure!(master(&status, "dead-future")?["alive"] == false, "{}", status["masters"]);
        Ok(status)
    })
    .await?;
    assert_eq!(master(&status, &name(first))?["alive"], false);
    renew(&control_plane, "slow-clock", "1999-01-01T00:00:20.000000Z").await?;
    eventually("the one whose clock is behind lives", LONG, async || {
        let status = teller.status().await?.0;
        ensure!(master(&status, "slow-clock")?["alive"] == true, "{}", status["masters"]);
        Ok(())
    })
    .await?;
    for index in others {
        assert_eq!(master(&status, &name(index))?["alive"], true, "{}", status["masters"]);
    }
    let terms = status["history"].as_array().context("no history")?;
    assert!(terms.len() >= 2 && terms[0]["lasts"] == true, "{terms:?}");
    assert!(terms[0]["gap_seconds"].is_number(), "how long nobody led is told: {terms:?}");
    assert!(terms.iter().any(|term| term["replica"] == name(first).as_str()), "its terms stay: {terms:?}");
    renewals_are_single_writes(&control_plane)
}

/// Each replica renews by a PUT and nothing else: it reads its Lease once, before the first.
fn renewals_are_single_writes(control_plane: &ControlPlane) -> Result<()> {
    for index in 0..3 {
        let own = |event: &Event| {
            event.user.groups.contains(&group(index))
                && event.request_uri.starts_with(&format!("{LEASES}/quarterdeck-"))
        };
        let all = control_plane.audit().filter(own)?;
        let count = |verb: &str| all.iter().filter(|event| event.verb == verb).count();
        ensure!(count("update") > 0, "replica {index} never renewed");
        ensure!(
            count("get") <= 2,
            "replica {index} read its Lease {} times for {} renewals",
            count("get"),
            count("update")
        );
    }
    Ok(())
}

/// Runs the browser; `grant` does what it asks for.
async fn watch(given: &Value, grant: impl AsyncFn(&str) -> Result<()>) -> Result<()> {
    let mut node = Command::new("node")
        .arg(repository().join("tests/browser/status.mjs"))
        .arg(given.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("starting node")?;
    let mut input = node.stdin.take().context("no input")?;
    let mut output = BufReader::new(node.stdout.take().context("no output")?).lines();
    let mut stderr = BufReader::new(node.stderr.take().context("no errors")?);
    let complaint = tokio::spawn(async move {
        let mut text = String::new();
        let _ = tokio::io::AsyncReadExt::read_to_string(&mut stderr, &mut text).await;
        text
    });
    let (mut step, mut done) = (String::new(), false);
    while let Some(line) = output.next_line().await? {
        let said: Value = serde_json::from_str(&line).with_context(|| line.clone())?;
        if let Some(name) = said["step"].as_str() {
            name.clone_into(&mut step);
        }
        if let Some(wish) = said["ask"].as_str() {
            grant(wish).await?;
            input.write_all(b"done\n").await?;
        }
        done |= said["done"] == true;
    }
    let ended = node.wait().await?;
    if !done || !ended.success() {
        bail!("the browser, at {step:?}, {ended}:\n{}", complaint.await?);
    }
    Ok(())
}

#[tokio::test]
async fn who_is_not_a_viewer_does_not_see_the_page() -> Result<()> {
    let control_plane = ControlPlane::builder().start().await?;
    let deck = Deck::builder(&control_plane).replicas(1).start().await?;
    deck.ready(LONG).await?;
    let page = format!("{}/status", deck.replica(0).url());
    assert_eq!(super::observe::code(&page, None).await?, "403");
    let token = control_plane.token("kube-system", "default").await?;
    assert_eq!(super::observe::code(&page, Some(&token)).await?, "403");
    control_plane.bind("system:serviceaccount:kube-system:default", "quarterdeck-viewer").await?;
    eventually("the viewer is let in", LONG, async || {
        let code = super::observe::code(&page, Some(&token)).await?;
        ensure!(code == "200", "{code}");
        Ok(())
    })
    .await?;
    let metrics = page.replace("/status", "/metrics");
    assert_eq!(super::observe::code(&metrics, Some(&token)).await?, "403", "it may see the page and nothing else");
    Ok(())
}
