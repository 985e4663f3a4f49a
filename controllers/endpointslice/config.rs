//! Flags, under upstream's names and with its limits
//! (cmd/kube-controller-manager/app/options/endpointslicecontroller.go v1.36.3).

use std::time::Duration;

use quarterdeck_runtime::controller::SetupError;

/// Flags of the endpointslice controller.
#[derive(Clone, Debug, clap::Args)]
pub struct Config {
    /// Services whose slices are brought up to date at the same time (1 to 50).
    #[arg(long = "concurrent-service-endpoint-syncs", value_name = "N", default_value_t = 5)]
    pub concurrent_syncs: u16,
    /// Most endpoints that a slice gets (1 to 1000).
    #[arg(long = "max-endpoints-per-slice", value_name = "N", default_value_t = 100)]
    pub max_endpoints: u16,
    /// How long changes of pods are collected before their services' slices are written.
    #[arg(long = "endpointslice-updates-batch-period", value_name = "DURATION", default_value = "0s",
          value_parser = duration)]
    pub batch_period: Duration,
}

impl Config {
    /// Checks the limits.
    ///
    /// # Errors
    /// Names the flag that is out of its limits.
    pub fn validate(&self) -> Result<(), SetupError> {
        within("concurrent-service-endpoint-syncs", self.concurrent_syncs, 50)?;
        within("max-endpoints-per-slice", self.max_endpoints, 1000)
    }
}

fn within(flag: &'static str, value: u16, most: u16) -> Result<(), SetupError> {
    if (1..=most).contains(&value) {
        return Ok(());
    }
    Err(SetupError { flag, reason: format!("must be between 1 and {most}, is {value}") })
}

/// Reads a duration as Go writes it, such as `500ms` or `1m30s`.
fn duration(text: &str) -> Result<Duration, String> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let parsed: jiff::SignedDuration = text.parse().map_err(|_| "expected a duration such as 500ms".to_owned())?;
    parsed.try_into().map_err(|_| "must not be negative".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::{Args as _, FromArgMatches as _};

    use super::*;

    fn parse(args: &[&str]) -> Result<Config, clap::Error> {
        let command = Config::augment_args(clap::Command::new("test").no_binary_name(true));
        Config::from_arg_matches(&command.try_get_matches_from(args)?)
    }

    #[test]
    fn defaults_are_upstreams() {
        let config = parse(&[]).unwrap();
        assert_eq!((config.concurrent_syncs, config.max_endpoints, config.batch_period), (5, 100, Duration::ZERO));
        config.validate().unwrap();
    }

    #[test]
    fn durations_are_read_as_go_writes_them() {
        for (text, millis) in [("0", 0), ("0s", 0), ("500ms", 500), ("1m30s", 90_000), ("1.5s", 1500)] {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "5", "-1s", "soon"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_flag_out_of_its_limits_is_named() {
        let error = |args: &[&str]| parse(args).unwrap().validate().unwrap_err().flag;
        assert_eq!(error(&["--concurrent-service-endpoint-syncs=51"]), "concurrent-service-endpoint-syncs");
        assert_eq!(error(&["--concurrent-service-endpoint-syncs=0"]), "concurrent-service-endpoint-syncs");
        assert_eq!(error(&["--max-endpoints-per-slice=1001"]), "max-endpoints-per-slice");
    }
}
