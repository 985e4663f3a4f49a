//! Ranges of addresses: `192.0.2.0/24`, `192.0.2.10-192.0.2.20`, `2001:db8::/64`, `192.0.2.1`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// Addresses of one family from the first to the last, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AddressRange {
    ipv6: bool,
    first: u128,
    last: u128,
}

/// Text that is no range of addresses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadRange {
    /// It is neither an address, nor a CIDR, nor two addresses with a hyphen between them.
    #[error("{0:?} is no range of addresses: expected 192.0.2.0/24, 192.0.2.1-192.0.2.9, or an address")]
    Form(String),
    /// The prefix is longer than an address of the family.
    #[error("{0:?}: the prefix is longer than an address")]
    Prefix(String),
    /// The two ends are of different families.
    #[error("{0:?}: both ends have to be of one IP family")]
    Families(String),
    /// The last address is before the first.
    #[error("{0:?}: the last address is before the first")]
    Order(String),
}

impl AddressRange {
    /// Whether its addresses are IPv6.
    #[must_use]
    pub fn is_ipv6(&self) -> bool {
        self.ipv6
    }

    /// Whether an address is in it.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let (ipv6, number) = number(address);
        ipv6 == self.ipv6 && (self.first..=self.last).contains(&number)
    }

    /// How many addresses it has, `u128::MAX` for all of IPv6.
    #[must_use]
    pub fn size(&self) -> u128 {
        (self.last - self.first).saturating_add(1)
    }

    /// Its addresses in order.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + use<> {
        let ipv6 = self.ipv6;
        (self.first..=self.last).map(move |number| address(ipv6, number))
    }
}

/// Reads what [`AddressRange`] says of itself, and CIDRs and single addresses. A CIDR stands for every address in it.
impl FromStr for AddressRange {
    type Err = BadRange;

    fn from_str(text: &str) -> Result<Self, BadRange> {
        let bad = || BadRange::Form(text.to_owned());
        let parse = |part: &str| part.trim().parse::<IpAddr>().map(number).map_err(|_| bad());
        if let Some((address, prefix)) = text.split_once('/') {
            let (ipv6, number) = parse(address)?;
            let prefix: u32 = prefix.trim().parse().map_err(|_| bad())?;
            let bits = if ipv6 { 128 } else { 32 };
            let host = bits_below(bits, prefix).ok_or_else(|| BadRange::Prefix(text.to_owned()))?;
            return Ok(Self { ipv6, first: number & !host, last: number | host });
        }
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let ((ipv6, first), (other, last)) = (parse(first)?, parse(last)?);
        if ipv6 != other {
            return Err(BadRange::Families(text.to_owned()));
        }
        if last < first {
            return Err(BadRange::Order(text.to_owned()));
        }
        Ok(Self { ipv6, first, last })
    }
}

/// Prints `first-last`.
impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", address(self.ipv6, self.first), address(self.ipv6, self.last))
    }
}

/// The ranges without what they say twice, in order; IPv4 first.
#[must_use]
pub fn merged(mut ranges: Vec<AddressRange>) -> Vec<AddressRange> {
    ranges.sort_unstable();
    let mut all: Vec<AddressRange> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match all.last_mut() {
            Some(before) if before.ipv6 == range.ipv6 && range.first <= before.last.saturating_add(1) => {
                before.last = before.last.max(range.last);
            }
            _ => all.push(range),
        }
    }
    all
}

/// An address in its one form: an IPv4 address that is written as IPv6 is an IPv4 address.
#[must_use]
pub fn canonical(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

fn bits_below(bits: u32, prefix: u32) -> Option<u128> {
    match bits.checked_sub(prefix)? {
        128 => Some(u128::MAX),
        host => Some((1_u128 << host) - 1),
    }
}

fn number(address: IpAddr) -> (bool, u128) {
    match canonical(address) {
        IpAddr::V4(address) => (false, u128::from(address.to_bits())),
        IpAddr::V6(address) => (true, address.to_bits()),
    }
}

fn address(ipv6: bool, number: u128) -> IpAddr {
    if ipv6 {
        return IpAddr::V6(Ipv6Addr::from_bits(number));
    }
    IpAddr::V4(Ipv4Addr::from_bits(u32::try_from(number).unwrap_or(u32::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read() {
        let cases = [
            ("192.0.2.0/30", Ok(("192.0.2.0-192.0.2.3", 4))),
            ("192.0.2.2/30", Ok(("192.0.2.0-192.0.2.3", 4))),
            ("192.0.2.7", Ok(("192.0.2.7-192.0.2.7", 1))),
            ("192.0.2.9 - 192.0.2.11", Ok(("192.0.2.9-192.0.2.11", 3))),
            ("0.0.0.0/0", Ok(("0.0.0.0-255.255.255.255", 1 << 32))),
            ("2001:db8::/126", Ok(("2001:db8::-2001:db8::3", 4))),
            ("::/0", Ok(("::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", u128::MAX))),
            ("::ffff:192.0.2.1", Ok(("192.0.2.1-192.0.2.1", 1))),
            ("192.0.2.0/33", Err("longer")),
            ("192.0.2.0/-1", Err("no range")),
            ("192.0.2.9-192.0.2.8", Err("before")),
            ("192.0.2.9-2001:db8::1", Err("family")),
            ("", Err("no range")),
            ("a-b", Err("no range")),
        ];
        for (text, expected) in cases {
            match (text.parse::<AddressRange>(), expected) {
                (Ok(range), Ok((shown, size))) => {
                    assert_eq!((range.to_string().as_str(), range.size()), (shown, size), "{text}");
                }
                (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{text}: {error}"),
                (got, _) => panic!("{text}: {got:?}"),
            }
        }
    }

    #[test]
    fn what_is_said_twice_counts_once() {
        let read = |text: &str| text.parse::<AddressRange>().unwrap();
        let ranges = ["2001:db8::1", "192.0.2.8/30", "192.0.2.0-192.0.2.9", "192.0.2.12", "192.0.2.20"].map(read);
        let shown: Vec<String> = merged(ranges.to_vec()).iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["192.0.2.0-192.0.2.12", "192.0.2.20-192.0.2.20", "2001:db8::1-2001:db8::1"]);
    }

    #[test]
    fn addresses_come_in_order_and_belong() {
        let range: AddressRange = "192.0.2.254-192.0.3.1".parse().unwrap();
        let all: Vec<String> = range.addresses().map(|address| address.to_string()).collect();
        assert_eq!(all, ["192.0.2.254", "192.0.2.255", "192.0.3.0", "192.0.3.1"]);
        assert!(range.contains("::ffff:192.0.3.0".parse().unwrap()));
        assert!(!range.contains("192.0.3.2".parse().unwrap()) && !range.contains("::1".parse().unwrap()));
    }
}
