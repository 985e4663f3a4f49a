//! IP families, which become the address types of slices.

use std::fmt;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::Service;

/// An IP family; every slice holds addresses of exactly one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both families, in the order in which they are reconciled.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// The address type of slices of this family.
    #[must_use]
    pub fn address_type(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }

    /// Whether an address belongs to the family; an IPv4 address mapped into IPv6 is IPv4.
    #[must_use]
    pub fn holds(self, ip: IpAddr) -> bool {
        (self == Self::V4) == ip.to_canonical().is_ipv4()
    }

    /// The families for which a service wants slices (k8s.io/endpointslice:utils.go v0.36.3): its
    /// `ipFamilies`; where an old server left them empty, the family of its cluster IP, and both
    /// for a headless service.
    #[must_use]
    pub fn of_service(service: &Service) -> Families {
        let Some(spec) = service.spec.as_ref() else { return Families { v4: true, v6: true } };
        let named = spec.ip_families.as_deref().unwrap_or_default();
        let families = Families { v4: named.iter().any(|f| f == "IPv4"), v6: named.iter().any(|f| f == "IPv6") };
        if families.v4 || families.v6 {
            return families;
        }
        match spec.cluster_ip.as_deref() {
            None | Some("" | "None") => Families { v4: true, v6: true },
            Some(ip) => Families { v4: !ip.contains(':'), v6: ip.contains(':') },
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.address_type())
    }
}

/// A set of IP families.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Families {
    /// IPv4 is wanted.
    pub v4: bool,
    /// IPv6 is wanted.
    pub v6: bool,
}

impl Families {
    /// Whether the set holds a family.
    #[must_use]
    pub fn has(self, family: Family) -> bool {
        match family {
            Family::V4 => self.v4,
            Family::V6 => self.v6,
        }
    }

    /// Whether the set holds the family of slices of an address type.
    #[must_use]
    pub fn has_type(self, address_type: &str) -> bool {
        Family::ALL.into_iter().any(|family| self.has(family) && family.address_type() == address_type)
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ServiceSpec;

    use super::*;

    #[test]
    fn families_follow_the_service_and_fall_back_to_its_cluster_ip() {
        let cases: [(&[&str], Option<&str>, bool, bool); 7] = [
            (&["IPv4"], Some("10.0.0.1"), true, false),
            (&["IPv6"], Some("fd00::1"), false, true),
            (&["IPv6", "IPv4"], Some("None"), true, true),
            (&[], Some("10.0.0.1"), true, false),
            (&[], Some("fd00::1"), false, true),
            (&[], Some("None"), true, true),
            (&[], None, true, true),
        ];
        for (families, cluster_ip, v4, v6) in cases {
            let service = Service {
                spec: Some(ServiceSpec {
                    ip_families: Some(families.iter().map(ToString::to_string).collect()),
                    cluster_ip: cluster_ip.map(str::to_owned),
                    ..ServiceSpec::default()
                }),
                ..Service::default()
            };
            assert_eq!(Family::of_service(&service), Families { v4, v6 }, "{families:?} {cluster_ip:?}");
        }
    }

    #[test]
    fn a_mapped_address_is_ipv4() {
        assert!(Family::V4.holds("::ffff:10.0.0.1".parse().unwrap()));
        assert!(!Family::V6.holds("::ffff:10.0.0.1".parse().unwrap()));
        assert!(Family::V6.holds("fd00::1".parse().unwrap()));
    }
}
