//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum};
use quarterdeck_api::duration;

use crate::create::CreateFlags;

/// A control plane for managing addons
#[derive(Debug, Parser)]
#[command(
    name = "addonctl",
    disable_version_flag = true,
    override_usage = "addonctl [command]",
    subcommand_help_heading = "Available Commands",
    subcommand_value_name = "command"
)]
pub(crate) struct Cli {
    /// Which server to ask.
    #[command(flatten)]
    pub(crate) connection: Connection,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Which server to ask, and as whom.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Server")]
pub(crate) struct Connection {
    /// Path of the kubeconfig; without it $KUBECONFIG, ~/.kube/config, or the pod's account
    #[arg(long, global = true, value_name = "file")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig to use
    #[arg(long, global = true, value_name = "name")]
    pub(crate) context: Option<String>,
}

/// Which manager to ask, and how to get there.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Manager")]
pub(crate) struct ReachFlags {
    /// Replica to ask, by its name or its name in the election; without it the one that leads
    #[arg(long, value_name = "name")]
    pub(crate) replica: Option<String>,
    /// Where a manager serves, https://HOST:PORT; without it a port-forward to its pod, or the address in its Lease
    #[arg(long, value_name = "url")]
    pub(crate) address: Option<String>,
    /// File with the authority that signed the manager's certificate; without it the checksum in its Lease decides
    #[arg(long, value_name = "file")]
    pub(crate) certificate_authority: Option<PathBuf>,
    /// Name that the certificate has to be for; without it the host of the address
    #[arg(long, value_name = "name", requires = "certificate_authority")]
    pub(crate) tls_server_name: Option<String>,
    /// Lease of the election, NAMESPACE/NAME
    #[arg(long, value_name = "lease", default_value = "kube-system/quarterdeck", value_parser = lease_name)]
    pub(crate) lease: String,
    /// Namespace of the managers' pods
    #[arg(long, value_name = "name", default_value = "kube-system")]
    pub(crate) manager_namespace: String,
    /// Labels of the managers' pods
    #[arg(long, value_name = "labels", default_value = "app.kubernetes.io/name=quarterdeck")]
    pub(crate) manager_selector: String,
}

/// Takes `namespace/name`.
fn lease_name(text: &str) -> Result<String, String> {
    match text.split_once('/') {
        Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
            Ok(text.to_owned())
        }
        _ => Err("write NAMESPACE/NAME".to_owned()),
    }
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Create the addon resource with the supplied arguments
    Create(Box<CreateArgs>),
    /// List addons of every source, or show one
    Get(GetArgs),
    /// Show all that is known about an addon
    Describe(NameArgs),
    /// Show what would be changed and removed; ends with 2 if anything would
    Plan(PlanArgs),
    /// Apply Addon objects from files
    Apply(ApplyArgs),
    /// Delete an addon: its delete step runs, then what it brought is removed
    Delete(DeleteArgs),
    /// Wait until addons are as they should be
    Wait(WaitArgs),
    /// Show or release a removal that waits for a person
    Prune(PruneArgs),
    /// Do nothing about an addon until it is resumed
    Pause(NameArgs),
    /// Go on with an addon that was paused
    Resume(NameArgs),
    /// Take what is in the cluster for the addon's installation, and run nothing
    Adopt(NameArgs),
    /// Go back to an earlier revision of an addon
    Rollback(RollbackArgs),
    /// Print the logs of an addon's steps
    Logs(LogsArgs),
    /// Look at channels and update from them, as kOps' tool does
    #[command(subcommand_help_heading = "Available Commands", subcommand_value_name = "command")]
    Channels {
        /// What to do.
        #[command(subcommand)]
        command: ChannelsCommand,
    },
    /// Show what is wrong, who leads, and how controllers, addons and clouds are; ends with 5 if something is wrong
    Status(StatusArgs),
    /// Show queues, caches and controllers of the leader as they are from moment to moment
    Top(TopArgs),
    /// Serve the leader's status page to a browser on this machine
    Dashboard(DashboardArgs),
    /// Print the completion script of a shell
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page, or write all pages into a folder
    Man {
        /// Folder for the pages of all commands
        #[arg(long, value_name = "folder")]
        dir: Option<PathBuf>,
    },
    /// Print the version of addonctl
    Version,
}

