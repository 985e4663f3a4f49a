//! What the engine tells of reconciles.

use std::fmt::Display;
use std::time::Duration;

use parking_lot::Mutex;
use prometheus::{Histogram, HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry};
pub use quarterdeck_api::status::SlowPart as SlowReconcile;

/// How many slow reconciles the status page shows for each controller.
const SLOWEST: usize = 5;

/// How a reconcile ended, as a label value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Success,
    RequeueAfter,
    Error,
    Conflict,
    Terminal,
    NotLeader,
    Panic,
    Timeout,
    Cancelled,
}

impl Outcome {
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::RequeueAfter => "requeue_after",
            Self::Error => "error",
            Self::Conflict => "conflict",
            Self::Terminal => "terminal",
            Self::NotLeader => "not_leader",
            Self::Panic => "panic",
            Self::Timeout => "timeout",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether something went wrong that is neither a lost race nor the end of the tenure.
    pub(super) fn is_fault(self) -> bool {
        matches!(self, Self::Error | Self::Terminal | Self::Panic | Self::Timeout)
    }
}

/// Families that all controllers of a process share.
#[derive(Clone)]
pub struct EngineMetrics {
    total: IntCounterVec,
    duration: HistogramVec,
}

impl EngineMetrics {
    /// Registers the families.
    ///
    /// # Errors
    /// When one of them is registered already.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let total = IntCounterVec::new(
            Opts::new("quarterdeck_reconcile_total", "Reconciles by controller and how they ended"),
            &["controller", "result"],
        )?;
        let duration = HistogramVec::new(
            HistogramOpts::new("quarterdeck_reconcile_duration_seconds", "Seconds a reconcile took")
                .buckets(prometheus::exponential_buckets(0.0005, 4.0, 10)?),
            &["controller"],
        )?;
        registry.register(Box::new(total.clone()))?;
        registry.register(Box::new(duration.clone()))?;
        Ok(Self { total, duration })
    }

    /// The metrics of one controller.
    #[must_use]
    pub fn controller(&self, name: &'static str) -> ReconcileMetrics {
        ReconcileMetrics {
            name,
            total: self.total.clone(),
            duration: self.duration.with_label_values(&[name]),
            slowest: Mutex::default(),
        }
    }
}

/// The metrics of one controller.
pub struct ReconcileMetrics {
    name: &'static str,
    total: IntCounterVec,
    duration: Histogram,
    slowest: Mutex<Vec<SlowReconcile>>,
}

impl ReconcileMetrics {
    pub(super) fn observe(&self, key: &impl Display, took: Duration, outcome: Outcome) {
        let seconds = took.as_secs_f64();
        self.total.with_label_values(&[self.name, outcome.label()]).inc();
        self.duration.observe(seconds);
        let mut slowest = self.slowest.lock();
        if slowest.len() == SLOWEST && slowest.last().is_some_and(|last| last.seconds >= seconds) {
            return;
        }
        slowest.push(SlowReconcile { key: key.to_string(), seconds });
        slowest.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
        slowest.truncate(SLOWEST);
    }

    pub(super) fn slowest(&self) -> Vec<SlowReconcile> {
        self.slowest.lock().clone()
    }
}
