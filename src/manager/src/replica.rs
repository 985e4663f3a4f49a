//! The replica's own Lease: that it is alive, where it serves, when it led, and what its controllers note for the other
//! replicas.
//!
//! It is renewed every [`RENEWAL`], which is the one write of a replica at rest. A replica that is told to stop takes its
//! name and its notes back and leaves its terms; the Lease of one that does not come back is collected by the leader.

use std::time::Duration;

use anyhow::Context as _;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::{Api, PostParams};
use quarterdeck_election::clock::{BootClock, Clock as _};
use quarterdeck_election::{ElectionStatus, Leadership};
use quarterdeck_runtime::notes::{NOTE_PREFIX, Notes, REPLICAS_NAMESPACE, Texts};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::terms::TermBook;

/// Time between two renewals.
const RENEWAL: Duration = Duration::from_secs(10);
/// `leaseDurationSeconds`: a replica that has not renewed for this long is not alive.
pub(crate) const DURATION_SECONDS: i32 = 40;
/// Shortest time between two writes: what changes faster is written once.
const BREATH: Duration = Duration::from_secs(2);
/// Longest time between two tries where the server refuses them.
const LONGEST: Duration = Duration::from_secs(300);
/// How long a stop may wait for the notes to be taken back.
const FAREWELL: Duration = Duration::from_millis(500);
/// How often a write that lost a race is tried at once.
const RACES: usize = 3;

/// Note: where the replica serves, `host:port`.
pub(crate) const ADDRESS_NOTE: &str = "serving-address";
/// Note: SHA-256 of the certificate that it serves with, DER, in hexadecimal digits.
pub(crate) const CERTIFICATE_NOTE: &str = "serving-certificate-sha256";
/// Note: its version.
pub(crate) const VERSION_NOTE: &str = "version";
/// Note: the Lease that it stands for election under, `namespace/name`.
pub(crate) const ELECTION_NOTE: &str = "election";
/// Note: its last terms of leadership, JSON; it stays when the replica leaves.
pub(crate) const TERMS_NOTE: &str = "terms";

/// The key of a note's annotation.
pub(crate) fn annotation(note: &str) -> String {
    format!("{NOTE_PREFIX}{note}")
}

/// What a replica follows of its election.
pub(crate) struct Standing {
    /// Whether it leads.
    pub(crate) leadership: watch::Receiver<Leadership>,
    /// What the elector tells.
    pub(crate) status: watch::Receiver<ElectionStatus>,
}

/// Writes one replica's Lease.
pub(crate) struct ReplicaLease {
    leases: Api<Lease>,
    name: String,
    identity: String,
    book: TermBook,
    standing: Option<Standing>,
    /// The Lease as the server had it after our last write: a renewal needs no read.
    last: Option<Lease>,
    /// Whether the terms of an earlier process have been looked for.
    inherited: bool,
    /// Whether anything was ever said: only then is there something to take back.
    said: bool,
}

/// Why a write came to nothing.
enum Failed {
    /// The server said no, and will for a while: rights, or the namespace, are missing.
    Refused(String),
    /// It may go through the next time.
    Passing(String),
}

impl ReplicaLease {
    /// The Lease of the replica whose notes these are; `identity` is its name in the election, `standing` what it
    /// follows of that, if there is one.
    pub(crate) fn new(client: kube::Client, notes: &Notes, identity: &str, standing: Option<Standing>) -> Self {
        Self {
            leases: Api::namespaced(client, REPLICAS_NAMESPACE),
            name: notes.replica().to_owned(),
            identity: identity.to_owned(),
            book: TermBook::new(identity),
            standing,
            last: None,
            inherited: false,
            said: false,
        }
    }

    /// Renews the Lease, and writes what changes, until `stop`; then takes it back.
    pub(crate) async fn follow(mut self, mut notes: watch::Receiver<Texts>, stop: CancellationToken) {
        let mut told = String::new();
        let mut wait = BREATH;
        loop {
            notes.mark_unchanged();
            self.look();
            let texts = self.texts(&notes.borrow());
            let due = Instant::now();
            let sent = tokio::select! {
                () = stop.cancelled() => break,
                sent = self.write(&texts) => sent,
            };
            let next = match sent {
                Ok(()) => {
                    told.clear();
                    wait = BREATH;
                    due + RENEWAL
                }
                Err(failed) => {
                    let (error, longest) = match failed {
                        Failed::Refused(error) => (error, LONGEST),
                        Failed::Passing(error) => (error, RENEWAL),
                    };
                    // Once for each reason: a cluster without the namespace stays so until somebody installs it.
                    if error != told {
                        tracing::warn!(
                            lease = format!("{REPLICAS_NAMESPACE}/{}", self.name),
                            error,
                            "the other replicas cannot see this one; quarterdeck install brings what it takes"
                        );
                        told = error;
                    }
                    let next = Instant::now() + wait;
                    wait = (wait * 2).min(longest);
                    next
                }
            };
            tokio::select! {
                () = stop.cancelled() => break,
                () = self.something_to_say(&mut notes, &texts, due + BREATH) => {}
                () = tokio::time::sleep_until(next) => {}
            }
        }
        let election = annotation(ELECTION_NOTE);
        let kept =
            notes.borrow().iter().filter(|(key, _)| **key == election).map(|(k, v)| (k.clone(), v.clone())).collect();
        self.leave(&kept).await;
    }

