//! Whether objects that are in the cluster no more are gone.
//!
//! One that is deleted is gone. But when many go at once, something may be wrong with what we look at: an API server that was
//! restored from an old or empty backup, another cluster's kubeconfig, a custom resource definition that was deleted (which
//! deletes its objects one by one, as anybody else would). So disappearances are gathered for a moment. When more than half of
//! what is in force went within a minute, and at least three objects, then
//! - those that a list lacks, and of which no deletion was heard, are *held*: they stay in force, and the report says so;
//! - those that were deleted before our eyes stay in force for half a minute. If the kinds are served and followed without a
//!   break all that time, their definitions are there: the objects were meant, and are gone. Otherwise they are held.
//!
//! Held ones are let go
//! - each when it comes back: it is in force as any other;
//! - all of them, when the manager has proved since then that it lives in this cluster and knows as much as we do (it wrote an
//!   object of an epoch that is not smaller than any held one's), and none has come back for a quarter of an hour, which is
//!   longer than a manager takes to find out that objects of its own are missing and to write them again;
//! - or by `--accept-deletions`, when somebody who knows says so.
//!
//! To hold too long does little harm: what a held object claims goes to any other that claims it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use crate::desired::{Desired, ObjectId, ObjectKind};

/// Disappearances are gathered for so long, so that many at once are seen as such.
const GATHER: Duration = Duration::from_secs(1);
/// A definition that is deleted is served no more some seconds after its last object went: by then we know.
const PROOF: Duration = Duration::from_secs(30);
/// Those within this time count together.
const WINDOW: Duration = Duration::from_secs(60);
/// So few are never held.
const FEW: usize = 3;
/// After the last held object came back.
const QUIET: Duration = Duration::from_secs(15 * 60);

/// What is to be done with objects that went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// They are gone.
    pub gone: BTreeSet<ObjectId>,
    /// They stay in force.
    pub held: BTreeSet<ObjectId>,
    /// Those that were held, and are let go.
    pub released: BTreeSet<ObjectId>,
}

/// The brake.
#[derive(Debug)]
pub struct Brake {
    /// What went, and nothing is decided yet, with whether it was deleted before our eyes; and since when.
    pending: BTreeMap<ObjectId, bool>,
    since: Option<Instant>,
    /// What was deleted with many others, and until when we wait for proof that it was meant.
    doubted: BTreeSet<ObjectId>,
    until: Option<Instant>,
    /// How the cluster was followed when the first of them went.
    followed: Option<u64>,
    /// What was removed lately.
    removed: VecDeque<(Instant, ObjectKind)>,
    /// When a held object came back last, or was held.
    unrest: Instant,
    /// Whether the manager has proved that it lives.
    witness: bool,
}

