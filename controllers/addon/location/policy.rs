//! Which hosts may be asked, and at which addresses.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::place::Location;

/// Why a pattern of `--channel-allow-host` is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is neither a host's name nor *. and the end of one")]
pub struct PolicyError(String);

/// Who may be asked. Hosts of configured channels always may. Without a list, so may every other host
/// that is at a public address; with a list, only those on it.
///
/// An address inside the network (private, loopback) is connected to only for a host that was
/// configured by its very name; one that is nobody's (link-local with the clouds' metadata services,
/// unspecified, multicast) only where the address itself was configured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostPolicy {
    named: BTreeSet<String>,
    suffixes: Vec<String>,
    limited: bool,
}

/// Where an address leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    Public,
    Inside,
    Nobody,
}

impl HostPolicy {
    /// A policy for these channels; `allowed` are host names, or `*.` and the end of one.
    ///
    /// # Errors
    /// Names the pattern that is none.
    pub fn new<'a>(
        channels: impl IntoIterator<Item = &'a Location>,
        allowed: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, PolicyError> {
        let mut policy = Self::default();
        policy.named.extend(channels.into_iter().filter_map(Location::host).map(str::to_owned));
        for pattern in allowed {
            policy.limited = true;
            let wanted = pattern.trim().trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
            let (name, set) = match wanted.strip_prefix("*.") {
                Some(end) => (end, false),
                None => (wanted.as_str(), true),
            };
            let is_name = !name.is_empty()
                && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'))
                && !name.starts_with('.');
            let is_address = set && name.parse::<Ipv6Addr>().is_ok();
            if !is_name && !is_address {
                return Err(PolicyError(pattern.to_owned()));
            }
            if set {
                policy.named.insert(name.to_owned());
            } else {
                policy.suffixes.push(format!(".{name}"));
            }
        }
        Ok(policy)
    }

    /// Whether a host may be asked at all.
    #[must_use]
    pub fn permits_host(&self, host: &str) -> bool {
        !self.limited || self.named.contains(host) || self.suffixes.iter().any(|suffix| host.ends_with(suffix.as_str()))
    }

    /// Whether a host may be asked at this address.
    #[must_use]
    pub fn permits_address(&self, host: &str, address: IpAddr) -> bool {
        match reach(address) {
            Reach::Public => true,
            Reach::Inside => self.named.contains(host),
            Reach::Nobody => self.named.contains(host) && host.parse() == Ok(address),
        }
    }
}

fn reach(address: IpAddr) -> Reach {
    match address {
        IpAddr::V4(address) => reach_v4(address),
        IpAddr::V6(address) => reach_v6(address),
    }
}

fn reach_v4(address: Ipv4Addr) -> Reach {
    let [a, b, c, _] = address.octets();
    if address.is_private() || address.is_loopback() || (a == 100 && (64..128).contains(&b)) {
        return Reach::Inside;
    }
    let reserved = a == 0 || a >= 224 || (a == 192 && b == 0 && c == 0) || (a == 198 && (b == 18 || b == 19));
    if address.is_link_local() || address.is_documentation() || reserved { Reach::Nobody } else { Reach::Public }
}