/// Arguments of `create`.
#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    /// Name of the package, such as my-addon or core/fluentd
    pub(crate) name: String,
    /// What the addon is made of.
    #[command(flatten)]
    pub(crate) flags: CreateFlags,
    /// Form of what --dryrun prints: yaml or json
    #[arg(short, long, value_name = "form", default_value = "yaml", hide_possible_values = true)]
    pub(crate) output: ObjectForm,
}

/// Forms of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ObjectForm {
    /// JSON.
    Json,
    /// YAML.
    Yaml,
}

/// Forms of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ListForm {
    /// Columns.
    Table,
    /// More columns.
    Wide,
    /// JSON.
    Json,
    /// YAML.
    Yaml,
}

/// Arguments of `get`.
#[derive(Debug, Args)]
pub(crate) struct GetArgs {
    /// Name of an addon; without it all
    pub(crate) name: Option<String>,
    /// Look only into this namespace; without it into all
    #[arg(short, long, value_name = "name", conflicts_with = "all_namespaces")]
    pub(crate) namespace: Option<String>,
    /// Look into all namespaces, as is done anyway
    #[arg(short = 'A', long)]
    pub(crate) all_namespaces: bool,
    /// Form of the output: table, wide, json or yaml
    #[arg(short, long, value_name = "form", default_value = "table", hide_possible_values = true)]
    pub(crate) output: ListForm,
}

/// One addon.
#[derive(Debug, Args)]
pub(crate) struct NameArgs {
    /// Name of the addon
    pub(crate) name: String,
    /// Namespace of the Addon object; without it the only one of that name is meant
    #[arg(short, long, value_name = "name")]
    pub(crate) namespace: Option<String>,
}

/// Arguments of `plan`.
#[derive(Debug, Args)]
pub(crate) struct PlanArgs {
    /// Name of an Addon that is in the cluster
    #[arg(required_unless_present = "filename", conflicts_with = "filename")]
    pub(crate) name: Option<String>,
    /// Files with Addons, or files and folders of a directory of addons; may be repeated
    #[arg(short, long, value_name = "file")]
    pub(crate) filename: Vec<PathBuf>,
    /// Namespace of the Addon; of files, namespace of Addons that name none
    #[arg(short, long, value_name = "name")]
    pub(crate) namespace: Option<String>,
}

/// Arguments of `apply`.
#[derive(Debug, Args)]
pub(crate) struct ApplyArgs {
    /// Files, or - for the standard input; may be repeated
    #[arg(short, long, value_name = "file", required = true)]
    pub(crate) filename: Vec<PathBuf>,
    /// Namespace of objects that name none
    #[arg(short, long, value_name = "name")]
    pub(crate) namespace: Option<String>,
    /// Take over fields that another manager set
    #[arg(long)]
    pub(crate) force_conflicts: bool,
    /// Only ask the server what it would do
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// Arguments of `delete`.
#[derive(Debug, Args)]
pub(crate) struct DeleteArgs {
    /// The addon.
    #[command(flatten)]
    pub(crate) addon: NameArgs,
    /// Wait until it is gone
    #[arg(long)]
    pub(crate) wait: bool,
    /// Longest wait, such as 90s or 5m
    #[arg(long, value_name = "duration", default_value = "5m", value_parser = duration::parse)]
    pub(crate) timeout: Duration,
}

/// What to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Goal {
    /// All of it is there and works.
    Healthy,
    /// Its steps succeeded.
    Succeeded,
    /// It is gone.
    Deleted,
}

