//! The environment variables of kube-addon-manager (`kubernetes:cluster/addons/addon-manager`,
//! v1.36.3): a pod that moves its settings here keeps what they meant, or is told what they mean now.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::source::directory::RESCAN;

/// Where addons lie unless somebody says otherwise.
const ADDON_PATH: &str = "/etc/kubernetes/addons";
/// Longest time between two readings that are not asked for by an event, seconds.
const LONGEST_RESCAN: u64 = 24 * 3600;

/// Variables that mean nothing here, and why.
const EXPLAINED: &[(&str, &str)] = &[
    (
        "KUBECTL_PRUNE_WHITELIST_OVERRIDE",
        "has no effect: every kind is pruned, by inventory; --addon-prune-protect names the kinds that a person has to let go",
    ),
    (
        "KUBECTL_EXTRA_PRUNE_WHITELIST",
        "has no effect: every kind is pruned, by inventory; --addon-prune-protect names the kinds that a person has to let go",
    ),
    ("KUBECTL_OPTS", "has no effect: no kubectl is run; --kubeconfig says where the server is"),
    ("KUBECTL_BIN", "has no effect: no kubectl is run"),
    (
        "ADDON_MANAGER_LEADER_ELECTION",
        "has no effect: replicas elect a leader by a Lease of their own; --leader-elect=false turns that off",
    ),
];

/// What the environment says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Environment {
    addon_path: Option<PathBuf>,
    rescan: Option<Duration>,
    /// What is to be told of it at the start, one line each.
    lines: Vec<String>,
}

impl Environment {
    /// The environment of this process.
    #[must_use]
    pub fn of_process() -> Self {
        Self::read(|name| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned()))
    }

    /// Reads the variables by `get`; empty ones count as absent, as in upstream's script.
    #[must_use]
    pub fn read(get: impl Fn(&str) -> Option<String>) -> Self {
        let get = |name: &str| get(name).filter(|value| !value.is_empty());
        let mut all = Self::default();
        if let Some(path) = get("ADDON_PATH") {
            all.lines.push(format!("ADDON_PATH={path}: the directory of addons, unless --addon-path names one"));
            all.addon_path = Some(PathBuf::from(path));
        }
        if let Some(text) = get("TEST_ADDON_CHECK_INTERVAL_SEC") {
            match text.parse::<u64>() {
                Ok(seconds @ 1..=LONGEST_RESCAN) => {
                    all.lines.push(format!(
                        "TEST_ADDON_CHECK_INTERVAL_SEC={text}: directories are read this often, in seconds, and whenever they change"
                    ));
                    all.rescan = Some(Duration::from_secs(seconds));
                }
                _ => all.lines.push(format!(
                    "TEST_ADDON_CHECK_INTERVAL_SEC={text:?}: not a number of seconds from 1 to {LONGEST_RESCAN}; directories are read once a minute, and whenever they change"
                )),
            }
        }
        let explained = EXPLAINED.iter().filter(|(name, _)| get(name).is_some());
        all.lines.extend(explained.map(|(name, meaning)| format!("{name} {meaning}")));
        // Every shell and every pod has this one: a word only to those who bring others.
        if !all.lines.is_empty() && get("HOSTNAME").is_some() {
            all.lines.push("HOSTNAME has no effect: --replica-name names this replica".to_owned());
        }
        all
    }

    /// Tells what was found.
    pub fn tell(&self) {
        for line in &self.lines {
            tracing::info!(setting = line, "the environment says something");
        }
    }

    /// Where addons lie: the flag's word, or the environment's, or the default.
    #[must_use]
    pub fn addon_path(&self, flag: Option<&Path>) -> PathBuf {
        let path = flag.or(self.addon_path.as_deref());
        path.unwrap_or(Path::new(ADDON_PATH)).to_owned()
    }

    /// How often directories are read without an event.
    #[must_use]
    pub fn rescan(&self) -> Duration {
        self.rescan.unwrap_or(RESCAN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Environment {
        Environment::read(|name| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()))
    }

    #[test]
    fn the_flag_wins_over_the_environment_and_that_over_the_default() {
        let set = read(&[("ADDON_PATH", "/srv/addons")]);
        assert_eq!(set.addon_path(Some(Path::new("/flag"))), Path::new("/flag"));
        assert_eq!(set.addon_path(None), Path::new("/srv/addons"));
        assert_eq!(read(&[("ADDON_PATH", "")]).addon_path(None), Path::new(ADDON_PATH));
    }

    #[test]
    fn the_interval_is_taken_or_refused_by_name() {
        assert_eq!(read(&[("TEST_ADDON_CHECK_INTERVAL_SEC", "5")]).rescan(), Duration::from_secs(5));
        for bad in ["0", "-1", "x", "1.5", "99999999999999999999"] {
            let read = read(&[("TEST_ADDON_CHECK_INTERVAL_SEC", bad)]);
            assert_eq!(read.rescan(), RESCAN, "{bad}");
            assert!(read.lines[0].contains("not a number of seconds"), "{:?}", read.lines);
        }
    }

    #[test]
    fn what_means_nothing_here_is_told_once_each() {
        assert_eq!(read(&[("HOSTNAME", "a")]).lines, [""; 0]);
        let mut all: Vec<(&str, &str)> = EXPLAINED.iter().map(|(name, _)| (*name, "x")).collect();
        all.push(("HOSTNAME", "a"));
        let lines = read(&all).lines;
        assert_eq!(lines.len(), all.len());
        assert!(all.iter().zip(&lines).all(|((name, _), line)| line.starts_with(name)), "{lines:?}");
    }
}
