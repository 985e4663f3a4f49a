//! A replica that is driven through its changes. It takes a minute or two.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use base64::Engine as _;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Event;
use kube::api::{Api, ListParams};
use kube::config::Kubeconfig;
use quarterdeck_it::deck::{USER, group, renewed_lease};
use quarterdeck_it::{ControlPlane, Credentials, Deck, Proxy, eventually};
use serde_json::{Value, json};
use tokio::process::Command;

use super::log::Log;

const PATIENCE: Duration = Duration::from_secs(60);
/// Renewals often, and a lease that is not lost because the machine is slow.
const TIMING: [&str; 3] =
    ["--leader-elect-lease-duration=15s", "--leader-elect-renew-deadline=10s", "--leader-elect-retry-period=1s"];
/// So many renewals are a stretch of rest.
const REST: usize = 10;
const SECRET: &str = "correct-horse-battery-staple";
const ADDON_STATE: &str = "the state of an addon changed";
const CONTROLLER_STATE: &str = "the state of a controller changed";

/// One replica that logs for machines, behind a wire that can be cut, and its addon directory.
struct Bridge {
    control_plane: ControlPlane,
    deck: Deck,
    wire: Proxy,
    kubeconfig: PathBuf,
    files: tempfile::TempDir,
}

impl Bridge {
    async fn open() -> Result<Self> {
        let control_plane = ControlPlane::start().await?;
        let wire = Proxy::start(control_plane.apiserver(0).address()).await?;
        let kubeconfig = control_plane.kubeconfig_at(&wire.url(), &Credentials::user(USER, &[&group(0)]))?;
        let files = tempfile::tempdir()?;
        std::fs::create_dir(files.path().join("addons"))?;
        let deck = Deck::builder(&control_plane)
            .replicas(1)
            .kubeconfigs([&kubeconfig])
            .args(TIMING)
            .args([
                "--logging-format=json".to_owned(),
                format!("--addon-path={}", files.path().join("addons").display()),
            ])
            .start()
            .await?;
        Ok(Self { control_plane, deck, wire, kubeconfig, files })
    }

    fn addons(&self) -> PathBuf {
        self.files.path().join("addons")
    }

    /// Puts a file there whole.
    fn put(&self, name: &str, content: &Value) -> Result<()> {
        let part = self.files.path().join("part");
        std::fs::write(&part, content.to_string())?;
        Ok(std::fs::rename(part, self.addons().join(name))?)
    }

    async fn logs(&self, message: &str, fields: &[(&str, &str)], times: usize) -> Result<()> {
        eventually(&format!("{message}: {fields:?}"), PATIENCE, || async {
            let count = Log::read(&self.deck)?.of(message, fields).len();
            if count == times { Ok(()) } else { bail!("{count} times") }
        })
        .await
        .with_context(|| self.deck.replica(0).process().log_text())
    }

    /// Waits for an Event, and until it has been told once of exactly one occurrence.
    async fn tells(&self, reason: &str, part: &str) -> Result<()> {
        let events: Api<Event> = Api::all(self.control_plane.admin().await?);
        eventually(&format!("event {reason}: {part}"), PATIENCE, || async {
            let all = events.list(&ListParams::default()).await?.items;
            let says = |event: &&Event| event.message.as_deref().is_some_and(|message| message.contains(part));
            let found: Vec<_> =
                all.iter().filter(|event| event.reason.as_deref() == Some(reason)).filter(says).collect();
            match found[..] {
                [event] if event.count == Some(1) => Ok(()),
                _ => bail!("{:?}", found.iter().map(|event| (&event.message, event.count)).collect::<Vec<_>>()),
            }
        })
        .await
        .with_context(|| self.deck.replica(0).process().log_text())
    }

    async fn kubectl(&self, args: &[&str]) -> Result<()> {
        let mut command = Command::new(self.control_plane.program("kubectl"));
        let output = command.env("KUBECONFIG", self.control_plane.admin_kubeconfig()?).args(args).output().await?;
        ensure!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }

    async fn metric(&self, name: &str, labels: &[(&str, &str)]) -> Result<f64> {
        self.deck.replica(0).metric(name, labels).await
    }

