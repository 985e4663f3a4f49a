//! Writing an addon's parent.

use quarterdeck_runtime::client::{ApplyOptions, ApplyTo, DeletePrecondition, PatchPrecondition, Propagation};
use quarterdeck_runtime::controller::Error;

use super::Key;
use super::run::Run;
use crate::addon::parent::{self, Content, PARENT_MANAGER, Parent, Writing};

impl Run<'_> {
    /// Writes the parent; nothing is written while a predecessor is alive.
    pub(super) async fn write_parent(&mut self, content: &Content) -> Result<(), Error> {
        if self.observing {
            return Ok(());
        }
        let before = self.engine.parent(&self.id);
        let writing = parent::writing(&self.id, before.as_ref(), content);
        let result = self.write(before.as_ref(), &writing).await;
        if result.is_err() {
            // What was believed of it may be wrong: next time the cache is asked.
            self.engine.shared.lock().written.remove(&self.id);
        }
        result
    }

    async fn write(&mut self, before: Option<&Parent>, writing: &Writing) -> Result<(), Error> {
        let kind = self.engine.parent_kind(&self.id);
        let key = parent::ident(&self.id).key();
        if let Some(manifest) = &writing.apply {
            let to = before.map_or(ApplyTo::Absent, |parent| ApplyTo::Known { uid: parent.uid.clone() });
            let options = ApplyOptions { manager: PARENT_MANAGER, force: before.is_some(), dry_run: false };
            let stored = self.api.apply(&kind, &key, manifest, &to, &options).await?;
            self.engine.note_parent(&self.id, &stored);
        }
        let Some(status) = &writing.status else { return Ok(()) };
        let stored = self.engine.parent(&self.id).and_then(|parent| parent.object().cloned());
        let Some(stored) = stored else { return Err(Error::Stale(format!("{} is not known", self.id))) };
        let precondition = PatchPrecondition::ResourceVersion {
            uid: stored.metadata.uid.clone().unwrap_or_default(),
            resource_version: stored.metadata.resource_version.clone().unwrap_or_default(),
        };
        let patch = parent::status_patch(&stored, status);
        let written = self.api.merge_patch(&kind, &key, Some("status"), &patch, &precondition).await?;
        let mut now = (*stored).clone();
        now.metadata.resource_version = Some(written.resource_version);
        now.status = Some(status.clone());
        self.engine.note_object(&self.id, now);
        Ok(())
    }

    pub(super) async fn delete_parent(&mut self, parent: &Parent) -> Result<(), Error> {
        if self.observing {
            return Ok(());
        }
        let kind = self.engine.parent_kind(&self.id);
        let key = parent::ident(&self.id).key();
        let precondition = DeletePrecondition { uid: parent.uid.clone(), resource_version: None };
        match self.api.delete(&kind, &key, &precondition, Propagation::Background).await {
            Ok(()) => {}
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error.into()),
        }
        self.engine.note_parent_deleted(&self.id, &parent.uid);
        self.engine.parts.queue.add(Key::Mirror(self.id.clone()));
        self.engine.set_state(&self.id, None);
        self.tell_gone(parent);
        Ok(())
    }
}
