//! What Leases say of the replicas.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::coordination::v1::Lease;
use serde::Deserialize;

use super::verify::Pin;

/// Annotation of a replica's Lease: where it serves, `host:port`.
const ADDRESS: &str = "quarterdeck.dev/serving-address";
/// Annotation of a replica's Lease: SHA-256 of the certificate that it shows.
const CERTIFICATE: &str = "quarterdeck.dev/serving-certificate-sha256";
/// Annotation of a replica's Lease: its version.
const VERSION: &str = "quarterdeck.dev/version";
/// Annotation of a replica's Lease: the Lease of the election in which it stands, `namespace/name`.
const ELECTION: &str = "quarterdeck.dev/election";
/// Annotation of a replica's Lease: when it led of late.
const TERMS: &str = "quarterdeck.dev/terms";
/// How long a Lease is good for that does not say so.
const USUAL: Duration = Duration::from_secs(40);

/// A time of leadership, as far as it matters here; the Lease says more.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Led {
    /// When it began.
    pub(crate) began: Timestamp,
    /// When it ended; `None` while it lasts.
    #[serde(default)]
    pub(crate) ended: Option<Timestamp>,
}

/// A replica, as its own Lease tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Replica {
    /// Name of the replica and of its Lease: the host it runs on, or its pod.
    pub(crate) name: String,
    /// Its name in the election.
    pub(crate) identity: Option<String>,
    /// Where it serves, `host:port`.
    pub(crate) address: Option<String>,
    /// The certificate that it shows.
    pub(crate) pin: Option<Pin>,
    /// Its version.
    pub(crate) version: Option<String>,
    /// The Lease of the election in which it stands, `namespace/name`.
    pub(crate) election: Option<String>,
    /// When it said last that it is there, by its own clock.
    pub(crate) renewed: Option<Timestamp>,
    /// How long that holds.
    pub(crate) lasts: Duration,
    /// When it led of late, in the order of its Lease.
    pub(crate) terms: Vec<Led>,
}

impl Replica {
    /// The replica of a Lease. What cannot be read is not there.
    pub(crate) fn of(lease: &Lease) -> Self {
        let note = |key: &str| lease.metadata.annotations.as_ref().and_then(|notes| notes.get(key)).cloned();
        let spec = lease.spec.clone().unwrap_or_default();
        Self {
            name: lease.metadata.name.clone().unwrap_or_default(),
            identity: spec.holder_identity.filter(|identity| !identity.is_empty()),
            address: note(ADDRESS).filter(|address| split(address).is_some()),
            pin: note(CERTIFICATE).and_then(|text| Pin::parse(&text)),
            version: note(VERSION),
            election: note(ELECTION),
            renewed: spec.renew_time.map(|time| time.0),
            lasts: seconds(spec.lease_duration_seconds).unwrap_or(USUAL),
            terms: note(TERMS).and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default(),
        }
    }

    /// Whether it has been heard of lately, and has not said good-bye. This compares two clocks, as ages in kubectl do: good enough to choose whom to
    /// ask first, and to tell a person.
    pub(crate) fn is_heard(&self, now: Timestamp) -> bool {
        self.identity.is_some() && self.renewed.is_some_and(|renewed| !is_past(renewed, self.lasts, now))
    }

    /// Since when it leads by its own word.
    pub(crate) fn leads_since(&self) -> Option<Timestamp> {
        self.terms.iter().filter(|term| term.ended.is_none()).map(|term| term.began).max()
    }

    /// The port at which it serves.
    pub(crate) fn port(&self) -> Option<u16> {
        split(self.address.as_deref()?).map(|(_, port)| port)
    }

    /// The host at which it serves, if that is one that others can use.
    pub(crate) fn host(&self) -> Option<&str> {
        let (host, _) = split(self.address.as_deref()?)?;
        let everywhere = host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_unspecified());
        (!everywhere).then_some(host)
    }
}

/// The Lease of the election.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Election {
    /// Who holds it.
    pub(crate) holder: Option<String>,
    /// When it was last renewed, by the holder's clock.
    pub(crate) renewed: Option<Timestamp>,
}

impl Election {
    /// What the Lease says.
    pub(crate) fn of(lease: &Lease) -> Self {
        let spec = lease.spec.clone().unwrap_or_default();
        Self {
            holder: spec.holder_identity.filter(|holder| !holder.is_empty()),
            renewed: spec.renew_time.map(|time| time.0),
        }
    }
}