    /// Hands the Lease of another manager to somebody, or to nobody.
    async fn lease(&self, name: &str, holder: &str) -> Result<()> {
        let now = Timestamp::now();
        let spec = json!({
            "holderIdentity": holder, "leaseDurationSeconds": 3600, "renewTime": format!("{now:.6}"),
            "acquireTime": format!("{now:.6}"), "leaseTransitions": 0,
        });
        let lease = json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": { "namespace": "kube-system", "name": name }, "spec": spec,
        });
        let file = self.files.path().join("lease.json");
        std::fs::write(&file, lease.to_string())?;
        self.kubectl(&["apply", "--server-side", "--force-conflicts", "-f", &file.display().to_string()]).await
    }

    /// Waits for a stretch of renewals in which nothing is logged.
    async fn rests(&self) -> Result<()> {
        for _ in 0..3 {
            let before = Log::read(&self.deck)?.0.len();
            let mut audit = self.control_plane.audit_from_now()?;
            audit.wait_for_count("renewals", REST, PATIENCE, |event| renewed_lease(event, 0)).await?;
            if Log::read(&self.deck)?.0.len() == before {
                return Ok(());
            }
        }
        bail!("it goes on logging:\n{}", self.deck.replica(0).process().log_text())
    }
}

/// All that must never be shown: the credentials of a kubeconfig, as they stand there and decoded, line by line.
fn credentials(kubeconfig: &Path) -> Result<Vec<String>> {
    use kube::config::AuthInfo;
    let user: AuthInfo = Kubeconfig::read_from(kubeconfig)?.auth_infos.remove(0).auth_info.context("a user")?;
    let user = serde_json::to_value(user)?;
    let mut all = Vec::new();
    for (field, value) in user.as_object().context("fields")? {
        let Some(text) = value.as_str().filter(|_| field.ends_with("-data") || field == "token") else { continue };
        all.push(text.to_owned());
        if let Ok(decoded) = base64::engine::general_purpose::STANDARD.decode(text) {
            let decoded = String::from_utf8_lossy(&decoded).into_owned();
            all.extend(decoded.lines().filter(|line| line.len() > 20 && !line.starts_with("--")).map(str::to_owned));
        }
    }
    ensure!(all.len() > 3, "no credentials in {}", kubeconfig.display());
    Ok(all)
}

