//! The replica's own Lease: what its controllers note for the other replicas.
//!
//! It is written when a note changes, and never renewed: at rest it costs nothing. It does not say
//! that the replica is alive, only what the replica said last; a replica that is told to stop takes
//! its notes back. That of one that crashed and never comes back stays until a person deletes it.

use std::time::Duration;

use anyhow::Context as _;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::{Api, PostParams};
use quarterdeck_runtime::notes::{NOTE_PREFIX, Notes, REPLICAS_NAMESPACE, Texts};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Shortest time between two writes: what changes faster is written once.
const BREATH: Duration = Duration::from_secs(2);
/// Longest time between two tries.
const LONGEST: Duration = Duration::from_secs(300);
/// How long a stop may wait for the notes to be taken back.
const FAREWELL: Duration = Duration::from_millis(500);
/// How often a write that lost a race is tried at once.
const RACES: usize = 3;

/// Writes one replica's Lease.
pub(crate) struct ReplicaLease {
    leases: Api<Lease>,
    name: String,
    identity: String,
}

impl ReplicaLease {
    /// The Lease of the replica whose notes these are; `identity` is its name in the election.
    pub(crate) fn new(client: kube::Client, notes: &Notes, identity: &str) -> Self {
        let leases = Api::namespaced(client, REPLICAS_NAMESPACE);
        Self { leases, name: notes.replica().to_owned(), identity: identity.to_owned() }
    }

    /// Follows the notes until `stop`. Without any, nothing is asked or written.
    pub(crate) async fn follow(self, mut notes: watch::Receiver<Texts>, stop: CancellationToken) {
        let mut said = false;
        loop {
            let texts = notes.borrow_and_update().clone();
            if !texts.is_empty() {
                said |= tokio::select! {
                    () = stop.cancelled() => false,
                    written = self.write_until_done(&mut notes, texts) => written,
                };
            }
            tokio::select! {
                () = stop.cancelled() => break,
                changed = notes.changed() => if changed.is_err() { break },
            }
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep(BREATH) => {}
            }
        }
        if said {
            match tokio::time::timeout(FAREWELL, self.write(&Texts::new())).await {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => tracing::debug!(lease = self.name, ?error, "the notes stay on the replica's Lease"),
                Err(_) => tracing::debug!(lease = self.name, "the notes stay on the replica's Lease: no time left"),
            }
        }
    }

    /// Writes the newest notes, whatever it takes.
    async fn write_until_done(&self, notes: &mut watch::Receiver<Texts>, mut texts: Texts) -> bool {
        let mut wait = BREATH;
        let mut told = String::new();
        loop {
            let error = match self.write(&texts).await {
                Ok(written) => {
                    tracing::debug!(lease = self.name, written, "the replica's Lease says what it reads");
                    return true;
                }
                Err(error) => format!("{error:#}"),
            };
            // Once for each reason: a cluster without the namespace stays so until somebody installs it.
            if error != told {
                tracing::warn!(
                    lease = format!("{REPLICAS_NAMESPACE}/{}", self.name),
                    error,
                    "the other replicas cannot see what this one reads; quarterdeck install brings what it takes"
                );
                told = error;
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(LONGEST);
            texts.clone_from(&notes.borrow_and_update());
        }
    }

    /// Brings the Lease to these notes; says whether that took a write.
    async fn write(&self, texts: &Texts) -> anyhow::Result<bool> {
        for _ in 0..RACES {
            let live = self.leases.get_opt(&self.name).await.context("reading it")?;
            let params = PostParams::default();
            let sent = match live {
                None if texts.is_empty() => return Ok(false),
                None => {
                    let metadata = ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() };
                    let lease = self.with(Lease { metadata, spec: None }, texts);
                    self.leases.create(&params, &lease).await
                }
                Some(live) if notes_of(&live) == *texts => return Ok(false),
                Some(live) => self.leases.replace(&self.name, &params, &self.with(live, texts)).await,
            };
            match sent {
                Ok(_) => return Ok(true),
                // Somebody wrote in between, such as another replica of the same name.
                Err(kube::Error::Api(status)) if status.code == 409 => {}
                Err(error) => return Err(error).context("writing it"),
            }
        }
        anyhow::bail!("somebody else writes it all the time: do two replicas have the same name (--replica-name)?")
    }

    /// The Lease with these notes in the place of those it has.
    fn with(&self, mut lease: Lease, texts: &Texts) -> Lease {
        let annotations = lease.metadata.annotations.get_or_insert_default();
        annotations.retain(|key, _| !key.starts_with(NOTE_PREFIX));
        annotations.extend(texts.clone());
        lease.metadata.managed_fields = None;
        let spec = lease.spec.get_or_insert_with(LeaseSpec::default);
        spec.holder_identity = (!texts.is_empty()).then(|| self.identity.clone());
        spec.renew_time = Some(MicroTime(Timestamp::now()));
        lease
    }
}

fn notes_of(lease: &Lease) -> Texts {
    let annotations = lease.metadata.annotations.iter().flatten();
    annotations.filter(|(key, _)| key.starts_with(NOTE_PREFIX)).map(|(key, text)| (key.clone(), text.clone())).collect()
}
