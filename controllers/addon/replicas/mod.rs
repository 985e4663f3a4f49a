//! Masters whose directories differ. Each replica, leading or not, says on a Lease of its own what it
//! reads of its master's disk; each compares, and the leader tells. Nothing is decided on it: the
//! leader applies its own files, whatever others have.
//!
//! A replica that is told to stop takes its record back; that of one that crashed counts until the replica is back, or
//! its Lease is collected.

mod compare;
mod record;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::ObjectReference;
use parking_lot::Mutex;
use prometheus::{GaugeVec, Opts, Registry};
use quarterdeck_runtime::client::Identity;
use quarterdeck_runtime::events::Recorder;
use quarterdeck_runtime::informer::{Change, Informers, Lister, Selection};
use quarterdeck_runtime::notes::{Notes, REPLICAS_NAMESPACE};
use quarterdeck_runtime::object::{Cached as _, Kind};

pub use compare::{Difference, What, text};
pub use record::{BadRecord, Record, annotation};

use super::reasons;
use super::source::Snapshot;

/// Most replicas that the metric names.
const MOST_NAMED: usize = 16;

/// What all replicas read.
pub struct Replicas {
    notes: Notes,
    leases: Lister<Lease>,
    differs: GaugeVec,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// What this replica reads, by source.
    own: BTreeMap<&'static str, Record>,
    /// What was told of a replica and a source.
    told: BTreeMap<(String, &'static str), String>,
}

impl Replicas {
    /// Compares through these informers, and says its own on `notes`. `changed` is called with a source
    /// when another replica's reading of it may have changed; it may only enqueue.
    pub fn new(
        informers: &Informers,
        notes: Notes,
        registry: &Registry,
        changed: impl Fn(&'static str) + Send + Sync + 'static,
    ) -> Arc<Self> {
        let selection = Selection { namespace: Some(REPLICAS_NAMESPACE.to_owned()), ..Selection::default() };
        // As who writes them, for nobody else needs to see them; whole, as the manager reads them: one watch serves both.
        let leases = informers.reading_as(Identity::Manager).dynamic::<Lease>(Kind::of::<Lease>(), selection);
        let differs = GaugeVec::new(
            Opts::new(
                "quarterdeck_addon_source_differs",
                "Differences between what another replica reads of its disk and what this one does; at most 16 replicas are named.",
            ),
            &["replica"],
        )
        .expect("the name and labels are constant and legal");
        let _ = registry.register(Box::new(differs.clone()));
        let replicas = Arc::new(Self { notes, leases, differs, state: Mutex::default() });
        let weak = Arc::downgrade(&replicas);
        replicas.leases.on_change(move |change| {
            let Some(replicas) = weak.upgrade() else { return };
            if change.object().key().name() == replicas.notes.replica() {
                return;
            }
            // A renewal says nothing new.
            if let Change::Updated { old, new } = &change
                && old.metadata.annotations == new.metadata.annotations
            {
                return;
            }
            if let Change::Added(lease) | Change::Updated { new: lease, .. } = &change {
                warn_of_garbage(lease);
            }
            // Here, for nothing of a follower's queue is worked on.
            replicas.show();
            replicas.sources().into_iter().for_each(&changed);
        });
        replicas
    }

    /// Takes a reading of a source of this replica. One that has not settled is a copy in progress,
    /// and says nothing yet.
    pub fn publish(&self, source: &'static str, snapshot: &Snapshot) {
        if snapshot.complete && !snapshot.settled {
            return;
        }
        let record = Record::of(snapshot);
        self.notes.pin(&record::note(source), record.to_text());
        self.state.lock().own.insert(source, record);
        self.show();
    }

    /// In what the readings of the other replicas differ from ours.
    #[must_use]
    pub fn diverged(&self, source: &'static str) -> Vec<Difference> {
        let Some(own) = self.state.lock().own.get(source).cloned() else { return Vec::new() };
        let key = annotation(source);
        let mut all = Vec::new();
        for lease in self.others() {
            let Some(record) = note(&lease, &key).and_then(|text| Record::read(text).ok()) else { continue };
            all.extend(compare::differences(lease.key().name(), &own, &record));
        }
        all
    }

    /// Tells, as the leader, what differs since it told last.
    pub fn report(&self, recorder: &Recorder, source: &'static str) {
        self.show();
        let differences = self.diverged(source);
        let by_replica = compare::by_replica(&differences);
        let texts: BTreeMap<&str, String> =
            by_replica.iter().filter_map(|(replica, all)| Some((*replica, text(all)?))).collect();
        let mut state = self.state.lock();
        for (replica, text) in &texts {
            let key = ((*replica).to_owned(), source);
            if state.told.get(&key) != Some(text) {
                tracing::warn!(source, replica, differs = text, "masters differ; this one's files are applied");
                let message = format!("{source}: {text}; what {} reads is applied", self.notes.replica());
                recorder.event(&reference(replica), reasons::DIFFERS, message);
                state.told.insert(key, text.clone());
            }
        }
        let agree: Vec<(String, &'static str)> = state
            .told
            .keys()
            .filter(|(replica, of)| *of == source && !texts.contains_key(&**replica))
            .cloned()
            .collect();
        for key in agree {
            tracing::info!(source, replica = key.0, "this master differs no more");
            state.told.remove(&key);
            if self.others().iter().any(|lease| lease.key().name() == key.0) {
                recorder.event(&reference(&key.0), reasons::AGREES, format!("{source}: it differs no more"));
            }
        }
    }

    /// This replica's own Lease, as an event is about it.
    #[must_use]
    pub fn reference(&self) -> ObjectReference {
        reference(self.notes.replica())
    }

    /// The Leases of the other replicas.
    fn others(&self) -> Vec<Arc<Lease>> {
        let mut all = self.leases.all();
        all.retain(|lease| lease.key().name() != self.notes.replica());
        all.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
        all
    }

    fn sources(&self) -> BTreeSet<&'static str> {
        self.state.lock().own.keys().copied().collect()
    }

    fn show(&self) {
        let all: Vec<Difference> = self.sources().into_iter().flat_map(|source| self.diverged(source)).collect();
        let differing = compare::by_replica(&all);
        self.differs.reset();
        let sources = self.sources();
        let speaks = |lease: &Arc<Lease>| sources.iter().any(|source| note(lease, &annotation(source)).is_some());
        for lease in self.others().iter().filter(|lease| speaks(lease)).take(MOST_NAMED) {
            let count = differing.get(lease.key().name()).map_or(0, Vec::len);
            let count = f64::from(u32::try_from(count).unwrap_or(u32::MAX));
            self.differs.with_label_values(&[lease.key().name()]).set(count);
        }
    }
}

/// What a replica's Lease says under a key.
fn note<'l>(lease: &'l Lease, key: &str) -> Option<&'l String> {
    lease.metadata.annotations.as_ref()?.get(key)
}

fn warn_of_garbage(lease: &Lease) {
    let prefix = annotation("");
    for (key, text) in lease.metadata.annotations.iter().flatten().filter(|(key, _)| key.starts_with(&prefix)) {
        if let Err(error) = Record::read(text) {
            tracing::warn!(replica = lease.key().name(), key, %error, "what this replica says of its files cannot be read");
        }
    }
}

/// A replica's Lease, as an event is about it.
fn reference(replica: &str) -> ObjectReference {
    ObjectReference {
        api_version: Some("coordination.k8s.io/v1".to_owned()),
        kind: Some("Lease".to_owned()),
        namespace: Some(REPLICAS_NAMESPACE.to_owned()),
        name: Some(replica.to_owned()),
        ..ObjectReference::default()
    }
}
