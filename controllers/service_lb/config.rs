//! Flags, and which class of Services is which provider's.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::SignedDuration;
use quarterdeck_runtime::controller::SetupError;

/// Flags of the service controller.
#[derive(clap::Args, Clone, Debug)]
pub struct ServiceLbConfig {
    /// Number of Services whose load balancers are made, changed or removed at once. A call to a cloud takes seconds, and a provider has
    /// 20 places for such calls.
    #[arg(long, value_name = "COUNT", default_value_t = 24, help_heading = "Service controller")]
    pub concurrent_service_syncs: usize,
    /// spec.loadBalancerClass of the Services that a provider looks after, as PROVIDER=CLASS, or CLASS alone with one provider; may be given
    /// repeatedly. Services without a class go to the first provider without one.
    #[arg(long, value_name = "[PROVIDER=]CLASS", value_delimiter = ',', help_heading = "Service controller")]
    pub load_balancer_class: Vec<String>,
    /// How often the load balancers of the cloud are compared with the Services.
    #[arg(long, value_name = "DURATION", default_value = "5m", help_heading = "Service controller")]
    pub load_balancer_audit_period: SignedDuration,
    /// For how long the Service of a load balancer has to be gone before that counts as an orphan.
    #[arg(long, value_name = "DURATION", default_value = "10m", help_heading = "Service controller")]
    pub load_balancer_orphan_grace: SignedDuration,
    /// Delete load balancers of this cluster that are orphans. Without it they are reported.
    #[arg(long, help_heading = "Service controller")]
    pub cloud_delete_orphans: bool,
    /// Delete no orphan while more than this share of a provider's load balancers, in percent, and at least 3, are
    /// orphans: so many at once are rather a cluster that was restored from an old backup.
    #[arg(long, value_name = "PERCENT", default_value_t = 20, help_heading = "Service controller")]
    pub load_balancer_orphan_brake: usize,
}

const CLASS_FLAG: &str = "load-balancer-class";
const GRACE_FLAG: &str = "load-balancer-orphan-grace";
const BRAKE_FLAG: &str = "load-balancer-orphan-brake";
const PERIOD_FLAG: &str = "load-balancer-audit-period";
/// Comparing more often than this costs the cloud calls and gains nothing.
const SHORTEST_PERIOD: Duration = Duration::from_secs(1);

impl ServiceLbConfig {
    /// How often load balancers are compared with Services.
    ///
    /// # Errors
    /// When that is too often.
    pub(super) fn audit_period(&self) -> Result<Duration, SetupError> {
        let refuse = |reason: &str| SetupError { flag: PERIOD_FLAG, reason: reason.to_owned() };
        let period = Duration::try_from(self.load_balancer_audit_period).map_err(|_| refuse("must not be negative"))?;
        if period < SHORTEST_PERIOD { Err(refuse("must be at least 1s")) } else { Ok(period) }
    }

    /// For how long a Service has to be gone.
    ///
    /// # Errors
    /// When that is negative.
    pub(super) fn orphan_grace(&self) -> Result<Duration, SetupError> {
        let refuse = |_| SetupError { flag: GRACE_FLAG, reason: "must not be negative".to_owned() };
        Duration::try_from(self.load_balancer_orphan_grace).map_err(refuse)
    }

    /// Whether orphans are deleted: then as long as they are not more than this share, in percent.
    ///
    /// # Errors
    /// When that is no percentage.
    pub(super) fn deletion_of_orphans(&self) -> Result<Option<usize>, SetupError> {
        if self.load_balancer_orphan_brake > 100 {
            return Err(SetupError { flag: BRAKE_FLAG, reason: "must be a percentage from 0 to 100".to_owned() });
        }
        Ok(self.cloud_delete_orphans.then_some(self.load_balancer_orphan_brake))
    }
}

/// Which class is whose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Classes {
    /// The class of each provider that has one, by the provider's name.
    of: BTreeMap<String, String>,
}

impl Classes {
    /// Reads the flag for these providers. `others_join`: more may come later, with names that nobody knows yet.
    ///
    /// # Errors
    /// When it names no provider, or says twice what class one has, or gives a class to two.
    pub(super) fn read(flag: &[String], providers: &[&str], others_join: bool) -> Result<Self, SetupError> {
        let refuse = |reason: String| Err(SetupError { flag: CLASS_FLAG, reason });
        let mut of = BTreeMap::new();
        for entry in flag.iter().filter(|entry| !entry.is_empty()) {
            let (name, class) = match (entry.split_once('='), providers) {
                (Some((name, class)), _) => (name, class),
                (None, [only]) => (*only, entry.as_str()),
                (None, _) => return refuse(format!("{entry:?}: with several providers, say PROVIDER=CLASS")),
            };
            if !others_join && !providers.contains(&name) {
                return refuse(format!("{name:?} is not among --cloud-provider: {}", providers.join(", ")));
            }
            if class.is_empty() {
                return refuse(format!("{entry:?}: the class is empty"));
            }
            if of.values().any(|other| other == class) {
                return refuse(format!("class {class:?} stands twice"));
            }
            if of.insert(name.to_owned(), class.to_owned()).is_some() {
                return refuse(format!("provider {name} has two classes"));
            }
        }
        Ok(Self { of })
    }

    /// Those of these providers that may look after Services of this class, by their place; the first one that makes
    /// load balancers does.
    pub(super) fn candidates(&self, class: Option<&str>, providers: &[&str]) -> Vec<usize> {
        let own = |at: usize| self.of.get(providers[at]).map(String::as_str);
        (0..providers.len()).filter(|at| own(*at) == class).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_find_their_provider() {
        let flag = |entries: &[&str]| entries.iter().map(ToString::to_string).collect::<Vec<_>>();
        let candidates = |entries: &[&str], providers: &[&str], class: Option<&str>| {
            Classes::read(&flag(entries), providers, false).map(|classes| classes.candidates(class, providers))
        };
        type Case<'a> = (&'a [&'a str], &'a [&'a str], Option<&'a str>, Vec<usize>);
        let cases: [Case<'_>; 6] = [
            (&[], &["a", "b"], None, vec![0, 1]),
            (&[], &["a"], Some("example.com/x"), vec![]),
            (&["example.com/x"], &["a"], Some("example.com/x"), vec![0]),
            (&["example.com/x"], &["a"], None, vec![]),
            (&["a=example.com/x"], &["a", "b"], None, vec![1]),
            (&["a=example.com/x", "b=y"], &["a", "b"], Some("y"), vec![1]),
        ];
        for (entries, providers, class, expected) in cases {
            assert_eq!(candidates(entries, providers, class).unwrap(), expected, "{entries:?} {class:?}");
        }
        let refused: [(&[&str], &str); 5] = [
            (&["x"], "PROVIDER=CLASS"),
            (&["c=x"], "not among"),
            (&["a=x", "b=x"], "twice"),
            (&["a=x", "a=y"], "two classes"),
            (&["a="], "empty"),
        ];
        for (entries, part) in refused {
            let error = candidates(entries, &["a", "b"], None).unwrap_err();
            assert!(error.reason.contains(part), "{entries:?}: {error}");
        }
        // One that is there later.
        let classes = Classes::read(&flag(&["late=x"]), &["a"], true).unwrap();
        assert_eq!(classes.candidates(Some("x"), &["a"]), Vec::<usize>::new());
        assert_eq!(classes.candidates(Some("x"), &["a", "late"]), [1]);
        assert_eq!(classes.candidates(None, &["a", "late", "other"]), [0, 2]);
    }
}
