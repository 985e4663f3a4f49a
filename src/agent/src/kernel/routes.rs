//! Our routes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use futures::TryStreamExt as _;
use ipnet::IpNet;
use rtnetlink::RouteMessageBuilder;
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType,
};

use super::{Kernel, KernelError, PROTOCOL, Result};
use crate::plan::KernelRoute;

impl Kernel {
    /// Routes with our protocol number, in all tables.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub async fn routes(&self) -> Result<Vec<KernelRoute>> {
        let mut ours = Vec::new();
        for ipv6 in [false, true] {
            let mut filter = if ipv6 {
                RouteMessageBuilder::<Ipv6Addr>::new().build()
            } else {
                RouteMessageBuilder::<Ipv4Addr>::new().build()
            };
            filter.header.protocol = RouteProtocol::Other(PROTOCOL);
            // A strict dump takes no scope or type that it does not filter by.
            filter.header.scope = RouteScope::Universe;
            filter.header.kind = RouteType::Unspec;
            filter.header.table = 0;
            let mut messages = self.handle.route().get(filter).execute();
            let failed = |error| KernelError::new("reading routes", &error);
            while let Some(message) = messages.try_next().await.map_err(failed)? {
                // An old kernel does not filter.
                if message.header.protocol == RouteProtocol::Other(PROTOCOL) {
                    ours.extend(read(&message, ipv6));
                }
            }
        }
        Ok(ours)
    }

    /// Adds a route, or with `replace` has one of ours lead elsewhere without a gap.
    ///
    /// # Errors
    /// When the kernel refuses; [`KernelError::exists`] if there is a foreign one.
    pub async fn add_route(&self, route: &KernelRoute, replace: bool) -> Result<()> {
        let request = self.handle.route().add(message(route)?);
        let request = if replace { request.replace() } else { request };
        request.execute().await.map_err(|error| KernelError::new(describe("adding", route), &error))
    }

    /// Removes a route of ours.
    ///
    /// # Errors
    /// When the kernel refuses; one that is not there is no error.
    pub async fn remove_route(&self, route: &KernelRoute) -> Result<()> {
        let removal = self.handle.route().del(message(route)?).execute().await;
        match removal.map_err(|error| KernelError::new(describe("removing", route), &error)) {
            Err(error) if error.absent() => Ok(()),
            other => other,
        }
    }
}

fn describe(doing: &str, route: &KernelRoute) -> String {
    format!("{doing} the route to {} via {} in table {}", route.destination, route.via, route.table)
}

fn message(route: &KernelRoute) -> Result<RouteMessage> {
    let invalid = |error: String| KernelError { what: describe("making", route), source: std::io::Error::other(error) };
    let builder = RouteMessageBuilder::<IpAddr>::new()
        .destination_prefix(route.destination.addr(), route.destination.prefix_len())
        .map_err(|error| invalid(error.to_string()))?
        .gateway(route.via)
        .map_err(|error| invalid(error.to_string()))?;
    Ok(builder.table_id(route.table).protocol(RouteProtocol::Other(PROTOCOL)).build())
}

fn read(message: &RouteMessage, ipv6: bool) -> Option<KernelRoute> {
    let any: IpAddr = if ipv6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
    let (mut destination, mut via, mut table) = (any, any, u32::from(message.header.table));
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(address) => destination = ip(address)?,
            RouteAttribute::Gateway(address) => via = ip(address)?,
            RouteAttribute::Table(number) => table = *number,
            _ => {}
        }
    }
    let destination = IpNet::new(destination, message.header.destination_prefix_length).ok()?;
    Some(KernelRoute { destination, via, table })
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some(IpAddr::V4(*address)),
        RouteAddress::Inet6(address) => Some(IpAddr::V6(*address)),
        _ => None,
    }
}
