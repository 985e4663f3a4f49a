//! The place of a fight: control plane, networks, load, recorder.

use std::collections::HashSet;

use anyhow::{Context, Result, anyhow, bail, ensure};
use futures::future::try_join_all;
use k8s_openapi::api::admissionregistration::v1::{ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding};
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{Api, DeleteParams, ListParams, PostParams};
use parking_lot::Mutex;
use quarterdeck_election::fence::KubeFenceProver;
use quarterdeck_election::{EpochToken, FenceState, LeaseView};
use quarterdeck_it::audit::Event;
use quarterdeck_it::checker::{History, history};
use quarterdeck_it::deck::{DeckBuilder, group, install, lease_connection, program};
use quarterdeck_it::proxy::Faults;
use quarterdeck_it::{AuditPolicy, AuditReader, ControlPlane, Deck, Proxy, eventually};
use serde_json::json;

use super::LONG;
use super::load::{Load, SERVICES};
use super::recorder::Recorder;

pub(super) const NAMESPACE: &str = "load";
/// Replicas.
pub(super) const REPLICAS: usize = 3;
/// Of the policy and of its binding.
const FENCE: &str = "quarterdeck-fence-quarterdeck";

/// Lease timing of most scenarios, seconds: a take-over takes four.
const TIMING: [&str; 3] =
    ["--leader-elect-lease-duration=4s", "--leader-elect-renew-deadline=3s", "--leader-elect-retry-period=500ms"];
/// What every replica runs: two controllers that write for each flip of a pod, faster than they are let.
const ARGS: [&str; 3] = [
    "--controllers=endpointslice-controller,endpoints-controller",
    "--concurrent-service-endpoint-syncs=10",
    "--kube-api-qps=15",
];

pub(super) struct Arena {
    pub(super) control_plane: ControlPlane,
    pub(super) proxies: Vec<Proxy>,
    pub(super) load: Load,
    recorder: Recorder,
    /// Revisions, from and to, between which a server died, and with it lines of its audit log.
    unlogged: Mutex<Vec<(u64, u64)>>,
}

/// Three replicas in the arena.
pub(super) struct Fighters {
    pub(super) deck: Deck,
    /// Their names in the Lease.
    identities: Vec<String>,
}

impl Fighters {
    /// Stops them all; the Lease is free after that.
    pub(super) async fn leave(self) -> Result<()> {
        let stop = self.deck.replicas().iter().map(|replica| async { replica.process().stop(LONG).await });
        try_join_all(stop).await.map(drop)
    }
}

impl Arena {
    /// Starts all but the replicas, and installs what they need.
    pub(super) async fn open() -> Result<Self> {
        let audit = AuditPolicy::default().with_bodies("coordination.k8s.io", "leases").with_bodies("", "events");
        let control_plane = ControlPlane::builder().apiservers(2).audit(audit).start().await?;
        install(&program()?, &control_plane.admin_kubeconfig()?, &[]).await?;
        let mut proxies = Vec::new();
        for replica in 0..REPLICAS {
            proxies.push(Proxy::start(control_plane.apiserver(server_of(replica)).address()).await?);
        }
        let load = Load::start(&control_plane, NAMESPACE).await?;
        let recorder = Recorder::start(&control_plane, NAMESPACE).await?;
        Ok(Self { control_plane, proxies, load, recorder, unlogged: Mutex::default() })
    }

    /// Removes the fence, policy first, and returns when no server knows it any more. Nobody may hold the Lease.
    pub(super) async fn remove_fence(&self) -> Result<()> {
        let client = self.control_plane.admin().await?;
        let leases: Api<Lease> = Api::namespaced(client.clone(), "kube-system");
        let lease = match leases.get_opt("quarterdeck").await? {
            Some(lease) => lease,
            // Without a Lease the fence refuses nobody: nothing could be seen of it.
            None => {
                let free = json!({ "metadata": { "name": "quarterdeck" }, "spec": { "leaseTransitions": 0 } });
                leases.create(&PostParams::default(), &serde_json::from_value(free)?).await?
            }
        };
        let token = LeaseView::from(lease).token();
        self.fence_becomes(&token, FenceState::Verified).await?;
        let policies: Api<ValidatingAdmissionPolicy> = Api::all(client.clone());
        policies.delete(FENCE, &DeleteParams::default()).await?;
        let bindings: Api<ValidatingAdmissionPolicyBinding> = Api::all(client);
        bindings.delete(FENCE, &DeleteParams::default()).await?;
        self.fence_becomes(&token, FenceState::Absent).await
    }

    /// Waits until each server shows the fence so.
    async fn fence_becomes(&self, token: &EpochToken, wanted: FenceState) -> Result<()> {
        for server in 0..self.control_plane.apiservers().len() {
            let prover = KubeFenceProver::new(self.control_plane.admin_at(server).await?, "quarterdeck");
            eventually(&format!("the fence is {wanted:?} on server {server}"), LONG, async || {
                let state = prover.verify(token).await.map_err(|error| anyhow!(error))?;
                ensure!(state == wanted, "{state:?}");
                Ok(())
            })
            .await?;
        }
        Ok(())
    }

