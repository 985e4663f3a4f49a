//! Frames of gratuitous ARP (RFC 5227) and unsolicited neighbour advertisements (RFC 4861, 7.2.6).

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::host::Mac;

const BROADCAST: [u8; 6] = [0xff; 6];
/// Link-layer address of `ff02::1`.
const ALL_NODES_MAC: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ICMPV6: u8 = 58;

/// The two frames that say where an address is: some listen to requests only, some to replies only.
pub(super) fn arp(address: Ipv4Addr, mac: Mac) -> [Vec<u8>; 2] {
    [1_u8, 2].map(|operation| {
        let mut frame = Vec::with_capacity(42);
        frame.extend(BROADCAST);
        frame.extend(mac.0);
        frame.extend([0x08, 0x06]);
        // Ethernet and IPv4, with addresses of 6 and 4 bytes.
        frame.extend([0, 1, 0x08, 0, 6, 4, 0, operation]);
        frame.extend(mac.0);
        frame.extend(address.octets());
        frame.extend(if operation == 1 { [0; 6] } else { BROADCAST });
        frame.extend(address.octets());
        frame
    })
}

/// The frame that says where an address is.
pub(super) fn neighbour(address: Ipv6Addr, mac: Mac) -> Vec<u8> {
    let mut message = Vec::with_capacity(32);
    // Type, code, checksum, flags: it overrides what was known.
    message.extend([136, 0, 0, 0, 0x20, 0, 0, 0]);
    message.extend(address.octets());
    // Option: the target's link-layer address.
    message.extend([2, 1]);
    message.extend(mac.0);
    let sum = checksum(address, ALL_NODES, &message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());

    let mut frame = Vec::with_capacity(86);
    frame.extend(ALL_NODES_MAC);
    frame.extend(mac.0);
    frame.extend([0x86, 0xdd]);
    frame.extend([0x60, 0, 0, 0]);
    frame.extend([0, 32, ICMPV6, 255]);
    frame.extend(address.octets());
    frame.extend(ALL_NODES.octets());
    frame.extend(message);
    frame
}

fn checksum(from: Ipv6Addr, to: Ipv6Addr, message: &[u8]) -> u16 {
    let length = u32::try_from(message.len()).expect("a few bytes");
    let mut bytes = Vec::new();
    bytes.extend(from.octets());
    bytes.extend(to.octets());
    bytes.extend(length.to_be_bytes());
    bytes.extend([0, 0, 0, ICMPV6]);
    bytes.extend(message);
    let words = bytes.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)])));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).expect("folded to 16 bits")
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: Mac = Mac([2, 0, 0, 0, 0, 7]);

    #[test]
    fn arp_tells_the_address_twice() {
        let [request, reply] = arp(Ipv4Addr::new(192, 0, 2, 10), MAC);
        assert_eq!(request.len(), 42);
        assert_eq!((request[21], reply[21]), (1, 2));
        for frame in [&request, &reply] {
            assert_eq!(frame[..6], BROADCAST);
            assert_eq!(frame[22..28], MAC.0);
            assert_eq!(frame[28..32], [192, 0, 2, 10]);
            assert_eq!(frame[38..42], [192, 0, 2, 10]);
        }
    }

    #[test]
    fn a_neighbour_advertisement_has_a_right_checksum() {
        let address: Ipv6Addr = "2001:db8::10".parse().unwrap();
        let frame = neighbour(address, MAC);
        assert_eq!(frame.len(), 86);
        // Summed up with its checksum in it, a right message gives zero.
        assert_eq!(checksum(address, ALL_NODES, &frame[54..]), 0);
        assert_eq!(frame[62..78], address.octets());
    }
}
