//! One addon: resolve its kinds, widen its inventory, settle its objects, let go what may go, and
//! write down how it is.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use quarterdeck_runtime::client::{Api, Class, WriteLog};
use quarterdeck_runtime::controller::{Account, Action, Cx, Error};
use quarterdeck_runtime::events::Recorder;
use quarterdeck_runtime::object::{Kind, ObjectKey};
use serde_json::Value;
use tokio::time::Instant;

use super::channel::{Course, Offered};
use super::live::Spent;
use super::outcome::Outcome;
use super::revisions::Steer;
use super::tell::grant_command;
use super::{Engine, Key, Memory, Standing};
use crate::addon::health::Health;
use crate::addon::ident::Ident;
use crate::addon::kinds::{crd_kind, is_established};
use crate::addon::manifest::{Desired, Mode};
use crate::addon::parent::{self, Content, Held, Parent, State};
use crate::addon::plan::{RANKS, Wanted, rank};
use crate::addon::removal::losing;
use crate::addon::source::{Addon, AddonId, Drift, OBJECTS, Object};

/// When something that an addon waits for, such as a CRD of its own, is looked at again at first.
pub(super) const SOON: Duration = Duration::from_millis(200);

/// One reconcile of one addon.
pub(super) struct Run<'e> {
    pub(super) engine: &'e Arc<Engine>,
    pub(super) api: Api,
    pub(super) recorder: Recorder,
    pub(super) id: AddonId,
    pub(super) observing: bool,
    /// Whether what somebody changed is put back, rather than told.
    pub(super) repair: bool,
    /// Whether keys that users edited are kept all the same.
    pub(super) keeps_edits: bool,
    /// Whether an older revision is in the place of what the source says.
    pub(super) back: bool,
    pub(super) outcome: Outcome,
    /// Pods of steps that ended, to be taken away once that is written down.
    pub(super) spent: Vec<Spent>,
}

impl Engine {
    /// Brings one addon to where it should be.
    pub(crate) async fn reconcile(self: &Arc<Self>, cx: &Cx, id: AddonId) -> Result<Action, Error> {
        if !self.parts.parents.has_synced() {
            return Ok(Action::RequeueAfter(SOON));
        }
        // Which versions are our own is kept here, object by object: caches are chosen by label and
        // need not ever show what is written.
        let api = cx.api.logging_to(WriteLog::default());
        let recorder = cx.recorder.clone();
        let outcome = Outcome::default();
        let mut run = Run {
            engine: self,
            api,
            recorder,
            observing: self.observing(id.source),
            repair: true,
            keeps_edits: false,
            back: false,
            id: id.clone(),
            outcome,
            spent: Vec::new(),
        };
        let result = match self.addon(&id) {
            Some(addon) => match (run.steer(&addon).await?, &addon.lifecycle) {
                (Steer::Again, _) => return Ok(Action::Done),
                (Steer::Stop(reason), _) => run.stand(&addon, reason).await,
                (Steer::On, Some(lifecycle)) if run.back => Box::pin(run.live_back(&addon, lifecycle)).await,
                (Steer::On, Some(lifecycle)) => Box::pin(run.live(&addon, lifecycle)).await,
                (Steer::On, None) => run.present(&addon).await,
            },
            None => run.gone().await,
        };
        if let Err(error) = &result
            && matches!(error.class(), Class::Transient | Class::Terminal)
        {
            self.note_failure(&id);
        }
        result
    }
}

