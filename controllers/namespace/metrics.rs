//! The controller's own metrics.

use std::time::Duration;

use prometheus::{Histogram, HistogramOpts, IntGauge, Registry};

/// How long deletions take, and how many are blocked.
pub(super) struct Metrics {
    duration: Histogram,
    blocked: IntGauge,
}

impl Metrics {
    pub(super) fn new(registry: &Registry) -> Self {
        let duration = Histogram::with_opts(
            HistogramOpts::new(
                "quarterdeck_namespace_deletion_duration_seconds",
                "Time from first seeing a namespace deleting to removing the finalizer that holds it.",
            )
            .buckets(vec![0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0]),
        )
        .expect("the name and the buckets are valid");
        let blocked = IntGauge::new(
            "quarterdeck_namespace_deletion_blocked_namespaces",
            "Namespaces whose deletion waits for an API group or a finalizer.",
        )
        .expect("the name is valid");
        for result in [registry.register(Box::new(duration.clone())), registry.register(Box::new(blocked.clone()))] {
            if let Err(error) = result {
                tracing::warn!(%error, "a metric of the namespace controller is not served");
            }
        }
        Self { duration, blocked }
    }

    /// A namespace was let go this long after it was first seen deleting.
    pub(super) fn finished(&self, after: Duration) {
        self.duration.observe(after.as_secs_f64());
    }

    /// This many namespaces are blocked now.
    pub(super) fn blocked(&self, namespaces: usize) {
        self.blocked.set(i64::try_from(namespaces).unwrap_or(i64::MAX));
    }
}
