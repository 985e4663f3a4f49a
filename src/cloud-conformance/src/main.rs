//! `hack/cloud-conformance`: tells whether a plug-in does what a cloud provider has to do.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::{Parser, ValueEnum};
use quarterdeck_cloud::grpc::{Plugin, PluginUri, TlsFiles};
use quarterdeck_cloud_conformance::{ByCommand, CASES, Case, Known, Report, Steering, Suite, Unsteered, made_up};
use quarterdeck_cloud_sim::client::{Client, control_socket};

/// Runs the conformance cases against a cloud provider's plug-in. They make and remove load balancers and routes of a
/// cluster of their own: use an account for tests. Exits with 1 if a case fails.
#[derive(Parser)]
#[command(name = "cloud-conformance", version)]
struct Cli {
    /// Where the plug-in is: unix:///PATH or https://HOST:PORT
    uri: PluginUri,
    /// File in YAML that says what exists in the cloud and what may be made in it: docs/cloud/sim.md
    #[arg(long, value_name = "FILE")]
    fixture: Option<PathBuf>,
    /// The plug-in is quarterdeck-cloud-sim, which is filled and steered over its control socket
    #[arg(long, conflicts_with = "fixture")]
    sim: bool,
    /// Only these cases, such as I1,L3; all others are left out
    #[arg(long, value_name = "ID", value_delimiter = ',')]
    only: Vec<String>,
    /// How far from its deadline a call may end, in ms
    #[arg(long, value_name = "MS", default_value_t = 250)]
    tolerance_ms: u64,
    /// For how long something in the making is waited for, in seconds
    #[arg(long, value_name = "S", default_value_t = 300)]
    patience: u64,
    /// How the report is written
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
    /// Certificates of the authority that the plug-in proves itself by
    #[arg(long, value_name = "FILE", requires_all = ["cert", "key"])]
    ca: Option<PathBuf>,
    /// Certificate that the plug-in is shown
    #[arg(long, value_name = "FILE")]
    cert: Option<PathBuf>,
    /// Its key
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Output {
    Table,
    Json,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Cli::parse()).await {
        Ok(report) if report.failed().is_empty() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("Error: {error:#}");
            ExitCode::from(2)
        }
    }
}

async fn run(cli: Cli) -> Result<Report> {
    let tls = match (&cli.uri, cli.ca, cli.cert, cli.key) {
        (PluginUri::Https(_), Some(ca), Some(cert), Some(key)) => Some(TlsFiles { ca, cert, key }),
        (PluginUri::Https(_), ..) => bail!("a plug-in at https://… needs --ca, --cert and --key"),
        (PluginUri::Unix(_), ..) => None,
    };
    let (known, steering) = match &cli.uri {
        PluginUri::Unix(path) if cli.sim => {
            let client = Client::new(control_socket(path));
            let known = made_up::populate(&client).await.context("filling the made-up cloud")?;
            (known, Box::new(ByCommand::new(client)) as Box<dyn Steering>)
        }
        _ if cli.sim => bail!("quarterdeck-cloud-sim is on a unix socket"),
        _ => {
            let known = cli.fixture.as_deref().map_or_else(|| Ok(Known::default()), read)?;
            let restart = known.restart.clone();
            (known, Box::new(Unsteered { restart }) as Box<dyn Steering>)
        }
    };
    let mut suite = Suite::new(Arc::new(Plugin::new(cli.uri, tls)), known, steering);
    suite.tolerance = Duration::from_millis(cli.tolerance_ms);
    suite.patience = Duration::from_secs(cli.patience);
    let report = suite.run(&chosen(&cli.only)?).await;
    match cli.output {
        Output::Table => println!("{report}"),
        Output::Json => println!("{}", serde_json::to_string_pretty(&report)?),
    }
    Ok(report)
}

/// The cases that were asked for; all if none was.
fn chosen(only: &[String]) -> Result<Vec<Case>> {
    for id in only {
        ensure!(CASES.iter().any(|case| case.id.eq_ignore_ascii_case(id)), "there is no case {id:?}");
    }
    let wanted = |case: &&Case| only.is_empty() || only.iter().any(|id| case.id.eq_ignore_ascii_case(id));
    Ok(CASES.iter().filter(wanted).copied().collect())
}

fn read(path: &std::path::Path) -> Result<Known> {
    let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    serde_saphyr::from_str(&text).with_context(|| format!("reading {}", path.display()))
}
