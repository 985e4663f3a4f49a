//! Metrics, under upstream's names
//! (pkg/controller/endpointslicemirroring/metrics v1.36.3).

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use prometheus::core::Collector;
use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry, exponential_buckets};
use quarterdeck_runtime::object::ObjectKey;

use super::plan::Plan;

/// The controller's metrics.
pub(super) struct Metrics {
    added: Histogram,
    updated: Histogram,
    removed: Histogram,
    skipped: Histogram,
    duration: Histogram,
    endpoints_desired: IntGauge,
    slices: IntGauge,
    ideal_slices: IntGauge,
    /// Slices created.
    pub(super) creates: IntCounter,
    /// Slices updated.
    pub(super) updates: IntCounter,
    /// Slices deleted.
    pub(super) deletes: IntCounter,
    mirrored: Mutex<HashMap<ObjectKey, (i64, i64)>>,
}

impl Metrics {
    /// Registers the metrics.
    pub(super) fn new(registry: &Registry) -> Self {
        let histogram = |name, help, first| {
            let buckets = exponential_buckets(first, 2.0, 15).expect("constant arguments in range");
            let options = HistogramOpts::new(full_name(name), help).buckets(buckets);
            register(registry, Histogram::with_opts(options).expect("constant name"))
        };
        let gauge = |name, help| register(registry, IntGauge::new(full_name(name), help).expect("constant name"));
        let changes =
            IntCounterVec::new(Opts::new(full_name("changes"), "Slices written, by operation"), &["operation"]);
        let changes = register(registry, changes.expect("constant name"));
        Self {
            added: histogram("endpoints_added_per_sync", "Endpoints added on each sync of an Endpoints object", 2.0),
            updated: histogram(
                "endpoints_updated_per_sync",
                "Endpoints changed on each sync of an Endpoints object",
                2.0,
            ),
            removed: histogram(
                "endpoints_removed_per_sync",
                "Endpoints removed on each sync of an Endpoints object",
                2.0,
            ),
            skipped: histogram("addresses_skipped_per_sync", "Addresses not mirrored: invalid, or too many", 2.0),
            duration: histogram("endpoints_sync_duration", "Seconds that the sync of an Endpoints object took", 0.001),
            endpoints_desired: gauge("endpoints_desired", "Endpoints that should exist"),
            slices: gauge("num_endpoint_slices", "Slices that exist"),
            ideal_slices: gauge("desired_endpoint_slices", "Slices that should exist"),
            creates: changes.with_label_values(&["create"]),
            updates: changes.with_label_values(&["update"]),
            deletes: changes.with_label_values(&["delete"]),
            mirrored: Mutex::default(),
        }
    }

    /// A sync ended.
    pub(super) fn synced(&self, took: Duration) {
        self.duration.observe(took.as_secs_f64());
    }

    /// An object was planned.
    pub(super) fn planned(&self, key: &ObjectKey, plan: &Plan) {
        self.added.observe(to_float(plan.added));
        self.updated.observe(to_float(plan.updated));
        self.removed.observe(to_float(plan.removed));
        self.skipped.observe(to_float(plan.skipped));
        self.contributes(key, Some((to_int(plan.endpoints), to_int(plan.slices))));
    }

    /// How many endpoints and slices an object contributes now; none when it is not mirrored.
    pub(super) fn contributes(&self, key: &ObjectKey, now: Option<(i64, i64)>) {
        let before = match now {
            Some(now) => self.mirrored.lock().insert(key.clone(), now),
            None => self.mirrored.lock().remove(key),
        };
        let ((endpoints, slices), (old_endpoints, old_slices)) = (now.unwrap_or_default(), before.unwrap_or_default());
        self.endpoints_desired.add(endpoints - old_endpoints);
        self.slices.add(slices - old_slices);
        self.ideal_slices.add(slices - old_slices);
    }
}

fn full_name(name: &str) -> String {
    format!("endpoint_slice_mirroring_controller_{name}")
}

fn register<C: Collector + Clone + 'static>(registry: &Registry, metric: C) -> C {
    if let Err(error) = registry.register(Box::new(metric.clone())) {
        tracing::warn!(%error, "metric is not served");
    }
    metric
}

#[expect(clippy::cast_precision_loss, reason = "numbers of endpoints are small")]
fn to_float(number: usize) -> f64 {
    number as f64
}

fn to_int(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_upstreams_and_gauges_add_up() {
        let registry = Registry::new();
        let metrics = Metrics::new(&registry);
        let (a, b) = (ObjectKey::new("ns", "a"), ObjectKey::new("ns", "b"));
        metrics.contributes(&a, Some((3, 1)));
        metrics.contributes(&b, Some((4, 2)));
        metrics.contributes(&a, Some((5, 2)));
        metrics.contributes(&b, None);
        metrics.contributes(&b, None);
        assert_eq!((metrics.endpoints_desired.get(), metrics.slices.get(), metrics.ideal_slices.get()), (5, 2, 2));
        let names: Vec<String> = registry.gather().iter().map(|family| family.name().to_owned()).collect();
        let expected = [
            "addresses_skipped_per_sync",
            "changes",
            "desired_endpoint_slices",
            "endpoints_added_per_sync",
            "endpoints_desired",
            "endpoints_removed_per_sync",
            "endpoints_sync_duration",
            "endpoints_updated_per_sync",
            "num_endpoint_slices",
        ];
        assert_eq!(names, expected.map(full_name));
    }
}
