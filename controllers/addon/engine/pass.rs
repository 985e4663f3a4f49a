//! A pass over a source: what may leave the cluster.

use std::time::Duration;

use quarterdeck_runtime::controller::Action;
use tokio::time::Instant;

use super::{Decided, Engine, Key, Recent};
use crate::addon::removal::{Losing, decide, losing};
use crate::addon::source::{AddonId, OBJECTS};

/// Removals that lie closer together than this count as one.
pub(super) const RECENT: Duration = Duration::from_secs(30);
/// How often a cache that is not complete yet is asked again.
const UNSYNCED: Duration = Duration::from_millis(200);

impl Engine {
    /// Decides about removals of a source, and wakes the addons that it concerns.
    pub(crate) fn pass(&self, source: &'static str) -> Action {
        if !self.parts.parents.has_synced() {
            return Action::RequeueAfter(UNSYNCED);
        }
        self.note_observing(source);
        let looked = if source == OBJECTS { self.note_keiko() } else { Action::Done };
        let Some(snapshot) = self.snapshot(source) else { return looked };
        if !snapshot.complete || !snapshot.settled {
            return looked;
        }
        let mut parents = self.parents_of(source);
        // An Addon object that the source has not read yet is there all the same.
        parents.retain(|id, _| source != OBJECTS || snapshot.addons.contains_key(&id.name));
        parents.retain(|id, parent| !self.awaits_overlay(id, parent));
        let named = self.named();
        let now = Instant::now();
        let (recent_files, recent_objects) = self
            .recent(now, |id| parents.get(id).is_some_and(|parent| !losing(parent, id, &snapshot, &named).is_empty()));
        let verdicts = decide(&Losing {
            snapshot: &snapshot,
            parents: &parents,
            named: &named,
            protected: &self.parts.protected,
            recent_files,
            recent_objects,
        });
        let mut wake: Vec<_> = Vec::new();
        for (id, parent) in &parents {
            let verdict = verdicts.get(id);
            let held = verdict.and_then(|verdict| verdict.held.as_ref());
            if held != parent.content.held.as_ref()
                || verdict.is_some_and(|verdict| !verdict.go.is_empty() || (verdict.gone && held.is_none()))
            {
                wake.push(id.clone());
            }
        }
        let mut shared = self.shared.lock();
        if !self.observing(source) {
            for (id, verdict) in verdicts.iter().filter(|(_, verdict)| !verdict.go.is_empty()) {
                let recent = Recent { at: now, gone: verdict.gone, objects: verdict.go.len() };
                shared.recent.entry(id.clone()).or_insert(recent);
            }
        }
        shared.verdicts.insert(source, Decided { digest: snapshot.digest, verdicts });
        drop(shared);
        self.stop_unused_watches();
        wake.into_iter().for_each(|id| self.parts.queue.add(Key::Addon(id)));
        looked
    }

    /// Files and objects that were let go a moment ago, less those that are still to go.
    fn recent(&self, now: Instant, still_to_go: impl Fn(&AddonId) -> bool) -> (usize, usize) {
        let mut shared = self.shared.lock();
        shared.recent.retain(|_, recent| now.duration_since(recent.at) < RECENT);
        let done = shared.recent.iter().filter(|(id, _)| !still_to_go(id));
        done.fold((0, 0), |(files, objects), (_, recent)| (files + usize::from(recent.gone), objects + recent.objects))
    }

    /// Wakes everything when the predecessor came or went.
    fn note_observing(&self, source: &'static str) {
        let observing = self.observing_all();
        let mut shared = self.shared.lock();
        let before = shared.observing.replace(observing);
        self.parts.metrics.observing.set(f64::from(u8::from(observing)));
        if before.is_none_or(|before| before == observing) {
            if before.is_none() && observing {
                tracing::info!(source, "a kube-addon-manager pod is alive: addons are only looked at");
            }
            return;
        }
        if observing {
            tracing::info!(source, "a kube-addon-manager pod has come: addons are only looked at");
        } else {
            tracing::info!(source, "the last kube-addon-manager pod is gone: addons are reconciled");
        }
        let all: Vec<_> = shared
            .sources
            .values()
            .flat_map(|snapshot| snapshot.addons.values())
            .map(|addon| addon.id.clone())
            .collect();
        let verdicts: Vec<_> = shared.verdicts.values().flat_map(|decided| decided.verdicts.keys()).cloned().collect();
        drop(shared);
        all.into_iter().chain(verdicts).for_each(|id| self.parts.queue.add(Key::Addon(id)));
    }
}
