//! What wakes the engine: its own objects' metadata, the parents, the predecessor.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::{Arc, Weak};

use k8s_openapi::api::core::v1::ConfigMap;
use quarterdeck_api::addon as api;
use quarterdeck_runtime::informer::{Change, Lister, Selection};
use quarterdeck_runtime::object::{Cached as _, Kind, ObjectKey};
use quarterdeck_runtime::view::{Metadata, PodView};

use super::{Engine, Key};
use crate::addon::applyset::PART_OF_LABEL;
use crate::addon::drift::Cached;
use crate::addon::health::{Entire, Health, HealthRules, Observed, is_idle};
use crate::addon::ident::GroupKind;
use crate::addon::manifest::{MODE_LABEL, Mode};
use crate::addon::parent::{self, BackTo, Parent, RELEASE_ANNOTATION};
use crate::addon::plan::Wanted;
use crate::addon::predecessor;
use crate::addon::source::{AddonId, OBJECTS, Object};

/// Which objects one watch shows.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct WatchId {
    kind: Kind,
    mode: Mode,
    /// One namespace, for an account that may not read all of them.
    namespace: Option<Arc<str>>,
}

impl WatchId {
    /// The objects of a kind that are kept in this mode, wherever they are.
    pub(super) fn everywhere(kind: &Kind, mode: Mode) -> Self {
        Self { kind: kind.clone(), mode, namespace: None }
    }

    fn selection(&self) -> Selection {
        let labels = match self.mode {
            Mode::Reconcile => PART_OF_LABEL.to_owned(),
            Mode::EnsureExists => format!("{MODE_LABEL}=EnsureExists"),
        };
        let namespace = self.namespace.as_deref().map(str::to_owned);
        Selection { namespace, labels: Some(labels), fields: None }
    }
}

/// One watch: of metadata, or, where objects have a status, of what tells their health besides.
#[derive(Clone)]
pub(super) enum Watch {
    Plain(Lister<Metadata>),
    Healthy(Lister<Observed>),
    /// Objects whose health is told by a rule.
    Entire(Lister<Entire>),
}

/// An object as a watch shows it.
pub(super) enum Shown {
    Plain(Arc<Metadata>),
    Healthy(Arc<Observed>),
    Entire(Arc<Entire>),
}

impl Shown {
    pub(super) fn metadata(&self) -> &Metadata {
        match self {
            Self::Plain(metadata) => metadata,
            Self::Healthy(observed) => &observed.metadata,
            Self::Entire(entire) => &entire.metadata,
        }
    }

    /// Its health; `None` of an object without a status that tells any.
    pub(super) fn health(&self, rules: &HealthRules) -> Option<Cow<'_, Health>> {
        match self {
            Self::Plain(_) => None,
            Self::Healthy(observed) => Some(Cow::Borrowed(&observed.content)),
            Self::Entire(entire) => Some(Cow::Owned(rules.of(&entire.content.object()))),
        }
    }
}

impl Watch {
    pub(super) fn get(&self, key: &ObjectKey) -> Option<Shown> {
        match self {
            Self::Plain(lister) => lister.get(key).map(Shown::Plain),
            Self::Healthy(lister) => lister.get(key).map(Shown::Healthy),
            Self::Entire(lister) => lister.get(key).map(Shown::Entire),
        }
    }

    pub(super) fn has_synced(&self) -> bool {
        match self {
            Self::Plain(lister) => lister.has_synced(),
            Self::Healthy(lister) => lister.has_synced(),
            Self::Entire(lister) => lister.has_synced(),
        }
    }

    pub(super) fn is_refused(&self) -> bool {
        match self {
            Self::Plain(lister) => lister.refusal().is_some(),
            Self::Healthy(lister) => lister.refusal().is_some(),
            Self::Entire(lister) => lister.refusal().is_some(),
        }
    }

    /// Whether it shows what there is.
    fn is_good(&self) -> bool {
        self.has_synced() && !self.is_refused()
    }
}

