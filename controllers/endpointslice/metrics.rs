//! Metrics, under upstream's names (k8s.io/endpointslice:metrics v0.36.3).

use std::collections::HashMap;

use parking_lot::Mutex;
use prometheus::core::Collector;
use prometheus::{Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts};
use prometheus::{Registry, exponential_buckets};
use quarterdeck_runtime::object::ObjectKey;

/// The controller's metrics.
pub(super) struct Metrics {
    endpoints_added: Histogram,
    endpoints_removed: Histogram,
    endpoints_desired: IntGauge,
    slices: IntGauge,
    ideal_slices: IntGauge,
    /// Slices created.
    pub(super) creates: IntCounter,
    /// Slices updated.
    pub(super) updates: IntCounter,
    /// Slices deleted.
    pub(super) deletes: IntCounter,
    changed: HistogramVec,
    syncs: IntCounterVec,
    by_distribution: IntGaugeVec,
    services: Mutex<HashMap<ObjectKey, Totals>>,
}

/// What one service contributes to the gauges.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Totals {
    /// Endpoints it should have.
    pub(super) endpoints: usize,
    /// Slices it has.
    pub(super) slices: usize,
    /// Slices it would have, were all of them full.
    pub(super) ideal_slices: usize,
    /// `spec.trafficDistribution`, where it is honoured.
    pub(super) distribution: Option<String>,
}

impl Metrics {
    /// Registers the metrics.
    pub(super) fn new(registry: &Registry) -> Self {
        let sizes = exponential_buckets(2.0, 2.0, 15).expect("constant arguments in range");
        let sized = |name, help| {
            let options = HistogramOpts::new(full_name(name), help).buckets(sizes.clone());
            register(registry, Histogram::with_opts(options).expect("constant name"))
        };
        let gauge = |name, help| register(registry, IntGauge::new(full_name(name), help).expect("constant name"));
        let changes =
            IntCounterVec::new(Opts::new(full_name("changes"), "Slices written, by operation"), &["operation"]);
        let changes = register(registry, changes.expect("constant name"));
        let changed = HistogramVec::new(
            HistogramOpts::new(
                full_name("endpointslices_changed_per_sync"),
                "Slices written on each sync of a service",
            ),
            &["topology", "traffic_distribution"],
        );
        let syncs = IntCounterVec::new(Opts::new(full_name("syncs"), "Syncs of services, by result"), &["result"]);
        let by_distribution = IntGaugeVec::new(
            Opts::new(full_name("services_count_by_traffic_distribution"), "Services, by traffic distribution"),
            &["traffic_distribution"],
        );
        Self {
            endpoints_added: sized("endpoints_added_per_sync", "Endpoints added on each sync of a service"),
            endpoints_removed: sized("endpoints_removed_per_sync", "Endpoints removed on each sync of a service"),
            endpoints_desired: gauge("endpoints_desired", "Endpoints that should exist"),
            slices: gauge("num_endpoint_slices", "Slices that exist"),
            ideal_slices: gauge("desired_endpoint_slices", "Slices that would exist, were all of them full"),
            creates: changes.with_label_values(&["create"]),
            updates: changes.with_label_values(&["update"]),
            deletes: changes.with_label_values(&["delete"]),
            changed: register(registry, changed.expect("constant name")),
            syncs: register(registry, syncs.expect("constant name")),
            by_distribution: register(registry, by_distribution.expect("constant name")),
            services: Mutex::default(),
        }
    }

    /// One sync ended: `success`, `stale` or `error`.
    pub(super) fn synced(&self, result: &'static str) {
        self.syncs.with_label_values(&[result]).inc();
    }

    /// A family of a service was planned.
    pub(super) fn planned(&self, added: usize, removed: usize) {
        self.endpoints_added.observe(to_float(added));
        self.endpoints_removed.observe(to_float(removed));
    }

    /// The slices of a family were written.
    pub(super) fn wrote(&self, auto: bool, distribution: Option<&str>, slices: usize) {
        let topology = if auto { "Auto" } else { "Disabled" };
        self.changed.with_label_values(&[topology, distribution.unwrap_or_default()]).observe(to_float(slices));
    }

    /// What a service contributes now; none when it is gone.
    pub(super) fn contributes(&self, service: &ObjectKey, totals: Option<Totals>) {
        let mut services = self.services.lock();
        let before = match &totals {
            Some(totals) if services.get(service) == Some(totals) => return,
            Some(totals) => services.insert(service.clone(), totals.clone()),
            None => services.remove(service),
        };
        let (before, now) = (before.unwrap_or_default(), totals.unwrap_or_default());
        self.endpoints_desired.add(to_int(now.endpoints) - to_int(before.endpoints));
        self.slices.add(to_int(now.slices) - to_int(before.slices));
        self.ideal_slices.add(to_int(now.ideal_slices) - to_int(before.ideal_slices));
        if now.distribution != before.distribution {
            let gauge = |distribution: String| self.by_distribution.with_label_values(&[&distribution]);
            before.distribution.map(gauge).inspect(IntGauge::dec);
            now.distribution.map(gauge).inspect(IntGauge::inc);
        }
    }
}

fn full_name(name: &str) -> String {
    format!("endpoint_slice_controller_{name}")
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
    fn gauges_add_up_what_services_contribute() {
        let registry = Registry::new();
        let metrics = Metrics::new(&registry);
        let totals = |endpoints, distribution: Option<&str>| {
            Some(Totals { endpoints, slices: 2, ideal_slices: 1, distribution: distribution.map(str::to_owned) })
        };
        let (a, b) = (ObjectKey::new("ns", "a"), ObjectKey::new("ns", "b"));
        metrics.contributes(&a, totals(3, Some("PreferClose")));
        metrics.contributes(&b, totals(4, Some("PreferClose")));
        metrics.contributes(&a, totals(5, None));
        assert_eq!((metrics.endpoints_desired.get(), metrics.slices.get(), metrics.ideal_slices.get()), (9, 4, 2));
        assert_eq!(metrics.by_distribution.with_label_values(&["PreferClose"]).get(), 1);
        metrics.contributes(&b, None);
        metrics.contributes(&b, None);
        assert_eq!((metrics.endpoints_desired.get(), metrics.slices.get()), (5, 2));
        assert_eq!(metrics.by_distribution.with_label_values(&["PreferClose"]).get(), 0);
    }

    #[test]
    fn names_are_upstreams() {
        let registry = Registry::new();
        let metrics = Metrics::new(&registry);
        metrics.synced("success");
        metrics.wrote(false, None, 1);
        metrics.contributes(
            &ObjectKey::new("ns", "a"),
            Some(Totals { distribution: Some("PreferClose".to_owned()), ..Totals::default() }),
        );
        let names: Vec<String> = registry.gather().iter().map(|family| family.name().to_owned()).collect();
        let expected = [
            "changes",
            "desired_endpoint_slices",
            "endpoints_added_per_sync",
            "endpoints_desired",
            "endpoints_removed_per_sync",
            "endpointslices_changed_per_sync",
            "num_endpoint_slices",
            "services_count_by_traffic_distribution",
            "syncs",
        ];
        assert_eq!(names, expected.map(full_name));
    }
}
