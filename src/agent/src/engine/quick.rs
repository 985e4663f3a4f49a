//! The short way: a change of few backends is planned, kept and put into the kernel before anything else is done.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;

use super::Engine;
use crate::nft;
use crate::plan::{Changes, Check, patch, settle};
use crate::store::Line;

/// After a small change, so long is waited for more of them before the rest is done: reports, checks, the disk.
const REST: Duration = Duration::from_millis(100);
/// After a small change that used up spare pools, everything is planned again.
const TIDY: Duration = Duration::from_secs(2);

impl Engine {
    /// Works in what is new, if that is little. Says whether it did; if not, [`Engine::converge`] has to follow.
    pub fn quick(&mut self) -> bool {
        let desired = &self.kept.accepted.desired;
        let brake_is_due =
            self.brake.as_ref().and_then(|brake| brake.due(desired)).is_some_and(|at| at <= Instant::now());
        if self.news.everything || brake_is_due || self.tools.store.is_full() {
            return false;
        }
        let (Some(known), Some(mut planned)) = (self.loaded, self.plan.take()) else { return false };
        let (seen, health) = (Instant::now(), self.tools.health.verdicts());
        let checks: BTreeSet<Check> = health
            .iter()
            .filter(|(check, well)| planned.health.get(*check) != Some(*well))
            .chain(planned.health.iter().filter(|(check, _)| !health.contains_key(*check)))
            .map(|(check, _)| check.clone())
            .collect();
        let changes = Changes { balancers: self.news.balancers.clone(), checks };
        let with = (&planned.host, &self.tools.settings, &mut self.kept.memory);
        let patched = patch(&mut planned.plan, &changes, desired, &planned.health, &health, with);
        let Some(patched) = patched else {
            // Its ruleset is what the kernel holds; the rest is made anew.
            self.news.everything = true;
            self.plan = Some(planned);
            return false;
        };
        // On disk before it is in the kernel.
        let mut lines = std::mem::take(&mut self.news.lines);
        let judged = changes.checks.into_iter().filter_map(|check| health.get(&check).map(|well| (check, *well)));
        lines.extend(judged.map(|(check, well)| Line::Check(check, well)));
        if !patched.moved.is_empty() || patched.untidy {
            lines.push(Line::Pools(patched.moved, self.kept.memory.spares.clone()));
        }
        self.kept.set_health(&health);
        let kept = lines.is_empty() || self.tools.store.append(&lines).is_ok();
        let sent = kept && (patched.elements.is_empty() || self.send(&planned.plan.ruleset, &patched.elements, known));
        if !sent {
            // What the kernel holds is neither this plan nor the one before: it is read.
            self.loaded = None;
            self.news.everything = true;
            return false;
        }
        if let Some(since) = self.news.since.take().or_else(|| (!patched.elements.is_empty()).then_some(seen)) {
            self.tools.metrics.changes.with_label_values(&["quick"]).observe(since.elapsed().as_secs_f64());
        }
        self.news.balancers.clear();
        self.unsaved = false;
        planned.health = health;
        self.plan = Some(planned);
        let (_, owed) = self.owed.get_or_insert_with(|| (Instant::now() + REST, BTreeSet::new()));
        owed.extend(patched.balancers);
        if patched.untidy {
            self.tidy.get_or_insert(Instant::now() + TIDY);
        }
        true
    }

    /// When [`Engine::finish`] is due after small changes.
    #[must_use]
    pub fn finish_due(&self) -> Option<Instant> {
        self.owed.as_ref().map(|(at, _)| *at)
    }

    /// Does what no packet waits for after small changes.
    pub async fn finish(&mut self) {
        let (Some((_, balancers)), Some(mut planned)) = (self.owed.take(), self.plan.take()) else { return };
        settle(&mut planned.plan, &self.kept.accepted.desired, &planned.health, &balancers);
        self.tools.health.set(&planned.plan.checks);
        planned.problems.clear();
        planned.problems.extend(self.forget_flows(&planned.plan).await);
        planned.problems.extend(self.tools.store.sync().err().map(|error| error.to_string()));
        self.plan = Some(planned);
        self.tell();
    }

    /// Whether somebody changed a table of nftables since we looked at ours.
    #[must_use]
    pub fn tables_changed(&self) -> bool {
        match (self.loaded, nft::generation()) {
            (Some(known), Ok(now)) => known != now,
            _ => true,
        }
    }
}
