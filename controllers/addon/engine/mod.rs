//! The engine: what all sources share. It holds what was read of the sources, what is known of the
//! cluster, and what was decided; [`run`] brings one addon to where it should be, [`pass`] decides
//! about removals.

mod argo;
mod board;
mod channel;
mod channel_prune;
mod depend;
mod edited;
mod keiko;
mod leave;
mod live;
mod mirror;
mod outcome;
mod overlay;
mod pass;
mod pki;
mod recall;
mod removal;
mod resources;
mod revisions;
mod run;
mod settle;
mod sources;
mod stored;
mod tell;
mod told;
mod watches;
mod workflows;
mod write;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use parking_lot::Mutex;
use quarterdeck_api::addon as api;
use quarterdeck_api::version::Version;
use quarterdeck_runtime::informer::{Informers, Lister};
use quarterdeck_runtime::object::{ObjectKey, parse_version};
use quarterdeck_runtime::queue::Enqueue;
use quarterdeck_runtime::view::PodView;
use tokio::sync::watch;
use tokio::time::Instant;

use super::applyset::ID_LABEL;
use super::drift::Known;
use super::fields::Overrides;
use super::health::HealthRules;
use super::ident::{GroupKind, Ident};
use super::kinds::{self, Kinds};
use super::metrics::Metrics;
use super::parent::{self, Parent, State};
use super::plan::Wanted;
use super::predecessor;
use super::removal::{Named, Verdict};
use super::revision::Mode as Rollback;
use super::source::channel::ChannelReading;
use super::source::{Addon, AddonId, OBJECTS, Snapshot, is_same};
use overlay::Overlay;
use watches::{Watch, WatchId};

/// What a reconcile is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Key {
    /// Removals of a whole source.
    Pass(&'static str),
    /// One addon.
    Addon(AddonId),
    /// The Addon object that shows an addon of another source.
    Mirror(AddonId),
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pass(source) => f.write_str(source),
            Self::Addon(id) => id.fmt(f),
            Self::Mirror(id) => write!(f, "mirror of {id}"),
        }
    }
}

/// The fixed parts of an engine.
pub(crate) struct Parts {
    /// Informers that read as the account that writes.
    pub(crate) informers: Informers,
    /// The controller's queue.
    pub(crate) queue: Enqueue<Key>,
    /// Pods of the predecessor's namespace.
    pub(crate) pods: Lister<PodView>,
    /// Parents that are ConfigMaps.
    pub(crate) parents: Lister<ConfigMap>,
    /// Addon objects, which are their own parents, and the mirrors of other addons.
    pub(crate) objects: Lister<api::Addon>,
    /// Tells the server's version to the channels.
    pub(crate) kubernetes: watch::Sender<Option<Version>>,
    /// Whose changes are taken back.
    pub(crate) overrides: Overrides,
    /// The same, and kOps', for new versions of channels' addons.
    pub(crate) channel_overrides: Overrides,
    /// Kinds that a person has to let go.
    pub(crate) protected: BTreeSet<GroupKind>,
    /// What is done about revisions of addons whose source does not say.
    pub(crate) rollback: Rollback,
    /// Health by kind.
    pub(crate) health: HealthRules,
    /// Metrics.
    pub(crate) metrics: Metrics,
}

/// What all sources share.
pub(crate) struct Engine {
    parts: Parts,
    kinds: Kinds,
    shared: Mutex<Shared>,
    resources: resources::Resources,
    keiko: predecessor::Keiko,
    workflows: workflows::Workflows,
}

