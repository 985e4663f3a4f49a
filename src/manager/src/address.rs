//! Where other machines reach what this process serves.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs as _, UdpSocket};

/// Addresses that documentation is written with: no packet is sent there, they only ask for the way out.
const OUTSIDE: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1))];

/// `host:port` of a server that listens on `bound`: that address itself, or, where it listens on all, the one from which
/// this machine speaks to the API server (`server`, `host:port`), or to the outside. Sends nothing.
pub(crate) fn seen_from_outside(bound: SocketAddr, server: &str) -> String {
    if !bound.ip().is_unspecified() {
        return bound.to_string();
    }
    // A name would have to be asked of somebody.
    let server = server.parse::<SocketAddr>().ok();
    let ways = server.into_iter().chain(OUTSIDE.map(|ip| SocketAddr::new(ip, 9)));
    let speaks_from = ways.filter_map(source).find(|ip| !ip.is_loopback());
    speaks_from.map_or_else(|| bound.to_string(), |ip| SocketAddr::new(ip, bound.port()).to_string())
}

/// The address from which packets to `target` would leave.
fn source(target: SocketAddr) -> Option<IpAddr> {
    let any: IpAddr = if target.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0).to_socket_addrs().ok()?.next()?).ok()?;
    socket.connect(target).ok()?;
    Some(socket.local_addr().ok()?.ip()).filter(|ip| !ip.is_unspecified())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_was_chosen_is_told_as_it_is() {
        let bound: SocketAddr = "10.1.2.3:10257".parse().expect("an address");
        assert_eq!(seen_from_outside(bound, "10.9.9.9:6443"), "10.1.2.3:10257");
        let bound: SocketAddr = "[fd00::1]:10257".parse().expect("an address");
        assert_eq!(seen_from_outside(bound, "nonsense"), "[fd00::1]:10257");
    }

    #[test]
    fn all_addresses_are_told_as_one_that_others_can_use_if_there_is_one() {
        let bound: SocketAddr = "0.0.0.0:10257".parse().expect("an address");
        let told: SocketAddr = seen_from_outside(bound, "127.0.0.1:6443").parse().expect("an address");
        assert_eq!(told.port(), 10257);
        assert!(!told.ip().is_loopback(), "{told}: no other machine reaches that");
    }
}
