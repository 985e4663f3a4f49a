//! The command line: upstream's flags, upstream's way of reading them, upstream's `--help`.
//!
//! Flags come in groups, each a [`clap::Args`] struct: the manager's own [`Options`], and one for
//! each controller (`Controller::Config`). [`FlagSet`] reads the command line as Go's pflag does
//! (`_` for `-`, `--flag=value` and `--flag value`, `--switch=false`, the last value wins, lists add
//! up), hands each group what is its own, and collects every mistake before it gives up. Flags of
//! kube-controller-manager that this build has no use for are accepted with a warning.

mod controllers;
mod help;
mod known;
mod options;
mod set;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod token;
mod upstream;

pub use controllers::{ControllerTable, Selection, UnknownControllers};
pub use help::terminal_width;
pub use options::{
    AuthenticationFlags, AuthorizationFlags, DebugFlags, ElectionFlags, FenceMode, GenericFlags, LogFlags, LogFormat,
    MetricsFlags, MiscFlags, Options, ServingFlags, elements,
};
pub use set::{FlagSet, Outcome, Parsed, Program, UsageError};
pub use upstream::{Manager, UPSTREAM_CONTROLLERS, UpstreamController};
