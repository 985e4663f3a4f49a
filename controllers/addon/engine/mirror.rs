//! Addons of directories and channels as Addon objects, so that one list shows all. A mirror says what
//! the parent says; nothing is read from it.

use std::sync::Arc;

use quarterdeck_api::addon::{Addon as Object, names};
use quarterdeck_runtime::client::{Api, ApplyOptions, ApplyTo, DeletePrecondition, PatchPrecondition, Propagation};
use quarterdeck_runtime::controller::{Action, Cx, Error};
use quarterdeck_runtime::object::{Kind, ObjectKey};
use serde::Deserialize as _;

use super::{Engine, Key};
use crate::addon::parent::{self, ADDON_ANNOTATION, PARENT_MANAGER};
use crate::addon::source::{AddonId, OBJECTS};

impl Engine {
    /// Brings the mirror of one addon to what its parent says.
    pub(crate) async fn mirror(self: &Arc<Self>, cx: &Cx, id: &AddonId) -> Result<Action, Error> {
        // Without the CRD there is no list to show it in.
        if !self.parts.objects.has_synced() || self.observing(OBJECTS) {
            return Ok(Action::Done);
        }
        let key = ObjectKey::new(parent::NAMESPACE, parent::name(id));
        let shown = self.parts.objects.get(&key);
        if shown.as_ref().is_some_and(|shown| !shown.is_mirror()) {
            tracing::warn!(addon = %id, object = %key, "somebody's Addon has the name of its mirror: it is not shown");
            return Ok(Action::Done);
        }
        match (self.parent(id), shown) {
            (None, None) => {}
            (None, Some(shown)) => unshow(&cx.api, &key, &shown).await?,
            (Some(content), shown) => {
                let addon = self.addon(id);
                let wanted = parent::mirror(id, addon.as_deref(), &content.content, shown.as_deref());
                show(&cx.api, &key, shown.as_deref(), wanted).await?;
            }
        }
        Ok(Action::Done)
    }

    /// The mirrors that there are, and those that there should be.
    pub(super) fn wake_mirrors(&self) {
        let there = self.parts.objects.all();
        let mut ids: Vec<AddonId> = there.iter().filter_map(|object| self.mirrored(object)).collect();
        let maps = self.parts.parents.all();
        ids.extend(
            maps.iter()
                .filter_map(|map| parent::read(map))
                .filter_map(|parent| Some(AddonId { source: self.source(&parent.source)?, name: parent.addon })),
        );
        ids.into_iter().for_each(|id| self.parts.queue.add(Key::Mirror(id)));
    }

    /// The addon that an Addon object shows.
    pub(super) fn mirrored(&self, object: &Object) -> Option<AddonId> {
        let source = self.source(object.label(names::MIRROR_LABEL)?)?;
        Some(AddonId { source, name: object.annotation(ADDON_ANNOTATION)?.into() })
    }

    /// A source that is read, by its name.
    fn source(&self, name: &str) -> Option<&'static str> {
        self.shared.lock().sources.keys().find(|source| **source == name).copied()
    }
}

async fn show(api: &Api, key: &ObjectKey, shown: Option<&Object>, wanted: parent::Mirror) -> Result<(), Error> {
    let kind = Kind::of::<Object>();
    let mut object = shown.cloned();
    if let Some(manifest) = &wanted.apply {
        let uid = shown.and_then(|shown| shown.metadata.uid.clone());
        let options = ApplyOptions { manager: PARENT_MANAGER, force: uid.is_some(), dry_run: false };
        let to = uid.map_or(ApplyTo::Absent, |uid| ApplyTo::Known { uid });
        let stored = api.apply(&kind, key, manifest, &to, &options).await?;
        object = Some(Object::deserialize(&stored).map_err(|error| Error::Transient(format!("{key}: {error}")))?);
    }
    let (Some(status), Some(object)) = (&wanted.status, &object) else { return Ok(()) };
    let precondition = PatchPrecondition::Uid(object.metadata.uid.clone().unwrap_or_default());
    let patch = parent::status_patch(object, status);
    api.merge_patch(&kind, key, Some("status"), &patch, &precondition).await?;
    Ok(())
}

async fn unshow(api: &Api, key: &ObjectKey, shown: &Object) -> Result<(), Error> {
    let precondition =
        DeletePrecondition { uid: shown.metadata.uid.clone().unwrap_or_default(), resource_version: None };
    match api.delete(&Kind::of::<Object>(), key, &precondition, Propagation::Background).await {
        Err(error) if !error.is_not_found() => Err(error.into()),
        _ => Ok(()),
    }
}
