//! Objects of one stage: look at what may have changed, plan, carry out.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use quarterdeck_runtime::client::{Api, ApiError, ApplyOptions, ApplyTo, PatchPrecondition};
use quarterdeck_runtime::controller::Error;
use quarterdeck_runtime::view::Metadata;
use serde::Deserialize as _;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::run::Run;
use super::{Engine, Memory};
use crate::addon::applyset::PART_OF_LABEL;
use crate::addon::drift::{Cached, Known, Look, look};
use crate::addon::edited;
use crate::addon::fields::Overrides;
use crate::addon::ident::Ident;
use crate::addon::plan::{Live, MANAGER, Op, Right, Seen, View, Wanted, is_settled, plan, right};
use crate::addon::source::AddonId;
use crate::addon::source::channel::SOURCE as CHANNEL;

/// Objects of one addon that are read at the same time.
const READS: usize = 8;
/// Objects of one addon that are written at the same time.
const WRITES: usize = 4;
/// An object that was put back this often within [`FIGHT`] is left alone for a while.
const MANY: usize = 5;
/// How long repairs count.
const FIGHT: Duration = Duration::from_secs(60);

/// What carrying out an [`Op`] came to.
struct Done {
    index: usize,
    result: Result<Option<Value>, ApiError>,
    /// What the server counted it as.
    word: &'static str,
    drift: bool,
    /// Whether only the hand changed.
    adopted: bool,
    /// How the object differs, where it is left so.
    drifted: Option<String>,
}

/// What may be written.
#[derive(Clone, Copy)]
struct Carry {
    /// Nothing: a predecessor is alive.
    observing: bool,
    /// What somebody changed, too.
    repair: bool,
}

