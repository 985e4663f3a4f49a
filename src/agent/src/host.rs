//! What the host is like, as far as plans depend on it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// A link-layer address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// A network interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its name.
    pub name: String,
    /// Whether it is up and has a carrier.
    pub up: bool,
    /// Whether it is the loopback interface.
    pub loopback: bool,
    /// Its link-layer address, if it has one of Ethernet's form.
    pub mac: Option<Mac>,
}

/// An address of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostAddress {
    /// The address and its network.
    pub network: IpNet,
    /// Index of its link.
    pub link: u32,
    /// Whether we put it there.
    pub ours: bool,
}

/// The host's network, as read from the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Host {
    /// Links by index.
    pub links: BTreeMap<u32, Link>,
    /// Addresses that are not ours.
    addresses: Vec<HostAddress>,
    /// The same, to be found fast.
    own: BTreeSet<IpAddr>,
    /// Neighbours whose link-layer address is known.
    pub neighbours: BTreeMap<IpAddr, Mac>,
    /// Links of the default routes.
    pub default_links: BTreeSet<(bool, u32)>,
    /// What is wrong with the kernel's settings, for a gateway.
    pub gateway_problems: Vec<String>,
}

impl Host {
    /// Adds an address.
    pub fn add_address(&mut self, address: HostAddress) {
        if address.ours {
            return;
        }
        self.own.insert(address.network.addr());
        self.addresses.push(address);
    }

    /// Whether an address is the host's, and not one that we put there.
    #[must_use]
    pub fn is_own(&self, address: IpAddr) -> bool {
        self.own.contains(&address)
    }

    /// The link on which `address` is announced: the first of these names that is there; without names, the one with
    /// a network that holds it, else that of the default route.
    #[must_use]
    pub fn link_for(&self, address: IpAddr, names: &[String]) -> Option<u32> {
        if !names.is_empty() {
            let named = |name: &String| self.links.iter().find(|(_, link)| link.name == *name).map(|(index, _)| *index);
            let on_net =
                |index: &u32| self.addresses.iter().any(|own| own.link == *index && own.network.contains(&address));
            let found: Vec<u32> = names.iter().filter_map(named).collect();
            return found.iter().copied().find(on_net).or_else(|| found.first().copied());
        }
        let mut networks: Vec<&HostAddress> = self
            .addresses
            .iter()
            .filter(|own| own.network.contains(&address))
            .filter(|own| self.links.get(&own.link).is_some_and(|link| !link.loopback))
            .collect();
        networks.sort_by_key(|own| std::cmp::Reverse(own.network.prefix_len()));
        let by_network = networks.first().map(|own| own.link);
        by_network
            .or_else(|| self.default_links.iter().find(|(ipv6, _)| *ipv6 == address.is_ipv6()).map(|(_, index)| *index))
    }

    /// The loopback link.
    #[must_use]
    pub fn loopback(&self) -> Option<u32> {
        self.links.iter().find(|(_, link)| link.loopback).map(|(index, _)| *index)
    }
}