    /// Replicas to be started here.
    pub(super) fn deck(&self) -> DeckBuilder<'_> {
        let urls = self.proxies.iter().map(Proxy::url);
        Deck::builder(&self.control_plane).replicas(REPLICAS).servers(urls).without_install().args(ARGS)
    }

    /// Starts replicas and waits until one works and the others are ready to.
    pub(super) async fn enter(&self, deck: DeckBuilder<'_>) -> Result<Fighters> {
        self.enter_with(deck, TIMING).await
    }

    /// [`Arena::enter`] with another Lease timing.
    pub(super) async fn enter_with(&self, deck: DeckBuilder<'_>, timing: [&str; 3]) -> Result<Fighters> {
        let mut audit = self.control_plane.audit_from_now()?;
        let deck = deck.args(timing).start().await?;
        deck.ready(LONG).await?;
        let mut identities = Vec::new();
        for replica in deck.replicas() {
            identities.push(replica.status().await?.identity().context("no identity")?.to_owned());
        }
        let fighters = Fighters { deck, identities };
        let leader = self.leader(&fighters).await?;
        self.works(&mut audit, leader).await?;
        Ok(fighters)
    }

    /// Who holds the Lease.
    pub(super) async fn leader(&self, fighters: &Fighters) -> Result<usize> {
        self.leader_among(&fighters.identities).await
    }

    /// [`Arena::leader`] of those with these names in the Lease.
    pub(super) async fn leader_among(&self, identities: &[String]) -> Result<usize> {
        eventually("a replica leads", LONG, async || self.holder(identities).await?.context("nobody")).await
    }

    /// Returns when a replica other than `old` holds the Lease and has written a slice of every service.
    pub(super) async fn taken_over(&self, fighters: &Fighters, old: usize) -> Result<usize> {
        self.taken_over_among(&fighters.identities, old).await
    }

    /// [`Arena::taken_over`] by one of those with these names in the Lease.
    pub(super) async fn taken_over_among(&self, identities: &[String], old: usize) -> Result<usize> {
        let mut audit = self.control_plane.audit_from_now()?;
        let new = eventually("another replica leads", LONG, async || match self.holder(identities).await? {
            Some(new) if new != old => Ok(new),
            other => bail!("{other:?}"),
        })
        .await?;
        self.works(&mut audit, new).await?;
        Ok(new)
    }

    async fn holder(&self, identities: &[String]) -> Result<Option<usize>> {
        let mut last = Ok(None);
        for server in 0..self.control_plane.apiservers().len() {
            let leases: Api<Lease> = Api::namespaced(self.control_plane.admin_at(server).await?, "kube-system");
            last = match leases.get_opt("quarterdeck").await {
                Ok(lease) => {
                    let holder = lease.and_then(|lease| lease.spec?.holder_identity);
                    let index = |holder: &String| identities.iter().position(|name| name == holder);
                    return Ok(holder.as_ref().and_then(index));
                }
                Err(error) => Err(error.into()),
            };
        }
        last
    }

    /// Returns when a replica has written a slice of every service since `audit` began.
    pub(super) async fn works(&self, audit: &mut AuditReader, replica: usize) -> Result<()> {
        let audit = Mutex::new(audit);
        let what = format!("replica {replica} works for every service");
        eventually(&what, LONG, async || {
            let events = audit.lock().filter(|event| wrote_slice(event, replica) && event.succeeded())?;
            let slices: HashSet<_> = events.iter().map(Event::name).collect();
            ensure!(slices.len() > SERVICES, "{} slices", slices.len());
            Ok(())
        })
        .await
    }

    /// The connection that a replica renews its Lease on; the load must be paused.
    pub(super) async fn lease_connection(&self, replica: usize) -> Result<u64> {
        lease_connection(&self.control_plane, &self.proxies[replica], replica).await
    }

    /// Kills a kube-apiserver.
    pub(super) async fn kill_server(&self, index: usize) -> Result<()> {
        let other = self.control_plane.admin_at((index + 1) % self.control_plane.apiservers().len()).await?;
        let leases: Api<Lease> = Api::namespaced(other, "default");
        let revision = async || -> Result<u64> {
            let list = leases.list(&ListParams::default()).await?;
            Ok(list.metadata.resource_version.context("no version")?.parse()?)
        };
        // Long enough ago for every write of before to be answered and logged.
        let before = revision().await?;
        self.load.two_rounds().await?;
        self.control_plane.apiserver(index).kill().await?;
        let after = revision().await?;
        self.unlogged.lock().push((before, after));
        Ok(())
    }

    /// Ends all faults of all networks.
    pub(super) fn calm(&self) {
        for proxy in &self.proxies {
            proxy.set(Faults::none());
        }
    }

    /// What has happened so far; waits until all of it is known.
    pub(super) async fn history(&self) -> Result<History> {
        let (recorded, until) = self.recorder.seen().await?;
        self.control_plane.settle_audit().await?;
        let mut history = history(self.control_plane.audit().read()?, &recorded, until, "quarterdeck")?;
        let unlogged = self.unlogged.lock();
        let logged = |version: u64| unlogged.iter().all(|(from, to)| !(from..=to).contains(&&version));
        history.orphans.retain(|landed| logged(landed.version));
        Ok(history)
    }
}

/// The kube-apiserver that a replica talks to.
pub(super) fn server_of(replica: usize) -> usize {
    replica % 2
}

/// Did this replica ask for a change of a slice?
pub(super) fn wrote_slice(event: &Event, replica: usize) -> bool {
    event.is_write()
        && event.resource() == "endpointslices.discovery.k8s.io"
        && event.user.groups.contains(&group(replica))
}