    /// Resolves when there is something new to say, not before `earliest`.
    async fn something_to_say(&mut self, notes: &mut watch::Receiver<Texts>, said: &Texts, earliest: Instant) {
        loop {
            let changed = match &mut self.standing {
                None => notes.changed().await.is_ok(),
                Some(Standing { leadership, status }) => tokio::select! {
                    changed = notes.changed() => changed.is_ok(),
                    changed = leadership.changed() => changed.is_ok(),
                    changed = status.changed() => changed.is_ok(),
                },
            };
            if !changed {
                // Whoever spoke is gone: the process stops.
                std::future::pending::<()>().await;
            }
            self.look();
            let texts = self.texts(&notes.borrow());
            if texts != *said {
                break;
            }
        }
        tokio::time::sleep_until(earliest).await;
    }

    /// Notes what became of the election.
    fn look(&mut self) {
        if let Some(Standing { leadership, status }) = &mut self.standing {
            let (leadership, status) = (leadership.borrow_and_update(), status.borrow_and_update());
            self.book.look(BootClock.now(), Timestamp::now(), &leadership, &status);
        }
    }

    /// All that the Lease says.
    fn texts(&self, notes: &Texts) -> Texts {
        let mut texts = notes.clone();
        if !self.book.terms().is_empty() {
            texts.insert(annotation(TERMS_NOTE), self.book.to_text());
        }
        texts
    }

    /// Takes name and notes back, but for these and the terms.
    async fn leave(mut self, kept: &Texts) {
        self.look();
        let texts = self.texts(kept);
        if !self.said {
            return;
        }
        self.identity.clear();
        match tokio::time::timeout(FAREWELL, self.write(&texts)).await {
            Ok(Ok(())) => {}
            Ok(Err(Failed::Refused(error) | Failed::Passing(error))) => {
                tracing::debug!(lease = self.name, error, "the replica's Lease stays as it is");
            }
            Err(_) => tracing::debug!(lease = self.name, "the replica's Lease stays as it is: no time left"),
        }
    }

    /// Renews the Lease with these notes.
    async fn write(&mut self, texts: &Texts) -> Result<(), Failed> {
        let params = PostParams::default();
        for _ in 0..RACES {
            let live = match self.last.take() {
                Some(last) => Some(last),
                None => self.leases.get_opt(&self.name).await.context("reading it").map_err(failed)?,
            };
            let mut texts = texts.clone();
            self.inherit(live.as_ref(), &mut texts);
            let known = live.is_some();
            let sent = match live {
                None => {
                    let metadata = ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() };
                    let lease = self.with(Lease { metadata, spec: None }, &texts);
                    self.leases.create(&params, &lease).await
                }
                Some(live) => self.leases.replace(&self.name, &params, &self.with(live, &texts)).await,
            };
            match sent {
                Ok(lease) => {
                    self.last = Some(lease);
                    self.said = true;
                    return Ok(());
                }
                // Somebody wrote in between, such as another replica of the same name, or deleted it.
                Err(kube::Error::Api(status)) if status.code == 409 || (known && status.code == 404) => {}
                Err(error) => return Err(failed(anyhow::Error::new(error).context("writing it"))),
            }
        }
        let why = "somebody else writes it all the time: do two replicas have the same name (--replica-name)?";
        Err(Failed::Passing(why.to_owned()))
    }

    /// Takes over the terms of an earlier process, once.
    fn inherit(&mut self, live: Option<&Lease>, texts: &mut Texts) {
        if std::mem::replace(&mut self.inherited, true) {
            return;
        }
        let key = annotation(TERMS_NOTE);
        if let Some(text) = live.and_then(|lease| lease.metadata.annotations.as_ref()?.get(&key)) {
            self.book.inherit(text);
            texts.insert(key, self.book.to_text());
        }
    }

    /// The Lease with these notes in the place of those it has.
    fn with(&self, mut lease: Lease, texts: &Texts) -> Lease {
        let annotations = lease.metadata.annotations.get_or_insert_default();
        annotations.retain(|key, _| !key.starts_with(NOTE_PREFIX));
        annotations.extend(texts.clone());
        lease.metadata.managed_fields = None;
        let spec = lease.spec.get_or_insert_with(LeaseSpec::default);
        let holder = (!self.identity.is_empty()).then(|| self.identity.clone());
        let now = Some(MicroTime(Timestamp::now()));
        if spec.holder_identity != holder {
            spec.acquire_time.clone_from(&now);
        }
        spec.holder_identity = holder;
        spec.lease_duration_seconds = Some(DURATION_SECONDS);
        spec.renew_time = now;
        lease
    }
}

fn failed(error: anyhow::Error) -> Failed {
    let text = format!("{error:#}");
    match error.downcast_ref::<kube::Error>() {
        Some(kube::Error::Api(status)) if matches!(status.code, 401 | 403 | 404) => Failed::Refused(text),
        _ => Failed::Passing(text),
    }
}
