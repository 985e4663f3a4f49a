//! An Addon object that is being deleted: its delete step, then its inventory, then its finalizer.

use std::collections::BTreeSet;

use quarterdeck_api::addon::{Phase as Word, is_upstream_checksum, names};
use quarterdeck_runtime::client::PatchPrecondition;
use quarterdeck_runtime::controller::{Action, Error};
use serde_json::json;

use super::run::Run;
use crate::addon::ident::Ident;
use crate::addon::lifecycle::{Book, Lifecycle};
use crate::addon::parent::{self, Content, Held, Parent, State};
use crate::addon::plan::rank;
use crate::addon::removal;
use crate::addon::source::Addon;

impl Run<'_> {
    /// Takes away what an Addon brought, and lets it go.
    pub(super) async fn leave(
        mut self,
        addon: &Addon,
        lifecycle: &Lifecycle,
        before: Parent,
        mut content: Content,
    ) -> Result<Action, Error> {
        let finalizers = before.object().and_then(|object| object.metadata.finalizers.clone()).unwrap_or_default();
        if !finalizers.iter().any(|finalizer| finalizer == names::FINALIZER) {
            self.engine.forget(&self.id);
            self.engine.set_state(&self.id, None);
            return Ok(Action::Done);
        }
        if addon.policy.paused {
            return self.rest(addon, before, content, State::Paused, Vec::new()).await;
        }
        // As upstream, whose finalizer comes with the first work: what was refused from the beginning, such
        // as a second Addon of a package, has nothing to delete, and its step might hit what is another's.
        let stopped =
            if has_worked(&before, &content) { self.run_delete(lifecycle, &mut content).await? } else { None };
        let held = if stopped.is_none() { self.prune_all(addon, &before, &mut content).await? } else { None };
        if stopped.is_none() && content.members.is_empty() && !self.outcome.retry && !self.observing {
            return self.release(&finalizers, before).await;
        }
        let failed = stopped.as_ref().is_some_and(|(_, failed)| *failed) || !self.outcome.errors.is_empty();
        let reason = stopped.map(|(reason, _)| reason);
        let life = content.lifecycle.get_or_insert_default();
        life.installed = Some(if failed { Word::DeleteFailed } else { Word::Deleting });
        life.reason = match (&reason, self.outcome.errors.first(), &held) {
            (Some(reason), _, _) => reason.clone(),
            (None, Some(error), _) => error.clone(),
            (None, None, Some(held)) => {
                format!("{}; to go on: {}", held.reason, parent::release_command(&self.id, &held.plan))
            }
            (None, None, None) => String::new(),
        };
        content.errors = reason.filter(|_| failed).into_iter().chain(self.outcome.errors.iter().cloned()).collect();
        content.state = Some(match () {
            () if self.observing => State::Observing,
            () if self.outcome.blocked.is_some() => State::Blocked,
            () if failed => State::Degraded,
            () if held.is_some() => State::Held,
            () => State::Deleting,
        });
        self.tell(Some(&before), &content, held.as_ref());
        self.note_state(&content, held.as_ref().map_or(0, |held| held.members.len()));
        content.held = held;
        if self.engine.parent(&self.id).is_some_and(|parent| !parent.says(&self.id, &content)) {
            self.write_parent(&content).await?;
        }
        self.end()
    }

    /// Deletes all members: the Addon's deletion is proof enough, however many there are. Returns what
    /// waits for a person.
    async fn prune_all(
        &mut self,
        addon: &Addon,
        before: &Parent,
        content: &mut Content,
    ) -> Result<Option<Held>, Error> {
        let named = self.engine.named();
        // What another addon names now is that one's.
        content.members.retain(|member, _| !named.may_mean(member));
        let protected = &self.engine.parts.protected;
        let waits: BTreeSet<Ident> =
            content.members.keys().filter(|member| protected.contains(&member.kind)).cloned().collect();
        let plan = removal::plan_of(&self.id, &waits, &content.members);
        let held_before = before.content.held.as_ref();
        let plan = held_before.filter(|held| held.members == waits).map_or(plan, |held| held.plan.clone());
        let released = before.released.as_ref() == Some(&plan);
        let mut go: Vec<Ident> =
            content.members.keys().filter(|member| released || !waits.contains(*member)).cloned().collect();
        // The other way round: a namespace goes after what is in it.
        go.sort_by_key(|member| std::cmp::Reverse(rank(member)));
        self.remove_all(addon.account.as_ref(), &go, content).await?;
        Ok((!waits.is_empty() && !released).then(|| Held {
            plan,
            reason: "objects of these kinds take others with them".to_owned(),
            braked: false,
            members: waits,
        }))
    }

    /// Runs the delete step to its end; why it is not there yet, and whether it failed.
    async fn run_delete(
        &mut self,
        lifecycle: &Lifecycle,
        content: &mut Content,
    ) -> Result<Option<(String, bool)>, Error> {
        let Some(phase) = &lifecycle.delete else { return Ok(None) };
        let only = Lifecycle { phases: vec![phase.clone()], ..lifecycle.clone() };
        let mut book = Book::read(content.steps(), &lifecycle.checksum);
        let mut memory = self.engine.take_memory(&self.id);
        let walk = self.turns(&only, &mut book, &mut memory, content).await?;
        self.engine.put_memory(&self.id, memory);
        let life = content.lifecycle.get_or_insert_default();
        life.progress = book.to_value();
        if walk.is_done(&only) {
            return Ok(None);
        }
        let failed = walk.has_failed();
        Ok(Some((walk.reason().unwrap_or_else(|| "delete: running".to_owned()), failed)))
    }

    /// Takes our finalizer off.
    async fn release(mut self, finalizers: &[String], before: Parent) -> Result<Action, Error> {
        let now = self.engine.parent(&self.id).unwrap_or(before);
        let left: Vec<&String> = finalizers.iter().filter(|finalizer| *finalizer != names::FINALIZER).collect();
        let precondition =
            PatchPrecondition::ResourceVersion { uid: now.uid.clone(), resource_version: now.resource_version.clone() };
        let patch = json!({"metadata": {"finalizers": left}});
        let kind = self.engine.parent_kind(&self.id);
        let key = parent::ident(&self.id).key();
        let patched = self.api.merge_patch(&kind, &key, None, &patch, &precondition).await;
        match patched {
            Ok(_) => {}
            Err(error) if error.is_not_found() => {}
            Err(error) => {
                self.engine.forget_parent(&self.id);
                self.outcome.failed("taking the finalizer off", error)?;
                return self.end();
            }
        }
        self.tell_gone(&now);
        self.engine.forget(&self.id);
        self.engine.forget_parent(&self.id);
        self.engine.set_state(&self.id, None);
        Ok(Action::Done)
    }
}

/// Whether any step of the Addon ever ran, here or by keiko's addon-manager.
fn has_worked(before: &Parent, content: &Content) -> bool {
    let by_keiko = before.content.lifecycle.as_ref().is_some_and(|life| {
        is_upstream_checksum(&life.checksum) && !matches!(life.installed, None | Some(Word::ValidationFailed))
    });
    let steps = content.steps().as_object().is_some_and(|steps| !steps.is_empty());
    by_keiko || steps || !content.version.is_empty() || !content.members.is_empty()
}