/// What files and inventories name.
#[derive(Debug, Default)]
struct Uses {
    /// Kinds of objects in files, with version and mode.
    files: HashSet<(GroupKind, Arc<str>, Mode)>,
    /// Kinds of members of inventories.
    inventories: HashSet<GroupKind>,
    /// Kinds and namespaces of both.
    places: HashSet<(GroupKind, Arc<str>)>,
}

impl Uses {
    fn add_file(&mut self, object: &Object) {
        let kind = &object.ident.kind;
        self.files.insert((kind.clone(), Arc::clone(&object.version), object.mode));
        self.places.insert((kind.clone(), object.resolved(true).namespace));
    }

    fn add_inventory(&mut self, parent: &Parent) {
        for member in parent.content.members.keys() {
            self.inventories.insert(member.kind.clone());
            self.places.insert((member.kind.clone(), Arc::clone(&member.namespace)));
        }
    }

    /// Whether a watch is of use: some file names its kind in its version and mode, or an inventory
    /// names the kind and no file says in which version.
    fn need(&self, watch: &WatchId) -> bool {
        let kind = GroupKind::from(&watch.kind);
        let is_here =
            watch.namespace.as_ref().is_none_or(|here| self.places.contains(&(kind.clone(), Arc::clone(here))));
        let in_file = self.files.contains(&(kind.clone(), (*watch.kind.version).into(), watch.mode));
        let in_inventory = || {
            watch.mode == Mode::Reconcile
                && self.inventories.contains(&kind)
                && !self.files.iter().any(|(named, _, mode)| *named == kind && *mode == Mode::Reconcile)
        };
        is_here && (in_file || in_inventory())
    }
}

impl Engine {
    /// The metadata of members of sets, or of objects that are labelled to exist.
    pub(super) fn watch(self: &Arc<Self>, id: WatchId) -> Watch {
        let group_kind = GroupKind::from(&id.kind);
        let mut shared = self.shared.lock();
        if let Some(watch) = shared.watches.get(&id) {
            return watch.clone();
        }
        // Declared under the lock, as it is stopped under it: what is in the table runs.
        let informers = &self.parts.informers;
        let watch = if id.mode == Mode::Reconcile && self.parts.health.has(&group_kind) {
            Watch::Entire(informers.dynamic::<Entire>(id.kind.clone(), id.selection()))
        } else if id.mode == Mode::EnsureExists || is_idle(&group_kind) {
            Watch::Plain(informers.dynamic::<Metadata>(id.kind.clone(), id.selection()))
        } else {
            Watch::Healthy(informers.dynamic::<Observed>(id.kind.clone(), id.selection()))
        };
        shared.watches.insert(id, watch.clone());
        drop(shared);
        let engine = Arc::downgrade(self);
        match &watch {
            Watch::Plain(lister) => lister.on_change(move |change| {
                let gone = matches!(change, Change::Deleted { .. });
                on_object(&engine, &group_kind, change.object().key(), gone);
            }),
            Watch::Healthy(lister) => lister.on_change(move |change| {
                let gone = matches!(change, Change::Deleted { .. });
                on_object(&engine, &group_kind, change.object().key(), gone);
            }),
            Watch::Entire(lister) => lister.on_change(move |change| {
                let gone = matches!(change, Change::Deleted { .. });
                on_object(&engine, &group_kind, change.object().key(), gone);
            }),
        }
        watch
    }