/// What changes.
#[derive(Default)]
struct Shared {
    /// What the sources say.
    read: BTreeMap<&'static str, Arc<Snapshot>>,
    /// Revisions that take the place of what a source says.
    overlays: HashMap<AddonId, Overlay>,
    /// What the sources say, with those in place: what is to be.
    sources: BTreeMap<&'static str, Arc<Snapshot>>,
    named: Arc<Named>,
    /// Which addon an object belongs to, where several name it.
    claims: HashMap<Ident, AddonId>,
    /// CRDs that addons bring, by the kind they declare.
    declared: HashMap<GroupKind, Arc<str>>,
    /// Kinds of such CRDs that the server serves.
    established: HashSet<GroupKind>,
    /// Parents as we wrote them last: the cache may lag behind.
    written: HashMap<AddonId, Parent>,
    /// uids of parents that we deleted: the cache may still hold them.
    deleted_parents: HashSet<String>,
    memory: HashMap<AddonId, Memory>,
    /// Which addon a watched object belongs to.
    owners: HashMap<(GroupKind, ObjectKey), AddonId>,
    /// Objects whose deletion was seen and not yet looked into.
    deleted: HashSet<(GroupKind, ObjectKey)>,
    watches: HashMap<WatchId, Watch>,
    /// What the last pass decided, and about which state of the source.
    verdicts: BTreeMap<&'static str, Decided>,
    recent: BTreeMap<AddonId, Recent>,
    /// Addons of which an edit was seen that their parents do not tell yet.
    unnoted: HashSet<AddonId>,
    states: BTreeMap<AddonId, Standing>,
    observing: Option<bool>,
    /// What was told of keiko's addon-manager.
    keiko: Option<bool>,
    /// What was told of the sources, in events.
    told: BTreeMap<&'static str, sources::Told>,
    /// What the channels said last.
    channels: Option<Arc<ChannelReading>>,
    /// Watches on the CAs and issuers of channels' addons.
    pki: HashMap<AddonId, pki::Watched>,
    /// When the server's version was read.
    version_read: Option<Instant>,
}

/// How an addon was found last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Standing {
    /// How it is.
    pub(super) state: State,
    /// How many objects of it wait to be removed.
    pub(super) held: usize,
    /// The version of it that is applied whole.
    pub(super) version: Arc<str>,
}

impl Standing {
    /// Whether others may rest on this version.
    fn serves(&self, version: &str) -> bool {
        matches!(self.state, State::Ready | State::Held) && *self.version == *version
    }
}

/// What a pass decided.
#[derive(Clone, Default)]
struct Decided {
    digest: [u8; 32],
    verdicts: BTreeMap<AddonId, Verdict>,
}

/// A removal that was let go.
struct Recent {
    at: Instant,
    gone: bool,
    objects: usize,
}

impl Recent {
    /// Whether it counts together with what goes now.
    fn is_recent(&self, now: Instant) -> bool {
        now.duration_since(self.at) < pass::RECENT
    }
}

/// What is remembered of an addon's objects.
#[derive(Default)]
struct Memory {
    known: HashMap<Ident, Known>,
    repairs: HashMap<Ident, VecDeque<Instant>>,
    /// How often in a row something was waited for.
    waits: u32,
    /// Since when objects of this version have been on their way.
    unready: Option<(Instant, Arc<str>)>,
    /// Whether what the manager before left was taken for known.
    recalled: bool,
    /// When that was begun.
    begun: Option<Instant>,
    /// Since when the server has refused something of this version for what it says.
    refused: Option<(Instant, Arc<str>)>,
}

impl Memory {
    /// Forgets objects that are not wanted any more.
    fn keep(&mut self, wanted: &[Wanted]) {
        let wanted: HashSet<&Ident> = wanted.iter().map(|wanted| &wanted.ident).collect();
        self.known.retain(|ident, _| wanted.contains(ident));
        self.repairs.retain(|ident, _| wanted.contains(ident));
    }

    /// When what is waited for is looked at again: soon, and rarely when it takes long.
    fn patience(&mut self, waiting: bool) -> Option<Duration> {
        /// Looks that come soon: most of what is waited for takes a second or two.
        const SOON_LOOKS: u32 = 10;
        const RARELY: Duration = Duration::from_secs(30);
        self.waits = if waiting { self.waits.saturating_add(1) } else { 0 };
        let doublings = self.waits.saturating_sub(SOON_LOOKS).min(10);
        waiting.then(|| (run::SOON * 2_u32.pow(doublings)).min(RARELY))
    }
}

