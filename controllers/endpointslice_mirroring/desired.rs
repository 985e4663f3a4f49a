//! The slices that an Endpoints object stands for.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr};

use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset, Endpoints};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort as SlicePort};

/// The endpoints of one address type and port set: the content of one slice.
#[derive(Clone, Debug)]
pub(super) struct Group {
    /// `IPv4` or `IPv6`.
    pub(super) address_type: &'static str,
    /// The ports.
    pub(super) ports: Vec<SlicePort>,
    /// The endpoints, no two of the same address, host name and target.
    pub(super) endpoints: Vec<Endpoint>,
}

/// All that is to be mirrored, and what is not.
#[derive(Debug, Default)]
pub(super) struct Desired {
    /// The slices to be; none is empty.
    pub(super) groups: Vec<Group>,
    /// Addresses that are no IP addresses.
    pub(super) invalid: usize,
    /// Addresses left out because they are invalid or too many.
    pub(super) skipped: usize,
}

/// Works out what an Endpoints object stands for
/// (pkg/controller/endpointslicemirroring/reconciler.go v1.36.3): its subsets in canonical form,
/// at most `max` addresses of each, ready ones first.
pub(super) fn desired(endpoints: &Endpoints, max: usize) -> Desired {
    let mut desired = Desired::default();
    for subset in repack(endpoints.subsets.as_deref().unwrap_or_default()) {
        let ports: Vec<SlicePort> = subset.ports.iter().map(|port| slice_port(port)).collect();
        let mut families =
            ["IPv4", "IPv6"].map(|address_type| Group { address_type, ports: ports.clone(), endpoints: Vec::new() });
        let mut seen: [HashMap<Identity, usize>; 2] = Default::default();
        let mut mirrored = 0;
        let addresses = subset.addresses.iter().filter(|(_, ready)| *ready);
        for (address, ready) in addresses.chain(subset.addresses.iter().filter(|(_, ready)| !*ready)) {
            if mirrored == max {
                break;
            }
            let Some(ip) = parse_ip(&address.ip) else {
                desired.invalid += 1;
                continue;
            };
            mirrored += 1;
            let family = usize::from(ip.is_ipv6());
            let endpoint = endpoint(address, ip, *ready);
            let group = &mut families[family].endpoints;
            match seen[family].get(&Identity::of(&endpoint)) {
                Some(at) => group[*at] = endpoint,
                None => {
                    seen[family].insert(Identity::of(&endpoint), group.len());
                    group.push(endpoint);
                }
            }
        }
        desired.skipped += subset.addresses.len() - mirrored;
        desired.groups.extend(families.into_iter().filter(|group| !group.endpoints.is_empty()));
    }
    desired
}

/// What tells endpoints of a slice apart; everything else about one may change in place.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Identity {
    addresses: Vec<String>,
    hostname: String,
    namespace: String,
    name: String,
}

impl Identity {
    /// The identity of an endpoint.
    pub(super) fn of(endpoint: &Endpoint) -> Self {
        let mut addresses = endpoint.addresses.clone();
        addresses.sort_unstable();
        let target = endpoint.target_ref.as_ref();
        Self {
            addresses,
            hostname: endpoint.hostname.clone().unwrap_or_default(),
            namespace: target.and_then(|target| target.namespace.clone()).unwrap_or_default(),
            name: target.and_then(|target| target.name.clone()).unwrap_or_default(),
        }
    }
}

/// What tells addresses of an object apart: the address as written, and the uid of its target.
type AddressKey<'a> = (&'a str, Option<&'a str>);

/// The addresses that serve a port, and whether they are ready.
type Served<'a> = BTreeMap<AddressKey<'a>, bool>;

/// A subset in canonical form, with the readiness of each address.
struct Repacked<'a> {
    ports: Vec<&'a EndpointPort>,
    addresses: Vec<(&'a EndpointAddress, bool)>,
}

