//! Flags about what runs, its clients, metrics, logs, and where the API server is.

use std::path::PathBuf;
use std::time::Duration;

use quarterdeck_api::duration::parse as go_duration;

/// Profiling.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "debugging")]
pub struct DebugFlags {
    /// Serve /debug/flags/v, which reads and sets the log level of the running process.
    #[arg(long, default_value_t = true)]
    pub profiling: bool,
}

/// What runs, and how it talks to the API server.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "generic")]
pub struct GenericFlags {
    /// Controllers to run: '*' stands for all that are on by default, 'foo' turns foo on, '-foo' turns it off.
    /// The first mention of a name decides.
    #[arg(long, value_delimiter = ',', default_value = "*")]
    pub controllers: Vec<String>,
    /// Run the controllers of this build under the Lease of kube-controller-manager or cloud-controller-manager, although
    /// then nobody runs those that this build lacks.
    #[arg(long)]
    pub allow_partial_takeover: bool,
    /// Requests a second that each controller may send to the API server, in the long run.
    #[arg(long, default_value_t = 20.0)]
    pub kube_api_qps: f32,
    /// Requests that each controller may send at once, above its rate.
    #[arg(long, default_value_t = 30)]
    pub kube_api_burst: i32,
    /// Shortest time after which caches hand every object to their controllers again; each cache draws a time between this
    /// and twice as much. 0 turns it off.
    #[arg(long, value_parser = go_duration, default_value = "12h")]
    pub min_resync_period: Duration,
    /// Time to wait between starting one controller and the next.
    #[arg(long, value_parser = go_duration, default_value = "0s")]
    pub controller_start_interval: Duration,
    /// How long controllers may take to finish when the process stops; then they are cut off.
    #[arg(long, value_parser = go_duration, default_value = "10s")]
    pub controller_shutdown_timeout: Duration,
    /// Name of this replica among the others, and of the Lease in which it says what it reads of its master's disk; that of
    /// the host if empty. Where a host's name changes with every start, name the node.
    #[arg(long, value_name = "NAME", default_value = "")]
    pub replica_name: String,
    /// Accepted for upstream's sake: here each controller always writes under an account of its own.
    #[arg(long)]
    pub use_service_account_credentials: bool,
}

/// Metrics.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "metrics")]
pub struct MetricsFlags {
    /// Names of metrics to leave out of /metrics.
    #[arg(long, value_delimiter = ',')]
    pub disabled_metrics: Vec<String>,
}

/// The form of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Logs.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "logs")]
pub struct LogFlags {
    /// How much to log: 0 and 1 what an operator would act on, 2 to 4 what each controller does, from 5 on each request.
    #[arg(long = "v", short = 'v', value_name = "Level", default_value_t = 0)]
    pub verbosity: i32,
    /// Form of the log: "text" or "json".
    #[arg(long, alias = "log-format", value_enum, default_value = "text")]
    pub logging_format: LogFormat,
    /// File that says which share of reconciles is traced and where traces go: upstream's TracingConfiguration. For builds with
    /// the feature otel.
    #[arg(long, value_name = "PATH")]
    pub tracing_config_file: Option<PathBuf>,
}

/// Where the API server is, and the rest.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "misc")]
pub struct MiscFlags {
    /// File that says where the API server is and who we are to it; without it, the account of the pod is used.
    #[arg(long, default_value = "")]
    pub kubeconfig: String,
    /// Address of the API server, in place of the one in the kubeconfig.
    #[arg(long, default_value = "")]
    pub master: String,
    /// Print the value for --controllers of the Go kube-controller-manager that makes it run what this command line leaves to it,
    /// and quit.
    #[arg(long)]
    pub print_kcm_controllers: bool,
}

impl GenericFlags {
    pub(super) fn validate(&self) -> Vec<String> {
        let mut errors = Vec::new();
        if !self.kube_api_qps.is_finite() {
            errors.push(format!("--kube-api-qps: {} is not a rate", self.kube_api_qps));
        }
        if self.kube_api_burst < 0 {
            errors.push(format!("--kube-api-burst: {} is negative", self.kube_api_burst));
        }
        errors
    }
}
