//! The controller's metrics; upstream has none.

use std::collections::BTreeMap;

use prometheus::{IntCounterVec, IntGaugeVec, Opts, Registry};

/// The controller's metrics.
pub(super) struct Metrics {
    deletions: IntCounterVec,
    refusals: IntCounterVec,
    kept: IntGaugeVec,
}

impl Metrics {
    pub(super) fn new(registry: &Registry) -> Self {
        let counter = |name: &str, help: &str, labels: &[&str]| {
            IntCounterVec::new(Opts::new(name, help), labels).expect("constant name and labels")
        };
        let deletions = counter(
            "quarterdeck_cloud_node_deletions_total",
            "Nodes deleted because their instance is gone, by provider and outcome.",
            &["provider", "outcome"],
        );
        let refusals = counter(
            "quarterdeck_cloud_node_deletion_refusals_total",
            "Nodes that began to be kept although their cloud says that the instance is gone, by provider and reason.",
            &["provider", "reason"],
        );
        let kept = Opts::new(
            "quarterdeck_cloud_node_absent_kept",
            "Nodes that are kept although their cloud says that the instance is gone, by provider and reason.",
        );
        let kept = IntGaugeVec::new(kept, &["provider", "reason"]).expect("constant name and labels");
        let all: [Box<dyn prometheus::core::Collector>; 3] =
            [Box::new(deletions.clone()), Box::new(refusals.clone()), Box::new(kept.clone())];
        for result in all.map(|collector| registry.register(collector)) {
            if let Err(error) = result {
                tracing::warn!(%error, "a metric of the cloud node lifecycle controller is not served");
            }
        }
        Self { deletions, refusals, kept }
    }

    /// A node was deleted, or could not be.
    pub(super) fn deleted(&self, provider: &str, success: bool) {
        self.deletions.with_label_values(&[provider, if success { "success" } else { "error" }]).inc();
    }

    /// A node began to be kept.
    pub(super) fn refused(&self, provider: &str, reason: &str) {
        self.refusals.with_label_values(&[provider, reason]).inc();
    }

    /// So many nodes are kept now, by reason; `reasons` are those of before, which may have none any more.
    pub(super) fn kept(&self, provider: &str, now: &BTreeMap<&'static str, i64>, before: &BTreeMap<&'static str, i64>) {
        for reason in before.keys().chain(now.keys()) {
            self.kept.with_label_values(&[provider, reason]).set(now.get(reason).copied().unwrap_or(0));
        }
    }
}
