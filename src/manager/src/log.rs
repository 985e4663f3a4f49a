//! The log: its form at start, and its detail, which may change while the process runs.

use std::io::IsTerminal as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer as _, Registry, reload};

use crate::flags::{LogFlags, LogFormat};
use crate::serving::Verbosity;

/// Our own crates; libraries stay at warnings, whose details are not for operators.
const CRATES: [&str; 6] = ["election", "runtime", "manager", "controllers", "cloud", "api"];

/// How much is logged. Clones share it.
#[derive(Clone)]
pub(crate) struct LogLevel {
    level: Arc<AtomicI32>,
    handle: reload::Handle<EnvFilter, Registry>,
}

impl LogLevel {
    /// Sends the log to standard error in the form and detail that the flags name.
    pub(crate) fn start(flags: &LogFlags) -> Self {
        let (filter, handle) = reload::Layer::new(filter(flags.verbosity));
        let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
        let layer = match flags.logging_format {
            LogFormat::Text => layer.with_ansi(std::io::stderr().is_terminal()).boxed(),
            LogFormat::Json => layer.json().flatten_event(true).boxed(),
        };
        tracing_subscriber::registry().with(filter).with(layer).init();
        Self { level: Arc::new(AtomicI32::new(flags.verbosity)), handle }
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
    EnvFilter::new(format!("warn,{ours}"))
}
