//! What Addon objects observe and do not manage: objects that their containers, or Argo, made. They are
//! shown in the Addon's status, never written, and never looked for: caches show them.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use quarterdeck_api::addon::ObservedResource;
use quarterdeck_runtime::informer::{Change, Lister, Selection};
use quarterdeck_runtime::object::Kind;

use super::{Engine, Key};
use crate::addon::health::{Health, Observed};
use crate::addon::lifecycle::Lifecycle;
use crate::addon::parent::Content;
use crate::addon::source::objects::Selector;
use crate::addon::source::{AddonId, Snapshot};

/// Kinds that are observed, as upstream (`keikoproj/addon-manager:controllers/objects.go`), each at the
/// version that every server has.
const KINDS: [Kind; 7] = [
    Kind::new("", "v1", "Service", "services", true),
    Kind::new("batch", "v1", "Job", "jobs", true),
    Kind::new("batch", "v1", "CronJob", "cronjobs", true),
    Kind::new("apps", "v1", "StatefulSet", "statefulsets", true),
    Kind::new("apps", "v1", "Deployment", "deployments", true),
    Kind::new("apps", "v1", "DaemonSet", "daemonsets", true),
    Kind::new("apps", "v1", "ReplicaSet", "replicasets", true),
];
/// Most objects that one Addon shows; of the rest it tells how many there are.
const SHOWN: usize = 200;
/// Most different label selections that are watched: whoever writes Addons may ask for many.
const SELECTIONS: usize = 16;

/// What is observed for whom.
#[derive(Default)]
pub(super) struct Resources(Mutex<Watched>);

#[derive(Default)]
struct Watched {
    /// The caches of each label selection, one a kind.
    caches: HashMap<Arc<str>, Vec<Lister<Observed>>>,
    /// What each Addon observes.
    observers: HashMap<AddonId, Arc<Selector>>,
}

impl Engine {
    /// Watches what the Addons of a reading observe, and nothing else.
    pub(super) fn watch_resources(self: &Arc<Self>, snapshot: &Snapshot) {
        let observers: HashMap<AddonId, Arc<Selector>> = snapshot
            .addons
            .values()
            .filter_map(|addon| Some((addon.id.clone(), Arc::clone(addon.lifecycle.as_ref()?.observes.as_ref()?))))
            .collect();
        let asked: BTreeSet<&Arc<str>> = observers.values().map(|selector| selector.watched()).collect();
        let mut watched = self.resources.0.lock();
        // What is watched already comes first: another Addon does not take it away.
        let mut wanted: Vec<Arc<str>> = asked.into_iter().cloned().collect();
        wanted.sort_by_key(|labels| !watched.caches.contains_key(labels));
        if wanted.len() > SELECTIONS {
            tracing::warn!(
                selections = wanted.len(),
                most = SELECTIONS,
                "too many different selectors: some Addons do not show what they observe"
            );
            wanted.truncate(SELECTIONS);
        }
        watched.observers = observers;
        let unused: Vec<_> = watched.caches.extract_if(|labels, _| !wanted.contains(labels)).collect();
        let mut new = Vec::new();
        for labels in wanted {
            if watched.caches.contains_key(&labels) {
                continue;
            }
            let selection = Selection { labels: Some(labels.to_string()), ..Selection::default() };
            let informers = &self.parts.informers;
            let caches: Vec<_> = KINDS.iter().map(|kind| informers.dynamic(kind.clone(), selection.clone())).collect();
            new.extend(caches.iter().cloned());
            watched.caches.insert(labels, caches);
        }
        drop(watched);
        unused.iter().flat_map(|(_, caches)| caches).for_each(|cache| self.parts.informers.stop_one(cache));
        for cache in new {
            let engine = Arc::downgrade(self);
            cache.on_change(move |change| on_resource(&engine, &change));
        }
    }

    /// Notes in `content` what an Addon observes; whether all of it is known by now.
    pub(super) fn observe(&self, lifecycle: &Lifecycle, content: &mut Content) -> bool {
        let Some(selector) = &lifecycle.observes else {
            content.observed.clear();
            content.observed_omitted = 0;
            return true;
        };
        let watched = self.resources.0.lock();
        // Watched with the next reading, or one of too many.
        let Some(caches) = watched.caches.get(selector.watched()).cloned() else { return true };
        drop(watched);
        let before = std::mem::take(&mut content.observed);
        let (mut complete, mut all) = (true, Vec::new());
        for cache in &caches {
            let kind = cache.kind();
            let refused = cache.refusal().is_some();
            if refused || !cache.has_synced() {
                // What cannot be seen now is not gone.
                complete &= refused;
                let known = before.iter().filter(|one| one.kind == *kind.kind && one.group == *kind.group);
                all.extend(known.cloned());
                continue;
            }
            let mut found: Vec<_> =
                cache.all().iter().filter(|one| selector.selects(&one.metadata)).map(|one| shown(kind, one)).collect();
            found.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
            all.extend(found);
        }
        content.observed_omitted = all.len().saturating_sub(SHOWN) as u64;
        all.truncate(SHOWN);
        content.observed = all;
        complete
    }
}

/// An object as the status shows it.
fn shown(kind: &Kind, object: &Observed) -> ObservedResource {
    let key = &object.metadata.key;
    ObservedResource {
        link: kind.object_path(key),
        name: key.name().to_owned(),
        namespace: key.namespace().to_owned(),
        kind: kind.kind.to_string(),
        group: kind.group.to_string(),
        status: word(object).to_owned(),
    }
}

fn word(object: &Observed) -> &'static str {
    match object.content {
        Health::Ready if !object.metadata.deleting => "Ready",
        Health::Ready | Health::Progressing(_) | Health::Unbound { .. } => "InProgress",
        Health::Degraded(_) => "Failed",
    }
}

/// Wakes the Addons that show an object, if it looks different now.
fn on_resource(engine: &Weak<Engine>, change: &Change<'_, Observed>) {
    let Some(engine) = engine.upgrade() else { return };
    let now = change.object();
    let before = match change {
        Change::Updated { old, new } => {
            let same = word(old) == word(new)
                && old.metadata.labels == new.metadata.labels
                && old.metadata.controlled == new.metadata.controlled;
            if same {
                return;
            }
            Some(*old)
        }
        Change::Added(_) | Change::Deleted { .. } => None,
    };
    let watched = engine.resources.0.lock();
    let shows = |selector: &Selector| {
        selector.selects(&now.metadata) || before.is_some_and(|before| selector.selects(&before.metadata))
    };
    let woken: Vec<AddonId> =
        watched.observers.iter().filter(|(_, selector)| shows(selector)).map(|(id, _)| id.clone()).collect();
    drop(watched);
    woken.into_iter().for_each(|id| engine.parts.queue.add(Key::Addon(id)));
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_object_is_shown_with_its_path_and_how_it_is() {
        let service: Observed = serde_json::from_value(json!({
            "apiVersion": "apps/v1", "kind": "ReplicaSet",
            "metadata": {"name": "r", "namespace": "n", "uid": "u", "resourceVersion": "1", "generation": 2},
            "spec": {"replicas": 1}, "status": {"observedGeneration": 1},
        }))
        .unwrap();
        let kinds = KINDS;
        let kind = kinds.iter().find(|kind| kind.kind == "ReplicaSet").unwrap();
        let shown = shown(kind, &service);
        assert_eq!(shown.link, "/apis/apps/v1/namespaces/n/replicasets/r");
        assert_eq!((&*shown.kind, &*shown.group, &*shown.status), ("ReplicaSet", "apps", "InProgress"));
    }
}
