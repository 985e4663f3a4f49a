//! What the source told.

use std::collections::BTreeMap;

use tokio::time::Instant;

use super::Engine;
use crate::desired::{Effect, Now, ObjectId};
use crate::source::Told;
use crate::store::Line;

impl Engine {
    /// Takes the first list of the cluster at its word, once: what it lacks is gone.
    pub fn accept_deletions(&mut self) {
        self.accepts_first_list = true;
    }

    /// Takes in what the source told.
    pub fn hear(&mut self, told: Told) {
        let now = Instant::now();
        let (changes, since, cluster) = match told {
            Told::Nothing(error) => {
                tracing::warn!(error, "the source cannot be read: everything stays as it is");
                self.source_error = Some(error);
                self.news.everything = true;
                return;
            }
            Told::File(snapshot) => (self.kept.accepted.changes_to(snapshot), now, false),
            Told::Cluster(snapshot, followed) => {
                self.followed = Some(followed);
                (self.kept.accepted.changes_to(snapshot), now, true)
            }
            Told::Changes(changes, since) => (changes, since, true),
        };
        // A whole list is what a cluster tells first.
        let doubt = cluster && !std::mem::take(&mut self.accepts_first_list);
        self.news.since.get_or_insert(since);
        // A first word, and one after an error, end a state in which less was done or more was reported.
        self.news.everything |= self.hold_until.take().is_some() | self.source_error.take().is_some();
        let mut refusals = if cluster { self.refusals.clone() } else { BTreeMap::new() };
        for (id, now) in changes {
            match self.take(&id, now, doubt) {
                Ok(()) => drop(refusals.remove(&id)),
                Err(error) => drop(refusals.insert(id, error)),
            }
        }
        for (object, error) in refusals.iter().filter(|(object, error)| self.refusals.get(*object) != Some(*error)) {
            tracing::warn!(%object, error, "an object was not accepted: what was in force before stays");
        }
        self.news.everything |= refusals != self.refusals;
        self.refusals = refusals;
    }

    /// Takes in one object. `doubt`: that it is there no more may be a mistake.
    fn take(&mut self, id: &ObjectId, now: Now, doubt: bool) -> Result<(), String> {
        let at = Instant::now();
        if let (Now::Gone | Now::Missing, Some(brake), true) = (&now, &mut self.brake, doubt) {
            // What the manager withdrew before claims nothing: that it goes is no surprise.
            let withdrawn = self.kept.accepted.desired.is_withdrawn(id);
            if !self.kept.accepted.desired.held.contains(id) && !withdrawn {
                let followed = self.followed.as_ref().and_then(|followed| followed());
                brake.went(id.clone(), now == Now::Gone, at, followed);
            }
            if !withdrawn {
                return Ok(());
            }
        }
        let was_held = self.kept.accepted.desired.held.contains(id);
        let epoch = match &now {
            Now::Balancer(new) => Some(new.spec.epoch),
            Now::Route(new) => Some(new.spec.epoch),
            Now::Broken(_) | Now::Gone | Now::Missing => None,
        };
        let line = Line::Object(id.clone(), Box::new(now.clone()));
        let effect = self.kept.accepted.admit(id, now).map_err(|refusal| {
            if matches!(refusal, crate::desired::Refusal::Stale { .. }) {
                self.tools.metrics.refused.inc();
            }
            refusal.to_string()
        });
        // One that could not be understood is there all the same.
        if let Some(brake) = &mut self.brake {
            let written = epoch.filter(|_| effect.as_ref().is_ok_and(|effect| *effect != Effect::None));
            brake.came(id, was_held, written, &self.kept.accepted.desired, at);
        }
        match effect? {
            Effect::None => return Ok(()),
            Effect::Other => self.news.everything = true,
            Effect::Respecified(before) => drop(self.news.balancers.entry(id.name.clone()).or_insert(*before)),
        }
        self.unsaved = true;
        self.news.lines.push(line);
        Ok(())
    }

    /// Removes what is gone, and keeps what only seems to be.
    pub(super) fn brake(&mut self) {
        let Some(brake) = &mut self.brake else { return };
        let followed = self.followed.as_ref().and_then(|followed| followed());
        let verdict = brake.decide(&self.kept.accepted.desired, Instant::now(), followed);
        for id in verdict.gone.iter().chain(&verdict.released) {
            // Nothing refuses that.
            let _ = self.kept.accepted.admit(id, Now::Gone);
            self.refusals.remove(id);
        }
        if !verdict.released.is_empty() {
            tracing::warn!(objects = verdict.released.len(), "objects that were held are let go: the manager lives");
        }
        if !verdict.held.is_empty() {
            let objects = verdict.held.len();
            tracing::warn!(objects, "too many objects vanished at once: they stay in force (--accept-deletions)");
        }
        if verdict != Default::default() {
            (self.unsaved, self.news.everything) = (true, true);
            self.kept.accepted.desired.held.extend(verdict.held);
        }
        let held = self.kept.accepted.desired.held.len();
        self.tools.metrics.held.set(i64::try_from(held).unwrap_or(i64::MAX));
    }
}
