//! Metrics of calls to providers.

use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{GaugeVec, HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry};

use super::Method;
use super::breaker::BreakerState;
use super::core::Core;
use super::probe::TroubleKind;

/// Metrics of calls to providers, of all of a process.
#[derive(Clone)]
pub struct CloudMetrics {
    durations: HistogramVec,
    throttled: IntCounterVec,
    refused: IntCounterVec,
    batch_size: HistogramVec,
    changes: IntCounterVec,
    states: States,
}

/// What is read from the providers when somebody asks.
#[derive(Clone)]
struct States {
    providers: Arc<Mutex<Vec<Weak<Core>>>>,
    in_flight: IntGaugeVec,
    abandoned: IntGaugeVec,
    breaker: IntGaugeVec,
    cache_age: GaugeVec,
    rate: GaugeVec,
    trouble: IntGaugeVec,
}

impl CloudMetrics {
    /// Registers them.
    ///
    /// # Errors
    /// When one of them is registered already.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let metrics = Self {
            durations: HistogramVec::new(
                HistogramOpts::new(
                    "quarterdeck_cloudprovider_api_request_duration_seconds",
                    "Seconds that calls to a cloud provider took, until they were answered or given up",
                )
                .buckets(vec![0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0]),
                &["provider", "service", "method", "outcome"],
            )?,
            throttled: IntCounterVec::new(
                Opts::new("quarterdeck_cloudprovider_throttled_total", "Calls that the cloud refused as too many"),
                &["provider", "service", "method"],
            )?,
            refused: IntCounterVec::new(
                Opts::new(
                    "quarterdeck_cloudprovider_refused_calls_total",
                    "Calls that were not made, by what stood against it",
                ),
                &["provider", "service", "method", "reason"],
            )?,
            batch_size: HistogramVec::new(
                HistogramOpts::new("quarterdeck_cloudprovider_batch_size", "Nodes that one call asked for")
                    .buckets(prometheus::exponential_buckets(1.0, 4.0, 7)?),
                &["provider"],
            )?,
            changes: IntCounterVec::new(
                Opts::new(
                    "quarterdeck_cloudprovider_info_changes_total",
                    "Times that a provider said something else of itself than before",
                ),
                &["provider"],
            )?,
            states: States::new()?,
        };
        registry.register(Box::new(metrics.durations.clone()))?;
        registry.register(Box::new(metrics.throttled.clone()))?;
        registry.register(Box::new(metrics.refused.clone()))?;
        registry.register(Box::new(metrics.batch_size.clone()))?;
        registry.register(Box::new(metrics.changes.clone()))?;
        registry.register(Box::new(metrics.states.clone()))?;
        Ok(metrics)
    }

    pub(super) fn follow(&self, core: &Arc<Core>) {
        self.states.providers.lock().push(Arc::downgrade(core));
    }

    pub(super) fn ended(&self, provider: &str, method: &Method, outcome: &str, took: Duration) {
        let labels = [provider, method.service(), method.verb(), outcome];
        self.durations.with_label_values(&labels).observe(took.as_secs_f64());
    }

    pub(super) fn throttled(&self, provider: &str, method: &Method) {
        self.throttled.with_label_values(&[provider, method.service(), method.verb()]).inc();
    }

    pub(super) fn refused(&self, provider: &str, method: &Method, reason: &str) {
        self.refused.with_label_values(&[provider, method.service(), method.verb(), reason]).inc();
    }

    pub(super) fn changed(&self, provider: &str) {
        self.changes.with_label_values(&[provider]).inc();
    }

    pub(super) fn asked(&self, provider: &str, nodes: usize) {
        self.batch_size.with_label_values(&[provider]).observe(nodes as f64);
    }
}

impl States {
    fn new() -> Result<Self, prometheus::Error> {
        Ok(Self {
            providers: Arc::default(),
            in_flight: IntGaugeVec::new(
                Opts::new(
                    "quarterdeck_cloudprovider_inflight",
                    "Calls that run, whether somebody waits for them or not",
                ),
                &["provider", "class"],
            )?,
            abandoned: IntGaugeVec::new(
                Opts::new(
                    "quarterdeck_cloudprovider_abandoned_calls",
                    "Calls that run although nobody waits for them any more",
                ),
                &["provider"],
            )?,
            breaker: IntGaugeVec::new(
                Opts::new("quarterdeck_cloudprovider_breaker_state", "1 for the state that the breaker is in"),
                &["provider", "state"],
            )?,
            cache_age: GaugeVec::new(
                Opts::new(
                    "quarterdeck_cloudprovider_cache_age_seconds",
                    "Seconds since the provider last told of nodes",
                ),
                &["provider"],
            )?,
            rate: GaugeVec::new(
                Opts::new(
                    "quarterdeck_cloudprovider_rate_limit",
                    "Calls per second that are begun at most, lower while the cloud throttles",
                ),
                &["provider", "class"],
            )?,
            trouble: IntGaugeVec::new(
                Opts::new(
                    "quarterdeck_cloudprovider_trouble",
                    "1 for what is wrong with the provider as a whole: denied or unreachable",
                ),
                &["provider", "kind"],
            )?,
        })
    }

    fn all(&self) -> [&dyn Collector; 6] {
        [&self.in_flight, &self.abandoned, &self.breaker, &self.cache_age, &self.rate, &self.trouble]
    }

    fn read(&self, core: &Core) {
        let status = core.status();
        let provider = &*status.provider;
        let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        for (class, running) in status.in_flight {
            self.in_flight.with_label_values(&[provider, class.name()]).set(count(running));
        }
        for (class, rate) in status.rates {
            self.rate.with_label_values(&[provider, class.name()]).set(rate);
        }
        self.abandoned.with_label_values(&[provider]).set(count(status.abandoned));
        for state in BreakerState::ALL {
            let is = i64::from(state == status.breaker);
            self.breaker.with_label_values(&[provider, state.name()]).set(is);
        }
        if let Some(age) = status.cache_age {
            self.cache_age.with_label_values(&[provider]).set(age.as_secs_f64());
        }
        for kind in TroubleKind::ALL {
            let is = status.trouble.as_ref().is_some_and(|trouble| trouble.kind == kind);
            self.trouble.with_label_values(&[provider, kind.name()]).set(i64::from(is));
        }
    }
}

impl Collector for States {
    fn desc(&self) -> Vec<&Desc> {
        self.all().into_iter().flat_map(Collector::desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let providers: Vec<_> = self.providers.lock().iter().filter_map(Weak::upgrade).collect();
        for core in providers {
            self.read(&core);
        }
        self.all().into_iter().flat_map(Collector::collect).collect()
    }
}
