//! The workqueue metrics, by upstream's names (`component-base:metrics/prometheus/workqueue`).

use std::time::Duration;

use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry,
};

/// The families that all queues of a process share.
#[derive(Clone)]
pub struct QueueMetricFamilies {
    depth: IntGaugeVec,
    adds: IntCounterVec,
    retries: IntCounterVec,
    waited: HistogramVec,
    worked: HistogramVec,
    unfinished: GaugeVec,
    longest: GaugeVec,
}

impl QueueMetricFamilies {
    /// Registers the families.
    ///
    /// # Errors
    /// When one of them is registered already.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        // Upstream's buckets: 10 ns to 10 s.
        let buckets = prometheus::exponential_buckets(1e-8, 10.0, 10)?;
        let opts = |name: &str, help: &str| Opts::new(format!("workqueue_{name}"), help);
        let histogram = |name: &str, help: &str| {
            HistogramVec::new(HistogramOpts::from(opts(name, help)).buckets(buckets.clone()), &["name"])
        };
        let families = Self {
            depth: IntGaugeVec::new(opts("depth", "Keys that wait for a worker"), &["name"])?,
            adds: IntCounterVec::new(opts("adds_total", "Keys that became ready"), &["name"])?,
            retries: IntCounterVec::new(opts("retries_total", "Keys given back after a failure"), &["name"])?,
            waited: histogram("queue_duration_seconds", "Seconds a key waited for a worker")?,
            worked: histogram("work_duration_seconds", "Seconds a worker had a key")?,
            unfinished: GaugeVec::new(
                opts("unfinished_work_seconds", "Seconds of work in hand, summed over keys"),
                &["name"],
            )?,
            longest: GaugeVec::new(
                opts("longest_running_processor_seconds", "Seconds the longest key has been in hand"),
                &["name"],
            )?,
        };
        registry.register(Box::new(families.depth.clone()))?;
        registry.register(Box::new(families.adds.clone()))?;
        registry.register(Box::new(families.retries.clone()))?;
        registry.register(Box::new(families.waited.clone()))?;
        registry.register(Box::new(families.worked.clone()))?;
        registry.register(Box::new(families.unfinished.clone()))?;
        registry.register(Box::new(families.longest.clone()))?;
        Ok(families)
    }

    /// The metrics of one queue.
    #[must_use]
    pub fn queue(&self, name: &str) -> QueueMetrics {
        QueueMetrics {
            depth: self.depth.with_label_values(&[name]),
            adds: self.adds.with_label_values(&[name]),
            retries: self.retries.with_label_values(&[name]),
            waited: self.waited.with_label_values(&[name]),
            worked: self.worked.with_label_values(&[name]),
            unfinished: self.unfinished.with_label_values(&[name]),
            longest: self.longest.with_label_values(&[name]),
        }
    }
}

/// The metrics of one queue.
pub struct QueueMetrics {
    depth: IntGauge,
    adds: IntCounter,
    retries: IntCounter,
    waited: Histogram,
    worked: Histogram,
    unfinished: Gauge,
    longest: Gauge,
}

impl QueueMetrics {
    pub(super) fn added(&self, depth: usize) {
        self.adds.inc();
        self.set_depth(depth);
    }

    pub(super) fn taken(&self, depth: usize, waited: Duration) {
        self.waited.observe(waited.as_secs_f64());
        self.set_depth(depth);
    }

    pub(super) fn finished(&self, depth: usize, worked: Duration) {
        self.worked.observe(worked.as_secs_f64());
        self.set_depth(depth);
    }

    pub(super) fn retried(&self) {
        self.retries.inc();
    }

    pub(super) fn running(&self, unfinished: f64, longest: f64) {
        self.unfinished.set(unfinished);
        self.longest.set(longest);
    }

    fn set_depth(&self, depth: usize) {
        self.depth.set(i64::try_from(depth).unwrap_or(i64::MAX));
    }
}
