//! What wakes the engine: its own objects' metadata, the parents, the predecessor.

use std::sync::{Arc, Weak};

use k8s_openapi::api::core::v1::ConfigMap;
use quarterdeck_runtime::informer::{Change, Lister, Selection};
use quarterdeck_runtime::object::{Cached as _, Kind};
use quarterdeck_runtime::view::{Metadata, PodView};

use super::{Engine, Key};
use crate::addon::applyset::PART_OF_LABEL;
use crate::addon::drift::Cached;
use crate::addon::ident::GroupKind;
use crate::addon::manifest::{MODE_LABEL, Mode};
use crate::addon::parent::{self, RELEASE_ANNOTATION};
use crate::addon::plan::Wanted;
use crate::addon::predecessor;
use crate::addon::source::AddonId;

impl Engine {
    /// The metadata of the objects of a kind that are kept in this mode: members of sets, or those
    /// labelled to exist.
    pub(super) fn watch(self: &Arc<Self>, kind: &Kind, mode: Mode) -> Lister<Metadata> {
        let id = (kind.clone(), mode);
        if let Some(watch) = self.shared.lock().watches.get(&id) {
            return watch.clone();
        }
        let labels = match mode {
            Mode::Reconcile => PART_OF_LABEL.to_owned(),
            Mode::EnsureExists => format!("{MODE_LABEL}=EnsureExists"),
        };
        let selection = Selection { labels: Some(labels), ..Selection::default() };
        let watch = self.parts.informers.dynamic::<Metadata>(kind.clone(), selection);
        if self.shared.lock().watches.insert(id, watch.clone()).is_none() {
            let (engine, group_kind) = (Arc::downgrade(self), GroupKind::from(kind));
            watch.on_change(move |change| on_object(&engine, &group_kind, &change));
        }
        watch
    }

    /// What the cache says of an object.
    pub(super) fn cached<T>(self: &Arc<Self>, wanted: &Wanted, look: impl FnOnce(Cached<'_>) -> T) -> T {
        let watch = self.watch(&wanted.kind, wanted.mode);
        let held = watch.get(&wanted.ident.key());
        look(match &held {
            _ if !watch.has_synced() => Cached::Unsynced,
            Some(held) => Cached::Held(held),
            None => Cached::Missing,
        })
    }

    pub(super) fn watch_parents(self: &Arc<Self>) {
        let engine = Arc::downgrade(self);
        self.parts.parents.on_change(move |change| on_parent(&engine, &change));
    }

    pub(super) fn watch_predecessor(self: &Arc<Self>) {
        let engine = Arc::downgrade(self);
        self.parts.pods.on_change(move |change: Change<'_, PodView>| {
            let (Some(engine), true) = (engine.upgrade(), predecessor::is_predecessor(change.object())) else { return };
            let sources: Vec<_> = engine.shared.lock().sources.keys().copied().collect();
            sources.into_iter().for_each(|source| engine.parts.queue.add(Key::Pass(source)));
        });
    }
}

fn on_object(engine: &Weak<Engine>, kind: &GroupKind, change: &Change<'_, Metadata>) {
    let Some(engine) = engine.upgrade() else { return };
    let id = (kind.clone(), change.object().key());
    let mut shared = engine.shared.lock();
    let Some(owner) = shared.owners.get(&id).cloned() else { return };
    if matches!(change, Change::Deleted { .. }) {
        shared.deleted.insert(id);
    }
    drop(shared);
    engine.parts.queue.add(Key::Addon(owner));
}

fn on_parent(engine: &Weak<Engine>, change: &Change<'_, ConfigMap>) {
    let Some(engine) = engine.upgrade() else { return };
    let Some(parent) = parent::read(change.object()) else { return };
    let mut shared = engine.shared.lock();
    let source = shared.sources.keys().find(|source| **source == parent.source).copied();
    // A source that has not been read yet wakes everything itself.
    let Some(source) = source else { return };
    let id = AddonId { source, name: parent.addon };
    match change {
        Change::Added(_) => drop(shared),
        Change::Updated { old, new } => {
            drop(shared);
            if release(old) != release(new) {
                engine.parts.queue.add(Key::Pass(source));
            }
            // Somebody else's hand: it is written again if it differs.
            engine.parts.queue.add(Key::Addon(id));
            return;
        }
        Change::Deleted { .. } => {
            if shared.written.get(&id).is_some_and(|written| written.uid == parent.uid) {
                shared.written.remove(&id);
            }
            shared.deleted_parents.remove(&parent.uid);
            drop(shared);
            engine.parts.queue.add(Key::Addon(id));
        }
    }
    engine.parts.queue.add(Key::Pass(source));
}

fn release(map: &ConfigMap) -> Option<&String> {
    map.metadata.annotations.as_ref()?.get(RELEASE_ANNOTATION)
}