impl Run<'_> {
    /// Calls as who an object is read and written.
    pub(super) fn api_of(&self, wanted: &Wanted) -> Api {
        self.api_as(wanted.account.as_ref())
    }

    pub(super) fn api_as(&self, account: Option<&Account>) -> Api {
        account.map_or_else(|| self.api.clone(), |account| self.api.acting_as(&account.identity()))
    }

    async fn present(mut self, addon: &Addon) -> Result<Action, Error> {
        let before = self.engine.parent(&self.id);
        let content = before.as_ref().map(|parent| parent.content.clone()).unwrap_or_default();
        if addon.policy.paused {
            return self.rest(addon, before, content, State::Paused, Vec::new()).await;
        }
        let installed = before.as_ref().is_some_and(|parent| parent.content.version == *addon.version);
        // What is installed is kept, whatever becomes of the others.
        let unmet = if installed { Vec::new() } else { self.engine.unmet(addon) };
        if !unmet.is_empty() {
            let reasons = unmet.iter().map(ToString::to_string).collect();
            return self.rest(addon, before, content, State::Progressing, reasons).await;
        }
        let offered = match if self.back { None } else { self.offered().await? } {
            Some(Course::Leave(reason)) => {
                let state = if content.unhealthy.is_empty() { State::Ready } else { State::Progressing };
                return self.rest(addon, before, content, state, vec![reason]).await;
            }
            Some(Course::Apply(offered)) => {
                self.repair = true;
                Some(offered)
            }
            Some(Course::Keep(offered)) => {
                self.repair = addon.policy.drift == Drift::Repair;
                Some(offered)
            }
            None => {
                self.repair = addon.policy.drift == Drift::Repair || !installed;
                None
            }
        };
        self.keep_all(addon, before, content, offered).await
    }

    /// Keeps all objects of an addon as they should be.
    pub(super) async fn keep_all(
        mut self,
        addon: &Addon,
        before: Option<Parent>,
        mut content: Content,
        offered: Option<Offered>,
    ) -> Result<Action, Error> {
        let begins = self.begin(addon, &mut content).await?;
        let mut wanted = self.resolve(&addon.objects).await?;
        let edits = self.note_edits(addon, offered.as_ref(), &mut wanted, &mut content).await?;
        let known = content.members.len();
        for wanted in wanted.iter().filter(|wanted| wanted.mode == Mode::Reconcile) {
            content.members.entry(wanted.ident.clone()).or_default();
        }
        if before.is_none() {
            self.note_kops(offered.as_ref(), &mut content);
        }
        if before.is_none() || begins || edits || content.members.len() > known {
            // Wider first: a crash in between leaves nothing that nobody knows of.
            content.state = Some(State::Progressing);
            content.errors.clear();
            self.write_parent(&content).await?;
            if begins && self.id.source != OBJECTS {
                self.engine.parts.queue.add(Key::Mirror(self.id.clone()));
            }
        }
        let mut memory = self.engine.take_memory(&self.id);
        if !self.recall(&wanted, &content, &mut memory) {
            self.engine.put_memory(&self.id, memory);
            return Ok(Action::RequeueAfter(SOON));
        }
        for stage in 0..RANKS {
            let stage: Vec<&Wanted> = wanted.iter().filter(|wanted| rank(&wanted.ident) == stage).collect();
            self.settle(&stage, &mut memory).await?;
        }
        self.note_uids(&memory, &mut content.members);
        memory.keep(&wanted);
        if let Some(patience) = memory.patience(self.outcome.waiting) {
            self.outcome.look_again(patience);
        }
        self.weigh(addon, &wanted, &mut memory, &mut content).await;
        self.engine.put_memory(&self.id, memory);
        self.store(addon, &mut content, |_| true).await?;
        self.let_go(addon, &mut content);
        self.prune_entry(addon, offered.as_ref(), &mut content).await?;
        let released = self.prune(addon.account.as_ref(), &mut content).await?;
        let applied = addon.complete && self.outcome.errors.is_empty() && !self.outcome.retry && !self.outcome.waiting;
        if let Some(offered) = offered.filter(|_| applied) {
            self.note_installed(&offered).await?;
        }
        self.finish(addon, before.as_ref(), content, released, wanted.len()).await
    }

    pub(super) fn note_state(&self, content: &Content, held: usize) {
        let version: Arc<str> = (*content.version).into();
        let standing = content.state.map(|state| Standing { state, held, version });
        self.engine.set_state(&self.id, standing.as_ref());
        if self.id.source != OBJECTS {
            self.engine.parts.queue.add(Key::Mirror(self.id.clone()));
        }
    }

    /// Leaves everything as it is, since what is to be cannot be had.
    async fn stand(self, addon: &Addon, reason: String) -> Result<Action, Error> {
        let before = self.engine.parent(&self.id);
        let content = before.as_ref().map(|parent| parent.content.clone()).unwrap_or_default();
        self.rest(addon, before, content, State::Degraded, vec![reason]).await
    }

    /// Leaves everything as it is, and says why.
    pub(super) async fn rest(
        mut self,
        addon: &Addon,
        before: impl Into<Option<Parent>>,
        mut content: Content,
        state: State,
        reasons: Vec<String>,
    ) -> Result<Action, Error> {
        let before = before.into();
        content.state = Some(if self.observing { State::Observing } else { state });
        content.errors = addon.problems.iter().map(ToString::to_string).chain(reasons).collect();
        content.errors.append(&mut self.outcome.beside);
        self.tell(before.as_ref(), &content, content.held.as_ref());
        self.note_state(&content, 0);
        if before.is_none_or(|parent| !parent.says(&self.id, &content)) {
            self.write_parent(&content).await?;
        }
        self.end()
    }

    /// What becomes of the objects' health: for how long it may take, and what is told of it.
    pub(super) async fn weigh(&mut self, addon: &Addon, wanted: &[Wanted], memory: &mut Memory, content: &mut Content) {
        content.unhealthy.clear();
        content.drifted = std::mem::take(&mut self.outcome.missing);
        content.marks = self.marks(wanted, memory);
        let mut on_their_way = false;
        let mut failed = None;
        for wanted in wanted {
            let Some(known) = memory.known.get(&wanted.ident) else { continue };
            if let Some(how) = &known.drifted {
                content.drifted.push(format!("{}: {how}", wanted.ident));
            }
            let mut health = known.health.clone();
            if let Health::Unbound { class } = &health
                && self.engine.binds_late(&self.api_of(wanted), class).await
            {
                health = Health::Ready;
            }
            match &health {
                Health::Ready => continue,
                Health::Degraded(_) => {
                    self.outcome.sick = true;
                    failed.get_or_insert_with(|| format!("{}: {health}", wanted.ident));
                }
                Health::Progressing(_) | Health::Unbound { .. } => on_their_way = true,
            }
            content.unhealthy.push(format!("{}: {health}", wanted.ident));
        }
        let now = Instant::now();
        let since = match &memory.unready {
            Some((since, version)) if on_their_way && *version == addon.version => *since,
            _ => now,
        };
        memory.unready = on_their_way.then(|| (since, Arc::clone(&addon.version)));
        let left = addon.policy.health_timeout.saturating_sub(now.duration_since(since));
        // What is tried is judged in time, whoever began it.
        let left = self.trial_left(addon, content).map_or(left, |trial| left.min(trial));
        self.note_hope(addon, failed, memory);
        if on_their_way && left.is_zero() {
            self.outcome.sick = true;
        } else if on_their_way {
            self.outcome.unready = true;
            self.outcome.look_again(left);
        }
    }

    /// Writes down how the addon is.
    pub(super) async fn finish(
        mut self,
        addon: &Addon,
        before: Option<&Parent>,
        mut content: Content,
        held: Option<Held>,
        objects: usize,
    ) -> Result<Action, Error> {
        let mut errors: Vec<String> = addon.problems.iter().map(ToString::to_string).collect();
        errors.extend(self.outcome.blocked.as_ref().map(grant_command));
        let broken = addon.problems.iter().any(|problem| !problem.warning)
            || !self.outcome.errors.is_empty()
            || !self.outcome.beside.is_empty()
            || !self.outcome.blind.is_empty();
        let told = self.outcome.errors.iter().chain(&self.outcome.beside).chain(&self.outcome.blind);
        errors.extend(told.cloned());
        content.state = Some(match () {
            () if self.observing => State::Observing,
            () if self.outcome.blocked.is_some() => State::Blocked,
            () if broken || self.outcome.sick => State::Degraded,
            () if self.outcome.waiting || self.outcome.retry || self.outcome.unready => State::Progressing,
            () if held.is_some() || content.candidates.holds() => State::Held,
            () => State::Ready,
        });
        content.objects = objects;
        content.skipped = addon.skipped.len();
        content.drift += self.outcome.drift;
        if self.outcome.errors.is_empty() && !self.outcome.retry && !self.outcome.waiting {
            content.version = addon.version.to_string();
            if let (Some(life), Some(package), true) = (&mut content.lifecycle, &addon.package, self.back) {
                life.version = package.version.to_string();
            }
        }
        let overlay = self.judge(addon, &mut content).await?;
        errors.extend(self.notes(&content));
        content.errors = errors;
        self.tell(before, &content, held.as_ref());
        let waits = held.as_ref().map_or(0, |held| held.members.len());
        self.note_state(&content, waits);
        content.held = held;
        let parent = self.engine.parent(&self.id);
        if parent.as_ref().is_none_or(|parent| !parent.says_but_marks(&self.id, &content)) {
            self.write_parent(&content).await?;
        }
        if let Some(overlay) = overlay {
            if let Some(parent) = &parent {
                self.tell_back(parent, &content);
            }
            self.engine.set_overlay(&self.id, Some(overlay));
        }
        self.end()
    }

    pub(super) fn end(self) -> Result<Action, Error> {
        if self.observing && self.outcome.planned > 0 {
            tracing::debug!(addon = %self.id, planned = self.outcome.planned, "observing: this many writes would be made");
        }
        if self.outcome.retry {
            let blocked = self.outcome.blocked.as_ref().map(grant_command);
            let text = blocked.or_else(|| self.outcome.errors.first().cloned());
            let text = text.unwrap_or_else(|| "changed meanwhile".to_owned());
            let text = match self.outcome.errors.len() {
                0 | 1 => text,
                count => format!("{text} (and {} more)", count - 1),
            };
            return Err(if self.outcome.conflict { Error::Stale(text) } else { Error::Transient(text) });
        }
        Ok(self.outcome.later.map_or(Action::Done, Action::RequeueAfter))
    }

    /// An addon whose file is gone.
    async fn gone(mut self) -> Result<Action, Error> {
        self.engine.forget(&self.id);
        if self.id.source == OBJECTS {
            // The source has not read it yet, or it is gone: an Addon object is never deleted by us.
            self.engine.set_state(&self.id, None);
            return Ok(Action::Done);
        }
        let Some(parent) = self.engine.parent(&self.id) else {
            self.engine.set_state(&self.id, None);
            return Ok(Action::Done);
        };
        let mut content = parent.content.clone();
        let decided = self.engine.verdict(&self.id).flatten().is_some_and(|verdict| verdict.gone);
        if decided && !self.observing {
            // What another addon names now is that one's.
            let named = self.engine.named();
            content.members.retain(|member, _| !named.may_mean(member));
        }
        let held = self.prune(None, &mut content).await?;
        if decided && content.members.is_empty() && held.is_none() && !self.outcome.retry {
            self.forget_installed().await?;
            self.delete_parent(&parent).await?;
            return self.end();
        }
        content.errors.clone_from(&self.outcome.errors);
        content.state = Some(match () {
            () if self.observing => State::Observing,
            () if !self.outcome.errors.is_empty() => State::Degraded,
            () if held.is_some() => State::Held,
            () => State::Progressing,
        });
        self.tell(Some(&parent), &content, held.as_ref());
        let waits = held.as_ref().map_or(0, |held| held.members.len());
        self.note_state(&content, waits);
        content.held = held;
        if !parent.says(&self.id, &content) {
            self.write_parent(&content).await?;
        }
        self.end()
    }

    /// The addon's objects with the resources that serve them; what belongs to another addon, or is
    /// served by nothing, is told.
    pub(super) async fn resolve(&mut self, objects: &[Object]) -> Result<Vec<Wanted>, Error> {
        let set = parent::set_id(&self.id);
        let mut wanted: BTreeMap<Ident, Wanted> = BTreeMap::new();
        let mut order = Vec::new();
        for object in objects {
            let Some(kind) = self.kind_of(object).await? else { continue };
            let object_name = format!("{}, {}", object.place, object.resolved(kind.namespaced));
            if kind.namespaced && object.resolved(true).namespace.is_empty() {
                self.outcome.errors.push(format!("{object_name}: metadata.namespace: missing: it has to be stated"));
                continue;
            }
            let object = Wanted::new(object, kind, &set);
            let claim = self.engine.claim(&object.ident);
            if let Some(other) = claim.filter(|claim| *claim != self.id) {
                self.outcome.errors.push(format!("{object_name}: {other} has the same object and comes first"));
            } else if wanted.contains_key(&object.ident) {
                self.outcome
                    .errors
                    .push(format!("{object_name}: the object stands twice in the file; the first counts"));
            } else {
                order.push(object.ident.clone());
                wanted.insert(object.ident.clone(), object);
            }
        }
        Ok(order.iter().filter_map(|ident| wanted.remove(ident)).collect())
    }

    async fn kind_of(&mut self, object: &Desired) -> Result<Option<Kind>, Error> {
        let group_kind = &object.ident.kind;
        let was_known = self.engine.kinds.known(group_kind, &object.version).is_some();
        if !self.crd_is_ready(object).await? {
            return Ok(None);
        }
        match self.engine.kinds.find(&self.api, group_kind, &object.version).await {
            Ok(Some(kind)) => {
                if !was_known {
                    // A watch that was refused because the kind was away need not wait longer.
                    self.engine.parts.informers.retry_now(&kind);
                }
                Ok(Some(kind))
            }
            Ok(None) if self.engine.declared_crd(group_kind).is_some() => {
                // Established and not yet served: a matter of moments.
                self.outcome.waiting = true;
                Ok(None)
            }
            Ok(None) => {
                let text = format!(
                    "{}, {}: the server has no such kind in version {}",
                    object.place, object.ident, object.version
                );
                self.outcome.errors.push(text);
                self.outcome.retry = true;
                Ok(None)
            }
            Err(error) => {
                self.outcome.failed(&format!("{}, {}", object.place, object.ident), error)?;
                Ok(None)
            }
        }
    }

    /// Whether the CRD of an object's kind, where an addon brings it, is established.
    async fn crd_is_ready(&mut self, object: &Desired) -> Result<bool, Error> {
        let Some(crd) = self.engine.declared_crd(&object.ident.kind) else { return Ok(true) };
        if self.engine.shared.lock().established.contains(&object.ident.kind) {
            return Ok(true);
        }
        let kind = self.engine.kinds.known(&crd_kind(), "v1").expect("the table of kinds has CRDs");
        match self.api.get::<Value>(&kind, &ObjectKey::cluster(crd)).await {
            Ok(Some(live)) if is_established(&live) => {
                self.engine.shared.lock().established.insert(object.ident.kind.clone());
                self.engine.kinds.forget(&object.ident.kind);
                Ok(true)
            }
            Ok(_) => {
                self.outcome.waiting = true;
                Ok(false)
            }
            Err(error) => {
                self.outcome.failed(&format!("{}, {}", object.place, object.ident), error)?;
                Ok(false)
            }
        }
    }

    pub(super) fn note_uids(&self, memory: &Memory, members: &mut BTreeMap<Ident, String>) {
        for (ident, uid) in members {
            if let Some(known) = memory.known.get(ident) {
                uid.clone_from(&known.uid);
            }
        }
    }

    /// Takes members out of the inventory that another addon names now, or that the file itself
    /// names without managing them: they stay, and are not this addon's.
    pub(super) fn let_go(&self, addon: &Addon, content: &mut Content) {
        if !addon.complete || self.outcome.waiting || !self.outcome.errors.is_empty() {
            return;
        }
        let named = self.engine.named();
        content.members.retain(|member, _| {
            let ours =
                addon.objects.iter().any(|object| object.mode == Mode::Reconcile && member.may_be(&object.ident));
            ours || !named.may_mean(member)
        });
    }

    /// What may still be removed of what a pass let go, now.
    pub(super) fn removable(&self, content: &Content) -> (Vec<Ident>, Option<Held>) {
        let snapshot = self.engine.snapshot(self.id.source);
        let (Some(snapshot), Some(verdict)) = (snapshot, self.engine.verdict(&self.id)) else {
            return (Vec::new(), content.held.clone());
        };
        let Some(verdict) = verdict else { return (Vec::new(), None) };
        let (Some(parent), named) = (self.engine.parent(&self.id), self.engine.named()) else {
            return (Vec::new(), verdict.held);
        };
        let still = losing(&parent, &self.id, &snapshot, &named);
        let mut go: Vec<Ident> = verdict.go.into_iter().filter(|member| still.contains(member)).collect();
        // The other way round: a namespace goes after what is in it.
        go.sort_by_key(|member| std::cmp::Reverse(rank(member)));
        (go, verdict.held)
    }
}
