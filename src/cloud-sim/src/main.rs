//! `quarterdeck-cloud-sim`: a made-up cloud, served as a plug-in. For tests and demonstrations alone.

use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use clap::Parser;
use quarterdeck_cloud::sim::{NewInstance, Rule, Sim, State};
use quarterdeck_cloud_sim::client::control_socket;
use quarterdeck_cloud_sim::control;
use quarterdeck_cloud_sim::keep::Folder;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// A made-up cloud for quarterdeck. FOR TESTS ALONE: it has no machines, and its load balancers carry no packet.
#[derive(Parser)]
#[command(name = "quarterdeck-cloud-sim", version)]
struct Cli {
    /// Socket of the plug-in protocol; the manager's flag is --cloud-provider=sim=unix:///PATH
    #[arg(long, value_name = "unix:///PATH", default_value = quarterdeck_cloud::sim::DEFAULT_SOCKET)]
    listen: String,
    /// Socket on which tests and people steer it; the other one's path and .control unless given
    #[arg(long, value_name = "unix:///PATH")]
    control: Option<String>,
    /// Folder in which its state outlives it; one server a folder
    #[arg(long, value_name = "DIR")]
    state: PathBuf,
    /// Account id of a cloud that is made anew
    #[arg(long, value_name = "ID", default_value = "sim-account")]
    account: String,
    /// What stands before :// in the providerIDs of a cloud that is made anew; sim unless given
    #[arg(long, value_name = "SCHEME")]
    scheme: Option<String>,
    /// Machine of a cloud that is made anew; may be given repeatedly
    #[arg(long = "instance", value_name = "NAME[@ZONE]")]
    instances: Vec<String>,
    /// What goes wrong from the start, as loadbalancers.ensure=delay:ms=2s; may be given repeatedly
    #[arg(long = "fault", value_name = "METHOD=FAULT[:OPTIONS]")]
    faults: Vec<Rule>,
    /// For how long a new load balancer is being made, in ms
    #[arg(long, value_name = "MS")]
    provision_ms: Option<u64>,
    /// For how long a load balancer is being deleted, in ms
    #[arg(long, value_name = "MS")]
    delete_ms: Option<u64>,
    /// How long each call that changes something takes, in ms
    #[arg(long, value_name = "MS")]
    change_ms: Option<u64>,
    /// Load balancers need addresses that somebody else chose
    #[arg(long)]
    needs_addresses: bool,
}

fn main() -> ExitCode {
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal()).init();
    let done = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("starting a runtime");
    match done.and_then(|runtime| {
        let done = runtime.block_on(run(Cli::parse()));
        // A call may block its thread because it was asked to.
        runtime.shutdown_background();
        done
    }) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("Error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The path in `unix:///PATH`.
fn socket(uri: &str) -> Result<PathBuf> {
    match uri.strip_prefix("unix://") {
        Some(path) if path.starts_with('/') => Ok(path.into()),
        _ => bail!("{uri:?} is no socket: it has to be unix:///PATH"),
    }
}

/// A cloud that nobody has used yet.
fn fresh(cli: &Cli) -> Result<State> {
    let mut state = State::new(&cli.account);
    state.settings.scheme = cli.scheme.clone().unwrap_or(state.settings.scheme);
    for entry in &cli.instances {
        let (name, zone) = entry.split_once('@').unwrap_or((entry, ""));
        state.add_instance(NewInstance { zone: zone.to_owned(), ..NewInstance::named(name) })?;
    }
    Ok(state)
}

async fn run(cli: Cli) -> Result<()> {
    tracing::warn!("THIS CLOUD IS MADE UP: for tests and demonstrations alone; it has no machines and moves no packet");
    let plugin = socket(&cli.listen)?;
    let steering = match &cli.control {
        Some(uri) => socket(uri)?,
        None => control_socket(&plugin),
    };
    let folder = Arc::new(Folder::take(&cli.state)?);
    let mut state = folder.load()?.map_or_else(|| fresh(&cli), Ok)?;
    let settings = &mut state.settings;
    settings.provision_ms = cli.provision_ms.unwrap_or(settings.provision_ms);
    settings.delete_ms = cli.delete_ms.unwrap_or(settings.delete_ms);
    settings.change_ms = cli.change_ms.unwrap_or(settings.change_ms);
    settings.needs_addresses |= cli.needs_addresses;
    let sim = Arc::new(Sim::kept(state));
    for fault in cli.faults {
        sim.add_fault(fault);
    }
    let steered = control::listen(&steering)?;
    // Never: calls that stand still would be waited for.
    let stop = CancellationToken::new();
    let mut terminated = signal(SignalKind::terminate())?;
    let serving = quarterdeck_cloud::grpc::serve(Arc::clone(&sim) as _, control::listen(&plugin)?, stop);
    tracing::info!(listen = %plugin.display(), control = %steering.display(), "serving");
    writeln!(std::io::stdout(), "serving on {}, steered on {}", plugin.display(), steering.display())?;
    tokio::select! {
        done = folder.keep(Arc::clone(&sim)) => done.context("keeping the state"),
        done = control::serve(steered, sim) => done.context("serving the control socket"),
        done = serving => done.context("serving the plug-in"),
        _ = terminated.recv() => Ok(()),
        _ = tokio::signal::ctrl_c() => Ok(()),
    }
}
