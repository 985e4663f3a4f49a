//! The server's own metrics.

use std::time::{SystemTime, UNIX_EPOCH};

use prometheus::{Gauge, IntCounterVec, IntGauge, Opts, Registry};

/// What the server counts.
pub(crate) struct ServingMetrics {
    requests: IntCounterVec,
    /// Connections that are open.
    pub(crate) connections: IntGauge,
    certificate: Gauge,
}

impl ServingMetrics {
    /// Registers them.
    pub(crate) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let requests = IntCounterVec::new(
            Opts::new("quarterdeck_serving_requests_total", "Requests served, by path and code."),
            &["path", "code"],
        )?;
        let connections = IntGauge::new("quarterdeck_serving_connections", "Connections to the server that are open.")?;
        let certificate = Gauge::new(
            "quarterdeck_serving_certificate_expiry_timestamp_seconds",
            "When the server's certificate ends, in seconds since 1970.",
        )?;
        registry.register(Box::new(requests.clone()))?;
        registry.register(Box::new(connections.clone()))?;
        registry.register(Box::new(certificate.clone()))?;
        Ok(Self { requests, connections, certificate })
    }

    /// Counts a request; `path` is one of a fixed set.
    pub(crate) fn request(&self, path: &'static str, code: u16) {
        self.requests.with_label_values(&[path, code.to_string().as_str()]).inc();
    }

    /// Notes when the certificate ends.
    pub(crate) fn expires(&self, expiry: Option<SystemTime>) {
        if let Some(since) = expiry.and_then(|expiry| expiry.duration_since(UNIX_EPOCH).ok()) {
            self.certificate.set(since.as_secs_f64());
        }
    }
}