impl Run<'_> {
    /// Settles objects that do not depend on each other.
    pub(super) async fn settle(&mut self, stage: &[&Wanted], memory: &mut Memory) -> Result<(), Error> {
        let now = Instant::now();
        let asked: Vec<bool> = stage.iter().map(|wanted| self.must_look(wanted, memory, now)).collect();
        let read = self.read(stage, &asked).await?;
        let rights: Vec<Option<Right>> =
            stage.iter().map(|wanted| memory.known.get(&wanted.ident).map(|known| known.right)).collect();
        let is_ours = |set: &str| self.engine.is_our_set(set);
        let seen: Vec<Seen<'_>> = stage
            .iter()
            .zip(&read)
            .zip(&rights)
            .map(|((wanted, live), right)| Seen {
                wanted,
                live: match live {
                    None => Live::Quiet,
                    Some(None) => Live::Absent,
                    Some(Some(live)) => Live::Present(live),
                },
                right: *right,
            })
            .collect();
        let ops = plan(&View { objects: &seen, overrides: self.overrides(), is_ours: &is_ours });
        let ops: Vec<Op> = ops.into_iter().filter(|op| self.may_carry_out(op, &seen, memory, now)).collect();
        let carry = Carry { observing: self.observing, repair: self.repair };
        let ops: Vec<(Api, Op, Carry)> = ops
            .into_iter()
            .map(|op| {
                let seen = &seen[op.index()];
                let repair = carry.repair || self.takes_new(seen);
                (self.api_of(seen.wanted), op, Carry { repair, ..carry })
            })
            .collect();
        let done: Vec<Done> = futures::stream::iter(ops)
            .map(|(api, op, carry)| carry_out(api, &seen, op, carry))
            .buffer_unordered(WRITES)
            .collect()
            .await;
        for done in done {
            self.note(stage[done.index], &seen[done.index], done, memory)?;
        }
        Ok(())
    }

    /// Whether a live object asks for its addon's version whole, and nothing of it is kept any more.
    fn takes_new(&self, seen: &Seen<'_>) -> bool {
        let asks = matches!(seen.live, Live::Present(live) if edited::takes_new(live));
        asks && self.id.source == CHANNEL && seen.wanted.edited.is_empty()
    }

    /// Whose changes are taken back: kOps' own with a new version of what it installed.
    fn overrides(&self) -> &Overrides {
        let parts = &self.engine.parts;
        if self.repair && self.id.source == CHANNEL { &parts.channel_overrides } else { &parts.overrides }
    }

    /// Whether an object has to be read.
    fn must_look(&mut self, wanted: &Wanted, memory: &mut Memory, now: Instant) -> bool {
        let deleted = self.engine.own(&self.id, &wanted.ident);
        let engine = self.engine;
        let known = memory.known.get_mut(&wanted.ident).filter(|known| known.right.wanted == wanted.hash);
        let Some(known) = known else {
            // Watched before it is read: what happens in between is an event.
            engine.cached(wanted, |_, _| ());
            return true;
        };
        if self.repair && known.drifted.is_some() {
            // It was left as somebody made it; that is over.
            return true;
        }
        let mut deleting = false;
        let (held, result) = engine.cached(wanted, |cached, health| {
            deleting = matches!(cached, Cached::Held(held) if held.deleting);
            if let (Cached::Held(held), Some(health)) = (cached, health)
                && known.is_shown_by(held)
            {
                known.health = health.clone();
            }
            let held = match cached {
                Cached::Refused => None,
                Cached::Held(held) => Some(*held.uid == *known.uid),
                Cached::Unsynced | Cached::Missing => Some(false),
            };
            (held, look(Some(known), cached, deleted, now))
        });
        // It is made anew when it is gone.
        self.outcome.waiting |= deleting;
        known.seen |= held.is_some_and(|held| held);
        if held.is_none() {
            self.outcome.blind(wanted);
        }
        match result {
            Look::No => false,
            Look::Yes => true,
            Look::After(time) => {
                self.outcome.look_again(time);
                false
            }
        }
    }

    /// What the server has of the objects asked for: `None` if not asked or not known, `Some(None)`
    /// for its own 404.
    async fn read(&mut self, stage: &[&Wanted], asked: &[bool]) -> Result<Vec<Option<Option<Value>>>, Error> {
        let mut read: Vec<Option<Option<Value>>> = vec![None; stage.len()];
        let asked = stage.iter().enumerate().filter(|(index, _)| asked[*index]);
        let asked: Vec<_> = asked
            .map(|(index, wanted)| (index, self.api_of(wanted), wanted.kind.clone(), wanted.ident.key()))
            .collect();
        let answers: Vec<_> = futures::stream::iter(asked)
            .map(|(index, api, kind, key)| async move { (index, api.get::<Value>(&kind, &key).await) })
            .buffer_unordered(READS)
            .collect()
            .await;
        for (index, answer) in answers {
            self.engine.parts.metrics.reads.inc();
            match answer {
                Ok(live) => read[index] = Some(live),
                Err(error) => self.outcome.failed(&describe(stage[index]), error)?,
            }
        }
        Ok(read)
    }

    /// Leaves alone, for a while, what somebody else changes again and again.
    fn may_carry_out(&mut self, op: &Op, seen: &[Seen<'_>], memory: &mut Memory, now: Instant) -> bool {
        if !self.edits_are_noted(op, seen) {
            return false;
        }
        let (Op::Apply { index, drift: true, fields, .. }, false) = (op, self.observing) else { return true };
        let ident = &seen[*index].wanted.ident;
        let repairs = memory.repairs.entry(ident.clone()).or_default();
        while repairs.front().is_some_and(|first| now.duration_since(*first) >= FIGHT) {
            repairs.pop_front();
        }
        match repairs.front() {
            Some(first) if repairs.len() >= MANY => {
                let wait = FIGHT.saturating_sub(now.duration_since(*first));
                self.outcome.look_again(wait);
                let fields = if fields.is_empty() { String::new() } else { format!(" ({})", fields.join(", ")) };
                let text =
                    format!("somebody changes it again and again{fields}: put back {MANY} times within a minute");
                self.outcome.errors.push(format!("{}: {text}", describe(seen[*index].wanted)));
                false
            }
            _ => {
                repairs.push_back(now);
                true
            }
        }
    }

    fn note(&mut self, wanted: &Wanted, seen: &Seen<'_>, done: Done, memory: &mut Memory) -> Result<(), Error> {
        let looks = memory.known.get(&wanted.ident).filter(|known| !known.seen).map_or(0, |known| known.looks + 1);
        let live = match done.result {
            Ok(live) => live,
            Err(error) => {
                memory.known.remove(&wanted.ident);
                self.engine.parts.metrics.applied.with_label_values(&["failed"]).inc();
                if error.is_not_found() {
                    self.engine.kind_is_in_doubt(&wanted.ident);
                }
                return self.outcome.failed(&describe(wanted), error);
            }
        };
        match done.word {
            "" => {}
            // Its end is an event.
            "waiting" => self.outcome.waiting = true,
            "planned" => self.outcome.planned += 1,
            "refused" => {
                let Some(Value::String(reason)) = &live else { return Ok(()) };
                self.outcome.errors.push(format!("{}: {reason}", describe(wanted)));
                memory.known.remove(&wanted.ident);
                return Ok(());
            }
            word => {
                self.engine.parts.metrics.applied.with_label_values(&[word]).inc();
                if word != "unchanged" && done.drift {
                    self.outcome.drift += 1;
                    self.engine.parts.metrics.repaired.inc();
                } else if word != "unchanged" && done.adopted {
                    self.outcome.adopted += 1;
                } else if word != "unchanged" {
                    self.outcome.applied += 1;
                }
            }
        }
        if let (Some(how), Live::Absent) = (&done.drifted, seen.live) {
            self.outcome.missing.push(format!("{}: {how}", wanted.ident));
        }
        let live = match (&live, seen.live) {
            (Some(live), _) => live,
            (None, Live::Present(live)) => live,
            (None, _) => return Ok(()),
        };
        // While observing, what was seen is not right, and is not remembered as right.
        if done.word == "planned" {
            memory.known.remove(&wanted.ident);
            return Ok(());
        }
        let settled = !self.repair || is_settled(wanted, live, self.overrides());
        if !matches!(done.word, "" | "waiting") && !settled {
            memory.known.remove(&wanted.ident);
            self.outcome.waiting = true;
            return Ok(());
        }
        match Metadata::deserialize(live) {
            Ok(metadata) => {
                let (shown, refused) = self.engine.cached(wanted, |cached, _| match cached {
                    Cached::Held(held) => (held.uid == metadata.uid, false),
                    other => (false, matches!(other, Cached::Refused)),
                });
                if refused {
                    self.outcome.blind(wanted);
                }
                let mut right = right(wanted, live, self.overrides());
                if done.drifted.is_some() {
                    // What it should be is what it was, or else what is wanted.
                    right = seen.right.unwrap_or(Right { applied: [0; 32], ..right });
                }
                let known = Known {
                    looks,
                    seen: shown,
                    health: self.engine.parts.health.of(live),
                    drifted: done.drifted,
                    ..Known::new(&metadata, right, Instant::now())
                };
                memory.known.insert(wanted.ident.clone(), known);
                if !shown {
                    self.outcome.look_again(FIRST_SIGHT);
                }
            }
            Err(error) => self.outcome.errors.push(format!("{}: cannot read its metadata: {error}", describe(wanted))),
        }
        Ok(())
    }
}