impl Engine {
    /// An engine without sources.
    #[must_use]
    pub(crate) fn new(parts: Parts) -> Arc<Self> {
        let engine = Arc::new(Self {
            keiko: predecessor::Keiko::new(&parts.informers),
            parts,
            kinds: Kinds::default(),
            shared: Mutex::default(),
            resources: resources::Resources::default(),
            workflows: workflows::Workflows::default(),
        });
        engine.watch_parents();
        engine.watch_predecessor();
        engine
    }

    /// Takes a new reading of a source, and wakes what it concerns.
    pub(crate) fn publish(self: &Arc<Self>, source: &'static str, snapshot: Snapshot) {
        self.parts.metrics.read(source, &snapshot);
        self.take(source, Some(snapshot));
    }

    /// Takes a new reading of a source, or the one before with other overlays, and wakes what it concerns.
    fn take(self: &Arc<Self>, source: &'static str, reading: Option<Snapshot>) {
        let mut shared = self.shared.lock();
        let Some(snapshot) = shared.overlaid(source, reading) else { return };
        let before = shared.sources.insert(source, Arc::clone(&snapshot));
        if before.as_ref().is_some_and(|before| **before == *snapshot) {
            drop(shared);
            // Once a minute, on every replica.
            self.stop_unused_watches();
            return;
        }
        let problem = |snapshot: &Snapshot| snapshot.problem.clone();
        if let Some(problem) =
            problem(&snapshot).filter(|new| before.as_deref().and_then(problem).as_ref() != Some(new))
        {
            tracing::warn!(source, problem, "the source cannot be read whole; nothing is removed");
        } else if snapshot.problem.is_none() && before.as_deref().and_then(problem).is_some() {
            tracing::info!(source, "the source is read whole again");
        }
        // What moved from one addon to another concerns both, whichever of them changed.
        let mut woken = shared.retake(&|id, ident| self.holds(id, ident));
        let changed = snapshot.addons.values().filter(|addon| {
            let before = before.as_ref().and_then(|before| before.addons.get(&addon.id.name));
            before.is_none_or(|before| !is_same(before, addon))
        });
        let changed: Vec<Arc<Addon>> = changed.cloned().collect();
        woken.extend(changed.iter().map(|addon| addon.id.clone()));
        let gone = before.iter().flat_map(|before| before.addons.values());
        let gone = gone.filter(|addon| !snapshot.addons.contains_key(&addon.id.name));
        let packages = gone.chain(&changed).filter_map(|addon| Some(&*addon.package.as_ref()?.name));
        woken.extend(shared.dependents(&packages.collect::<Vec<_>>()));
        drop(shared);
        for addon in &changed {
            for problem in &addon.problems {
                tracing::warn!(addon = %addon.id, %problem, "in a manifest");
            }
            self.warm(addon);
        }
        if source == OBJECTS {
            self.watch_resources(&snapshot);
        }
        self.stop_unused_watches();
        if before.is_none() {
            self.wake_mirrors();
        }
        woken.into_iter().for_each(|id| self.parts.queue.add(Key::Addon(id)));
        self.parts.queue.add(Key::Pass(source));
    }

    /// Watches the kinds of an addon that need no question, so that a follower is ready to lead.
    fn warm(self: &Arc<Self>, addon: &Addon) {
        for object in &addon.objects {
            if let Some(kind) = kinds::built_in(&object.ident.kind, &object.version) {
                self.watch(WatchId::everywhere(&kind, object.mode));
            }
        }
    }

    /// Whether an object stands in the inventory of an Addon object.
    fn holds(&self, id: &AddonId, ident: &Ident) -> bool {
        let object = self.parts.objects.get(&parent::ident(id).key());
        let status = object.as_ref().and_then(|object| object.status.as_ref());
        let mut members = status.into_iter().flat_map(|status| &status.inventory);
        members.any(|member| {
            Ident::parse(member.split(' ').next().unwrap_or_default()).is_some_and(|one| one.may_be(ident))
        })
    }

