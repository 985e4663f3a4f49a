//! The binary of the agent.

use std::io::IsTerminal as _;
use std::process::ExitCode;

use clap::Parser as _;
use quarterdeck_agent::options::{LogFormat, Options};
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let options = Options::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let colours = std::io::stderr().is_terminal();
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colours);
    match options.log_format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
    // Fails only if there is one already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("quarterdeck-agent: {error}");
            return ExitCode::FAILURE;
        }
    };
    let ended = runtime.block_on(quarterdeck_agent::run::run(options));
    runtime.shutdown_background();
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("quarterdeck-agent: {error:#}");
            ExitCode::FAILURE
        }
    }
}
