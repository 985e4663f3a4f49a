//! Flags.

use std::collections::BTreeSet;
use std::path::PathBuf;

use quarterdeck_runtime::controller::{Account, SetupError};

use super::fields::Overrides;
use super::health::HealthRules;
use super::ident::GroupKind;
use super::revision::Mode;
use super::source::channel::ChannelFlags;

/// Service account, in `kube-system`, that reads and writes addons unless a flag names another.
pub(super) const ACCOUNT: &str = "quarterdeck-addons";
/// Kinds whose objects take others with them when they go.
const PROTECTED: &str =
    "Namespace,PersistentVolume,PersistentVolumeClaim,CustomResourceDefinition.apiextensions.k8s.io";

/// Flags of the addon controller.
#[derive(Clone, Debug, clap::Args)]
pub struct Config {
    /// Flags of channels.
    #[command(flatten)]
    pub channels: ChannelFlags,
    /// Directory of addon manifests, read on every master [default: the environment's ADDON_PATH, or
    /// /etc/kubernetes/addons].
    #[arg(long, value_name = "DIR")]
    pub addon_path: Option<PathBuf>,
    /// Directory of manifests that are applied before the addons and never deleted; it need not be there.
    /// Empty for none.
    #[arg(long, value_name = "DIR", default_value = "/etc/kubernetes/admission-controls")]
    pub admission_controls_path: PathBuf,
    /// Field managers besides kubectl's whose changes to addons are reverted; a * at the end stands
    /// for any rest.
    #[arg(long, value_name = "MANAGERS", value_delimiter = ',')]
    pub addon_override_managers: Vec<String>,
    /// Kinds, as Kind.group, whose objects leave with their file only once a person has released
    /// them; empty for none, as kube-addon-manager has it.
    #[arg(long, value_name = "KINDS", default_value = PROTECTED)]
    pub addon_prune_protect: String,
    /// Service account, as [namespace/]name, as which addons are read and written; the namespace is
    /// kube-system if none is given. To narrow what addons may do, name one that is not bound to
    /// cluster-admin; give install the same flag.
    #[arg(long, value_name = "ACCOUNT", default_value = ACCOUNT)]
    pub addon_service_account: String,
    /// What is done about revisions of addons of directories and channels: off; manual (the last three are
    /// kept, to go back to with addonctl rollback); auto (a new one that fails is also given up for the
    /// last good one).
    #[arg(long, value_name = "MODE", default_value_t = Mode::Off)]
    pub addon_rollback: Mode,
    /// File of health rules (YAML: a list of group, kind, ready, degraded and message, the last three in CEL
    /// on self), which replace the built-in ones for these kinds.
    #[arg(long, value_name = "FILE", value_parser = HealthRules::of_file)]
    pub addon_health_rules: Option<HealthRules>,
    /// Addons that are worked on at the same time (1 to 50).
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub concurrent_addon_syncs: u16,
}

impl Config {
    /// Whose changes are reverted.
    ///
    /// # Errors
    /// When a manager's name is empty, or stands for everybody.
    pub fn overrides(&self) -> Result<Overrides, SetupError> {
        let managers: Vec<String> = self.addon_override_managers.iter().map(|name| name.trim().to_owned()).collect();
        let bad = |name: &&String| name.is_empty() || *name == "*" || name.trim_end_matches('*').contains('*');
        match managers.iter().find(bad) {
            Some(name) => {
                let reason = format!("{name:?} is not the name of a field manager, or the start of one and *");
                Err(SetupError { flag: "addon-override-managers", reason })
            }
            None => Ok(Overrides::new(&managers)),
        }
    }

    /// As who addons are read and written.
    ///
    /// # Errors
    /// When it is not the name of a service account.
    pub fn account(&self) -> Result<Account, SetupError> {
        Account::parse(self.addon_service_account.trim())
            .map_err(|error| SetupError { flag: "addon-service-account", reason: error.to_string() })
    }

    /// Kinds that are held.
    ///
    /// # Errors
    /// When one is not written as `Kind.group`.
    pub fn protected(&self) -> Result<BTreeSet<GroupKind>, SetupError> {
        let words = self.addon_prune_protect.split(',').map(str::trim).filter(|word| !word.is_empty());
        words
            .map(|word| {
                GroupKind::parse(word).ok_or_else(|| {
                    let reason = format!("{word:?} is not a kind; expected Kind.group, such as Namespace or Role.rbac.authorization.k8s.io");
                    SetupError { flag: "addon-prune-protect", reason }
                })
            })
            .collect()
    }

    /// Checks the limits.
    ///
    /// # Errors
    /// Names the flag that is out of its limits.
    pub fn validate(&self) -> Result<(), SetupError> {
        if !(1..=50).contains(&self.concurrent_addon_syncs) {
            let reason = format!("must be between 1 and 50, is {}", self.concurrent_addon_syncs);
            return Err(SetupError { flag: "concurrent-addon-syncs", reason });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use clap::{Args as _, FromArgMatches as _};

    use super::*;

    fn parse(args: &[&str]) -> Config {
        let command = Config::augment_args(clap::Command::new("test").no_binary_name(true));
        Config::from_arg_matches(&command.try_get_matches_from(args).expect("flags")).expect("a config")
    }

    #[test]
    fn defaults_are_upstreams_but_for_the_protection() {
        let config = parse(&[]);
        assert_eq!(config.addon_path, None);
        assert_eq!(config.admission_controls_path, PathBuf::from("/etc/kubernetes/admission-controls"));
        assert_eq!(config.protected().expect("kinds").len(), 4);
        assert!(parse(&["--addon-prune-protect="]).protected().expect("kinds").is_empty());
        assert_eq!(config.account().expect("an account"), Account::system(ACCOUNT));
        assert_eq!(config.addon_rollback, Mode::Off);
        config.validate().expect("limits");
    }

    #[test]
    fn wrong_flags_are_named() {
        assert_eq!(parse(&["--addon-prune-protect=a b"]).protected().expect_err("bad").flag, "addon-prune-protect");
        for bad in ["*", "a,,b", "a*b*"] {
            let flag = format!("--addon-override-managers={bad}");
            assert_eq!(parse(&[&flag]).overrides().expect_err("bad").flag, "addon-override-managers", "{bad}");
        }
        for bad in ["", "a/b/c", "Addons", "system:serviceaccount:a:b"] {
            let flag = format!("--addon-service-account={bad}");
            assert_eq!(parse(&[&flag]).account().expect_err("bad").flag, "addon-service-account", "{bad}");
        }
        assert_eq!(parse(&["--concurrent-addon-syncs=0"]).validate().expect_err("bad").flag, "concurrent-addon-syncs");
    }
}
