//! The manager's own flags, by upstream's groups.

mod election;
mod generic;
mod serving;

pub use election::{ElectionFlags, FenceMode};
pub use generic::{DebugFlags, GenericFlags, LogFlags, LogFormat, MetricsFlags, MiscFlags};
pub use serving::{AuthenticationFlags, AuthorizationFlags, ServingFlags};

/// Every flag of the manager itself.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Profiling.
    #[command(flatten)]
    pub debug: DebugFlags,
    /// What runs, and how it talks to the API server.
    #[command(flatten)]
    pub generic: GenericFlags,
    /// Who leads.
    #[command(flatten)]
    pub election: ElectionFlags,
    /// HTTPS.
    #[command(flatten)]
    pub serving: ServingFlags,
    /// Who is asking.
    #[command(flatten)]
    pub authentication: AuthenticationFlags,
    /// What they may ask.
    #[command(flatten)]
    pub authorization: AuthorizationFlags,
    /// Metrics.
    #[command(flatten)]
    pub metrics: MetricsFlags,
    /// Logs.
    #[command(flatten)]
    pub logs: LogFlags,
    /// Where the API server is, and the rest.
    #[command(flatten)]
    pub misc: MiscFlags,
}

impl Options {
    /// What is wrong with the values taken together, one line each, naming the flags.
    pub(super) fn validate(&self) -> Vec<String> {
        let mut errors = self.generic.validate();
        errors.extend(self.election.validate());
        errors.extend(self.serving.validate());
        errors.extend(self.authorization.validate());
        errors
    }

    /// What is accepted but means something else here than upstream.
    pub(super) fn warnings(&self) -> Vec<String> {
        let mut warnings = self.serving.warnings();
        if self.logs.verbosity < 0 {
            warnings.push("-v: levels below 0 are taken as 0".to_owned());
        }
        warnings
    }
}

/// The elements of a list flag. An empty value is an empty list, as in pflag; clap cannot say so.
#[must_use]
pub fn elements(list: &[String]) -> Vec<&str> {
    match list {
        [only] if only.is_empty() => Vec::new(),
        _ => list.iter().map(String::as_str).collect(),
    }
}
