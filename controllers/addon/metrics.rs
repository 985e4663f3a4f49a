//! Metrics. No label is an object's name. An addon's name is one only in
//! `quarterdeck_addon_failing`, which holds only addons that are not well, and at most
//! [`MOST_FAILING`] of them: an alert has to say which file to look at.

use prometheus::{Counter, CounterVec, Gauge, GaugeVec, Opts, Registry};

use super::parent::State;
use super::source::{AddonId, Snapshot};

/// Most addons that `quarterdeck_addon_failing` names.
pub(super) const MOST_FAILING: usize = 50;

/// What the addon controller counts.
pub(super) struct Metrics {
    addons: GaugeVec,
    failing: GaugeVec,
    /// Objects by what an apply did.
    pub(super) applied: CounterVec,
    /// Objects that somebody changed and that were put back.
    pub(super) repaired: Counter,
    /// Objects read because they may have changed.
    pub(super) reads: Counter,
    /// Addons that went back to an older revision.
    pub(super) rolled_back: Counter,
    /// Objects by what a prune did.
    pub(super) pruned: CounterVec,
    /// Objects whose removal waits for a person.
    pub(super) held: GaugeVec,
    /// Whether a predecessor is alive.
    pub(super) observing: Gauge,
    /// Whether keiko's addon-manager is alive.
    pub(super) observing_objects: Gauge,
    files: GaugeVec,
    problems: GaugeVec,
    readable: GaugeVec,
    digest: GaugeVec,
}

impl Metrics {
    /// Metrics on a registry; names that are taken stay with whoever has them.
    #[must_use]
    pub(super) fn new(registry: &Registry) -> Self {
        let gauge = |name: &str, help: &str, labels: &[&str]| {
            let metric =
                GaugeVec::new(Opts::new(name, help), labels).expect("the name and labels are constant and legal");
            let _ = registry.register(Box::new(metric.clone()));
            metric
        };
        let counters = |name: &str, help: &str, labels: &[&str]| {
            let metric =
                CounterVec::new(Opts::new(name, help), labels).expect("the name and labels are constant and legal");
            let _ = registry.register(Box::new(metric.clone()));
            metric
        };
        let counter = |name: &str, help: &str| {
            let metric = Counter::new(name, help).expect("the name is constant and legal");
            let _ = registry.register(Box::new(metric.clone()));
            metric
        };
        let observing = Gauge::new(
            "quarterdeck_addon_observing",
            "Whether addons are only looked at because a predecessor is alive (1 or 0).",
        )
        .expect("the name is constant and legal");
        let _ = registry.register(Box::new(observing.clone()));
        let observing_objects = Gauge::new(
            "quarterdeck_addon_observing_objects",
            "Whether Addon objects are only looked at because keiko's addon-manager may be alive (1 or 0).",
        )
        .expect("the name is constant and legal");
        let _ = registry.register(Box::new(observing_objects.clone()));
        Self {
            addons: gauge(
                "quarterdeck_addon_addons",
                "Addons by source and state, as the leader sees them.",
                &["source", "state"],
            ),
            failing: gauge(
                "quarterdeck_addon_failing",
                "1 for each addon that is degraded or held; at most 50 are named.",
                &["source", "addon", "state"],
            ),
            applied: counters("quarterdeck_addon_applied_total", "Objects by what an apply did.", &["result"]),
            repaired: counter(
                "quarterdeck_addon_drift_repaired_total",
                "Objects that somebody had changed or deleted and that were put back.",
            ),
            reads: counter("quarterdeck_addon_object_reads_total", "Objects read because they may have changed."),
            rolled_back: counter(
                "quarterdeck_addon_rolled_back_total",
                "How often an addon went back to an older revision.",
            ),
            pruned: counters(
                "quarterdeck_addon_pruned_total",
                "Objects that left their addon, by what became of them.",
                &["result"],
            ),
            held: gauge("quarterdeck_addon_held_objects", "Objects whose removal waits for a person.", &["source"]),
            observing,
            observing_objects,
            files: gauge(
                "quarterdeck_addon_source_addons",
                "Addons in the source, as this replica reads it.",
                &["source"],
            ),
            problems: gauge(
                "quarterdeck_addon_source_problems",
                "Problems in the source's manifests, as this replica reads it.",
                &["source"],
            ),
            readable: gauge(
                "quarterdeck_addon_source_complete",
                "Whether this replica could read the source whole (1 or 0).",
                &["source"],
            ),
            digest: gauge(
                "quarterdeck_addon_source_digest",
                "A digest of the source; replicas that read different content show different values.",
                &["source"],
            ),
        }
    }

    /// Shows what a replica read.
    pub(super) fn read(&self, source: &str, snapshot: &Snapshot) {
        let count = |count: usize| f64::from(u32::try_from(count).unwrap_or(u32::MAX));
        let problems = snapshot.addons.values().map(|addon| addon.problems.len()).sum();
        self.files.with_label_values(&[source]).set(count(snapshot.addons.len()));
        self.problems.with_label_values(&[source]).set(count(problems));
        self.readable.with_label_values(&[source]).set(f64::from(u8::from(snapshot.complete)));
        let mut word = [0; 4];
        word.copy_from_slice(&snapshot.digest[..4]);
        self.digest.with_label_values(&[source]).set(f64::from(u32::from_be_bytes(word)));
    }

    /// Shows how addons are, and what is held.
    pub(super) fn states<'a>(&self, states: impl Iterator<Item = (&'a AddonId, State, usize)>) {
        self.addons.reset();
        self.held.reset();
        self.failing.reset();
        let mut failing = 0;
        for (id, state, held) in states {
            self.addons.with_label_values(&[id.source, state.as_str()]).inc();
            self.held.with_label_values(&[id.source]).add(f64::from(u32::try_from(held).unwrap_or(u32::MAX)));
            if matches!(state, State::Degraded | State::Held | State::Blocked) && failing < MOST_FAILING {
                failing += 1;
                self.failing.with_label_values(&[id.source, &id.name, state.as_str()]).set(1.0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn failing_addons_are_named_within_bounds() {
        let registry = Registry::new();
        let metrics = Metrics::new(&registry);
        let id = |n: usize| AddonId { source: "directory", name: format!("{n}.yaml").into() };
        let mut states: BTreeMap<_, _> = (0..200).map(|n| (id(n), (State::Degraded, 1))).collect();
        metrics.states(states.iter().map(|(id, (state, held))| (id, *state, *held)));
        let series = |name: &str| {
            let families = registry.gather();
            families.iter().find(|family| family.name() == name).map_or(0, |family| family.get_metric().len())
        };
        assert_eq!((series("quarterdeck_addon_failing"), series("quarterdeck_addon_addons")), (MOST_FAILING, 1));
        states.values_mut().for_each(|state| *state = (State::Ready, 0));
        metrics.states(states.iter().map(|(id, (state, held))| (id, *state, *held)));
        assert_eq!(series("quarterdeck_addon_failing"), 0);
    }
}