    /// What the cache says of an object. An account that may not watch a kind everywhere may be
    /// allowed to in the object's namespace.
    pub(super) fn cached<T>(
        self: &Arc<Self>,
        wanted: &Wanted,
        look: impl FnOnce(Cached<'_>, Option<&Health>) -> T,
    ) -> T {
        let everywhere = WatchId::everywhere(&wanted.kind, wanted.mode);
        let here = WatchId { namespace: Some(Arc::clone(&wanted.ident.namespace)), ..everywhere.clone() };
        let mut watch = self.watch(everywhere);
        if !wanted.ident.namespace.is_empty() && !watch.is_good() {
            let narrowed = watch.is_refused() || self.shared.lock().watches.contains_key(&here);
            watch = if narrowed { self.watch(here) } else { watch };
        }
        let held = watch.get(&wanted.ident.key());
        let cached = match &held {
            _ if watch.is_refused() => Cached::Refused,
            _ if !watch.has_synced() => Cached::Unsynced,
            Some(held) => Cached::Held(held.metadata()),
            None => Cached::Missing,
        };
        let health = held.as_ref().and_then(|held| held.health(&self.parts.health));
        look(cached, health.as_deref())
    }

    /// Stops watches of kinds that no file and no inventory names any more, and those of single
    /// namespaces where all may be read again. Nothing else is read anew for it.
    pub(super) fn stop_unused_watches(&self) {
        if !self.parts.parents.has_synced() {
            return;
        }
        let mut uses = Uses::default();
        self.all_parents().for_each(|parent| uses.add_inventory(&parent));
        let mut shared = self.shared.lock();
        let shared = &mut *shared;
        // What cannot be read now may name the kind.
        if shared.sources.values().any(|snapshot| !snapshot.complete) {
            return;
        }
        shared.written.values().for_each(|parent| uses.add_inventory(parent));
        let addons = shared.sources.values().flat_map(|snapshot| snapshot.addons.values());
        addons.flat_map(|addon| &addon.objects).for_each(|object| uses.add_file(object));
        let everywhere: HashSet<(Kind, Mode)> = shared
            .watches
            .iter()
            .filter(|(id, watch)| id.namespace.is_none() && watch.is_good())
            .map(|(id, _)| (id.kind.clone(), id.mode))
            .collect();
        shared.watches.retain(|id, watch| {
            let superseded = id.namespace.is_some() && everywhere.contains(&(id.kind.clone(), id.mode));
            let keep = !superseded && uses.need(id);
            if !keep {
                match watch {
                    Watch::Plain(lister) => self.parts.informers.stop_one(lister),
                    Watch::Healthy(lister) => self.parts.informers.stop_one(lister),
                    Watch::Entire(lister) => self.parts.informers.stop_one(lister),
                }
                tracing::debug!(kind = %id.kind, mode = ?id.mode, namespace = id.namespace.as_deref(), "no addon needs this watch any more");
            }
            keep
        });
    }

    pub(super) fn watch_parents(self: &Arc<Self>) {
        let engine = Arc::downgrade(self);
        self.parts.parents.on_change(move |change| on_parent(&engine, &change));
        let engine = Arc::downgrade(self);
        self.parts.objects.on_change(move |change| on_object_parent(&engine, &change));
    }

    pub(super) fn watch_predecessor(self: &Arc<Self>) {
        let engine = Arc::downgrade(self);
        self.parts.pods.on_change(move |change: Change<'_, PodView>| {
            let (Some(engine), true) = (engine.upgrade(), predecessor::is_predecessor(change.object())) else { return };
            let sources: Vec<_> = engine.shared.lock().sources.keys().copied().collect();
            sources.into_iter().for_each(|source| engine.parts.queue.add(Key::Pass(source)));
        });
        let engine = Arc::downgrade(self);
        self.keiko.on_change(move || {
            if let Some(engine) = engine.upgrade() {
                engine.parts.queue.add(Key::Pass(OBJECTS));
            }
        });
    }
}

fn on_object(engine: &Weak<Engine>, kind: &GroupKind, key: ObjectKey, gone: bool) {
    let Some(engine) = engine.upgrade() else { return };
    let id = (kind.clone(), key);
    let mut shared = engine.shared.lock();
    let Some(owner) = shared.owners.get(&id).cloned() else { return };
    if gone {
        shared.deleted.insert(id);
    }
    drop(shared);
    engine.parts.queue.add(Key::Addon(owner));
}

fn on_parent(engine: &Weak<Engine>, change: &Change<'_, ConfigMap>) {
    let Some(engine) = engine.upgrade() else { return };
    let Some(parent) = parent::read(change.object()) else { return };
    let released = match change {
        Change::Updated { old, new } => release(old) != release(new),
        _ => true,
    };
    engine.parent_changed(&parent, released, matches!(change, Change::Deleted { .. }));
}

