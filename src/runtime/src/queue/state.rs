//! The queue's state machine: what each key waits for.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use super::rate::Rate;
use super::{QueueStatus, Taken};
use crate::controller::Key;

/// One key in `LATER_SHARE` comes from the later lane while both have some, so that neither starves.
const LATER_SHARE: u32 = 5;

/// Which keys go first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Lane {
    /// New and changed keys.
    Changed,
    /// Resyncs and failures.
    Later,
}

/// Where a key is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Nowhere: kept only for its failures or its due time.
    Idle,
    /// In a lane, since the given time.
    Queued { lane: Lane, since: Instant },
    /// In a worker's hands; `again` when it changed meanwhile.
    Taken { since: Instant, again: Option<Lane> },
    /// Waiting for a cache to show our own write.
    Parked { since: Instant },
}

#[derive(Debug)]
struct Entry {
    place: Place,
    failures: u32,
    due: Option<Instant>,
}

/// Keys and what they wait for.
pub(super) struct State<K> {
    entries: HashMap<K, Entry>,
    changed: VecDeque<K>,
    later: VecDeque<K>,
    due: BinaryHeap<Reverse<Due<K>>>,
    queued: usize,
    from_changed: u32,
    last_finished: Option<Instant>,
    added: Rate,
    done: Rate,
}

struct Due<K> {
    at: Instant,
    key: K,
}

impl<K> PartialEq for Due<K> {
    fn eq(&self, other: &Self) -> bool {
        self.at == other.at
    }
}

impl<K> Eq for Due<K> {}

impl<K> PartialOrd for Due<K> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<K> Ord for Due<K> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.at.cmp(&other.at)
    }
}

/// What giving a key back led to.
pub(super) struct Finished {
    /// Whether a worker should look.
    pub(super) wake: bool,
    /// How long the key was in a worker's hands.
    pub(super) worked: Duration,
}

impl<K> Default for State<K> {
    fn default() -> Self {
        Self {
            entries: HashMap::new(),
            changed: VecDeque::new(),
            later: VecDeque::new(),
            due: BinaryHeap::new(),
            queued: 0,
            from_changed: 0,
            last_finished: None,
            added: Rate::default(),
            done: Rate::default(),
        }
    }
}

impl<K: Key> State<K> {
    pub(super) fn depth(&self) -> usize {
        self.queued
    }

    /// Adds a key; true when it became ready by that.
    pub(super) fn add(&mut self, key: K, lane: Lane, now: Instant) -> bool {
        let entry = self.entries.entry(key.clone()).or_insert(Entry { place: Place::Idle, failures: 0, due: None });
        match &mut entry.place {
            Place::Idle => {
                entry.place = Place::Queued { lane, since: now };
                self.queued += 1;
                self.added.count(now);
                self.lane(lane).push_back(key);
                true
            }
            // The copy left behind in the slower lane is skipped when its turn comes.
            Place::Queued { lane: old, .. } if lane < *old => {
                *old = lane;
                self.lane(lane).push_back(key);
                false
            }
            Place::Queued { .. } | Place::Parked { .. } => false,
            Place::Taken { again, .. } => {
                *again = Some(again.map_or(lane, |old| old.min(lane)));
                false
            }
        }
    }

    /// Has a key looked at no later than `at`; true when timers must be set anew.
    pub(super) fn add_at(&mut self, key: K, at: Instant) -> bool {
        let entry = self.entries.entry(key.clone()).or_insert(Entry { place: Place::Idle, failures: 0, due: None });
        if entry.due.is_some_and(|due| due <= at) {
            return false;
        }
        entry.due = Some(at);
        self.due.push(Reverse(Due { at, key }));
        true
    }

    pub(super) fn next_due(&self) -> Option<Instant> {
        self.due.peek().map(|Reverse(due)| due.at)
    }

    /// Queues the keys whose time has come.
    pub(super) fn promote_due(&mut self, now: Instant) {
        while self.due.peek().is_some_and(|Reverse(due)| due.at <= now) {
            let Some(Reverse(Due { at, key })) = self.due.pop() else { return };
            let Some(entry) = self.entries.get_mut(&key) else { continue };
            // A timer that was replaced by an earlier one, or whose key has been served since.
            if entry.due != Some(at) {
                continue;
            }
            entry.due = None;
            let lane = if entry.failures > 0 { Lane::Later } else { Lane::Changed };
            self.add(key, lane, now);
        }
    }

    /// Takes the next key, and how long it has waited.
    pub(super) fn take(&mut self, now: Instant) -> Option<(Taken<K>, Duration)> {
        let later_first = self.from_changed >= LATER_SHARE - 1;
        let order = if later_first { [Lane::Later, Lane::Changed] } else { [Lane::Changed, Lane::Later] };
        let (lane, key) = order.into_iter().find_map(|lane| self.pop(lane).map(|key| (lane, key)))?;
        self.from_changed = if lane == Lane::Changed && !self.later.is_empty() { self.from_changed + 1 } else { 0 };
        self.queued -= 1;
        let entry = self.entries.get_mut(&key)?;
        let since = match entry.place {
            Place::Queued { since, .. } => since,
            _ => now,
        };
        entry.place = Place::Taken { since: now, again: None };
        // What the timer was for happens now.
        entry.due = None;
        Some((Taken { failures: entry.failures, key }, now - since))
    }

