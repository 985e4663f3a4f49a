//! Flows of UDP that the kernel still leads to a backend that gets no traffic any more.
//!
//! A connection of TCP ends with its backend. A flow of UDP has no end but silence: a client that goes on sending from the
//! same port would be led to a dead backend for ever. So its entry is removed, and the next packet chooses anew.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use rtnetlink::sys::{Socket, SocketAddr as Netlink, protocols::NETLINK_NETFILTER};

const REQUEST: u16 = 1;
const ACK: u16 = 4;
const DUMP: u16 = 0x300;
/// Subsystem of connection tracking, with the messages `GET` and `DELETE`.
const GET: u16 = (1 << 8) | 1;
const DELETE: u16 = (1 << 8) | 2;
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// Headers of netlink and of netfilter.
const HEADERS: usize = 20;
// Attributes, as in linux/netfilter/nfnetlink_conntrack.h.
const ORIGINAL: u16 = 1;
const REPLY: u16 = 2;
const ZONE: u16 = 18;
const TUPLE_IP: u16 = 1;
const TUPLE_PROTOCOL: u16 = 2;
const V4_SOURCE: u16 = 1;
const V6_SOURCE: u16 = 3;
const PROTOCOL_NUMBER: u16 = 1;
const SOURCE_PORT: u16 = 2;
const UDP: u8 = 17;

/// Removes the entries of UDP flows that are answered by one of `backends`. Returns how many there were.
///
/// # Errors
/// When the kernel does not tell or refuses.
pub fn forget_udp(backends: &BTreeSet<SocketAddr>) -> std::io::Result<usize> {
    let socket = Socket::new(NETLINK_NETFILTER)?;
    socket.send_to(&message(GET, REQUEST | DUMP, 0, &[]), &Netlink::new(0, 0), 0)?;
    let mut found = Vec::new();
    'dump: loop {
        let (answer, _) = socket.recv_from_full()?;
        for (kind, body) in messages(&answer) {
            match kind {
                DONE => break 'dump,
                ERROR => fail(body)?,
                _ => found.extend(removal(body, backends)),
            }
        }
    }
    for removal in &found {
        socket.send_to(removal, &Netlink::new(0, 0), 0)?;
        let (answer, _) = socket.recv_from_full()?;
        for (_, body) in messages(&answer).filter(|(kind, _)| *kind == ERROR) {
            // It may have ended by itself.
            fail(body).or_else(|error| if error.raw_os_error() == Some(2) { Ok(()) } else { Err(error) })?;
        }
    }
    Ok(found.len())
}

/// The message that removes an entry, if it is one of those. `body` follows netlink's own header.
fn removal(body: &[u8], backends: &BTreeSet<SocketAddr>) -> Option<Vec<u8>> {
    let family = *body.first()?;
    let (mut original, mut answering, mut zone) = (None, None, None);
    for (kind, value, whole) in attributes(body.get(4..)?) {
        match kind {
            ORIGINAL => original = Some(whole),
            REPLY => answering = source(value),
            ZONE => zone = Some(whole),
            _ => {}
        }
    }
    backends.contains(&answering?).then_some(())?;
    let mut payload = original?.to_vec();
    payload.extend_from_slice(zone.unwrap_or_default());
    Some(message(DELETE, REQUEST | ACK, family, &payload))
}

/// Source of a tuple of UDP.
fn source(tuple: &[u8]) -> Option<SocketAddr> {
    let (mut address, mut port, mut protocol): (Option<IpAddr>, _, _) = (None, None, None);
    for (kind, value, _) in attributes(tuple) {
        for (inner, value, _) in attributes(value) {
            match (kind, inner) {
                (TUPLE_IP, V4_SOURCE) => address = value.first_chunk::<4>().map(|octets| (*octets).into()),
                (TUPLE_IP, V6_SOURCE) => address = value.first_chunk::<16>().map(|octets| (*octets).into()),
                (TUPLE_PROTOCOL, PROTOCOL_NUMBER) => protocol = value.first().copied(),
                (TUPLE_PROTOCOL, SOURCE_PORT) => {
                    port = value.first_chunk::<2>().map(|bytes| u16::from_be_bytes(*bytes))
                }
                _ => {}
            }
        }
    }
    (protocol? == UDP).then_some(())?;
    Some(SocketAddr::new(address?, port?))
}