fn on_object_parent(engine: &Weak<Engine>, change: &Change<'_, api::Addon>) {
    let Some(engine) = engine.upgrade() else { return };
    if let Some(id) = engine.mirrored(change.object()) {
        // Somebody else's hand: it is written again if it differs.
        engine.parts.queue.add(Key::Mirror(id.clone()));
        let asked = |addon: &api::Addon| BackTo::of(addon);
        let said = match &change {
            Change::Updated { old, new } => asked(old) != asked(new),
            other => asked(other.object()).is_some(),
        };
        if said {
            engine.parts.queue.add(Key::Addon(id));
        }
        return;
    }
    let Some(parent) = parent::read_object(change.object()) else { return };
    let released = match change {
        Change::Updated { old, new } => old.annotation(RELEASE_ANNOTATION) != new.annotation(RELEASE_ANNOTATION),
        _ => true,
    };
    engine.parent_changed(&parent, released, matches!(change, Change::Deleted { .. }));
}

impl Engine {
    /// Wakes what a change of a parent concerns.
    fn parent_changed(&self, parent: &Parent, released: bool, gone: bool) {
        let mut shared = self.shared.lock();
        let source = shared.sources.keys().find(|source| **source == parent.source).copied();
        // A source that has not been read yet wakes everything itself.
        let Some(source) = source else { return };
        let id = AddonId { source, name: Arc::clone(&parent.addon) };
        if gone {
            if shared.written.get(&id).is_some_and(|written| written.uid == parent.uid) {
                shared.written.remove(&id);
            }
            shared.deleted_parents.remove(&parent.uid);
        }
        drop(shared);
        if released {
            self.parts.queue.add(Key::Pass(source));
        }
        // Somebody else's hand: it is written again if it differs.
        self.parts.queue.add(Key::Addon(id));
    }
}

fn release(map: &ConfigMap) -> Option<&String> {
    map.metadata.annotations.as_ref()?.get(RELEASE_ANNOTATION)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addon::manifest::{Format, Limits, decode};

    #[test]
    fn a_watch_is_needed_while_a_file_or_an_inventory_names_its_kind() {
        let text = "{apiVersion: policy/v1, kind: PodDisruptionBudget, metadata: {name: x, namespace: a, labels: {addonmanager.kubernetes.io/mode: Reconcile}}}\n---\n\
                    {apiVersion: v1, kind: Secret, metadata: {name: x, labels: {addonmanager.kubernetes.io/mode: EnsureExists}}}";
        let mut uses = Uses::default();
        for object in decode(text.as_bytes(), Format::Yaml, &Limits::default()).objects {
            uses.add_file(&object.into());
        }
        uses.inventories.extend([GroupKind::new("policy", "PodDisruptionBudget"), GroupKind::new("", "Service")]);
        uses.places.insert((GroupKind::new("", "Service"), "b".into()));
        let budgets = |version| Kind::new("policy", version, "PodDisruptionBudget", "poddisruptionbudgets", true);
        let secrets = || Kind::new("", "v1", "Secret", "secrets", true);
        let services = || Kind::new("", "v1", "Service", "services", true);
        let maps = || Kind::new("", "v1", "ConfigMap", "configmaps", true);
        for (kind, mode, namespace, needed) in [
            (budgets("v1"), Mode::Reconcile, None, true),
            (budgets("v1beta1"), Mode::Reconcile, None, false),
            (budgets("v1"), Mode::EnsureExists, None, false),
            (budgets("v1"), Mode::Reconcile, Some("a"), true),
            (budgets("v1"), Mode::Reconcile, Some("b"), false),
            (secrets(), Mode::EnsureExists, None, true),
            (secrets(), Mode::EnsureExists, Some("default"), true),
            (secrets(), Mode::Reconcile, None, false),
            (services(), Mode::Reconcile, None, true),
            (services(), Mode::Reconcile, Some("b"), true),
            (services(), Mode::EnsureExists, None, false),
            (maps(), Mode::Reconcile, None, false),
        ] {
            let watch = WatchId { kind, mode, namespace: namespace.map(Into::into) };
            assert_eq!(uses.need(&watch), needed, "{watch:?}");
        }
    }
}
