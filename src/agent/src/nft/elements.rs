//! Changes of elements alone, straight to the kernel.
//!
//! The program `nft` takes milliseconds to start and reads the names of all chains and sets before it changes one
//! element. What changes often, namely which backends serve, is elements only, and its messages are simple: they are
//! written here. The kernel takes them all or none, and only if no table has changed since the given generation. All else
//! goes through `nft`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use rtnetlink::sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};

use super::{Ruleset, Set, TABLE};

/// Elements of one set or map that go, and those that come, as in [`Set::elements`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ElementChange {
    /// Those that go.
    pub delete: BTreeMap<String, String>,
    /// Those that come.
    pub add: BTreeMap<String, String>,
}

/// Changes by the name of their set.
pub type ElementChanges = BTreeMap<String, ElementChange>;

// linux/netfilter/nfnetlink.h, nf_tables.h.
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NEW_ELEMENTS: u16 = (10 << 8) | 12;
const DELETE_ELEMENTS: u16 = (10 << 8) | 14;
const ERROR: u16 = 2;
const REQUEST: u16 = 1;
const ACK: u16 = 4;
const CREATE: u16 = 0x400;
const NESTED: u16 = 0x8000;
const FAMILY_INET: u8 = 1;
const SUBSYSTEM: u16 = 10;
const BATCH_GENERATION: u16 = 1;
const LIST_TABLE: u16 = 1;
const LIST_SET: u16 = 2;
const LIST_ELEMENTS: u16 = 3;
const LIST_ITEM: u16 = 1;
const ELEMENT_KEY: u16 = 1;
const ELEMENT_DATA: u16 = 2;
const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;
const VERDICT_CODE: u16 = 1;
const VERDICT_CHAIN: u16 = 2;
const GOTO: i32 = -4;
/// Elements in one message: an attribute's length has 16 bits.
const AT_ONCE: usize = 500;
/// A larger batch may not fit a socket's buffer.
const LARGEST: usize = 128 * 1024;

/// A batch that makes these changes if `generation` is still nftables' own; `None` if some of it is of a form that is
/// left to `nft`.
#[must_use]
pub fn batch(ruleset: &Ruleset, changes: &ElementChanges, generation: u32) -> Option<Vec<u8>> {
    let mut messages = Vec::new();
    for (name, change) in changes {
        let set = ruleset.sets.get(name).filter(|set| is_plain(set))?;
        // What goes, goes first: the same key may come back with something else.
        list(&mut messages, DELETE_ELEMENTS, 0, name, set, &change.delete)?;
    }
    for (name, change) in changes {
        list(&mut messages, NEW_ELEMENTS, CREATE, name, ruleset.sets.get(name)?, &change.add)?;
    }
    let mut batch = Vec::new();
    let begin = attribute(BATCH_GENERATION, &generation.to_be_bytes());
    message(&mut batch, BATCH_BEGIN, REQUEST, 0, SUBSYSTEM, &begin);
    let last = messages.len().checked_sub(1)?;
    for (place, (kind, flags, body)) in messages.into_iter().enumerate() {
        let ack = if place == last { ACK } else { 0 };
        message(&mut batch, kind, REQUEST | flags | ack, FAMILY_INET, 0, &body);
    }
    message(&mut batch, BATCH_END, REQUEST, 0, SUBSYSTEM, &[]);
    (batch.len() <= LARGEST).then_some(batch)
}

/// Has the kernel take a batch.
///
/// # Errors
/// When it refuses: nothing is changed then; or when its answer cannot be had.
pub fn send(batch: &[u8]) -> std::io::Result<()> {
    let socket = Socket::new(NETLINK_NETFILTER)?;
    // A batch is worked off before sending it returns: an answer that is not there then will not come.
    socket.set_non_blocking(true)?;
    socket.send_to(batch, &SocketAddr::new(0, 0), 0)?;
    let (mut rest, _) = socket.recv_from_full()?;
    // The first answer tells: errors come before the answer to the last message.
    let answer = rest.get(4..6).map(|kind| u16::from_ne_bytes([kind[0], kind[1]]));
    if answer != Some(ERROR) || rest.len() < 20 {
        return Err(std::io::Error::other("the answer to a change of elements is of an unknown form"));
    }
    let code: Vec<u8> = rest.drain(16..20).collect();
    match i32::from_ne_bytes([code[0], code[1], code[2], code[3]]) {
        0 => Ok(()),
        code => Err(std::io::Error::from_raw_os_error(-code)),
    }
}

/// Whether elements are what their text says: neither intervals nor packets' own.
fn is_plain(set: &Set) -> bool {
    !set.dynamic && !set.declaration.contains("flags")
}

fn list(
    messages: &mut Vec<(u16, u16, Vec<u8>)>,
    kind: u16,
    flags: u16,
    name: &str,
    set: &Set,
    elements: &BTreeMap<String, String>,
) -> Option<()> {
    let (_, table) = TABLE.split_once(' ').expect("family and name");
    let all: Vec<(&String, &String)> = elements.iter().collect();
    for some in all.chunks(AT_ONCE) {
        let mut items = Vec::new();
        for (key, data) in some {
            let mut element = attribute(ELEMENT_KEY | NESTED, &attribute(DATA_VALUE, &value(key)?));
            if set.map && kind == NEW_ELEMENTS {
                element.extend(attribute(ELEMENT_DATA | NESTED, &self::data(data)?));
            }
            items.extend(attribute(LIST_ITEM | NESTED, &element));
        }
        let mut body = attribute(LIST_TABLE, &text(table));
        body.extend(attribute(LIST_SET, &text(name)));
        body.extend(attribute(LIST_ELEMENTS | NESTED, &items));
        messages.push((kind, flags, body));
    }
    Some(())
}

