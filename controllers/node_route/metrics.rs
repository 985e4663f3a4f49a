//! Metrics; `route_controller_route_sync_total` is upstream's (k8s.io/cloud-provider:controllers/route/metrics.go
//! v0.36.3).

use prometheus::{IntCounter, IntCounterVec, IntGaugeVec, Opts, Registry};

use super::plan::Wrong;

/// The controller's metrics.
pub(super) struct Metrics {
    syncs: IntCounter,
    changes: IntCounterVec,
    wrong: IntGaugeVec,
}

impl Metrics {
    pub(super) fn new(registry: &Registry) -> Self {
        let syncs =
            IntCounter::new("route_controller_route_sync_total", "How often routes were compared with the cloud's.")
                .expect("constant name");
        let changes = IntCounterVec::new(
            Opts::new("quarterdeck_route_changes_total", "Changes of routes, by provider, operation and outcome."),
            &["provider", "operation", "outcome"],
        )
        .expect("constant name and labels");
        let wrong = IntGaugeVec::new(
            Opts::new(
                "quarterdeck_route_wrong_pod_cidrs",
                "Pod CIDRs of nodes that get no route, by provider and reason.",
            ),
            &["provider", "reason"],
        )
        .expect("constant name and labels");
        let all: [Box<dyn prometheus::core::Collector>; 3] =
            [Box::new(syncs.clone()), Box::new(changes.clone()), Box::new(wrong.clone())];
        for result in all.map(|collector| registry.register(collector)) {
            if let Err(error) = result {
                tracing::warn!(%error, "a metric of the node route controller is not served");
            }
        }
        Self { syncs, changes, wrong }
    }

    /// The routes of a cloud are looked at.
    pub(super) fn synced(&self) {
        self.syncs.inc();
    }

    /// A change was made, or not.
    pub(super) fn changed(&self, provider: &str, operation: &str, outcome: &str) {
        self.changes.with_label_values(&[provider, operation, outcome]).inc();
    }

    /// What is wrong with the networks of a cloud's nodes.
    pub(super) fn wrong(&self, provider: &str, all: &[&Wrong]) {
        for reason in Wrong::REASONS {
            let count = all.iter().filter(|wrong| wrong.reason() == reason).count();
            self.wrong.with_label_values(&[provider, reason]).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }
}