/// Brings subsets into canonical form (pkg/api/v1/endpoints/util.go v1.36.3): ports that are
/// served by the same addresses in the same state stand together; an address that is both ready
/// and not ready on a port is not ready.
fn repack(subsets: &[EndpointSubset]) -> Vec<Repacked<'_>> {
    let mut addresses: BTreeMap<AddressKey<'_>, &EndpointAddress> = BTreeMap::new();
    // A subset without ports counts as one nameless port.
    let mut by_port: Vec<(Option<&EndpointPort>, Served<'_>)> = Vec::new();
    for subset in subsets {
        let ports = subset.ports.as_deref().unwrap_or_default();
        let ports: Vec<Option<&EndpointPort>> =
            if ports.is_empty() { vec![None] } else { ports.iter().map(Some).collect() };
        for port in ports {
            let at = by_port.iter().position(|(known, _)| *known == port).unwrap_or_else(|| {
                by_port.push((port, BTreeMap::new()));
                by_port.len() - 1
            });
            let ready = subset.addresses.iter().flatten().map(|address| (address, true));
            for (address, ready) in ready.chain(subset.not_ready_addresses.iter().flatten().map(|a| (a, false))) {
                let key = (&*address.ip, address.target_ref.as_ref().and_then(|target| target.uid.as_deref()));
                addresses.entry(key).or_insert(address);
                *by_port[at].1.entry(key).or_insert(true) &= ready;
            }
        }
    }
    let mut repacked: Vec<(Served<'_>, Vec<&EndpointPort>)> = Vec::new();
    for (port, served) in by_port {
        match repacked.iter_mut().find(|(other, _)| *other == served) {
            Some((_, ports)) => ports.extend(port),
            None => repacked.push((served, port.into_iter().collect())),
        }
    }
    let with_addresses = |(served, ports): (Served<'_>, _)| Repacked {
        ports,
        addresses: served.into_iter().map(|(key, ready)| (addresses[&key], ready)).collect(),
    };
    repacked.into_iter().map(with_addresses).collect()
}

fn endpoint(address: &EndpointAddress, ip: IpAddr, ready: bool) -> Endpoint {
    Endpoint {
        addresses: vec![ip.to_string()],
        conditions: Some(EndpointConditions { ready: Some(ready), ..EndpointConditions::default() }),
        hostname: address.hostname.clone().filter(|name| !name.is_empty()),
        node_name: address.node_name.clone(),
        target_ref: address.target_ref.clone(),
        ..Endpoint::default()
    }
}

fn slice_port(port: &EndpointPort) -> SlicePort {
    SlicePort {
        name: Some(port.name.clone().unwrap_or_default()),
        port: Some(port.port),
        protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".to_owned())),
        app_protocol: port.app_protocol.clone(),
    }
}

/// Reads an IP address. Old objects may have leading zeros in IPv4 addresses; they are decimal.
fn parse_ip(text: &str) -> Option<IpAddr> {
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Some(ip.to_canonical());
    }
    let mut octets = [0; 4];
    let mut parts = text.split('.');
    for octet in &mut octets {
        let part = parts.next().filter(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()))?;
        *octet = part.parse().ok()?;
    }
    parts.next().is_none().then(|| Ipv4Addr::from(octets).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_leniently_as_upstream_does() {
        let cases = [
            ("10.0.0.1", Some("10.0.0.1")),
            ("010.000.00.01", Some("10.0.0.1")),
            ("::ffff:10.0.0.1", Some("10.0.0.1")),
            ("FD00:0::1", Some("fd00::1")),
            ("10.0.0", None),
            ("10.0.0.1.2", None),
            ("10.0.0.256", None),
            ("10.0.0.+1", None),
            ("host", None),
            ("", None),
        ];
        for (text, ip) in cases {
            assert_eq!(parse_ip(text).map(|ip| ip.to_string()).as_deref(), ip, "{text}");
        }
    }
}