impl Brake {
    /// One that knows of nothing.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self {
            pending: BTreeMap::new(),
            since: None,
            doubted: BTreeSet::new(),
            until: None,
            followed: None,
            removed: VecDeque::new(),
            unrest: now,
            witness: false,
        }
    }

    /// An object is in the cluster no more. `deleted`: the server said so; `followed`: see [`crate::source::Followed`].
    pub fn went(&mut self, id: ObjectId, deleted: bool, now: Instant, followed: Option<u64>) {
        if self.pending.is_empty() && self.doubted.is_empty() {
            self.followed = followed;
        }
        if !self.doubted.contains(&id) {
            self.since.get_or_insert(now);
            self.pending.insert(id, deleted);
        }
    }

    /// An object is there. `was_held`: it was not, before; `epoch`: it was written, in this tenure.
    pub fn came(&mut self, id: &ObjectId, was_held: bool, epoch: Option<u64>, desired: &Desired, now: Instant) {
        self.pending.remove(id);
        self.doubted.remove(id);
        if was_held {
            self.unrest = now;
        }
        self.witness |= epoch.is_some_and(|epoch| epoch >= highest(desired));
    }

    /// When there is something to be decided.
    #[must_use]
    pub fn due(&self, desired: &Desired) -> Option<Instant> {
        let release = (self.witness && !desired.held.is_empty()).then(|| self.unrest + QUIET);
        let gathered = self.since.filter(|_| !self.pending.is_empty()).map(|since| since + GATHER);
        let proof = self.until.filter(|_| !self.doubted.is_empty());
        [gathered, proof, release].into_iter().flatten().min()
    }

    /// Decides what is due.
    pub fn decide(&mut self, desired: &Desired, now: Instant, followed: Option<u64>) -> Verdict {
        let mut verdict = Verdict::default();
        if self.due(desired).is_none_or(|due| due > now) {
            return verdict;
        }
        if self.witness && !desired.held.is_empty() && self.unrest + QUIET <= now {
            verdict.released.clone_from(&desired.held);
        }
        if self.until.is_some_and(|until| until <= now) {
            self.until = None;
            let doubted = std::mem::take(&mut self.doubted);
            let meant = followed.is_some() && followed == self.followed;
            self.removed.extend(doubted.iter().filter(|_| meant).map(|id| (now, id.kind)));
            if meant { verdict.gone.extend(doubted) } else { verdict.held.extend(doubted) }
        }
        if self.since.is_some_and(|since| since + GATHER <= now) {
            self.since = None;
            self.sort(desired, now, &mut verdict);
        }
        if !verdict.held.is_empty() {
            // What was known of the manager was before this.
            (self.unrest, self.witness) = (now, false);
            verdict.released.clear();
        }
        verdict
    }

    /// Sorts what was gathered.
    fn sort(&mut self, desired: &Desired, now: Instant, verdict: &mut Verdict) {
        while self.removed.front().is_some_and(|(at, _)| *at + WINDOW < now) {
            self.removed.pop_front();
        }
        let there = |id: &ObjectId| match id.kind {
            ObjectKind::Balancer => desired.balancers.contains_key(&id.name),
            ObjectKind::Route => desired.routes.contains_key(&id.name),
        };
        let mut pending = std::mem::take(&mut self.pending);
        pending.retain(|id, _| there(id) && !desired.held.contains(id));
        let is_mass = |kind: Option<ObjectKind>| {
            let of_kind = |other: ObjectKind| kind.is_none_or(|kind| kind == other);
            let lately = self.removed.iter().filter(|(_, kind)| of_kind(*kind)).count();
            let lost = lately + pending.keys().chain(&self.doubted).filter(|id| of_kind(id.kind)).count();
            let mut all = lately;
            all += if of_kind(ObjectKind::Balancer) { desired.balancers.len() } else { 0 };
            all += if of_kind(ObjectKind::Route) { desired.routes.len() } else { 0 };
            all -= desired.held.iter().filter(|id| of_kind(id.kind)).count();
            lost >= FEW && 2 * lost > all
        };
        let everything = is_mass(None);
        let (balancers, routes) = (is_mass(Some(ObjectKind::Balancer)), is_mass(Some(ObjectKind::Route)));
        for (id, deleted) in pending {
            let of_kind = if id.kind == ObjectKind::Balancer { balancers } else { routes };
            match everything || of_kind {
                true if deleted => {
                    self.until = Some(now + PROOF);
                    self.doubted.insert(id);
                }
                true => drop(verdict.held.insert(id)),
                false => {
                    self.removed.push_back((now, id.kind));
                    verdict.gone.insert(id);
                }
            }
        }
    }
}