fn seconds(number: Option<i32>) -> Option<Duration> {
    number.and_then(|number| u64::try_from(number).ok()).filter(|number| *number > 0).map(Duration::from_secs)
}

fn is_past(renewed: Timestamp, lasts: Duration, now: Timestamp) -> bool {
    now.duration_since(renewed) > SignedDuration::try_from(lasts).unwrap_or(SignedDuration::MAX)
}

/// The host (an IPv6 address without its brackets) and port of `host:port`.
pub(super) fn split(address: &str) -> Option<(&str, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    let port = port.parse().ok().filter(|port| *port > 0)?;
    let bare = match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']')?,
        // An IPv6 address has to stand in brackets, or its last group is taken for the port.
        None if host.contains(':') => return None,
        None => host,
    };
    (!bare.is_empty()).then_some((bare, port))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn lease(value: serde_json::Value) -> Lease {
        serde_json::from_value(value).expect("a Lease")
    }

    #[test]
    fn a_lease_says_all_of_its_replica() {
        let pin = "ab".repeat(32);
        let replica = Replica::of(&lease(json!({
            "metadata": {"name": "master-1", "annotations": {
                "quarterdeck.dev/serving-address": "172.29.0.11:10267",
                "quarterdeck.dev/serving-certificate-sha256": pin,
                "quarterdeck.dev/version": "0.1.0",
                "quarterdeck.dev/terms": r#"[{"epoch": 3, "began": "2024-01-01T00:00:00Z", "ended": "2024-01-01T00:00:09Z",
                    "why": "stopped"}, {"epoch": 5, "began": "2024-01-02T00:00:00Z", "ended": null}]"#,
            }},
            "spec": {"holderIdentity": "master-1_x", "renewTime": "2024-01-03T00:00:00.000000Z", "leaseDurationSeconds": 40},
        })));
        assert_eq!((&*replica.name, replica.identity.as_deref()), ("master-1", Some("master-1_x")));
        assert_eq!((replica.host(), replica.port()), (Some("172.29.0.11"), Some(10267)));
        assert_eq!(replica.pin, Pin::parse(&pin));
        assert_eq!(replica.leads_since(), Some("2024-01-02T00:00:00Z".parse().expect("a time")));
        for (now, heard) in
            [("2024-01-03T00:00:40Z", true), ("2024-01-03T00:00:41Z", false), ("2024-01-02T00:00:00Z", true)]
        {
            assert_eq!(replica.is_heard(now.parse().expect("a time")), heard, "{now}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_not_there() {
        let replica = Replica::of(&lease(json!({
            "metadata": {"name": "old", "annotations": {
                "quarterdeck.dev/serving-address": "nonsense", "quarterdeck.dev/serving-certificate-sha256": "abc",
                "quarterdeck.dev/terms": "{",
            }},
            "spec": {"holderIdentity": ""},
        })));
        assert_eq!((replica.identity.as_ref(), replica.address.as_ref(), replica.pin), (None, None, None));
        assert!(replica.terms.is_empty() && !replica.is_heard(Timestamp::UNIX_EPOCH));
        assert_eq!(Replica::of(&Lease::default()).name, "");
    }

    #[test]
    fn addresses_have_a_host_and_a_port() {
        let cases = [
            ("10.0.0.1:10267", Some(("10.0.0.1", 10267))),
            ("[fd00::1]:10267", Some(("fd00::1", 10267))),
            ("master.example:1", Some(("master.example", 1))),
            ("fd00::1:10267", None),
            (":10267", None),
            ("host", None),
            ("host:0", None),
            ("host:70000", None),
        ];
        for (address, parts) in cases {
            assert_eq!(split(address), parts, "{address}");
        }
    }

    #[test]
    fn a_wildcard_is_nobodys_address() {
        for (address, host) in [("0.0.0.0:1", None), ("[::]:1", None), ("127.0.0.1:1", Some("127.0.0.1"))] {
            let notes = json!({"metadata": {"name": "x", "annotations": {"quarterdeck.dev/serving-address": address}}});
            assert_eq!(Replica::of(&lease(notes)).host(), host, "{address}");
        }
    }
}
