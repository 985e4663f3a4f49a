//! Traces of reconciles to an OpenTelemetry collector (`docs/tracing.md`). Built with the feature `otel` alone.
//!
//! Whoever ends a span puts it into a bounded queue and goes on; a thread of its own takes batches out of it, and a runtime of
//! its own sends them. A collector that is slow or gone costs spans, and nothing else.

mod config;
mod export;

use std::path::Path;
use std::time::Duration;

use opentelemetry::trace::TracerProvider as _;
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_otlp::WithExportConfig as _;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracerProvider};
use prometheus::Registry;
use quarterdeck_runtime::spans::TARGET;
use tracing::level_filters::LevelFilter;
use tracing::subscriber::Subscriber;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::registry::LookupSpan;

pub(crate) use config::{BadConfig, Config};
use export::{Exporter, Tally};

/// Spans that wait at most; further ones are lost.
const QUEUED: usize = 4096;
/// Spans in one request at most.
const BATCH: usize = 512;
/// How long spans wait for company.
const DELAY: Duration = Duration::from_secs(1);
/// How long the collector may take for a batch.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a stop waits for the last batch.
const LAST_BATCH: Duration = Duration::from_secs(1);

/// Why there are no traces.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TracesError {
    /// The file makes no sense.
    #[error(transparent)]
    Config(#[from] BadConfig),
    /// The threads did not start.
    #[error("starting the threads that send traces")]
    Threads(#[source] std::io::Error),
    /// The exporter could not be made.
    #[error("making the exporter of traces: {0}")]
    Exporter(String),
}

/// Where spans go until the process ends.
pub(crate) struct Traces {
    provider: SdkTracerProvider,
    tally: Tally,
    /// Sends; kept for as long as there is anything to send.
    _threads: tokio::runtime::Runtime,
}

impl Traces {
    /// Reads the configuration, and makes ready to send what it asks for. Nothing is sent yet, and nobody is connected to.
    ///
    /// # Errors
    /// When the file makes no sense, naming the field.
    pub(crate) fn start(file: &Path, program: &str, version: &str) -> Result<Self, TracesError> {
        let config = Config::read(file)?;
        let threads = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("traces")
            .enable_all()
            .build()
            .map_err(TracesError::Threads)?;
        let tally = Tally::new();
        let exporter = {
            // The connection belongs to the runtime that it is made in.
            let _entered = threads.enter();
            opentelemetry_otlp::SpanExporter::builder()
                .with_tonic()
                .with_endpoint(config.url())
                .with_timeout(PATIENCE)
                .build()
                .map_err(|error| TracesError::Exporter(error.to_string()))?
        };
        let exporter = Exporter::new(exporter, threads.handle().clone(), tally.clone());
        let batches = BatchConfigBuilder::default()
            .with_max_queue_size(QUEUED)
            .with_max_export_batch_size(BATCH)
            .with_scheduled_delay(DELAY)
            .build();
        let resource = Resource::builder_empty()
            .with_service_name(program.to_owned())
            .with_attribute(KeyValue::new("service.version", version.to_owned()))
            .build();
        let provider = SdkTracerProvider::builder()
            .with_span_processor(BatchSpanProcessor::builder(exporter).with_batch_config(batches).build())
            .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(config.share()))))
            .with_resource(resource)
            .build();
        Ok(Self { provider, tally, _threads: threads })
    }

    /// What hands spans on: ours alone, and no log lines.
    pub(crate) fn layer<S>(&self) -> impl Layer<S> + Send + Sync + use<S>
    where
        S: Subscriber + for<'span> LookupSpan<'span> + Send + Sync,
    {
        let scope = InstrumentationScope::builder("quarterdeck").build();
        tracing_opentelemetry::layer()
            .with_tracer(self.provider.tracer_with_scope(scope))
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_tracked_inactivity(false)
            .with_filter(Targets::new().with_target(TARGET, LevelFilter::DEBUG))
    }

    /// Sends what is left, if the collector takes it soon.
    pub(crate) fn finish(&self) {
        let _ = self.provider.shutdown_with_timeout(LAST_BATCH);
    }

    /// Has the fate of spans counted where metrics are served.
    pub(crate) fn register(&self, registry: &Registry) -> Result<(), prometheus::Error> {
        self.tally.register(registry)
    }
}