/// What an element maps to.
fn data(text: &str) -> Option<Vec<u8>> {
    if let Some(chain) = text.strip_prefix("goto ") {
        let mut verdict = attribute(VERDICT_CODE, &GOTO.to_be_bytes());
        verdict.extend(attribute(VERDICT_CHAIN, &self::text(chain)));
        return Some(attribute(DATA_VERDICT | NESTED, &verdict));
    }
    let value = match text.parse::<u16>() {
        Ok(port) => port.to_be_bytes().to_vec(),
        Err(_) => octets(text)?,
    };
    Some(attribute(DATA_VALUE, &value))
}

/// The bytes of a key: an address, a slot's number, or several parts, each filled up to four bytes.
fn value(key: &str) -> Option<Vec<u8>> {
    if !key.contains(" . ") {
        return match key.parse::<u32>() {
            Ok(slot) => Some(slot.to_ne_bytes().to_vec()),
            Err(_) => octets(key),
        };
    }
    let mut bytes = Vec::new();
    for part in key.split(" . ") {
        match part {
            "tcp" => bytes.push(6),
            "udp" => bytes.push(17),
            "sctp" => bytes.push(132),
            _ => match part.parse::<u16>() {
                Ok(port) => bytes.extend(port.to_be_bytes()),
                Err(_) => bytes.extend(octets(part)?),
            },
        }
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    Some(bytes)
}

fn octets(text: &str) -> Option<Vec<u8>> {
    match text.parse().ok()? {
        IpAddr::V4(address) => Some(address.octets().to_vec()),
        IpAddr::V6(address) => Some(address.octets().to_vec()),
    }
}

fn text(text: &str) -> Vec<u8> {
    [text.as_bytes(), &[0]].concat()
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    // Lists are cut to AT_ONCE, names to what nft takes.
    let length = u16::try_from(value.len() + 4).expect("lists are cut to fit");
    let mut bytes = Vec::with_capacity(value.len().next_multiple_of(4) + 4);
    bytes.extend(length.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn message(batch: &mut Vec<u8>, kind: u16, flags: u16, family: u8, resource: u16, body: &[u8]) {
    let length = u32::try_from(20 + body.len()).expect("lists are cut to fit");
    batch.extend(length.to_ne_bytes());
    batch.extend(kind.to_ne_bytes());
    batch.extend(flags.to_ne_bytes());
    batch.extend([0; 8]);
    batch.extend([family, 0]);
    batch.extend(resource.to_be_bytes());
    batch.extend(body);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_written_as_the_kernel_has_them() {
        assert_eq!(value("10.0.0.1"), Some(vec![10, 0, 0, 1]));
        assert_eq!(value("10.0.0.1 . udp . 80"), Some(vec![10, 0, 0, 1, 17, 0, 0, 0, 0, 80, 0, 0]));
        assert_eq!(value("tcp . 30080"), Some(vec![6, 0, 0, 0, 0x75, 0x80, 0, 0]));
        assert_eq!(value("7"), Some(7_u32.to_ne_bytes().to_vec()));
        assert_eq!(value("fd00::1 . tcp . 80").map(|bytes| bytes.len()), Some(24));
        for unknown in ["10.0.0.0/8", "10.0.0.1 . 6 . x", "", "icmp"] {
            assert_eq!(value(unknown), None, "{unknown}");
        }
    }

    #[test]
    fn only_plain_sets_are_written_and_only_a_batch_with_something_in_it() {
        let mut ruleset = Ruleset::default();
        ruleset.declare("m", true, "typeof numgen inc mod 2 : ip daddr;");
        ruleset.declare("r", false, "type ipv4_addr; flags interval;");
        let one = |set: &str, key: &str, data: &str| {
            let add = BTreeMap::from([(key.to_owned(), data.to_owned())]);
            ElementChanges::from([(set.to_owned(), ElementChange { add, delete: BTreeMap::new() })])
        };
        assert!(batch(&ruleset, &one("m", "1", "10.0.0.1"), 7).is_some());
        assert!(batch(&ruleset, &one("m", "1", "accept"), 7).is_none());
        assert!(batch(&ruleset, &one("r", "10.0.0.1", ""), 7).is_none(), "an interval has two ends");
        assert!(batch(&ruleset, &one("x", "1", "10.0.0.1"), 7).is_none());
        assert!(batch(&ruleset, &ElementChanges::new(), 7).is_none());
        let many: BTreeMap<String, String> = (0..2000).map(|n| (n.to_string(), "10.0.0.1".to_owned())).collect();
        let many = ElementChanges::from([("m".to_owned(), ElementChange { delete: BTreeMap::new(), add: many })]);
        let bytes = batch(&ruleset, &many, 7).unwrap();
        assert_eq!(&bytes[24..28], 7_u32.to_be_bytes());
        assert!(bytes.len() > 4 * AT_ONCE);
    }
}
