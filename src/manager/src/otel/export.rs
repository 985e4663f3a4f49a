//! Sends batches of spans, counts what became of them, and tells when the collector goes and when it is back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::{SpanData, SpanExporter};
use prometheus::{IntCounterVec, Opts, Registry};

/// What became of spans. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct Tally {
    spans: IntCounterVec,
    failing: Arc<AtomicBool>,
}

impl Tally {
    pub(super) fn new() -> Self {
        let help = "Spans for traces, by what became of them (sent, lost).";
        let spans = IntCounterVec::new(Opts::new("quarterdeck_trace_spans_total", help), &["outcome"]);
        Self { spans: spans.expect("a constant, valid metric"), failing: Arc::default() }
    }

    pub(super) fn register(&self, registry: &Registry) -> Result<(), prometheus::Error> {
        registry.register(Box::new(self.spans.clone()))
    }

    /// Notes the end of a batch; whether the log should tell of it.
    fn ended(&self, spans: u64, sent: bool) -> bool {
        self.spans.with_label_values(&[if sent { "sent" } else { "lost" }]).inc_by(spans);
        self.failing.swap(!sent, Ordering::Relaxed) == sent
    }
}

/// An exporter whose sending happens on a runtime of its own.
#[derive(Debug)]
pub(super) struct Exporter<E> {
    inner: Arc<E>,
    runtime: tokio::runtime::Handle,
    tally: Tally,
}

impl<E> Exporter<E> {
    pub(super) fn new(inner: E, runtime: tokio::runtime::Handle, tally: Tally) -> Self {
        Self { inner: Arc::new(inner), runtime, tally }
    }
}

impl<E: SpanExporter + 'static> SpanExporter for Exporter<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let (inner, spans) = (Arc::clone(&self.inner), u64::try_from(batch.len()).unwrap_or(u64::MAX));
        let sending = self.runtime.spawn(async move { inner.export(batch).await });
        let result = match sending.await {
            Ok(result) => result,
            Err(error) => Err(OTelSdkError::InternalFailure(error.to_string())),
        };
        let news = self.tally.ended(spans, result.is_ok());
        match &result {
            Ok(()) if news => tracing::info!("the collector takes traces again"),
            Err(error) if news => tracing::warn!(%error, "the collector takes no traces: spans are lost"),
            _ => {}
        }
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        if let Some(inner) = Arc::get_mut(&mut self.inner) {
            inner.set_resource(resource);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_collector_is_told_of_when_it_goes_and_when_it_is_back() {
        let tally = Tally::new();
        let told: Vec<bool> = [true, false, false, true, true].map(|sent| tally.ended(2, sent)).to_vec();
        assert_eq!(told, [false, true, false, true, false]);
        assert_eq!(tally.spans.with_label_values(&["lost"]).get(), 4);
    }
}
