//! Metrics of the client stack: upstream's names and buckets, and ours of the gate and the fence
//! (`component-base:metrics/prometheus/restclient/metrics.go` v1.36.3).

use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode};
use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry};
use quarterdeck_election::Refused;

const SECONDS: [f64; 12] = [0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0];
const BYTES: [f64; 11] =
    [64.0, 256.0, 512.0, 1024.0, 4096.0, 16384.0, 65536.0, 262144.0, 1048576.0, 4194304.0, 16777216.0];

/// Label of a request that got no answer, as upstream has it.
pub(crate) const NO_ANSWER: &str = "<error>";

/// The client stack's metrics, for one API server. Clones share them.
#[derive(Clone)]
pub(crate) struct Metrics(Arc<Inner>);

struct Inner {
    host: String,
    requests: IntCounterVec,
    retries: IntCounterVec,
    duration: HistogramVec,
    rate_limiter: HistogramVec,
    request_size: HistogramVec,
    response_size: HistogramVec,
    gate_refusals: IntCounterVec,
    fence_refusals: IntCounterVec,
    kills: IntCounterVec,
}

impl Metrics {
    /// Registers the metrics.
    pub(crate) fn new(registry: &Registry, host: &str) -> Result<Self, prometheus::Error> {
        let counter = |name: &str, help: &str, labels: &[&str]| {
            let metric = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(metric.clone()))?;
            Ok::<_, prometheus::Error>(metric)
        };
        let histogram = |name: &str, help: &str, buckets: &[f64]| {
            let metric =
                HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets.to_vec()), &["verb", "host"])?;
            registry.register(Box::new(metric.clone()))?;
            Ok::<_, prometheus::Error>(metric)
        };
        Ok(Self(Arc::new(Inner {
            host: host.to_owned(),
            requests: counter(
                "rest_client_requests_total",
                "Number of HTTP requests, partitioned by status code, method, and host.",
                &["code", "method", "host"],
            )?,
            retries: counter(
                "rest_client_request_retries_total",
                "Number of request retries, partitioned by status code, verb, and host.",
                &["code", "verb", "host"],
            )?,
            duration: histogram(
                "rest_client_request_duration_seconds",
                "Request latency in seconds. Broken down by verb, and host.",
                &SECONDS,
            )?,
            rate_limiter: histogram(
                "rest_client_rate_limiter_duration_seconds",
                "Client side rate limiter latency in seconds. Broken down by verb, and host.",
                &SECONDS,
            )?,
            request_size: histogram(
                "rest_client_request_size_bytes",
                "Request size in bytes. Broken down by verb and host.",
                &BYTES,
            )?,
            response_size: histogram(
                "rest_client_response_size_bytes",
                "Response size in bytes. Broken down by verb and host.",
                &BYTES,
            )?,
            gate_refusals: counter(
                "quarterdeck_gate_refusals_total",
                "Writes that the gate did not let out, by reason (not_leading, deadline_too_near).",
                &["reason"],
            )?,
            fence_refusals: counter(
                "quarterdeck_fence_refusals_total",
                "Writes that the server's epoch fence refused, by what followed (retried, given_up, not_leader).",
                &["outcome"],
            )?,
            kills: counter(
                "quarterdeck_write_connection_kills_total",
                "Connections dropped because a write had no answer in its time, by method.",
                &["method"],
            )?,
        })))
    }

    /// One attempt that ended: with a status, or without an answer.
    pub(crate) fn attempt(&self, method: &Method, status: Option<StatusCode>) {
        let code = status.as_ref().map_or(NO_ANSWER, |status| status.as_str());
        self.0.requests.with_label_values(&[code, method.as_str(), &self.0.host]).inc();
    }

    /// How long one attempt took until its answer was read.
    pub(crate) fn took(&self, method: &Method, time: Duration) {
        self.0.duration.with_label_values(&[method.as_str(), &self.0.host]).observe(time.as_secs_f64());
    }

    /// Bytes of a request's body.
    pub(crate) fn request_bytes(&self, method: &Method, bytes: usize) {
        self.0.request_size.with_label_values(&[method.as_str(), &self.0.host]).observe(bytes as f64);
    }

    /// Bytes of an answer's body.
    pub(crate) fn response_bytes(&self, method: &Method, bytes: usize) {
        self.0.response_size.with_label_values(&[method.as_str(), &self.0.host]).observe(bytes as f64);
    }

    /// An attempt follows one that ended like this.
    pub(crate) fn retry(&self, method: &Method, status: Option<StatusCode>) {
        let code = status.as_ref().map_or(NO_ANSWER, |status| status.as_str());
        self.0.retries.with_label_values(&[code, method.as_str(), &self.0.host]).inc();
    }

    /// How long a request waited for its token.
    pub(crate) fn limited(&self, method: &Method, wait: Duration) {
        self.0.rate_limiter.with_label_values(&[method.as_str(), &self.0.host]).observe(wait.as_secs_f64());
    }

    /// The gate refused a write.
    pub(crate) fn gate_refused(&self, refused: &Refused) {
        let reason = match refused {
            Refused::NotLeading => "not_leading",
            Refused::DeadlineTooNear { .. } => "deadline_too_near",
        };
        self.0.gate_refusals.with_label_values(&[reason]).inc();
    }

    /// The fence refused a write.
    pub(crate) fn fence_refused(&self, outcome: &'static str) {
        self.0.fence_refusals.with_label_values(&[outcome]).inc();
    }

    /// A connection was dropped because its write had no answer in time.
    pub(crate) fn killed(&self, method: &Method) {
        self.0.kills.with_label_values(&[method.as_str()]).inc();
    }
}
