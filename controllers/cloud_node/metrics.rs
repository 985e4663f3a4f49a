//! Metrics, under upstream's names (k8s.io/cloud-provider:controllers/node/metrics.go v0.36.3).

use prometheus::{Histogram, HistogramOpts, IntCounterVec, Opts, Registry, exponential_buckets};

/// The controller's metrics.
pub(super) struct Metrics {
    taint_removal: Histogram,
    initial_sync: Histogram,
    problems: IntCounterVec,
}

impl Metrics {
    pub(super) fn new(registry: &Registry) -> Self {
        let delay = |name: &str, help: &str| {
            let buckets = exponential_buckets(1.0, 4.0, 6).expect("constant arguments in range");
            Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets)).expect("constant name")
        };
        let taint_removal = delay(
            "node_controller_cloud_provider_taint_removal_delay_seconds",
            "Time from a node's creation to the removal of the taint with which it waited for its cloud.",
        );
        let initial_sync = delay(
            "node_controller_initial_node_sync_delay_seconds",
            "Time from a node's creation to the end of its initialisation.",
        );
        let problems = IntCounterVec::new(
            Opts::new(
                "quarterdeck_cloud_node_problems_total",
                "Nodes that could not get what their cloud has, by reason.",
            ),
            &["reason"],
        )
        .expect("constant name");
        let all: [Box<dyn prometheus::core::Collector>; 3] =
            [Box::new(taint_removal.clone()), Box::new(initial_sync.clone()), Box::new(problems.clone())];
        for result in all.map(|collector| registry.register(collector)) {
            if let Err(error) = result {
                tracing::warn!(%error, "a metric of the cloud node controller is not served");
            }
        }
        Self { taint_removal, initial_sync, problems }
    }

    /// A node that was created at this time lost its taint now.
    pub(super) fn untainted(&self, created: i64) {
        self.taint_removal.observe(age(created));
    }

    /// A node that was created at this time has been initialised now.
    pub(super) fn initialised(&self, created: i64) {
        self.initial_sync.observe(age(created));
    }

    /// A node did not get what its cloud has.
    pub(super) fn problem(&self, reason: &str) {
        self.problems.with_label_values(&[reason]).inc();
    }
}

fn age(created: i64) -> f64 {
    let seconds = jiff::Timestamp::now().as_second().saturating_sub(created).max(0);
    u32::try_from(seconds).map_or(f64::from(u32::MAX), f64::from)
}