/// The highest epoch of those that are held.
fn highest(desired: &Desired) -> u64 {
    let epoch = |id: &ObjectId| match id.kind {
        ObjectKind::Balancer => desired.balancers.get(&id.name).map(|balancer| balancer.spec.epoch),
        ObjectKind::Route => desired.routes.get(&id.name).map(|route| route.spec.epoch),
    };
    desired.held.iter().filter_map(epoch).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desired::Versioned;
    use quarterdeck_api::cloud::metal::{LoadBalancerSpec, RouteSpec};

    fn desired(balancers: usize, routes: usize) -> Desired {
        let spec = LoadBalancerSpec { epoch: 5, ..LoadBalancerSpec::default() };
        let balancer = |n| (format!("b{n}"), Versioned { generation: 1, spec: spec.clone() });
        let spec = RouteSpec { epoch: 5, ..RouteSpec::default() };
        let route = |n| (format!("n{n}"), Versioned { generation: 1, spec: spec.clone() });
        Desired {
            balancers: (0..balancers).map(balancer).collect(),
            routes: (0..routes).map(route).collect(),
            held: BTreeSet::new(),
        }
    }

    fn all(desired: &Desired, balancers: usize, routes: usize) -> Vec<ObjectId> {
        let balancers = desired.balancers.keys().take(balancers).map(|name| ObjectId::balancer(name));
        balancers.chain(desired.routes.keys().take(routes).map(|name| ObjectId::route(name))).collect()
    }

    #[test]
    fn many_at_once_are_held_and_few_are_gone() {
        let cases = [
            // there: balancers, routes; gone: balancers, routes; held: balancers, routes
            ((1, 0), (1, 0), (0, 0)),
            ((2, 0), (2, 0), (0, 0)),
            ((3, 0), (3, 0), (3, 0)),
            ((10, 0), (5, 0), (0, 0)),
            ((10, 0), (6, 0), (6, 0)),
            ((10, 10), (10, 10), (10, 10)),
            // One kind alone.
            ((4, 100), (4, 1), (4, 0)),
            ((100, 4), (0, 4), (0, 4)),
            ((1, 100), (1, 0), (0, 0)),
            // Few of each kind, and all there is.
            ((2, 2), (2, 2), (2, 2)),
        ];
        for (there, gone, held) in cases {
            let (desired, now) = (desired(there.0, there.1), Instant::now());
            let mut brake = Brake::new(now);
            for id in all(&desired, gone.0, gone.1) {
                brake.went(id, false, now, Some(0));
            }
            assert_eq!(brake.decide(&desired, now, Some(0)), Verdict::default(), "more may follow");
            let verdict = brake.decide(&desired, now + GATHER, Some(0));
            let count = |ids: &BTreeSet<ObjectId>| {
                let balancers = ids.iter().filter(|id| id.kind == ObjectKind::Balancer).count();
                (balancers, ids.len() - balancers)
            };
            assert_eq!(count(&verdict.held), held, "{there:?} {gone:?}");
            assert_eq!(count(&verdict.gone), (gone.0 - held.0, gone.1 - held.1), "{there:?} {gone:?}");
            assert_eq!(brake.due(&desired), None);
        }
    }

    #[test]
    fn a_slow_trickle_is_held_once_half_is_gone() {
        let (mut desired, mut now) = (desired(10, 0), Instant::now());
        let mut brake = Brake::new(now);
        let mut gone = 0;
        for id in all(&desired.clone(), 10, 0) {
            brake.went(id, false, now, Some(0));
            now += GATHER;
            let verdict = brake.decide(&desired, now, Some(0));
            for id in &verdict.gone {
                desired.balancers.remove(&id.name);
                gone += 1;
            }
            desired.held.extend(verdict.held);
        }
        assert_eq!((gone, desired.held.len()), (5, 5));
    }

    #[test]
    fn what_comes_back_in_time_never_went() {
        let (desired, now) = (desired(3, 0), Instant::now());
        let mut brake = Brake::new(now);
        for id in all(&desired, 3, 0) {
            brake.went(id.clone(), true, now, Some(0));
            brake.came(&id, false, Some(5), &desired, now);
        }
        assert_eq!(brake.due(&desired), None);
        assert_eq!(brake.decide(&desired, now + GATHER, Some(0)), Verdict::default());
    }

    #[test]
    fn held_ones_go_when_the_manager_has_proved_that_it_lives_and_all_is_quiet() {
        let (mut desired, start) = (desired(4, 0), Instant::now());
        let mut brake = Brake::new(start);
        for id in all(&desired, 4, 0) {
            brake.went(id, false, start, Some(0));
        }
        let now = start + GATHER;
        desired.held = brake.decide(&desired, now, Some(0)).held;
        assert_eq!(desired.held.len(), 4);
        // Time alone is no proof, and neither is an older epoch.
        let other = ObjectId::balancer("other");
        brake.came(&other, false, Some(4), &desired, now);
        assert_eq!(brake.decide(&desired, now + 100 * QUIET, Some(0)), Verdict::default());
        // One is written again; the others may follow.
        let back = ObjectId::balancer("b0");
        desired.held.remove(&back);
        let later = now + QUIET / 2;
        brake.came(&back, true, Some(5), &desired, later);
        assert_eq!(brake.decide(&desired, now + QUIET, Some(0)), Verdict::default());
        assert_eq!(brake.due(&desired), Some(later + QUIET));
        assert_eq!(brake.decide(&desired, later + QUIET, Some(0)).released, desired.held);
    }

    #[test]
    fn what_is_deleted_before_our_eyes_is_gone_if_its_kind_is_still_served() {
        for (then, later, gone) in [
            (Some(3), Some(3), true),
            // Not followed, or listed anew: its definition may have been deleted.
            (Some(3), None, false),
            (Some(3), Some(4), false),
            (None, None, false),
        ] {
            let (desired, now) = (desired(5, 3), Instant::now());
            let mut brake = Brake::new(now);
            for id in all(&desired, 5, 3) {
                brake.went(id, true, now, then);
            }
            assert_eq!(brake.decide(&desired, now + GATHER, Some(3)), Verdict::default(), "there is no proof yet");
            let due = now + GATHER + PROOF;
            assert_eq!(brake.due(&desired), Some(due));
            // One that came back meanwhile was not meant.
            let back = ObjectId::balancer("b0");
            brake.came(&back, false, Some(5), &desired, now + GATHER);
            let verdict = brake.decide(&desired, due, later);
            assert_eq!(
                (verdict.gone.len(), verdict.held.len()),
                if gone { (7, 0) } else { (0, 7) },
                "{then:?} {later:?}"
            );
            assert_eq!(brake.due(&desired), None);
        }
    }
}
