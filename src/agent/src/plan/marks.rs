//! Marks of gateways: a few bits of each packet's and connection's mark.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

/// The bits of marks that are ours; they are next to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MarkMask(u32);

/// Not a mask.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0:?} is not a mask: one run of 2 to 16 bits is needed, such as 0x0ff00000")]
pub struct NotAMask(String);

impl FromStr for MarkMask {
    type Err = NotAMask;

    fn from_str(text: &str) -> Result<Self, NotAMask> {
        let digits = text.strip_prefix("0x").unwrap_or(text);
        let mask = u32::from_str_radix(digits, 16).map_err(|_| NotAMask(text.to_owned()))?;
        let bits = mask.count_ones();
        let run = bits.checked_add(mask.leading_zeros()).and_then(|sum| sum.checked_add(mask.trailing_zeros()));
        if (2..=16).contains(&bits) && run == Some(32) { Ok(Self(mask)) } else { Err(NotAMask(text.to_owned())) }
    }
}

impl fmt::Display for MarkMask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#010x}", self.0)
    }
}

impl MarkMask {
    /// The bits.
    #[must_use]
    pub fn bits(self) -> u32 {
        self.0
    }

    /// The mark of a number; `None` if it does not fit.
    #[must_use]
    pub fn mark(self, number: u32) -> Option<u32> {
        let shift = self.0.trailing_zeros();
        (number > 0 && number <= self.0 >> shift).then(|| number << shift)
    }
}

/// Gives each gateway a number of its own and keeps those that have one; numbers of others are free again. Returns
/// the gateways that got none.
pub(super) fn number(marks: &mut BTreeMap<String, u32>, gateways: &BTreeSet<String>, mask: MarkMask) -> Vec<String> {
    marks.retain(|gateway, _| gateways.contains(gateway));
    let mut left_out = Vec::new();
    for gateway in gateways {
        if marks.contains_key(gateway) {
            continue;
        }
        let free =
            (1..).take_while(|number| mask.mark(*number).is_some()).find(|number| !marks.values().any(|n| n == number));
        match free {
            Some(number) => drop(marks.insert(gateway.clone(), number)),
            None => left_out.push(gateway.clone()),
        }
    }
    left_out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_are_one_run_of_bits() {
        for good in ["0x0ff00000", "00f00000", "0x3", "0xffff0000"] {
            assert!(good.parse::<MarkMask>().is_ok(), "{good}");
        }
        for bad in ["", "0x0", "0x1", "0x5", "0xffffffff", "zz", "0x0f0f0000"] {
            assert!(bad.parse::<MarkMask>().is_err(), "{bad}");
        }
        let mask: MarkMask = "0x0ff00000".parse().unwrap();
        assert_eq!(mask.mark(1), Some(0x0010_0000));
        assert_eq!((mask.mark(0), mask.mark(256)), (None, None));
        assert_eq!(mask.to_string(), "0x0ff00000");
    }

    #[test]
    fn a_gateway_keeps_its_number() {
        let mask: MarkMask = "0x3".parse().unwrap();
        let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
        let mut marks = BTreeMap::new();
        assert!(number(&mut marks, &set(&["b", "c"]), mask).is_empty());
        assert_eq!((marks["b"], marks["c"]), (1, 2));
        assert!(number(&mut marks, &set(&["a", "c"]), mask).is_empty());
        assert_eq!((marks["a"], marks["c"]), (1, 2));
        assert_eq!(number(&mut marks, &set(&["a", "c", "d", "e"]), mask), ["e"]);
    }
}
