//! Flags of the node route controller.

use std::time::Duration;

use ipnet::IpNet;
use jiff::SignedDuration;
use quarterdeck_runtime::controller::SetupError;

/// Flags of the node route controller.
#[derive(clap::Args, Clone, Debug)]
pub struct NodeRouteConfig {
    /// Whether the pods' networks are routed by the cloud.
    #[arg(long, default_value_t = true, help_heading = "Node route controller")]
    pub configure_cloud_routes: bool,
    /// Range of the pods' networks; two, with a comma in between, for both families. Routes outside are never touched.
    #[arg(long, value_name = "CIDR", default_value = "", help_heading = "Node route controller")]
    pub cluster_cidr: String,
    /// How often routes are compared with the cloud's, besides when nodes change.
    #[arg(long, value_name = "DURATION", default_value = "10s", help_heading = "Node route controller")]
    pub route_reconciliation_period: SignedDuration,
}

impl NodeRouteConfig {
    /// How often routes are compared.
    pub(super) fn period(&self) -> Result<Duration, SetupError> {
        let period = Duration::try_from(self.route_reconciliation_period).ok().filter(|period| !period.is_zero());
        period.ok_or_else(|| SetupError {
            flag: "route-reconciliation-period",
            reason: "must be more than zero".to_owned(),
        })
    }

    /// The pods' ranges; none if the flag is empty.
    pub(super) fn cluster(&self) -> Result<Vec<IpNet>, SetupError> {
        let refuse = |reason: String| SetupError { flag: "cluster-cidr", reason };
        let text = self.cluster_cidr.trim();
        if text.is_empty() {
            return Ok(Vec::new());
        }
        let parse = |part: &str| {
            let part = part.trim();
            part.parse::<IpNet>()
                .map(|cidr| cidr.trunc())
                .map_err(|_| refuse(format!("{part:?} is not a CIDR, such as 10.244.0.0/16")))
        };
        let cidrs: Vec<IpNet> = text.split(',').map(parse).collect::<Result<_, _>>()?;
        match cidrs[..] {
            [_] => Ok(cidrs),
            [IpNet::V4(_), IpNet::V6(_)] | [IpNet::V6(_), IpNet::V4(_)] => Ok(cidrs),
            [one, other] => Err(refuse(format!("{one} and {other} are of one family; two may be given, one of each"))),
            _ => Err(refuse(format!("there are {}; two may be given, one of each family", cidrs.len()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_range_is_refused_by_name() {
        let read = |text: &str| {
            let config = NodeRouteConfig {
                configure_cloud_routes: true,
                cluster_cidr: text.to_owned(),
                route_reconciliation_period: SignedDuration::from_secs(10),
            };
            config.cluster().map(|cidrs| cidrs.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
        };
        for (text, expected) in [
            ("", ""),
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("10.1.2.3/8", "10.0.0.0/8"),
            ("10.0.0.0/8, fd00::/48", "10.0.0.0/8 fd00::/48"),
            ("fd00::/48,10.0.0.0/8", "fd00::/48 10.0.0.0/8"),
        ] {
            assert_eq!(read(text).unwrap(), expected, "{text:?}");
        }
        for (text, word) in [
            ("10.0.0.0", "\"10.0.0.0\""),
            ("10.0.0.0/33", "\"10.0.0.0/33\""),
            ("10.0.0.0/8,", "\"\""),
            ("10.0.0.0/8,11.0.0.0/8", "one family"),
            ("10.0.0.0/8,fd00::/48,11.0.0.0/8", "there are 3"),
        ] {
            let error = read(text).unwrap_err().to_string();
            assert!(error.starts_with("--cluster-cidr: ") && error.contains(word), "{text:?}: {error}");
        }
    }
}