    fn addon(&self, id: &AddonId) -> Option<Arc<Addon>> {
        self.shared.lock().sources.get(id.source)?.addons.get(&id.name).cloned()
    }

    fn snapshot(&self, source: &str) -> Option<Arc<Snapshot>> {
        self.shared.lock().sources.get(source).cloned()
    }

    fn named(&self) -> Arc<Named> {
        Arc::clone(&self.shared.lock().named)
    }

    /// What was decided about an addon, if it was decided about the source as it is now.
    fn verdict(&self, id: &AddonId) -> Option<Option<Verdict>> {
        let shared = self.shared.lock();
        let snapshot = shared.sources.get(id.source)?;
        let decided = shared.verdicts.get(id.source).filter(|decided| decided.digest == snapshot.digest)?;
        Some(decided.verdicts.get(id).cloned())
    }

    /// Whether addons of a source are only looked at.
    fn observing(&self, source: &str) -> bool {
        let keiko = || self.keiko.sight(Instant::now()).has_the_word();
        self.observing_all() || (source == OBJECTS && keiko())
    }

    /// Whether all addons are only looked at.
    fn observing_all(&self) -> bool {
        self.parts.pods.all().iter().any(|pod| predecessor::is_alive(pod))
    }

    /// The newest known state of a parent.
    fn parent(&self, id: &AddonId) -> Option<Parent> {
        let key = parent::ident(id).key();
        let cached = if id.source == OBJECTS {
            self.parts.objects.get(&key).and_then(|addon| parent::read_object(&addon))
        } else {
            self.parts.parents.get(&key).and_then(|map| parent::read(&map))
        };
        let shared = self.shared.lock();
        let cached = cached.filter(|cached| !shared.deleted_parents.contains(&cached.uid));
        match (cached, shared.written.get(id)) {
            (Some(cached), Some(written)) => {
                let version = |parent: &Parent| parse_version(&parent.resource_version);
                Some(if version(&cached) >= version(written) { cached } else { written.clone() })
            }
            (cached, written) => cached.or_else(|| written.cloned()),
        }
    }

    /// All parents of a source.
    fn parents_of(&self, source: &'static str) -> BTreeMap<AddonId, Parent> {
        let mut ids: BTreeSet<AddonId> = self
            .all_parents()
            .filter(|parent| parent.source == source)
            .map(|parent| AddonId { source, name: parent.addon })
            .collect();
        ids.extend(self.shared.lock().written.keys().filter(|id| id.source == source).cloned());
        ids.into_iter().filter_map(|id| Some((id.clone(), self.parent(&id)?))).collect()
    }

    /// All parents, as the caches show them.
    fn all_parents(&self) -> impl Iterator<Item = Parent> {
        let maps = self.parts.parents.all().into_iter().filter_map(|map| parent::read(&map));
        maps.chain(self.parts.objects.all().into_iter().filter_map(|addon| parent::read_object(&addon)))
    }

    /// Whether a set is one of ours.
    fn is_our_set(&self, set: &str) -> bool {
        let labelled = |labels: Option<&BTreeMap<String, String>>| {
            labels.and_then(|labels| labels.get(ID_LABEL)).is_some_and(|label| label == set)
        };
        let maps = self.parts.parents.all();
        let objects = self.parts.objects.all();
        if maps.iter().any(|map| labelled(map.metadata.labels.as_ref()) && parent::read(map).is_some())
            || objects.iter().any(|addon| labelled(addon.metadata.labels.as_ref()) && !addon.is_mirror())
        {
            return true;
        }
        let shared = self.shared.lock();
        let addons = shared.sources.values().flat_map(|snapshot| snapshot.addons.values()).map(|addon| &addon.id);
        shared.written.keys().chain(addons).any(|id| parent::set_id(id) == set)
    }

    /// How an addon was found last by this process.
    fn known_state(&self, id: &AddonId) -> Option<State> {
        self.shared.lock().states.get(id).map(|standing| standing.state)
    }

