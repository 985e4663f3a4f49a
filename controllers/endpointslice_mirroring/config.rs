//! Flags, under upstream's names and with its limits
//! (cmd/kube-controller-manager/app/options/endpointslicemirroringcontroller.go v1.36.3).

use std::time::Duration;

use quarterdeck_runtime::controller::SetupError;

/// Flags of the endpointslice mirroring controller.
#[derive(Clone, Debug, clap::Args)]
pub struct Config {
    /// Endpoints objects that are mirrored at the same time (1 to 50).
    #[arg(long = "mirroring-concurrent-service-endpoint-syncs", value_name = "N", default_value_t = 5)]
    pub mirroring_concurrent_syncs: u16,
    /// Most addresses of a subset that are mirrored (1 to 1000).
    #[arg(long = "mirroring-max-endpoints-per-subset", value_name = "N", default_value_t = 1000)]
    pub mirroring_max_endpoints: u16,
    /// How long changes of mirrored slices are collected before they are put right.
    #[arg(long = "mirroring-endpointslice-updates-batch-period", value_name = "DURATION", default_value = "0s",
          value_parser = duration)]
    pub mirroring_batch_period: Duration,
}

impl Config {
    /// Checks the limits.
    ///
    /// # Errors
    /// Names the flag that is out of its limits.
    pub fn validate(&self) -> Result<(), SetupError> {
        within("mirroring-concurrent-service-endpoint-syncs", self.mirroring_concurrent_syncs, 50)?;
        within("mirroring-max-endpoints-per-subset", self.mirroring_max_endpoints, 1000)
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

    fn parse(args: &[&str]) -> Config {
        let command = Config::augment_args(clap::Command::new("test").no_binary_name(true));
        Config::from_arg_matches(&command.try_get_matches_from(args).unwrap()).unwrap()
    }

    #[test]
    fn defaults_are_upstreams_and_limits_hold() {
        let config = parse(&[]);
        config.validate().unwrap();
        assert_eq!((config.mirroring_concurrent_syncs, config.mirroring_max_endpoints), (5, 1000));
        assert_eq!(config.mirroring_batch_period, Duration::ZERO);
        assert_eq!(
            parse(&["--mirroring-endpointslice-updates-batch-period=1m1s"]).mirroring_batch_period.as_secs(),
            61
        );
        let error = parse(&["--mirroring-max-endpoints-per-subset=1001"]).validate().unwrap_err();
        assert_eq!(error.flag, "mirroring-max-endpoints-per-subset");
        let error = parse(&["--mirroring-concurrent-service-endpoint-syncs=0"]).validate().unwrap_err();
        assert_eq!(error.flag, "mirroring-concurrent-service-endpoint-syncs");
    }
}