    /// Pops the first key that still belongs to a lane.
    fn pop(&mut self, lane: Lane) -> Option<K> {
        loop {
            let key = self.lane(lane).pop_front()?;
            let here = self
                .entries
                .get(&key)
                .is_some_and(|entry| matches!(entry.place, Place::Queued { lane: its, .. } if its == lane));
            if here {
                return Some(key);
            }
        }
    }

    pub(super) fn count_failure(&mut self, key: &K) -> u32 {
        let Some(entry) = self.entries.get_mut(key) else { return 0 };
        entry.failures = entry.failures.saturating_add(1);
        entry.failures
    }

    /// Notes that a key in a worker's hands must be looked at again.
    pub(super) fn mark_dirty(&mut self, key: &K, lane: Lane, now: Instant) {
        self.add(key.clone(), lane, now);
    }

    /// Takes a key back from a worker.
    pub(super) fn finish(&mut self, key: &K, now: Instant, due: Option<Instant>, forget: bool) -> Finished {
        let Some(entry) = self.entries.get_mut(key) else { return Finished { wake: false, worked: Duration::ZERO } };
        let Place::Taken { since, again } = entry.place else {
            return Finished { wake: false, worked: Duration::ZERO };
        };
        entry.place = Place::Idle;
        if forget {
            entry.failures = 0;
        }
        self.last_finished = Some(now);
        self.done.count(now);
        let mut wake = false;
        if let Some(lane) = again {
            wake = self.add(key.clone(), lane, now);
        }
        if let Some(due) = due {
            wake |= self.add_at(key.clone(), due);
        }
        self.drop_if_idle(key);
        Finished { wake, worked: now - since }
    }

    pub(super) fn park(&mut self, key: &K, now: Instant) {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.place = Place::Parked { since: now };
        }
    }

    pub(super) fn unpark(&mut self, key: &K, now: Instant) -> bool {
        let Some(entry) = self.entries.get_mut(key) else { return false };
        if !matches!(entry.place, Place::Parked { .. }) {
            return false;
        }
        entry.place = Place::Idle;
        self.add(key.clone(), Lane::Changed, now)
    }

    pub(super) fn demote_before(&mut self, instant: Instant) {
        let keys = std::mem::take(&mut self.changed);
        for key in keys {
            let Some(entry) = self.entries.get_mut(&key) else { continue };
            match &mut entry.place {
                Place::Queued { lane, since } if *lane == Lane::Changed && *since < instant => {
                    *lane = Lane::Later;
                    self.later.push_back(key);
                }
                Place::Queued { lane: Lane::Changed, .. } => self.changed.push_back(key),
                _ => {}
            }
        }
    }

    /// Seconds of work in workers' hands: the sum, and the longest.
    pub(super) fn running(&self, now: Instant) -> (f64, f64) {
        let mut sum = 0.0;
        let mut longest = 0.0_f64;
        for entry in self.entries.values() {
            if let Place::Taken { since, .. } = entry.place {
                let seconds = (now - since).as_secs_f64();
                sum += seconds;
                longest = longest.max(seconds);
            }
        }
        (sum, longest)
    }

    pub(super) fn status(&self, now: Instant) -> QueueStatus {
        let mut status = QueueStatus { depth: self.queued, ..QueueStatus::default() };
        let mut oldest: Option<(&K, Instant)> = None;
        for (key, entry) in &self.entries {
            match entry.place {
                Place::Idle => {}
                Place::Queued { since, .. } => {
                    if oldest.is_none_or(|(_, other)| since < other) {
                        oldest = Some((key, since));
                    }
                }
                Place::Taken { .. } => status.in_flight += 1,
                Place::Parked { since } => {
                    status.parked += 1;
                    if oldest.is_none_or(|(_, other)| since < other) {
                        oldest = Some((key, since));
                    }
                }
            }
            status.delayed += usize::from(entry.due.is_some());
        }
        status.oldest = oldest.map(|(key, since)| (key.to_string(), (now - since).as_secs_f64()));
        status.idle_seconds = self.last_finished.map(|at| (now - at).as_secs_f64());
        status.added_per_second = self.added.per_second(now);
        status.done_per_second = self.done.per_second(now);
        status
    }

    fn drop_if_idle(&mut self, key: &K) {
        let idle = self
            .entries
            .get(key)
            .is_some_and(|entry| entry.place == Place::Idle && entry.failures == 0 && entry.due.is_none());
        if idle {
            self.entries.remove(key);
        }
    }

    fn lane(&mut self, lane: Lane) -> &mut VecDeque<K> {
        match lane {
            Lane::Changed => &mut self.changed,
            Lane::Later => &mut self.later,
        }
    }
}