fn lamp() -> Value {
    let labels = json!({ "addonmanager.kubernetes.io/mode": "Reconcile" });
    let metadata = |name: &str| json!({ "name": name, "namespace": "default", "labels": labels });
    json!({ "apiVersion": "v1", "kind": "List", "items": [
        { "apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata("lamp"), "data": { "oil": "full" } },
        { "apiVersion": "v1", "kind": "Secret", "metadata": metadata("lamp"), "stringData": { "password": SECRET } },
    ]})
}

#[tokio::test(flavor = "multi_thread")]
async fn each_change_is_told_once_and_rest_not_at_all() -> Result<()> {
    let bridge = Bridge::open().await?;
    bridge.deck.ready(PATIENCE).await?;
    bridge.deck.leader(PATIENCE).await?;
    bridge.logs("became leader", &[], 1).await?;

    // An addon comes, is changed by somebody, and is put back.
    bridge.put("lamp.json", &lamp())?;
    bridge.logs(ADDON_STATE, &[("addon", "directory/lamp.json"), ("state", "ready")], 1).await?;
    bridge.tells("AddonApplied", "lamp").await?;
    bridge.tells("AddonReady", "lamp").await?;
    bridge.kubectl(&["-n", "default", "delete", "configmap", "lamp"]).await?;
    bridge.tells("DriftRepaired", "lamp").await?;

    // One that cannot be had is tried again and again, and told of once.
    let broken = json!({
        "apiVersion": "sea.example/v1", "kind": "Monster",
        "metadata": { "name": "kraken", "labels": { "addonmanager.kubernetes.io/mode": "Reconcile" } },
    });
    bridge.put("broken.json", &broken)?;
    let failing = [("controller", "addon-controller"), ("state", "retrying")];
    bridge.logs("a key fails", &failing, 1).await?;
    eventually("it is tried again", PATIENCE, || async {
        let labels = [("controller", "addon-controller"), ("result", "error")];
        let tries = bridge.metric("quarterdeck_reconcile_total", &labels).await?;
        if tries >= 6.0 { Ok(()) } else { bail!("{tries} tries") }
    })
    .await?;
    bridge.tells("AddonDegraded", "sea.example").await?;
    std::fs::remove_file(bridge.addons().join("broken.json"))?;
    bridge.logs("a key that failed is well again", &[("controller", "addon-controller")], 1).await?;

    // The whole directory goes, and comes back: nothing is removed.
    let away = bridge.files.path().join("away");
    std::fs::rename(bridge.addons(), &away)?;
    bridge.logs("the source cannot be read whole; nothing is removed", &[], 1).await?;
    bridge.tells("SourceUnreadable", "cannot be read whole").await?;
    std::fs::rename(&away, bridge.addons())?;
    bridge.logs("the source is read whole again", &[], 1).await?;
    bridge.tells("SourceReadable", "again").await?;

    // Another manager comes for controllers that we run, and goes.
    let blocked = |state| [("controller", "endpointslice-controller"), ("state", state)];
    bridge.lease("kube-controller-manager", "somebody").await?;
    bridge.logs(CONTROLLER_STATE, &blocked("blocked"), 1).await?;
    bridge.tells("ControllerBlocked", "endpointslice-controller").await?;
    bridge.lease("kube-controller-manager", "").await?;
    bridge.logs(CONTROLLER_STATE, &blocked("running"), 2).await?;
    bridge.tells("ControllerRunning", "endpointslice-controller").await?;

    // The wire is cut: each informer tells of it, and that it reads again.
    bridge.wire.cut();
    eventually("all informers read again", PATIENCE, || async {
        let log = Log::read(&bridge.deck)?;
        let failed = log.of("the informer fails; its store stays as it is", &[]);
        ensure!(!failed.is_empty(), "none failed");
        for line in failed {
            let kind = line["kind"].as_str().context("a kind")?;
            let last = log.0.iter().rev().find(|other| {
                other["kind"].as_str() == Some(kind)
                    && other["message"].as_str().is_some_and(|m| m.contains("informer"))
            });
            ensure!(last.is_some_and(|last| last["message"] == "the informer reads again"), "{kind}: {last:?}");
        }
        Ok(())
    })
    .await?;

    // The lease is taken away, and given back.
    bridge.deck.leader(PATIENCE).await?;
    let before = Log::read(&bridge.deck)?.of("stopped leading", &[]).len();
    let hand = async |holder: &str| {
        let patch = json!({ "spec": { "holderIdentity": holder } }).to_string();
        bridge.kubectl(&["-n", "kube-system", "patch", "lease", "quarterdeck", "--type=merge", "-p", &patch]).await
    };
    hand("somebody").await?;
    bridge.logs("stopped leading", &[], before + 1).await?;
    hand("").await?;
    bridge.deck.leader(PATIENCE).await?;
    bridge.logs(CONTROLLER_STATE, &blocked("running"), before + 3).await?;

    bridge.rests().await?;
    let log = Log::read(&bridge.deck)?;
    log.is_as_documented()?;
    log.is_a_chain(CONTROLLER_STATE, "controller")?;
    log.is_a_chain(ADDON_STATE, "addon")?;
    let tenures = bridge.metric("quarterdeck_leader_election_tenures_total", &[]).await?;
    assert_eq!(log.of("became leader", &[]).len() as f64, tenures);
    let led = log.of("became leader", &[]);
    assert!(led.iter().all(|line| line["identity"].is_string() && line["epoch"].is_string()), "{led:?}");
    assert_eq!(log.of("a key fails", &failing).iter().filter(|line| line["key"] == "directory/broken.json").count(), 1);
    assert_eq!(log.of(ADDON_STATE, &[("addon", "directory/lamp.json"), ("state", "ready")]).len(), 1);

    let text = bridge.deck.replica(0).process().log_text();
    for secret in credentials(&bridge.kubeconfig)?.iter().map(String::as_str).chain([SECRET]) {
        assert!(!text.contains(secret), "a secret is logged");
    }
    Ok(())
}
