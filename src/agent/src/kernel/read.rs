//! What the host is like.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use futures::TryStreamExt as _;
use rtnetlink::RouteMessageBuilder;
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags};
use rtnetlink::packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourState};
use rtnetlink::packet_route::route::{RouteAttribute, RouteProtocol, RouteScope, RouteType};

use super::{Kernel, KernelError, Result};
use crate::host::{Host, HostAddress, Link, Mac};

/// Where the default route is looked for: networks that nobody has.
const ANYWHERE: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(203, 0, 113, 1)), IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 1))];

impl Kernel {
    /// Reads links, addresses, neighbours and settings.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub async fn host(&self) -> Result<Host> {
        let mut host = Host::default();
        let mut links = self.handle.link().get().execute();
        while let Some(message) = links.try_next().await.map_err(|error| KernelError::new("reading links", &error))? {
            let flags = message.header.flags;
            let mut link = Link {
                name: String::new(),
                up: flags.contains(LinkFlags::Up) && flags.contains(LinkFlags::LowerUp),
                loopback: flags.contains(LinkFlags::Loopback),
                mac: None,
            };
            for attribute in message.attributes {
                match attribute {
                    LinkAttribute::IfName(name) => link.name = name,
                    LinkAttribute::Address(bytes) => link.mac = bytes.try_into().ok().map(Mac),
                    _ => {}
                }
            }
            host.links.insert(message.header.index, link);
        }
        for address in self.addresses().await? {
            host.add_address(HostAddress { network: address.network, link: address.link, ours: address.ours });
        }
        let mut neighbours = self.handle.neighbours().get().execute();
        let failed = |error| KernelError::new("reading neighbours", &error);
        while let Some(message) = neighbours.try_next().await.map_err(failed)? {
            let (mut address, mut mac) = (None, None);
            for attribute in message.attributes {
                match attribute {
                    NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)) => address = Some(IpAddr::V4(ip)),
                    NeighbourAttribute::Destination(NeighbourAddress::Inet6(ip)) => address = Some(IpAddr::V6(ip)),
                    NeighbourAttribute::LinkLayerAddress(bytes) => mac = bytes.try_into().ok().map(Mac),
                    _ => {}
                }
            }
            let known = !matches!(
                message.header.state,
                NeighbourState::Incomplete | NeighbourState::Failed | NeighbourState::Noarp
            );
            if let (Some(address), Some(mac), true) = (address, mac, known) {
                host.neighbours.insert(address, mac);
            }
        }
        for anywhere in ANYWHERE {
            let link = self.link_towards(anywhere).await;
            host.default_links.extend(link.map(|link| (anywhere.is_ipv6(), link)));
        }
        host.gateway_problems = settings();
        Ok(host)
    }

    /// The link by which packets to an address leave, if they can.
    async fn link_towards(&self, address: IpAddr) -> Option<u32> {
        let length = if address.is_ipv6() { 128 } else { 32 };
        let mut message = RouteMessageBuilder::<IpAddr>::new().destination_prefix(address, length).ok()?.build();
        // A strict question has nothing in it but what is asked.
        message.header.table = 0;
        message.header.protocol = RouteProtocol::Unspec;
        message.header.scope = RouteScope::Universe;
        message.header.kind = RouteType::Unspec;
        let mut found = self.handle.route().get(message).execute();
        let route = found.try_next().await.ok()??;
        route.attributes.into_iter().find_map(|attribute| match attribute {
            RouteAttribute::Oif(index) => Some(index),
            _ => None,
        })
    }
}

/// What is wrong with the kernel's settings, for a host that takes in traffic for others.
fn settings() -> Vec<String> {
    let mut problems = Vec::new();
    match std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward") {
        Ok(value) if value.trim() == "0" => {
            problems.push("net.ipv4.ip_forward is 0: this host passes nothing on to nodes".to_owned());
        }
        Ok(_) => {}
        Err(error) => problems.push(format!("/proc/sys/net/ipv4/ip_forward: {error}")),
    }
    problems
}
