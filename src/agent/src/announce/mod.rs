//! Telling the neighbours where an address is.

mod bird;
mod frame;

use std::net::IpAddr;
use std::os::fd::AsRawFd as _;

use nix::sys::socket::{AddressFamily, LinkAddr, MsgFlags, SockFlag, SockType, SockaddrLike as _, sendto, socket};

use crate::host::Mac;

pub use bird::{Bird, BirdError};

/// Sends gratuitous ARP or an unsolicited neighbour advertisement on a link.
///
/// # Errors
/// When the link is not there or nothing can be sent on it.
pub fn announce(address: IpAddr, link: &str, mac: Mac) -> std::io::Result<()> {
    let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None)?;
    let link = link_address(link)?;
    let frames = match address {
        IpAddr::V4(address) => frame::arp(address, mac).to_vec(),
        IpAddr::V6(address) => vec![frame::neighbour(address, mac)],
    };
    for frame in frames {
        sendto(socket.as_raw_fd(), &frame, &link, MsgFlags::empty())?;
    }
    Ok(())
}

/// The address of a link for a packet socket.
fn link_address(name: &str) -> std::io::Result<LinkAddr> {
    let found = nix::ifaddrs::getifaddrs()?
        .filter(|entry| entry.interface_name == name)
        .filter_map(|entry| entry.address)
        .find(|address| address.family() == Some(AddressFamily::Packet));
    let missing = || std::io::Error::new(std::io::ErrorKind::NotFound, format!("there is no interface {name}"));
    found.and_then(|address| address.as_link_addr().copied()).ok_or_else(missing)
}
