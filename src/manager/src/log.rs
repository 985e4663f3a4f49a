//! The log: its form at start, and its detail, which may change while the process runs. Traces begin with it.

use std::io::IsTerminal as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use quarterdeck_runtime::spans;
use tracing::Subscriber;
use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer, Registry, reload};

use crate::flags::{LogFlags, LogFormat, Program};
use crate::serving::Verbosity;

/// Our own crates; libraries stay at warnings, whose details are not for operators.
const CRATES: [&str; 6] = ["election", "runtime", "manager", "controllers", "cloud", "api"];

/// How much is logged. Clones share it.
#[derive(Clone)]
pub(crate) struct LogLevel {
    level: Arc<AtomicI32>,
    handle: reload::Handle<EnvFilter, Registry>,
    #[cfg(feature = "otel")]
    traces: Option<Arc<crate::otel::Traces>>,
}

impl LogLevel {
    /// Sends the log to standard error in the form and detail that the flags name, and traces where their file says.
    ///
    /// # Errors
    /// When there is a file about traces and it makes no sense, or this build has none.
    #[cfg(not(feature = "otel"))]
    pub(crate) fn start(flags: &LogFlags, _: &Program) -> anyhow::Result<Self> {
        if flags.tracing_config_file.is_some() {
            anyhow::bail!("--tracing-config-file: this build has no traces; they come with the feature otel");
        }
        let (filter, handle) = reload::Layer::new(filter(flags.verbosity));
        tracing_subscriber::registry().with(filter).with(lines(flags)).init();
        Ok(Self { level: Arc::new(AtomicI32::new(flags.verbosity)), handle })
    }

    /// Sends the log to standard error in the form and detail that the flags name, and traces where their file says.
    ///
    /// # Errors
    /// When there is a file about traces and it makes no sense.
    #[cfg(feature = "otel")]
    pub(crate) fn start(flags: &LogFlags, program: &Program) -> anyhow::Result<Self> {
        let traces = flags.tracing_config_file.as_deref();
        let traces = traces.map(|file| crate::otel::Traces::start(file, &program.name, &program.version));
        let traces = traces.transpose()?.map(Arc::new);
        let (filter, handle) = reload::Layer::new(filter(flags.verbosity));
        // What is traced does not depend on what is logged.
        let layer = traces.as_deref().map(crate::otel::Traces::layer);
        tracing_subscriber::registry().with(lines(flags).with_filter(filter)).with(layer).init();
        Ok(Self { level: Arc::new(AtomicI32::new(flags.verbosity)), handle, traces })
    }

    /// Has the fate of spans counted where metrics are served.
    pub(crate) fn register(&self, registry: &prometheus::Registry) -> Result<(), prometheus::Error> {
        #[cfg(feature = "otel")]
        if let Some(traces) = &self.traces {
            traces.register(registry)?;
        }
        let _ = registry;
        Ok(())
    }

    /// The process ends: sends what is left of its traces.
    pub(crate) fn finish(&self) {
        #[cfg(feature = "otel")]
        if let Some(traces) = &self.traces {
            traces.finish();
        }
    }
}

/// The lines, in the form that the flag names.
fn lines<S>(flags: &LogFlags) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    match flags.logging_format {
        LogFormat::Text => layer.with_ansi(std::io::stderr().is_terminal()).boxed(),
        LogFormat::Json => layer.json().flatten_event(true).boxed(),
    }
}

impl Verbosity for LogLevel {
    fn get(&self) -> i32 {
        self.level.load(Ordering::Relaxed)
    }

    fn set(&self, level: i32) -> Result<(), String> {
        self.handle.reload(filter(level)).map_err(|error| error.to_string())?;
        self.level.store(level, Ordering::Relaxed);
        Ok(())
    }
}

fn filter(verbosity: i32) -> EnvFilter {
    let level = match verbosity {
        ..=1 => "info",
        2..=4 => "debug",
        _ => "trace",
    };
    let ours = CRATES.map(|name| format!("quarterdeck_{name}={level}")).join(",");
    // What a line was logged within; exporters of traces log each batch that nobody takes.
    EnvFilter::new(format!("warn,{ours},{}={level},opentelemetry=off", spans::TARGET))
}
