//! An addon's revisions in its reconcile: which one is to be, when a new one begins, and what becomes of
//! it.

use std::time::Duration;

use jiff::Timestamp;
use quarterdeck_api::addon::Phase as Word;
use quarterdeck_runtime::controller::{Action, Error};
use tokio::time::Instant;

use super::Memory;
use super::overlay::{Overlay, counts};
use super::run::Run;
use super::stored::Lost;
use crate::addon::lifecycle::Lifecycle;
use crate::addon::parent::{self, BackTo, Content, Parent, State};
use crate::addon::reasons;
use crate::addon::revision::{
    self, Judgement, Kept, Mode, Revisions, RollBack, Trial, Verdict, Wish, begin, crds, key_of, plan, wish,
};
use crate::addon::source::Addon;

/// For how long an object has to be refused before that is for good: rights, admission and the kinds of
/// new definitions need a moment.
const REFUSED: Duration = Duration::from_secs(5);

/// What is done with a reconcile.
pub(super) enum Steer {
    /// It goes on with what is to be.
    On,
    /// Something else is to be, which wakes the addon again.
    Again,
    /// What is to be cannot be had: everything stays as it is.
    Stop(String),
}

impl Run<'_> {
    /// Puts in place what is to be: what the source says, or a revision that is gone back to.
    pub(super) async fn steer(&mut self, addon: &Addon) -> Result<Steer, Error> {
        let deleting = addon.lifecycle.as_ref().is_some_and(|lifecycle| lifecycle.deleting);
        let (Some(asked), Some(before)) = (self.engine.asked(&self.id), self.engine.parent(&self.id)) else {
            return Ok(Steer::On);
        };
        let overlay = self.engine.overlay(&self.id);
        if overlay.as_ref().unwrap_or(&asked.version) != &addon.version {
            // Another reading came in between.
            self.engine.parts.queue.add(super::Key::Addon(self.id.clone()));
            return Ok(Steer::Again);
        }
        if self.observing || deleting || asked.policy.paused {
            return Ok(Steer::On);
        }
        let mut said = before.content.clone();
        let held = said.revisions.back.as_ref().filter(|back| counts(&asked, &back.from));
        let key = held.map_or_else(|| key_of(&asked.version), |back| back.from.clone());
        let word = before.back.clone().or_else(|| self.mirror_back());
        let word = word.as_ref().map(|BackTo { to, from }| (to.as_str(), from.as_deref()));
        let (mut wished, told) = wish(&mut said.revisions, self.engine.rollback(&asked), &key, word);
        self.outcome.notes.extend(told);
        if let Wish::Back(back) = &wished
            && let Some(to) = said.revisions.of(&back.to).filter(|to| back.by_person && to.crds != crds(&asked.objects))
        {
            let text =
                format!("cannot go back to {to}: the CustomResourceDefinitions differ, and objects would be lost");
            self.outcome.notes.push(text);
            wished = Wish::Source;
        }
        match wished {
            Wish::Source => self.forward(&asked, said, &before).await,
            Wish::Back(back) => self.backward(&asked, said, &before, back).await,
        }
    }

    /// Lets what the source says be in force.
    async fn forward(&mut self, asked: &Addon, mut said: Content, before: &Parent) -> Result<Steer, Error> {
        // A file that is left alone is no new revision.
        let ends = asked.complete || asked.lifecycle.is_some();
        let ended = said.revisions.back.take_if(|_| ends);
        if said.revisions != before.content.revisions {
            self.write_parent(&said).await?;
        }
        if let Some(back) = ended {
            tracing::info!(addon = %self.id, from = back.from, to = back.to, "the roll-back is over");
            self.event(reasons::ROLL_BACK_OVER, "what the source says is in force again");
        }
        if self.engine.overlay(&self.id).is_some() {
            self.engine.set_overlay(&self.id, None);
            return Ok(Steer::Again);
        }
        Ok(Steer::On)
    }

    /// Lets an older revision be in force.
    async fn backward(
        &mut self,
        asked: &Addon,
        mut said: Content,
        before: &Parent,
        back: RollBack,
    ) -> Result<Steer, Error> {
        let Some(kept) = said.revisions.of(&back.to).cloned() else {
            return Ok(Steer::Stop(format!("revision {} is not kept, and is to be in force", back.to)));
        };
        let in_place = self.engine.overlay(&self.id).is_some_and(|version| key_of(&version) == kept.hash);
        let content = match self.load_unless(in_place, &kept, asked).await {
            Ok(content) => content,
            Err(Lost::Unknown(error)) => return Err(error),
            Err(Lost::Gone(reason)) => {
                return Ok(Steer::Stop(format!("cannot go back to revision {kept}: {reason}")));
            }
        };
        let new = said.revisions.back.as_ref() != Some(&back);
        said.revisions.back = Some(back);
        if said.revisions != before.content.revisions {
            // Written before it is done: whoever leads next goes on with it.
            self.write_parent(&said).await?;
        }
        if new {
            self.tell_back(before, &said);
        }
        match content {
            None => {
                self.back = true;
                Ok(Steer::On)
            }
            Some(content) => {
                let from = said.revisions.back.map(|back| back.from).unwrap_or_default();
                self.engine.set_overlay(&self.id, Some(Overlay { from, content }));
                Ok(Steer::Again)
            }
        }
    }

    async fn load_unless(&self, in_place: bool, kept: &Kept, asked: &Addon) -> Result<Option<revision::Content>, Lost> {
        if in_place { Ok(None) } else { self.load(kept, asked).await.map(Some) }
    }

    /// What a person wrote on the mirror.
    fn mirror_back(&self) -> Option<BackTo> {
        let key = quarterdeck_runtime::object::ObjectKey::new(parent::NAMESPACE, parent::name(&self.id));
        let mirror = self.engine.parts.objects.get(&key)?;
        (self.engine.mirrored(&mirror).as_ref() == Some(&self.id)).then(|| BackTo::of(&mirror)).flatten()
    }

    /// Notes that a revision comes into force; whether it does now, which is to be written down before
    /// anything of it is done.
    pub(super) async fn begin(&mut self, addon: &Addon, said: &mut Content) -> Result<bool, Error> {
        if self.observing || self.back {
            return Ok(false);
        }
        if self.engine.rollback(addon) == Mode::Off {
            if !said.revisions.kept.is_empty() {
                said.revisions = Revisions::default();
                self.sweep(&[]).await?;
            }
            return Ok(false);
        }
        if !addon.complete && addon.lifecycle.is_none() {
            return Ok(false);
        }
        let version = addon.package.as_ref().map_or("", |package| &*package.version);
        let now = Timestamp::now().as_millisecond();
        Ok(begin(&mut said.revisions.kept, &key_of(&addon.version), version, now))
    }

    /// How long the revision is tried yet, if it is.
    pub(super) fn trial_left(&self, addon: &Addon, said: &Content) -> Option<Duration> {
        let kept = said.revisions.kept.first().filter(|kept| kept.verdict == Verdict::New)?;
        if self.engine.rollback(addon) != Mode::Auto || self.back || kept.hash != key_of(&addon.version) {
            return None;
        }
        let past = Timestamp::now().as_millisecond().saturating_sub(kept.time).max(0);
        Some(addon.policy.health_timeout.saturating_sub(Duration::from_millis(u64::try_from(past).unwrap_or_default())))
    }

    /// Notes whether the revision will not come right: `failed` is an object's health that says so.
    pub(super) fn note_hope(&mut self, addon: &Addon, failed: Option<String>, memory: &mut Memory) {
        let now = Instant::now();
        let since = match &memory.refused {
            Some((since, version)) if *version == addon.version => *since,
            _ => now,
        };
        memory.refused = self.outcome.refused.is_some().then(|| (since, addon.version.clone()));
        let for_good = memory.refused.is_some() && now.duration_since(since) >= REFUSED;
        if memory.refused.is_some() && !for_good {
            self.outcome.look_again(REFUSED);
        }
        self.outcome.hopeless = failed.or_else(|| self.outcome.refused.clone().filter(|_| for_good));
    }

    /// Says what becomes of the revision. A revision that takes its place is put there once that is
    /// written down.
    pub(super) async fn judge(&mut self, addon: &Addon, said: &mut Content) -> Result<Option<Overlay>, Error> {
        let key = key_of(&addon.version);
        let is_tried = said.revisions.kept.first().is_some_and(|kept| kept.hash == key);
        let Some(state) = said.state.filter(|_| is_tried && !self.observing && !self.back) else { return Ok(None) };
        let judgement = plan(&Trial {
            mode: self.engine.rollback(addon),
            kept: &said.revisions.kept,
            now: Timestamp::now().as_millisecond(),
            timeout: addon.policy.health_timeout,
            state,
            applied: said.version == *addon.version,
            hopeless: self.outcome.hopeless.as_deref(),
            sure: (addon.complete || addon.lifecycle.is_some()) && !self.outcome.unsure,
            crds: &crds(&addon.objects),
        });
        let Some(this) = said.revisions.kept.first_mut() else { return Ok(None) };
        match judgement {
            Judgement::Stays => {}
            Judgement::Tried(left) => self.outcome.look_again(left),
            Judgement::Late => this.verdict = Verdict::Late,
            Judgement::Good => {
                this.verdict = Verdict::Good;
                this.reason.clear();
            }
            Judgement::Bad { reason } => {
                this.verdict = Verdict::Bad;
                this.reason = reason;
            }
            Judgement::Back { to, reason } => {
                this.verdict = Verdict::Bad;
                this.reason.clone_from(&reason);
                let kept = said.revisions.of(&to).cloned();
                let Some(kept) = kept else { return Ok(None) };
                match self.load(&kept, addon).await {
                    Ok(content) => {
                        let from = key.clone();
                        said.revisions.back = Some(RollBack { from, to, by_person: false, reason });
                        return Ok(Some(Overlay { from: key, content }));
                    }
                    Err(Lost::Unknown(error)) => return Err(error),
                    Err(Lost::Gone(lost)) => {
                        if let Some(this) = said.revisions.kept.first_mut() {
                            this.reason = format!("{reason}; not rolled back to {kept}: {lost}");
                        }
                    }
                }
            }
        }
        Ok(None)
    }

    /// Notes worth telling that are no errors.
    pub(super) fn notes(&self, said: &Content) -> Vec<String> {
        let bad = said.revisions.kept.first().filter(|kept| said.revisions.back.is_none() && !kept.reason.is_empty());
        let bad = bad.map(|kept| format!("revision {kept} has failed: {}", kept.reason));
        self.outcome.notes.iter().cloned().chain(bad).collect()
    }

    /// Tells of a roll-back that begins.
    pub(super) fn tell_back(&self, before: &Parent, said: &Content) {
        let Some(text) = said.revisions.told() else { return };
        self.engine.parts.metrics.rolled_back.inc();
        tracing::warn!(addon = %self.id, reason = text, "the addon was rolled back");
        let about = parent::reference(&self.id, &before.uid);
        self.recorder.event(&about, reasons::ROLLED_BACK, format!("{}: {text}", self.id));
    }

    /// An Addon object of which an older revision is in force: its objects are kept, and nothing is run.
    pub(super) async fn live_back(mut self, addon: &Addon, lifecycle: &Lifecycle) -> Result<Action, Error> {
        let Some(before) = self.engine.parent(&self.id) else { return Ok(Action::Done) };
        let mut said = before.content.clone();
        let told = said.revisions.told().unwrap_or_default();
        let by_person = said.revisions.back.as_ref().is_some_and(|back| back.by_person);
        let life = said.lifecycle.get_or_insert_default();
        life.generation = lifecycle.generation;
        life.installed = Some(if by_person { Word::Succeeded } else { Word::Failed });
        life.reason = told;
        if addon.policy.paused {
            return self.rest(addon, before, said, State::Paused, Vec::new()).await;
        }
        self.repair = true;
        self.keep_all(addon, Some(before), said, None).await
    }
}
