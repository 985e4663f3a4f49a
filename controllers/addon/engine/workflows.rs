//! Argo's Workflows that were made for Addons, watched: a Workflow that ends wakes its Addon. Nothing is
//! watched before some Addon needs Argo.

use std::collections::HashSet;
use std::sync::{Arc, Weak};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use parking_lot::Mutex;
use quarterdeck_api::addon::names;
use quarterdeck_runtime::informer::{Change, Lister, Selection};
use quarterdeck_runtime::object::{Kind, ObjectKey};
use quarterdeck_runtime::view::Metadata;

use super::{Engine, Key};
use crate::addon::ident::GroupKind;
use crate::addon::source::{AddonId, OBJECTS};
use crate::addon::workflow::argo::Watched;
use crate::addon::workflow::execute::workflow_kind;

/// Name of the CRD of Workflows.
const CRD: &str = "workflows.argoproj.io";

/// What is known of Argo.
#[derive(Default)]
pub(super) struct Workflows(Mutex<Known>);

#[derive(Default)]
struct Known {
    /// Workflows of Addons, once one was made.
    cache: Option<Lister<Watched>>,
    /// The CRD, once somebody asked for Argo.
    crd: Option<Lister<Metadata>>,
    /// uids of Workflows that we deleted: the cache may still show them.
    deleted: HashSet<String>,
    /// Addons that nobody runs while there is no Argo.
    waiting: HashSet<AddonId>,
}

impl Engine {
    /// Has an Addon woken when Argo comes; whether it is on its way already.
    pub(super) fn wait_for_argo(self: &Arc<Self>, id: &AddonId) -> bool {
        let mut known = self.workflows.0.lock();
        known.waiting.insert(id.clone());
        if let Some(crd) = &known.crd {
            return crd.get(&ObjectKey::cluster(CRD)).is_some();
        }
        let fields = Some(format!("metadata.name={CRD}"));
        let kind = Kind::of::<CustomResourceDefinition>();
        let crd: Lister<Metadata> = self.parts.informers.dynamic(kind, Selection { fields, ..Selection::default() });
        known.crd = Some(crd.clone());
        drop(known);
        let engine = Arc::downgrade(self);
        crd.on_change(move |_| {
            let Some(engine) = engine.upgrade() else { return };
            engine.kinds.forget(&GroupKind::from(&workflow_kind()));
            let waiting = std::mem::take(&mut engine.workflows.0.lock().waiting);
            waiting.into_iter().for_each(|id| engine.parts.queue.add(Key::Addon(id)));
        });
        crd.get(&ObjectKey::cluster(CRD)).is_some()
    }

    /// A Workflow as the cache shows it; `None` where it does not, which says nothing.
    pub(super) fn workflow(self: &Arc<Self>, key: &ObjectKey) -> Option<Arc<Watched>> {
        let mut known = self.workflows.0.lock();
        if let Some(cache) = &known.cache {
            let held = cache.get(key).filter(|_| cache.has_synced() && cache.refusal().is_none());
            return held.filter(|held| !known.deleted.contains(&*held.metadata.uid));
        }
        let labels = Some(format!("{}={}", names::APP_MANAGED_BY_LABEL, names::MANAGED_BY));
        let cache: Lister<Watched> =
            self.parts.informers.dynamic(workflow_kind(), Selection { labels, ..Selection::default() });
        known.cache = Some(cache.clone());
        drop(known);
        let engine = Arc::downgrade(self);
        cache.on_change(move |change| on_workflow(&engine, &change));
        None
    }

    /// Whether a change of a Workflow is seen: if not, it has to be looked at now and then.
    pub(super) fn shows_workflows(&self) -> bool {
        let known = self.workflows.0.lock();
        known.cache.as_ref().is_some_and(|cache| cache.refusal().is_none())
    }

    /// Notes that a Workflow was deleted.
    pub(super) fn note_workflow_deleted(&self, uid: String) {
        self.workflows.0.lock().deleted.insert(uid);
    }
}

fn on_workflow(engine: &Weak<Engine>, change: &Change<'_, Watched>) {
    let Some(engine) = engine.upgrade() else { return };
    let workflow = change.object();
    match change {
        // What it says of its steps meanwhile is shown, too.
        Change::Updated { old, new } if old.content == new.content && old.metadata.labels == new.metadata.labels => {
            return;
        }
        Change::Deleted { .. } => {
            engine.workflows.0.lock().deleted.remove(&*workflow.metadata.uid);
        }
        Change::Added(_) | Change::Updated { .. } => {}
    }
    let Some(name) = workflow.metadata.labels.get(names::APP_NAME_LABEL) else { return };
    let name: Arc<str> = format!("{}/{name}", workflow.metadata.key.namespace()).into();
    engine.parts.queue.add(Key::Addon(AddonId { source: OBJECTS, name }));
}
