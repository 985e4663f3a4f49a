//! Metrics, under upstream's names where they exist (cloud-provider:controllers/service/metrics.go v0.36.3).

use std::time::Duration;

use prometheus::core::Collector;
use prometheus::{
    Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGaugeVec, Opts, Registry, exponential_buckets,
};

/// What the service controller counts.
pub(super) struct Metrics {
    /// Load balancers made or changed, as an effect of a Service or of nodes.
    pub(super) syncs: IntCounter,
    /// Changes of backends that failed.
    pub(super) node_sync_errors: IntCounter,
    node_sync: Histogram,
    update_hosts: Histogram,
    orphans: IntGaugeVec,
    duplicates: IntGaugeVec,
    drift: IntCounterVec,
    complaints: IntCounterVec,
    braked: IntGaugeVec,
}

impl Metrics {
    /// Registers the metrics.
    pub(super) fn new(registry: &Registry) -> Self {
        let counter = |name, help| register(registry, IntCounter::new(name, help).expect("constant name"));
        let seconds = |name, help| {
            // Upstream's buckets: from 1 s to 16384 s.
            let buckets = exponential_buckets(1.0, 2.0, 15).expect("constant arguments in range");
            register(
                registry,
                Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets)).expect("constant name"),
            )
        };
        let by_provider = |name, help| {
            register(registry, IntGaugeVec::new(Opts::new(name, help), &["provider"]).expect("constant name"))
        };
        let drift = Opts::new(
            "quarterdeck_cloudprovider_load_balancer_drift_total",
            "Load balancers that were found gone, or changed by somebody else.",
        );
        let complaints = Opts::new(
            "quarterdeck_cloudprovider_service_problems_total",
            "Requests of Services that cannot be met, each counted when its Service is told.",
        );
        Self {
            syncs: counter(
                "service_controller_loadbalancer_sync_total",
                "Times that a load balancer was made or changed, as an effect of changes of Services and nodes.",
            ),
            node_sync_errors: counter(
                "service_controller_nodesync_error_total",
                "Times that a load balancer could not be told of changed nodes.",
            ),
            node_sync: seconds(
                "service_controller_nodesync_latency_seconds",
                "Time from a change of nodes until a load balancer was told of it.",
            ),
            update_hosts: seconds(
                "service_controller_update_loadbalancer_host_latency_seconds",
                "Time that it took to tell a load balancer of changed nodes.",
            ),
            orphans: by_provider(
                "quarterdeck_cloudprovider_orphans",
                "Load balancers of this cluster whose Service is gone.",
            ),
            duplicates: by_provider(
                "quarterdeck_cloudprovider_duplicate_load_balancers",
                "Load balancers beyond the first one of their Service.",
            ),
            drift: register(registry, IntCounterVec::new(drift, &["provider", "found"]).expect("constant name")),
            complaints: register(
                registry,
                IntCounterVec::new(complaints, &["provider", "reason"]).expect("constant name"),
            ),
            braked: by_provider(
                "quarterdeck_cloudprovider_orphan_sweep_braked",
                "1 while orphans are kept because there are too many of them.",
            ),
        }
    }

    /// A load balancer was told of changed nodes: the call took `call`, the nodes had changed `since` before.
    pub(super) fn told_of_nodes(&self, call: Duration, since: Option<Duration>) {
        self.update_hosts.observe(call.as_secs_f64());
        if let Some(since) = since {
            self.node_sync.observe(since.as_secs_f64());
        }
    }

    /// What a Service asks of a provider cannot be had.
    pub(super) fn complained(&self, provider: &str, reason: &str) {
        self.complaints.with_label_values(&[provider, reason]).inc();
    }

    /// Whether orphans are kept because there are too many of them.
    pub(super) fn braked(&self, provider: &str, braked: bool) {
        self.braked.with_label_values(&[provider]).set(i64::from(braked));
    }

    /// So many load balancers of a provider have no Service any more, and so many are one too many.
    pub(super) fn audited(&self, provider: &str, orphans: usize, duplicates: usize) {
        let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.orphans.with_label_values(&[provider]).set(number(orphans));
        self.duplicates.with_label_values(&[provider]).set(number(duplicates));
    }

    /// A load balancer was found `gone` or `changed`.
    pub(super) fn drifted(&self, provider: &str, found: &str) {
        self.drift.with_label_values(&[provider, found]).inc();
    }
}

fn register<T: Collector + Clone + 'static>(registry: &Registry, metric: T) -> T {
    if let Err(error) = registry.register(Box::new(metric.clone())) {
        tracing::warn!(%error, "a metric of the service controller is not served");
    }
    metric
}