    /// Notes how an addon is; `None` when it is no more. Wakes those that wait for it.
    fn set_state(&self, id: &AddonId, standing: Option<&Standing>) {
        let mut shared = self.shared.lock();
        let before = match standing {
            Some(standing) => shared.states.insert(id.clone(), standing.clone()),
            None => shared.states.remove(id),
        };
        if before.as_ref() == standing {
            return;
        }
        self.parts.metrics.states(shared.states.iter().map(|(id, standing)| (id, standing.state, standing.held)));
        let addon = shared.sources.get(id.source).and_then(|snapshot| snapshot.addons.get(&id.name));
        let package = addon.and_then(|addon| addon.package.as_ref()).map(|package| Arc::clone(&package.name));
        let woken = package.map_or_else(Vec::new, |package| shared.dependents(&[&package]));
        drop(shared);
        woken.into_iter().filter(|other| other != id).for_each(|other| self.parts.queue.add(Key::Addon(other)));
    }

    /// Notes that an addon came to nothing, where its parent may not be able to tell.
    fn note_failure(&self, id: &AddonId) {
        let before = self.shared.lock().states.get(id).cloned();
        if before.as_ref().is_none_or(|before| before.state != State::Degraded) {
            let (held, version) = before.map_or((0, "".into()), |before| (before.held, before.version));
            self.set_state(id, Some(&Standing { state: State::Degraded, held, version }));
        }
    }
}

impl Shared {
    /// All addons as they are to be.
    fn addons(&self) -> impl Iterator<Item = &Arc<Addon>> {
        self.sources.values().flat_map(|snapshot| snapshot.addons.values())
    }

    /// Draws up again what follows from the sources; returns the addons that lost an object to
    /// another, or took one over.
    ///
    /// Addon objects come last: whoever may write one does not take an object from a master's disk or a
    /// channel. Of two Addon objects the one that has the object in its inventory (`holds`) keeps it,
    /// however the other is called.
    fn retake(&mut self, holds: &dyn Fn(&AddonId, &Ident) -> bool) -> BTreeSet<AddonId> {
        let mut named = Named::default();
        let before = std::mem::take(&mut self.claims);
        self.declared.clear();
        self.sources.values().for_each(|snapshot| named.add(snapshot));
        let mut addons: Vec<Arc<Addon>> = self.addons().cloned().collect();
        // What moved to another addon stays there when this one goes back.
        addons.sort_by_key(|addon| (self.is_rolled_back(addon), addon.id.source == OBJECTS));
        for addon in addons {
            for object in &addon.objects {
                let namespaced = kinds::built_in(&object.ident.kind, &object.version).map(|kind| kind.namespaced);
                let ident = match namespaced {
                    Some(namespaced) => object.resolved(namespaced),
                    None => object.ident.clone(),
                };
                let claim = self.claims.entry(ident.clone()).or_insert_with(|| addon.id.clone());
                let disputed = *claim != addon.id && claim.source == OBJECTS;
                if disputed && !holds(claim, &ident) && holds(&addon.id, &ident) {
                    *claim = addon.id.clone();
                }
                if let Some(declared) = kinds::declared(object) {
                    self.declared.insert(declared.kind, declared.crd);
                }
            }
        }
        self.named = Arc::new(named);
        let moved = before.iter().filter_map(|(ident, before)| Some((before, self.claims.get(ident)?)));
        moved.filter(|(before, now)| before != now).flat_map(|(before, now)| [before.clone(), now.clone()]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_takes_long_is_looked_at_rarely() {
        let mut memory = Memory::default();
        let waits: Vec<_> = (0..30).filter_map(|_| memory.patience(true)).collect();
        assert_eq!(waits[..10], [run::SOON; 10]);
        assert_eq!(waits[10..12], [run::SOON * 2, run::SOON * 4]);
        assert_eq!(waits[29], Duration::from_secs(30));
        assert_eq!(memory.patience(false), None);
        assert_eq!(memory.patience(true), Some(run::SOON));
    }
}