/// Arguments of `wait`.
#[derive(Debug, Args)]
pub(crate) struct WaitArgs {
    /// Names of addons
    #[arg(required = true)]
    pub(crate) names: Vec<String>,
    /// What to wait for: healthy, succeeded or deleted
    #[arg(long = "for", value_name = "goal", default_value = "healthy", hide_possible_values = true)]
    pub(crate) goal: Goal,
    /// Namespace of the Addon objects; without it the only ones of those names are meant
    #[arg(short, long, value_name = "name")]
    pub(crate) namespace: Option<String>,
    /// Longest wait for all of them, such as 90s or 5m
    #[arg(long, value_name = "duration", default_value = "5m", value_parser = duration::parse)]
    pub(crate) timeout: Duration,
}

/// Arguments of `prune`.
#[derive(Debug, Args)]
pub(crate) struct PruneArgs {
    /// The addon.
    #[command(flatten)]
    pub(crate) addon: NameArgs,
    /// Release what waits; with a hash only if that is still the plan
    #[arg(long, value_name = "hash", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    pub(crate) confirm: Option<String>,
}

/// Arguments of `rollback`.
#[derive(Debug, Args)]
pub(crate) struct RollbackArgs {
    /// The addon.
    #[command(flatten)]
    pub(crate) addon: NameArgs,
    /// Hash of the revision, or the beginning of it; without it the newest good one before the present
    #[arg(long, value_name = "hash")]
    pub(crate) to: Option<String>,
}

/// Arguments of `logs`.
#[derive(Debug, Args)]
pub(crate) struct LogsArgs {
    /// The addon.
    #[command(flatten)]
    pub(crate) addon: NameArgs,
    /// Only of this step: prereqs, install, validate or delete
    #[arg(long, value_name = "step", value_parser = ["prereqs", "install", "validate", "delete"])]
    pub(crate) step: Option<String>,
}

/// Arguments of `status`.
#[derive(Debug, Args)]
#[command(after_help = STATUS_EXAMPLES)]
pub(crate) struct StatusArgs {
    /// Form of the output: table, wide, json or yaml; the last two are the manager's /statusz as it is
    #[arg(short, long, value_name = "form", default_value = "table", hide_possible_values = true)]
    pub(crate) output: ListForm,
    /// Which manager.
    #[command(flatten)]
    pub(crate) reach: ReachFlags,
}

const STATUS_EXAMPLES: &str = "Examples:
  addonctl status                                   what is wrong, and how all is
  addonctl status --replica=master-2                as a certain replica sees it
  addonctl status -o json | jq .status.controllers  for scripts
  addonctl status >/dev/null || echo trouble        0: well, 5: something is wrong, 1: not found out
  addonctl status --address=https://10.0.0.11:10267 --certificate-authority=ca.crt
                                                    without kube-apiserver";

/// By what `top` sorts controllers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Order {
    /// Keys that wait.
    Queue,
    /// Keys that are done a second.
    Rate,
    /// Age of the oldest key.
    Oldest,
    /// Name.
    Name,
}

/// Arguments of `top`.
#[derive(Debug, Args)]
#[command(after_help = TOP_EXAMPLES)]
pub(crate) struct TopArgs {
    /// Print once, and end as `status` does; so it is anyway where the output is no terminal
    #[arg(long)]
    pub(crate) once: bool,
    /// Time from one look to the next
    #[arg(long, value_name = "duration", default_value = "2s", value_parser = interval)]
    pub(crate) interval: Duration,
    /// By what controllers are sorted: queue, rate, oldest or name
    #[arg(long, value_name = "order", default_value = "queue", hide_possible_values = true)]
    pub(crate) sort_by: Order,
    /// Form of the output: table or json; JSON is printed once
    #[arg(short, long, value_name = "form", default_value = "table", hide_possible_values = true)]
    pub(crate) output: TopForm,
    /// Which manager.
    #[command(flatten)]
    pub(crate) reach: ReachFlags,
}

const TOP_EXAMPLES: &str = "Keys:
  q  end    s  sort by something else    space  look now

Examples:
  addonctl top                         the leader, every two seconds
  addonctl top --replica=master-2      a certain replica
  addonctl top --once --sort-by=oldest
  addonctl top -o json                 the manager's /statusz as it is";

/// Forms of what `top` prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum TopForm {
    /// Columns.
    Table,
    /// JSON.
    Json,
}