/// When the cache is asked whether it shows what was just read or written.
const FIRST_SIGHT: Duration = Duration::from_secs(5);

async fn carry_out(api: Api, seen: &[Seen<'_>], op: Op, carry: Carry) -> Done {
    let Carry { observing, repair } = carry;
    let done = |index, word, drift, result| Done { index, result, word, drift, adopted: false, drifted: None };
    let options = |force| ApplyOptions { manager: MANAGER, force, dry_run: false };
    match op {
        Op::Accept { index } => done(index, "", false, Ok(None)),
        Op::Wait { index } => done(index, "waiting", false, Ok(None)),
        Op::Refuse { index, reason } => done(index, "refused", false, Ok(Some(Value::String(reason)))),
        Op::Create { index } | Op::Apply { index, .. } | Op::Release { index, .. } if observing => {
            done(index, "planned", false, Ok(None))
        }
        Op::Apply { index, fields, adopts: false, .. } if !repair => {
            let fields = if fields.is_empty() { "fields were added".to_owned() } else { fields.join(", ") };
            Done { drifted: Some(fields), ..done(index, "", false, Ok(None)) }
        }
        Op::Create { index } if !repair => {
            Done { drifted: Some("it was deleted".to_owned()), ..done(index, "", false, Ok(None)) }
        }
        Op::Create { index } => {
            let Seen { wanted, right, .. } = &seen[index];
            let key = wanted.ident.key();
            let made = api.apply(&wanted.kind, &key, &wanted.body, &ApplyTo::Absent, &options(false)).await;
            done(index, "created", right.is_some(), made.map(Some))
        }
        Op::Release { index, uid, resource_version } => {
            let wanted = seen[index].wanted;
            let patch = json!({"metadata": {"labels": {PART_OF_LABEL: null}}});
            let precondition = PatchPrecondition::ResourceVersion { uid, resource_version };
            let freed = api.merge_patch(&wanted.kind, &wanted.ident.key(), None, &patch, &precondition).await;
            done(index, "released", false, freed.map(|_| None))
        }
        Op::Apply { index, uid, resource_version, take_back, body, drift, adopts, .. } => {
            let wanted = seen[index].wanted;
            let key = wanted.ident.key();
            let mut before = resource_version.clone();
            // Whoever only takes an object over leaves it to everybody else, too.
            if let Some(managed_fields) = take_back.filter(|_| repair) {
                let patch = json!({"metadata": {"managedFields": managed_fields}});
                let precondition = PatchPrecondition::ResourceVersion { uid: uid.clone(), resource_version };
                match api.merge_patch(&wanted.kind, &key, None, &patch, &precondition).await {
                    Ok(written) => before = written.resource_version,
                    Err(error) => return done(index, "failed", drift, Err(error)),
                }
            }
            let stored = api.apply(&wanted.kind, &key, &body, &ApplyTo::Known { uid }, &options(true)).await;
            let same = stored.as_ref().is_ok_and(|stored| {
                stored.pointer("/metadata/resourceVersion").and_then(Value::as_str) == Some(&before)
            });
            let word = if same { "unchanged" } else { "changed" };
            Done { adopted: adopts, ..done(index, word, drift, stored.map(Some)) }
        }
    }
}

fn describe(wanted: &Wanted) -> String {
    format!("{}, {}", wanted.place, wanted.ident)
}

impl Engine {
    /// Has changes of an object wake its addon.
    pub(super) fn wake_for(&self, id: &AddonId, ident: &Ident) {
        self.shared.lock().owners.insert((ident.kind.clone(), ident.key()), id.clone());
    }

    /// Has changes of an object wake its addon; tells whether its deletion was seen.
    fn own(self: &Arc<Self>, id: &AddonId, ident: &Ident) -> bool {
        let key = (ident.kind.clone(), ident.key());
        let mut shared = self.shared.lock();
        let deleted = shared.deleted.remove(&key);
        shared.owners.insert(key, id.clone());
        deleted
    }

    /// A kind that answers 404 may be gone, or served elsewhere.
    fn kind_is_in_doubt(&self, ident: &Ident) {
        self.kinds.forget(&ident.kind);
        self.shared.lock().established.remove(&ident.kind);
    }
}