fn message(kind: u16, flags: u16, family: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(HEADERS + payload.len()).expect("a few bytes");
    let mut message = Vec::with_capacity(HEADERS + payload.len());
    message.extend(length.to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    message.extend([0; 8]);
    message.extend([family, 0, 0, 0]);
    message.extend(payload);
    message
}

/// Messages of a datagram: kind, and what follows netlink's header.
fn messages(mut rest: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = u32::from_ne_bytes(*rest.first_chunk::<4>()?) as usize;
        let kind = u16::from_ne_bytes([*rest.get(4)?, *rest.get(5)?]);
        let body = rest.get(16..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, body))
    })
}

/// Attributes: kind, value, and the whole with its header and padding.
fn attributes(mut rest: &[u8]) -> impl Iterator<Item = (u16, &[u8], &[u8])> {
    std::iter::from_fn(move || {
        let length = u16::from_ne_bytes([*rest.first()?, *rest.get(1)?]) as usize;
        let kind = u16::from_ne_bytes([*rest.get(2)?, *rest.get(3)?]) & 0x3fff;
        let value = rest.get(4..length)?;
        let whole = &rest[..length.next_multiple_of(4).min(rest.len())];
        rest = &rest[whole.len()..];
        Some((kind, value, whole))
    })
}

fn fail(body: &[u8]) -> std::io::Result<()> {
    match body.first_chunk::<4>().map(|code| i32::from_ne_bytes(*code)) {
        Some(0) => Ok(()),
        Some(code) => Err(std::io::Error::from_raw_os_error(-code)),
        None => Err(std::io::Error::other("an error of an unknown form")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = u16::try_from(value.len() + 4).unwrap().to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn tuple(kind: u16, protocol: u8, source: [u8; 4], port: u16) -> Vec<u8> {
        let ip = attribute(TUPLE_IP | 0x8000, &attribute(V4_SOURCE, &source));
        let mut inner = attribute(PROTOCOL_NUMBER, &[protocol]);
        inner.extend(attribute(SOURCE_PORT, &port.to_be_bytes()));
        let protocol = attribute(TUPLE_PROTOCOL | 0x8000, &inner);
        attribute(kind | 0x8000, &[ip, protocol].concat())
    }

    fn entry(protocol: u8, answering: [u8; 4], port: u16) -> Vec<u8> {
        let original = tuple(ORIGINAL, protocol, [192, 0, 2, 200], 4000);
        [vec![2, 0, 0, 0], original, tuple(REPLY, protocol, answering, port)].concat()
    }

    #[test]
    fn only_flows_of_udp_to_these_backends_go() {
        let backends = BTreeSet::from(["10.0.0.11:30080".parse().unwrap()]);
        let removal_of = |entry: &[u8]| removal(entry, &backends);
        let expected = message(DELETE, REQUEST | ACK, 2, &tuple(ORIGINAL, UDP, [192, 0, 2, 200], 4000));
        assert_eq!(removal_of(&entry(UDP, [10, 0, 0, 11], 30080)), Some(expected));
        assert_eq!(removal_of(&entry(UDP, [10, 0, 0, 12], 30080)), None);
        assert_eq!(removal_of(&entry(UDP, [10, 0, 0, 11], 30081)), None);
        assert_eq!(removal_of(&entry(6, [10, 0, 0, 11], 30080)), None);
        for cut in 0..40 {
            // Whatever is cut short is no entry, and no panic.
            removal_of(&entry(UDP, [10, 0, 0, 11], 30080)[..cut]);
        }
    }

    #[test]
    fn messages_are_told_apart() {
        let two = [message(7, 0, 2, &[1, 2, 3, 4]), message(DONE, 0, 0, &[])].concat();
        let kinds: Vec<u16> = messages(&two).map(|(kind, _)| kind).collect();
        assert_eq!(kinds, [7, DONE]);
    }
}
