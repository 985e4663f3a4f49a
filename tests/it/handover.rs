//! Beside the Go kube-controller-manager: arriving does no harm, controllers are handed over and back
//! by name, and one Lease is shared by both.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::Api;
use quarterdeck_it::deck::{Demo, USER};
use quarterdeck_it::{AuditReader, ControlPlane, Deck, Signal, eventually};

const PATIENCE: Duration = Duration::from_secs(60);
/// A Lease that expires soon, for both managers.
const FAST: [&str; 3] =
    ["--leader-elect-lease-duration=4s", "--leader-elect-renew-deadline=3s", "--leader-elect-retry-period=500ms"];
const OURS: &str = "--controllers=endpoints-controller,endpointslice-controller,endpointslice-mirroring-controller";

/// A service with one pod, whose slice shows what the pod reports.
struct Harbour {
    demo: Demo,
}

impl Harbour {
    async fn open(control_plane: &ControlPlane) -> Result<Self> {
        control_plane.namespace("harbour").await?;
        let demo = Demo::new(control_plane.admin().await?, "harbour");
        demo.node("node-a", "a").await?;
        demo.service("web").await?;
        demo.pod("web-0", "web", "node-a", "10.1.0.1").await?;
        Ok(Self { demo })
    }

    /// Reports the pod ready or not, and waits until a slice says so.
    async fn flip(&self, ready: bool) -> Result<()> {
        self.demo.ready("web-0", ready).await?;
        self.shows(ready).await
    }

    async fn shows(&self, ready: bool) -> Result<()> {
        eventually("the slice shows the pod", PATIENCE, || async {
            let seen = self.demo.endpoints("web").await?;
            if seen == [("10.1.0.1".to_owned(), ready)] { Ok(()) } else { bail!("{seen:?}") }
        })
        .await
    }
}

/// The accounts as which replicas of quarterdeck have written slices or endpoints.
fn our_writes(audit: &mut AuditReader) -> Result<usize> {
    let ours = audit.filter(|event| {
        event.user.username == USER
            && event.is_write()
            && !event.is_dry_run()
            && event.impersonated_user.as_ref().is_some_and(|user| user.username.ends_with("-controller"))
    })?;
    Ok(ours.len())
}

async fn state(deck: &Deck, controller: &str, wanted: &str) -> Result<()> {
    eventually("the controller's state", PATIENCE, || async {
        let status = deck.replica(0).status().await?;
        match status.controller(controller) {
            Some(state) if state == wanted => Ok(()),
            other => bail!("{other:?} because {:?}", status.reason(controller)),
        }
    })
    .await
}

#[tokio::test]
async fn arriving_does_no_harm_and_controllers_are_handed_over_and_back() -> Result<()> {
    let control_plane = ControlPlane::start().await?;
    let go = control_plane.start_kcm(&FAST).await?;
    let harbour = Harbour::open(&control_plane).await?;
    harbour.shows(true).await?;

    let addons = tempfile::tempdir()?;
    let addon_path = format!("--addon-path={}", addons.path().display());
    let mut audit = control_plane.audit();
    let deck = Deck::builder(&control_plane).replicas(1).args(FAST).args([&addon_path]).start().await?;
    deck.leader(PATIENCE).await?;
    for controller in [
        "endpoints-controller",
        "endpointslice-controller",
        "endpointslice-mirroring-controller",
        "namespace-controller",
    ] {
        state(&deck, controller, "blocked").await?;
    }
    harbour.flip(false).await?;
    harbour.flip(true).await?;
    control_plane.settle_audit().await?;
    ensure!(our_writes(&mut audit)? == 0, "a blocked controller wrote");
    drop(deck);

    // Handed over by name: the Go manager lets go of it, ours takes it.
    go.kill().await?;
    let go = control_plane.start_kcm(&[&FAST[..], &["--controllers=*,-endpointslice-controller"]].concat()).await?;
    let named = "--controllers=*,endpointslice-controller";
    let deck = Deck::builder(&control_plane).replicas(1).args(FAST).args([named, &addon_path]).start().await?;
    state(&deck, "endpointslice-controller", "running").await?;
    harbour.shows(true).await?;
    harbour.flip(false).await?;
    harbour.flip(true).await?;
    control_plane.settle_audit().await?;
    ensure!(our_writes(&mut audit)? > 0, "the flips were written by somebody else");

    // And back.
    drop(deck);
    go.kill().await?;
    let go = control_plane.start_kcm(&FAST).await?;
    harbour.shows(true).await?;
    harbour.flip(false).await?;
    drop(go);
    Ok(())
}

#[tokio::test]
async fn one_lease_is_shared_with_the_go_manager_both_ways() -> Result<()> {
    let control_plane = ControlPlane::start().await?;
    let go = control_plane.start_kcm(&[&FAST[..], &[OURS]].concat()).await?;
    let harbour = Harbour::open(&control_plane).await?;
    harbour.shows(true).await?;

    let lease = "--leader-elect-resource-name=kube-controller-manager";
    let partial = "--allow-partial-takeover";
    let deck = Deck::builder(&control_plane)
        .replicas(1)
        .args(FAST)
        .args([lease, partial, OURS])
        .install_args([lease, partial])
        .start()
        .await?;
    deck.ready(PATIENCE).await?;
    ensure!(!deck.replica(0).status().await?.leads(), "two managers lead");

    go.kill().await?;
    deck.leader(PATIENCE).await?;
    harbour.flip(false).await?;

    let go = control_plane.start_kcm(&[&FAST[..], &[OURS]].concat()).await?;
    ensure!(deck.replica(0).status().await?.leads(), "the Go manager took a Lease that is held");
    let leases: Api<Lease> = Api::namespaced(control_plane.admin().await?, "kube-system");
    let holder = || async {
        let lease = leases.get("kube-controller-manager").await?;
        anyhow::Ok(lease.spec.and_then(|spec| spec.holder_identity).unwrap_or_default())
    };
    let ours = holder().await?;
    deck.replica(0).process().signal(Signal::SIGTERM)?;
    eventually("the Go manager has the Lease", PATIENCE, || async {
        match holder().await? {
            free_or_ours if free_or_ours.is_empty() || free_or_ours == ours => bail!("held by {free_or_ours:?}"),
            _ => Ok(()),
        }
    })
    .await?;
    harbour.flip(true).await?;
    drop(go);
    Ok(())
}