/// Takes a duration that is worth waiting for.
fn interval(text: &str) -> Result<Duration, String> {
    let shortest = Duration::from_millis(200);
    match duration::parse(text) {
        Ok(interval) if interval >= shortest => Ok(interval),
        Ok(_) => Err(format!("at least {}", duration::format(shortest))),
        Err(error) => Err(error.to_string()),
    }
}

/// Arguments of `dashboard`.
#[derive(Debug, Args)]
#[command(after_help = DASHBOARD_EXAMPLES)]
pub(crate) struct DashboardArgs {
    /// Port to serve at on 127.0.0.1; 0 takes a free one
    #[arg(long, value_name = "port", default_value_t = 0)]
    pub(crate) port: u16,
    /// Open the page in the browser (xdg-open)
    #[arg(long)]
    pub(crate) open: bool,
    /// Which manager.
    #[command(flatten)]
    pub(crate) reach: ReachFlags,
}

const DASHBOARD_EXAMPLES: &str =
    "The printed URL holds a secret, and only who has it can read the page; it works until the command ends (Ctrl-C).

Examples:
  addonctl dashboard               prints the URL of the leader's page
  addonctl dashboard --open        and opens it
  addonctl dashboard --port=8089   from afar: ssh -L 8089:127.0.0.1:8089 HOST, then the same URL";

/// Commands about channels.
#[derive(Debug, Subcommand)]
pub(crate) enum ChannelsCommand {
    /// Show what channels would update, and update it
    Apply(ApplyChannelArgs),
    /// List what channels installed
    Get {
        /// What to list: addons
        #[arg(hide_possible_values = true)]
        what: Listed,
        /// Form of the output: table, wide, json or yaml
        #[arg(short, long, value_name = "form", default_value = "table", hide_possible_values = true)]
        output: ListForm,
    },
}

/// Arguments of `channels apply channel`.
#[derive(Debug, Args)]
pub(crate) struct ApplyChannelArgs {
    /// What to apply: channel
    #[arg(hide_possible_values = true)]
    pub(crate) what: Applied,
    /// Paths and URLs of channels; of two that name one addon the first keeps it
    #[arg(required = true, value_name = "URL")]
    pub(crate) urls: Vec<String>,
    /// Do it; without it, only show what would be updated
    #[arg(long)]
    pub(crate) yes: bool,
}

/// What `channels apply` applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Applied {
    /// A channel.
    Channel,
}

/// What `channels get` lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Listed {
    /// Addons that channels installed.
    Addons,
}

/// The command as clap knows it, with the flags of `create` in its help: upstream shows them there.
pub(crate) fn command() -> clap::Command {
    let root = Cli::command();
    let mut flags = CreateFlags::augment_args(clap::Command::new("create")).disable_help_flag(true);
    flags = flags.help_template("{all-args}");
    let flags = flags.render_help().to_string().replacen("Flags:", "Flags of create:", 1);
    root.after_help(format!(
        "{}\n\nUse \"addonctl [command] --help\" for more information about a command.",
        flags.trim_end()
    ))
}

/// Reads the command line.
pub(crate) fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Cli, clap::Error> {
    Cli::from_arg_matches(&command().try_get_matches_from(arranged(args))?)
}

/// The arguments with `create` before its flags: upstream takes them before and after it.
fn arranged(args: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut args: Vec<OsString> = args.into_iter().collect();
    let create = CreateFlags::augment_args(Connection::augment_args(clap::Command::new("create")));
    let takes_value = |arg: &str| {
        let found = create.get_arguments().find(|known| match arg.strip_prefix("--") {
            Some(long) => known.get_long() == Some(long),
            None => known.get_short().is_some_and(|short| arg == format!("-{short}")),
        });
        found.is_some_and(|known| known.get_action().takes_values())
    };
    let mut at = 1;
    while let Some(arg) = args.get(at).and_then(|arg| arg.to_str()) {
        if !arg.starts_with('-') {
            if arg == "create" && at > 1 {
                let create = args.remove(at);
                args.insert(1, create);
            }
            break;
        }
        at += 1 + usize::from(takes_value(arg));
    }
    args
}
