//! Flags of the guard.

use quarterdeck_runtime::controller::SetupError;

use super::{Limits, Rate, Timeouts};

/// What every provider is limited to.
#[derive(clap::Args, Clone, Debug)]
pub struct GuardConfig {
    /// How long a call to a cloud may take, as METHOD=DURATION or CLASS=DURATION; may be given repeatedly. Classes and
    /// their defaults: read=10s, batch=20s, route=30s, loadbalancer=60s. Methods: docs/cloud/guard.md.
    #[arg(long, value_name = "METHOD=DURATION", value_delimiter = ',', help_heading = "Cloud")]
    pub cloud_timeout: Vec<String>,
    /// How many calls of each class may be begun in a second at each provider; 0: as many as there are places. Fewer
    /// are begun while the cloud throttles.
    #[arg(long, value_name = "CALLS", default_value = "20", help_heading = "Cloud")]
    pub cloud_api_qps: f64,
    /// How many calls of each class may be begun at once at each provider, after a pause.
    #[arg(long, value_name = "CALLS", default_value = "40", help_heading = "Cloud")]
    pub cloud_api_burst: u32,
}

impl GuardConfig {
    /// The limits of one provider.
    ///
    /// # Errors
    /// When a flag makes no sense.
    pub fn limits(&self) -> Result<Limits, SetupError> {
        let timeouts = Timeouts::parse(self.cloud_timeout.iter().map(String::as_str))
            .map_err(|reason| SetupError { flag: "cloud-timeout", reason })?;
        let per_second = self.cloud_api_qps;
        if !per_second.is_finite() || per_second < 0.0 {
            let reason = format!("{per_second} is no number of calls per second");
            return Err(SetupError { flag: "cloud-api-qps", reason });
        }
        if self.cloud_api_burst == 0 && per_second > 0.0 {
            let reason = "it has to be 1 at least, or no call could ever be begun".to_owned();
            return Err(SetupError { flag: "cloud-api-burst", reason });
        }
        let rate = Rate { per_second, burst: self.cloud_api_burst };
        Ok(Limits { timeouts, rate, ..Limits::default() })
    }
}

#[cfg(test)]
mod tests {
    use clap::{Args as _, Command, FromArgMatches as _};

    use super::*;
    use crate::provider::CallClass;

    fn limits(args: &[&str]) -> Result<Limits, String> {
        let command = GuardConfig::augment_args(Command::new("x").no_binary_name(true));
        let matches = command.try_get_matches_from(args).map_err(|error| error.to_string())?;
        let config = GuardConfig::from_arg_matches(&matches).map_err(|error| error.to_string())?;
        config.limits().map_err(|error| error.to_string())
    }

    #[test]
    fn flags_become_limits() {
        let limits = limits(&["--cloud-timeout=read=3s,routes.create=5s", "--cloud-timeout=batch=1m"]).unwrap();
        let method = |name: &str| super::super::Method::ALL.into_iter().find(|method| method.name == name).unwrap();
        let seconds = |name| limits.deadline_of(&method(name)).as_secs();
        assert_eq!([seconds("routes.list"), seconds("routes.create"), seconds("routes.delete")], [3, 5, 30]);
        assert_eq!(seconds("instances.get_many"), 60);
        assert_eq!(seconds("loadbalancers.ensure"), CallClass::LoadBalancer.default_deadline().as_secs());
        assert_eq!(limits.rate, Rate { per_second: 20.0, burst: 40 });
    }

    #[test]
    fn a_flag_that_makes_no_sense_is_named() {
        for (arg, part) in [
            ("--cloud-timeout=instances.get_mani=1s", "--cloud-timeout: "),
            ("--cloud-timeout=instances.get_mani=1s", "did you mean \"instances.get_many\""),
            ("--cloud-api-qps=-1", "--cloud-api-qps"),
            ("--cloud-api-qps=NaN", "--cloud-api-qps: NaN"),
            ("--cloud-api-burst=0", "--cloud-api-burst: "),
        ] {
            let error = limits(&[arg]).unwrap_err();
            assert!(error.contains(part), "{arg}: {error}");
        }
        assert_eq!(limits(&["--cloud-api-qps=0", "--cloud-api-burst=0"]).unwrap().rate.per_second, 0.0);
    }
}
