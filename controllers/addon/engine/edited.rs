//! Keys that users edited in what a channel installed: noted on the addon's parent before any field
//! changes hands, so that whoever goes on after a crash knows them.

use std::collections::BTreeSet;

use quarterdeck_runtime::controller::Error;
use serde_json::Value;

use super::channel::Offered;
use super::run::Run;
use crate::addon::drift::Cached;
use crate::addon::edited::{TAKE_NEW_ANNOTATION, edits, holds_settings, takes_new, to_lines};
use crate::addon::ident::Ident;
use crate::addon::manifest::Mode;
use crate::addon::parent::{self, Content};
use crate::addon::plan::{Live, Op, Seen, Wanted};
use crate::addon::reasons;
use crate::addon::source::channel::SOURCE;
use crate::addon::source::{Addon, Drift};

impl Run<'_> {
    /// Notes what users edited before a new version comes, and has it kept; whether the parent has to be
    /// written first. An object that cannot be read is left alone for now: it may have been edited.
    pub(super) async fn note_edits(
        &mut self,
        addon: &Addon,
        offered: Option<&Offered>,
        wanted: &mut Vec<Wanted>,
        content: &mut Content,
    ) -> Result<bool, Error> {
        if self.id.source != SOURCE {
            return Ok(false);
        }
        let before = content.edited.clone();
        if addon.complete && !self.outcome.waiting && self.outcome.errors.is_empty() {
            content.edited.retain(|ident, _| wanted.iter().any(|wanted| wanted.ident == *ident));
        }
        for wanted in wanted.iter().filter(|wanted| before.contains_key(&wanted.ident)) {
            let asks = |cached: Cached<'_>| match cached {
                Cached::Held(held) => held.annotations.iter().any(|(name, value)| (name, value) == TAKES),
                _ => false,
            };
            // Forgotten first, taken second: whatever happens in between, the annotation is still there.
            if self.engine.cached(wanted, |cached, _| asks(cached)) {
                content.edited.remove(&wanted.ident);
            }
        }
        // Where drift is repaired, an edit is drift.
        // Whoever goes back to an older version changes hands, too.
        let goes_back = self.back && self.repair;
        if (goes_back || offered.is_some_and(Offered::applies)) && addon.policy.drift == Drift::Report {
            self.keeps_edits = true;
            // Of what is installed anew nothing is there that could have been edited; if it is, it is seen.
            let unnoted = self.engine.shared.lock().unnoted.remove(&self.id);
            if unnoted || goes_back || offered.is_some_and(Offered::follows) {
                let unread = self.find_edits(wanted, content).await?;
                wanted.retain(|wanted| !unread.contains(&wanted.ident));
            }
        }
        for wanted in wanted.iter_mut() {
            if let Some(keys) = content.edited.get(&wanted.ident) {
                wanted.edited.clone_from(keys);
            }
        }
        if content.edited == before {
            return Ok(false);
        }
        let (known, new): (BTreeSet<String>, Vec<String>) =
            (to_lines(&before).collect(), to_lines(&content.edited).collect());
        let new: Vec<&str> = new.iter().filter(|line| !known.contains(*line)).map(String::as_str).collect();
        if !new.is_empty() && !self.observing {
            let about =
                parent::reference(&self.id, &self.engine.parent(&self.id).map(|parent| parent.uid).unwrap_or_default());
            let text = format!("{}: edited, and kept as they are: {}", self.id, new.join("; "));
            self.recorder.event(&about, reasons::EDITS_KEPT, text);
        }
        Ok(true)
    }

    /// Reads all settings, and adds what was edited; returns the objects that could not be read.
    async fn find_edits(&mut self, wanted: &[Wanted], content: &mut Content) -> Result<BTreeSet<Ident>, Error> {
        let mut unread = BTreeSet::new();
        let settings = |wanted: &&Wanted| wanted.mode == Mode::Reconcile && holds_settings(&wanted.ident.kind);
        for wanted in wanted.iter().filter(settings) {
            match self.api_of(wanted).get::<Value>(&wanted.kind, &wanted.ident.key()).await {
                Ok(None) => {
                    content.edited.remove(&wanted.ident);
                }
                Ok(Some(live)) if takes_new(&live) => {
                    content.edited.remove(&wanted.ident);
                }
                Ok(Some(live)) => {
                    let found = edits(&live, &self.engine.parts.overrides);
                    if !found.is_empty() {
                        content.edited.entry(wanted.ident.clone()).or_default().extend(found);
                    }
                }
                Err(error) => {
                    self.outcome.failed(&format!("{}, {}: what was edited", wanted.place, wanted.ident), error)?;
                    unread.insert(wanted.ident.clone());
                }
            }
        }
        Ok(unread)
    }

    /// Whether what was edited of an object, as it is now, is on the parent already: only then may its
    /// fields change hands.
    pub(super) fn edits_are_noted(&mut self, op: &Op, seen: &[Seen<'_>]) -> bool {
        let Op::Apply { index, take_back: Some(_), .. } = op else { return true };
        let Seen { wanted, live: Live::Present(live), .. } = &seen[*index] else { return true };
        if !self.keeps_edits || !holds_settings(&wanted.ident.kind) || takes_new(live) {
            return true;
        }
        let noted = edits(live, &self.engine.parts.overrides).is_subset(&wanted.edited);
        if !noted {
            // Edited since we looked, or never looked at.
            self.engine.shared.lock().unnoted.insert(self.id.clone());
            self.outcome.retry = true;
            self.outcome.conflict |= self.outcome.errors.is_empty();
        }
        noted
    }
}

/// The annotation and its value.
const TAKES: (&str, &str) = (TAKE_NEW_ANNOTATION, "true");