fn reach_v6(address: Ipv6Addr) -> Reach {
    // An address of version 4 in another dress leads where that one leads.
    if let Some(inner) = address.to_ipv4_mapped() {
        return reach_v4(inner);
    }
    let parts = address.segments();
    let inner = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        reach_v4(Ipv4Addr::new(a, b, c, d))
    };
    match parts {
        [0, 0, 0, 0, 0, 0, 0, 1] => Reach::Inside,
        // Translated (RFC 6052, RFC 8215) and 6to4.
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => inner(high, low),
        [0x64, 0xff9b, 1, ..] => Reach::Nobody,
        [0x2002, high, low, ..] => inner(high, low),
        [first, ..] if first & 0xfe00 == 0xfc00 => Reach::Inside,
        // Global unicast, less documentation, Teredo and benchmarks.
        [0x2001, second, ..] if second < 0x0200 || second == 0x0db8 => Reach::Nobody,
        [0x3fff, second, ..] if second < 0x1000 => Reach::Nobody,
        [first, ..] if first & 0xe000 == 0x2000 => Reach::Public,
        _ => Reach::Nobody,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(channels: &[&str], allowed: &[&str]) -> HostPolicy {
        let channels: Vec<Location> = channels.iter().map(|text| Location::parse(text).expect(text)).collect();
        HostPolicy::new(&channels, allowed.iter().copied()).expect("a policy")
    }

    #[test]
    fn addresses_lead_somewhere() {
        for (text, expected) in [
            ("8.8.8.8", Reach::Public),
            ("192.0.1.1", Reach::Public),
            ("2606:4700::1111", Reach::Public),
            ("2001:4860:4860::8888", Reach::Public),
            ("64:ff9b::808:808", Reach::Public),
            ("10.0.0.1", Reach::Inside),
            ("172.31.0.1", Reach::Inside),
            ("192.168.1.1", Reach::Inside),
            ("127.0.0.1", Reach::Inside),
            ("100.64.0.1", Reach::Inside),
            ("::1", Reach::Inside),
            ("fd00:ec2::254", Reach::Inside),
            ("::ffff:127.0.0.1", Reach::Inside),
            ("64:ff9b::7f00:1", Reach::Inside),
            ("2002:7f00:1::", Reach::Inside),
            ("169.254.169.254", Reach::Nobody),
            ("::ffff:169.254.169.254", Reach::Nobody),
            ("64:ff9b::a9fe:a9fe", Reach::Nobody),
            ("2002:a9fe:a9fe::1", Reach::Nobody),
            ("fe80::1", Reach::Nobody),
            ("0.0.0.0", Reach::Nobody),
            ("::", Reach::Nobody),
            ("::7f00:1", Reach::Nobody),
            ("224.0.0.1", Reach::Nobody),
            ("255.255.255.255", Reach::Nobody),
            ("198.18.0.1", Reach::Nobody),
            ("2001:0:1::1", Reach::Nobody),
            ("2001:db8::1", Reach::Nobody),
            ("ff02::1", Reach::Nobody),
        ] {
            assert_eq!(reach(text.parse().expect(text)), expected, "{text}");
        }
    }

    #[test]
    fn inside_only_by_name_and_nobody_only_by_address() {
        let policy = policy(&["http://intranet/i", "http://169.254.0.7/i"], &[]);
        let permits = |host: &str, address: &str| policy.permits_address(host, address.parse().expect(address));
        assert!(permits("elsewhere", "8.8.8.8") && permits("intranet", "10.0.0.1") && permits("intranet", "127.0.0.1"));
        assert!(!permits("elsewhere", "10.0.0.1") && !permits("elsewhere", "127.0.0.1"));
        assert!(!permits("intranet", "169.254.169.254") && !permits("intranet", "0.0.0.0"));
        assert!(permits("169.254.0.7", "169.254.0.7") && !permits("169.254.169.254", "169.254.169.254"));
    }

    #[test]
    fn a_list_limits_hosts() {
        assert!(policy(&["https://a/i"], &[]).permits_host("anything"));
        let policy = policy(&["https://a.example.com/i"], &["b.example.com", "*.Example.org"]);
        for (host, permitted) in [
            ("a.example.com", true),
            ("b.example.com", true),
            ("c.example.com", false),
            ("x.example.org", true),
            ("x.y.example.org", true),
            ("example.org", false),
            ("badexample.org", false),
        ] {
            assert_eq!(policy.permits_host(host), permitted, "{host}");
        }
        // A pattern names nobody: it opens no inside address.
        let loopback = "127.0.0.1".parse().expect("an address");
        assert!(
            policy.permits_address("b.example.com", loopback) && !policy.permits_address("x.example.org", loopback)
        );
        for bad in ["", "*", "*.", "a*", "https://a", "a/b", "*.::1"] {
            assert!(HostPolicy::new([], [bad]).is_err(), "{bad}");
        }
    }
}
