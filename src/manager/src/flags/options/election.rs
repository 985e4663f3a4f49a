//! Flags of leader election and the fence.

use std::time::Duration;

use quarterdeck_api::duration::{format as go_format, parse as go_duration};

/// Whether to lead without the server's fence against writes of a past leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum FenceMode {
    /// Use the fence when it works; lead without it when it does not.
    Auto,
    /// Do not lead unless it works.
    Required,
}

/// Who leads. Durations and names as upstream's, except for the Lease's default name.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "generic")]
pub struct ElectionFlags {
    /// Take part in an election, and work only while leading. Turn this off only for a single replica.
    #[arg(long, default_value_t = true)]
    pub leader_elect: bool,
    /// How long a Lease that is not renewed still counts as held. This is the longest that work stands still when the leader
    /// dies. Whole seconds.
    #[arg(long, value_parser = go_duration, default_value = "15s")]
    pub leader_elect_lease_duration: Duration,
    /// How long the leader tries to renew before it steps down; shorter than the lease duration.
    #[arg(long, value_parser = go_duration, default_value = "10s")]
    pub leader_elect_renew_deadline: Duration,
    /// Time between tries to take or renew the Lease.
    #[arg(long, value_parser = go_duration, default_value = "2s")]
    pub leader_elect_retry_period: Duration,
    /// Kind of the election's object; "leases" is the only one.
    #[arg(long, default_value = "leases")]
    pub leader_elect_resource_lock: String,
    /// Name of the Lease.
    #[arg(long, default_value = "quarterdeck")]
    pub leader_elect_resource_name: String,
    /// Namespace of the Lease.
    #[arg(long, default_value = "kube-system")]
    pub leader_elect_resource_namespace: String,
    /// What to do when the server's fence against writes of a past leader is missing or broken: "auto" leads without it,
    /// "required" does not lead.
    #[arg(long, value_enum, default_value = "auto")]
    pub fence: FenceMode,
}

impl ElectionFlags {
    /// Upstream's own rules (component-base:config/validation, client-go:tools/leaderelection); the
    /// elector checks the stricter ones of its deadlines.
    pub(super) fn validate(&self) -> Vec<String> {
        let mut errors = Vec::new();
        if self.leader_elect_resource_lock != "leases" {
            errors.push(format!(
                "--leader-elect-resource-lock: {:?} is not supported; the only lock is \"leases\"",
                self.leader_elect_resource_lock
            ));
        }
        if !self.leader_elect {
            return errors;
        }
        let (lease, renew, retry) =
            (self.leader_elect_lease_duration, self.leader_elect_renew_deadline, self.leader_elect_retry_period);
        if retry.is_zero() {
            errors.push("--leader-elect-retry-period: must be greater than zero".to_owned());
        }
        if lease <= renew {
            errors.push(format!(
                "--leader-elect-lease-duration: {} must be greater than --leader-elect-renew-deadline, {}",
                go_format(lease),
                go_format(renew)
            ));
        }
        if renew <= retry.saturating_add(retry / 5) {
            errors.push(format!(
                "--leader-elect-renew-deadline: {} must be greater than 1.2 times --leader-elect-retry-period, {}",
                go_format(renew),
                go_format(retry)
            ));
        }
        for (flag, value) in [
            ("leader-elect-resource-name", &self.leader_elect_resource_name),
            ("leader-elect-resource-namespace", &self.leader_elect_resource_namespace),
        ] {
            if value.is_empty() {
                errors.push(format!("--{flag}: must not be empty"));
            }
        }
        errors
    }
}
