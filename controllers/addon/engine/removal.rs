//! Carrying out removals that a pass let go, and the engine's own book-keeping.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1::ConfigMap;
use quarterdeck_api::addon as api;
use quarterdeck_runtime::client::{Api, ApiError, DeletePrecondition, ListQuery, Propagation};
use quarterdeck_runtime::controller::{Account, Error};
use quarterdeck_runtime::object::{Kind, ObjectKey};
use serde::Deserialize as _;
use serde_json::Value;

use super::run::Run;
use super::{Engine, Memory};
use crate::addon::applyset::PART_OF_LABEL;
use crate::addon::ident::{GroupKind, Ident};
use crate::addon::parent::{self, Content, Held};
use crate::addon::prune::{Fate, fate};
use crate::addon::source::{AddonId, OBJECTS};

/// Objects in one page of a list.
const PAGE: u32 = 500;

impl Run<'_> {
    /// Deletes what a pass let go and takes it out of the inventory; returns what waits.
    pub(super) async fn prune(
        &mut self,
        account: Option<&Account>,
        content: &mut Content,
    ) -> Result<Option<Held>, Error> {
        let (go, held) = self.removable(content);
        self.remove_all(account, &go, content).await?;
        Ok(held)
    }

    /// Deletes members, as far as they are ours, and takes them out of the inventory.
    pub(super) async fn remove_all(
        &mut self,
        account: Option<&Account>,
        go: &[Ident],
        content: &mut Content,
    ) -> Result<(), Error> {
        let api = self.api_as(account);
        let mut kinds: HashMap<GroupKind, Option<Kind>> = HashMap::new();
        let mut members: HashMap<(GroupKind, Arc<str>), HashMap<ObjectKey, Value>> = HashMap::new();
        let mut unknown: BTreeSet<GroupKind> = BTreeSet::new();
        for member in go {
            if unknown.contains(&member.kind) {
                continue;
            }
            let result = self.remove(&api, member, content, &mut kinds, &mut members).await;
            if let Err(error) = result {
                // An error says nothing about the object: it stays in the inventory.
                self.engine.parts.metrics.pruned.with_label_values(&["failed"]).inc();
                if !kinds.contains_key(&member.kind) {
                    unknown.insert(member.kind.clone());
                }
                self.outcome.failed(&format!("removing {member}"), error)?;
            }
        }
        Ok(())
    }

    async fn remove(
        &mut self,
        api: &Api,
        member: &Ident,
        content: &mut Content,
        kinds: &mut HashMap<GroupKind, Option<Kind>>,
        members: &mut HashMap<(GroupKind, Arc<str>), HashMap<ObjectKey, Value>>,
    ) -> Result<(), ApiError> {
        if !kinds.contains_key(&member.kind) {
            kinds.insert(member.kind.clone(), self.engine.kinds.find_any(&self.api, &member.kind).await?);
        }
        let Some(Some(kind)) = kinds.get(&member.kind) else {
            // The CRD is gone, and its objects with it.
            self.drop_member(member, content, "gone");
            return Ok(());
        };
        let place = (member.kind.clone(), Arc::clone(&member.namespace));
        if !members.contains_key(&place) {
            members.insert(place.clone(), self.list(api, kind, &member.namespace).await?);
        }
        let uid = content.members.get(member).cloned().unwrap_or_default();
        let listed = members.get(&place).and_then(|listed| listed.get(&member.key())).cloned();
        let live = match listed {
            Some(live) => Some(live),
            // It may have lost its label; known by its uid it is still ours.
            None if !uid.is_empty() => api.get::<Value>(kind, &member.key()).await?,
            None => None,
        };
        let Some(live) = live else {
            self.drop_member(member, content, "gone");
            return Ok(());
        };
        match fate(&live, &uid) {
            Fate::Going => self.drop_member(member, content, "gone"),
            Fate::Leave { reason } => {
                tracing::info!(addon = %self.id, object = %member, reason, "not deleted");
                self.outcome.kept.push(format!("{member} ({reason})"));
                self.drop_member(member, content, "kept");
            }
            Fate::Delete { .. } if self.observing => self.outcome.planned += 1,
            Fate::Delete { uid, resource_version } => {
                let precondition = DeletePrecondition { uid, resource_version: Some(resource_version) };
                match api.delete(kind, &member.key(), &precondition, Propagation::Background).await {
                    Ok(()) => {
                        self.outcome.pruned.push(member.to_string());
                        self.drop_member(member, content, "deleted");
                    }
                    Err(error) if error.is_not_found() => self.drop_member(member, content, "gone"),
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    fn drop_member(&self, member: &Ident, content: &mut Content, result: &str) {
        if self.observing {
            return;
        }
        self.engine.parts.metrics.pruned.with_label_values(&[result]).inc();
        content.members.remove(member);
        self.engine.disown(member);
    }

    /// The members of our set in one namespace, by metadata, as the server has them now.
    async fn list(&self, api: &Api, kind: &Kind, namespace: &str) -> Result<HashMap<ObjectKey, Value>, ApiError> {
        let mut found = HashMap::new();
        let mut query = ListQuery {
            labels: Some(format!("{PART_OF_LABEL}={}", parent::set_id(&self.id))),
            limit: Some(PAGE),
            metadata_only: true,
            ..ListQuery::default()
        };
        loop {
            let page = api.list::<Value>(kind, Some(namespace).filter(|name| !name.is_empty()), &query).await?;
            for object in page.items {
                let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
                found.insert(ObjectKey::new(text("namespace"), text("name")), object);
            }
            match page.continue_token {
                Some(token) => query.continue_token = Some(token),
                None => return Ok(found),
            }
        }
    }
}

impl Engine {
    pub(super) fn take_memory(&self, id: &AddonId) -> Memory {
        self.shared.lock().memory.remove(id).unwrap_or_default()
    }

    pub(super) fn put_memory(&self, id: &AddonId, memory: Memory) {
        self.shared.lock().memory.insert(id.clone(), memory);
    }

    /// Forgets an addon whose file is gone; its parent stays known.
    pub(super) fn forget(&self, id: &AddonId) {
        let mut shared = self.shared.lock();
        shared.memory.remove(id);
        shared.unnoted.remove(id);
        shared.owners.retain(|_, owner| owner != id);
        drop(shared);
        self.stop_pki(id);
    }

    /// Forgets what was written of a parent: the cache says what there is.
    pub(super) fn forget_parent(&self, id: &AddonId) {
        self.shared.lock().written.remove(id);
    }

    fn disown(&self, member: &Ident) {
        let key = (member.kind.clone(), member.key());
        let mut shared = self.shared.lock();
        shared.owners.remove(&key);
        shared.deleted.remove(&key);
    }

    /// Which addon an object belongs to.
    pub(super) fn claim(&self, ident: &Ident) -> Option<AddonId> {
        self.shared.lock().claims.get(ident).cloned()
    }

    /// The CRD that an addon brings for a kind.
    pub(super) fn declared_crd(&self, kind: &GroupKind) -> Option<Arc<str>> {
        self.shared.lock().declared.get(kind).cloned()
    }

    pub(super) fn note_parent(&self, id: &AddonId, stored: &Value) {
        let parent = if id.source == OBJECTS {
            api::Addon::deserialize(stored).ok().and_then(|addon| parent::read_object(&Arc::new(addon)))
        } else {
            ConfigMap::deserialize(stored).ok().as_ref().and_then(parent::read)
        };
        let mut shared = self.shared.lock();
        match parent {
            Some(parent) => shared.written.insert(id.clone(), parent),
            None => shared.written.remove(id),
        };
    }

    /// Notes an Addon object as it was just written.
    pub(super) fn note_object(&self, id: &AddonId, addon: api::Addon) {
        if let Some(parent) = parent::read_object(&Arc::new(addon)) {
            self.shared.lock().written.insert(id.clone(), parent);
        }
    }

    /// The resource of an addon's parent.
    pub(super) fn parent_kind(&self, id: &AddonId) -> Kind {
        if id.source == OBJECTS { Kind::of::<api::Addon>() } else { self.parts.parents.kind().clone() }
    }

    pub(super) fn note_parent_deleted(&self, id: &AddonId, uid: &str) {
        let cached: BTreeMap<ObjectKey, String> = self
            .parts
            .parents
            .get(&parent::ident(id).key())
            .and_then(|map| Some((parent::ident(id).key(), map.metadata.uid.clone()?)))
            .into_iter()
            .collect();
        let mut shared = self.shared.lock();
        shared.written.remove(id);
        // Its own event takes the mark away.
        if cached.values().any(|cached| cached == uid) {
            shared.deleted_parents.insert(uid.to_owned());
        }
    }
}
