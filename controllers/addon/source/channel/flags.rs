//! Flags of this source.

use std::path::PathBuf;
use std::time::Duration;

use quarterdeck_api::duration;

use crate::addon::location::{HostPolicy, Location, LocationError, PolicyError};

/// Flags of channels.
#[derive(Clone, Debug, clap::Args)]
pub struct ChannelFlags {
    /// Index of a channel, a file of kind Addons: a path, or a URL of file, http, https, s3, gs,
    /// azureblob or oci; may be given several times, and the first that names an addon has it.
    #[arg(long = "channel", value_name = "URL")]
    pub channels: Vec<String>,
    /// Hosts that channels and what they name may be read from, besides the channels' own: a name, or
    /// *. and the end of one; may be given several times. Without it every host at a public address
    /// may be asked.
    #[arg(long = "channel-allow-host", value_name = "HOST")]
    pub channel_allow_hosts: Vec<String>,
    /// How often channels are read (5s to 24h).
    #[arg(long, value_name = "DURATION", value_parser = duration::parse, default_value = "60s")]
    pub channel_interval: Duration,
    /// Put back what people change of channels' addons, instead of reporting it until the next
    /// version; an entry's own drift: repair or drift: report goes before.
    #[arg(long)]
    pub channel_repair_drift: bool,
    /// Directory for what has to be known after a restart: what channels and directories said last.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/quarterdeck")]
    pub state_dir: PathBuf,
}

/// What the flags mean.
#[derive(Clone, Debug)]
pub struct ChannelConfig {
    /// Channels in the order of the command line, and the text of each.
    pub channels: Vec<(String, Location)>,
    /// Who may be asked.
    pub policy: HostPolicy,
    /// How often channels are read.
    pub interval: Duration,
    /// Whether drift is repaired where an entry does not say.
    pub repair_drift: bool,
    /// Directory of the last good readings.
    pub state_dir: PathBuf,
}

/// A flag that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FlagError {
    /// No location.
    #[error("{0}")]
    Location(#[from] LocationError),
    /// Given twice.
    #[error("{0} is given twice")]
    Twice(String),
    /// No host.
    #[error("{0}")]
    Host(#[from] PolicyError),
    /// Out of its limits.
    #[error("must be between 5s and 24h, is {0:?}")]
    Interval(Duration),
}

impl FlagError {
    /// The flag, without its dashes.
    #[must_use]
    pub const fn flag(&self) -> &'static str {
        match self {
            Self::Location(_) | Self::Twice(_) => "channel",
            Self::Host(_) => "channel-allow-host",
            Self::Interval(_) => "channel-interval",
        }
    }
}

impl ChannelFlags {
    /// Checks the flags.
    ///
    /// # Errors
    /// Says what is wrong with which flag; never shows credentials.
    pub fn config(&self) -> Result<ChannelConfig, FlagError> {
        const SHORTEST: Duration = Duration::from_secs(5);
        const LONGEST: Duration = Duration::from_secs(24 * 3600);
        let mut channels: Vec<(String, Location)> = Vec::new();
        for text in &self.channels {
            let location = Location::parse(text)?;
            if channels.iter().any(|(_, other)| *other == location) {
                return Err(FlagError::Twice(location.to_string()));
            }
            channels.push((text.trim().to_owned(), location));
        }
        let allowed = self.channel_allow_hosts.iter().map(String::as_str);
        let policy = HostPolicy::new(channels.iter().map(|(_, location)| location), allowed)?;
        if !(SHORTEST..=LONGEST).contains(&self.channel_interval) {
            return Err(FlagError::Interval(self.channel_interval));
        }
        let (interval, repair_drift) = (self.channel_interval, self.channel_repair_drift);
        Ok(ChannelConfig { channels, policy, interval, repair_drift, state_dir: self.state_dir.clone() })
    }
}

#[cfg(test)]
mod tests {
    use clap::{Args as _, FromArgMatches as _};

    use super::*;

    fn parse(args: &[&str]) -> ChannelFlags {
        let command = ChannelFlags::augment_args(clap::Command::new("test").no_binary_name(true));
        ChannelFlags::from_arg_matches(&command.try_get_matches_from(args).expect("flags")).expect("flags")
    }

    #[test]
    fn flags_are_read() {
        let config = parse(&[]).config().expect("defaults");
        assert_eq!((config.channels.len(), config.interval), (0, Duration::from_secs(60)));
        assert_eq!(config.state_dir, PathBuf::from("/var/lib/quarterdeck"));
        let config = parse(&[
            "--channel=https://a/i",
            "--channel=/etc/c/i.yaml",
            "--channel-allow-host=b,c".split(',').next().unwrap_or_default(),
        ])
        .config()
        .expect("two channels");
        assert_eq!(config.channels.len(), 2);
        assert!(config.policy.permits_host("a") && config.policy.permits_host("b") && !config.policy.permits_host("d"));
    }

    #[test]
    fn wrong_flags_are_named() {
        for (args, flag, message) in [
            (vec!["--channel=dashboard"], "channel", "neither a URL nor a path"),
            (
                vec!["--channel=https://u:secret@a/i", "--channel=https://u:secret@a/i"],
                "channel",
                "https://a/i is given twice",
            ),
            (vec!["--channel-allow-host=*"], "channel-allow-host", "\"*\" is neither"),
            (vec!["--channel-interval=1s"], "channel-interval", "between 5s and 24h"),
        ] {
            let error = parse(&args).config().expect_err("an error");
            assert_eq!(error.flag(), flag);
            assert!(error.to_string().contains(message) && !error.to_string().contains("secret"), "{error}");
        }
    }
}
