//! Our addresses on this host's links.

use std::net::IpAddr;

use futures::TryStreamExt as _;
use ipnet::IpNet;
use rtnetlink::packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressProtocol, CacheInfo,
};

use super::{Kernel, KernelError, PROTOCOL, Result};

/// An address in the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OurAddress {
    /// The address and its network.
    pub network: IpNet,
    /// Index of its link.
    pub link: u32,
    /// Whether it carries our protocol number.
    pub ours: bool,
}

impl Kernel {
    /// All addresses of this host.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub async fn addresses(&self) -> Result<Vec<OurAddress>> {
        let mut all = Vec::new();
        let mut messages = self.handle.address().get().execute();
        let failed = |error| KernelError::new("reading addresses", &error);
        while let Some(message) = messages.try_next().await.map_err(failed)? {
            let (mut address, mut local, mut ours) = (None, None, false);
            for attribute in &message.attributes {
                match attribute {
                    AddressAttribute::Address(ip) => address = Some(*ip),
                    AddressAttribute::Local(ip) => local = Some(*ip),
                    AddressAttribute::Protocol(AddressProtocol::Other(PROTOCOL)) => ours = true,
                    _ => {}
                }
            }
            // On point-to-point links `address` is the other end's.
            let Some(address) = local.or(address) else { continue };
            let Ok(network) = IpNet::new(address, message.header.prefix_len) else { continue };
            all.push(OurAddress { network, link: message.header.index, ours });
        }
        Ok(all)
    }

    /// Puts an address on a link, marked as ours: from then on the kernel answers for it.
    ///
    /// # Errors
    /// When the kernel refuses; one that is there already is no error.
    pub async fn add_address(&self, address: IpAddr, link: u32) -> Result<()> {
        let what = format!("adding address {address}");
        let length = if address.is_ipv6() { 128 } else { 32 };
        let mut request = self.handle.address().add(link, address, length);
        mark(request.message_mut(), address);
        match request.execute().await.map_err(|error| KernelError::new(what, &error)) {
            Err(error) if error.exists() => Ok(()),
            other => other,
        }
    }

    /// Takes an address of ours off its link.
    ///
    /// # Errors
    /// When the kernel refuses; one that is not there is no error.
    pub async fn remove_address(&self, address: IpAddr, link: u32) -> Result<()> {
        let what = format!("removing address {address}");
        let mut message = AddressMessage::default();
        let length = if address.is_ipv6() { 128 } else { 32 };
        message.header.family = family(address);
        message.header.prefix_len = length;
        message.header.index = link;
        message.attributes = vec![AddressAttribute::Local(address), AddressAttribute::Address(address)];
        match self.handle.address().del(message).execute().await.map_err(|error| KernelError::new(what, &error)) {
            Err(error) if error.absent() => Ok(()),
            other => other,
        }
    }
}

pub(super) fn family(address: IpAddr) -> rtnetlink::packet_route::AddressFamily {
    use rtnetlink::packet_route::AddressFamily;
    if address.is_ipv6() { AddressFamily::Inet6 } else { AddressFamily::Inet }
}

fn mark(message: &mut AddressMessage, address: IpAddr) {
    message.attributes.push(AddressAttribute::Protocol(AddressProtocol::Other(PROTOCOL)));
    if address.is_ipv6() {
        // Another host may hold it for a moment yet; and nothing of this host's own is to be sent from it.
        message.header.flags |= AddressHeaderFlags::Nodad;
        message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        let mut lifetime = CacheInfo::default();
        lifetime.ifa_valid = u32::MAX;
        message.attributes.push(AddressAttribute::CacheInfo(lifetime));
    }
}
