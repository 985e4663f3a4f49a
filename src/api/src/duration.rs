//! Durations in Go's syntax (`1h30m`, `500ms`, `0s`), as every Kubernetes flag and many API fields
//! write them.
//!
//! Only durations that are not negative exist here: no flag or field of ours has a meaning for
//! others. Grammar: go `time.ParseDuration`; form: go `time.Duration.String`.

use std::fmt::Write as _;
use std::time::Duration;

/// The longest duration that Go can hold, in nanoseconds.
const MAX_NANOS: u128 = i64::MAX as u128;

/// Why a text is no duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// Nothing was given.
    #[error("duration is empty; write a number and a unit, such as 30s or 1h30m")]
    Empty,
    /// A minus sign before a value other than zero.
    #[error("duration {0:?} is negative")]
    Negative(String),
    /// A number without a unit.
    #[error("duration {0:?} lacks a unit (ns, us, ms, s, m or h)")]
    MissingUnit(String),
    /// A unit that does not exist.
    #[error("duration {text:?} has the unknown unit {unit:?} (there are ns, us, ms, s, m and h)")]
    UnknownUnit {
        /// The whole text.
        text: String,
        /// The unit as written.
        unit: String,
    },
    /// Anything else, such as a missing number.
    #[error("duration {0:?} is malformed; write numbers with units, such as 30s or 1h30m")]
    Malformed(String),
    /// Longer than some 292 years.
    #[error("duration {0:?} is too long")]
    TooLong(String),
}

/// Parses a duration such as `1h30m`, `1.5s`, `0` or `500ms`. Fractions below a nanosecond are cut.
///
/// Fits clap as it is: `#[arg(long, value_parser = duration::parse, default_value = "10s")]`.
///
/// # Errors
/// When the text is no duration, is negative, or is longer than an `i64` of nanoseconds.
pub fn parse(text: &str) -> Result<Duration, DurationError> {
    let malformed = || DurationError::Malformed(text.to_owned());
    let (negative, mut rest) = match text.as_bytes().first() {
        None => return Err(DurationError::Empty),
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        Some(_) => (false, text),
    };
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() {
        return Err(malformed());
    }
    let mut total: u128 = 0;
    while !rest.is_empty() {
        let number_len = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, after) = rest.split_at(number_len);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return Err(malformed());
        }
        let unit_len = after.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, next) = after.split_at(unit_len);
        let nanos = match unit {
            "" => return Err(DurationError::MissingUnit(text.to_owned())),
            "ns" => 1,
            "us" | "\u{b5}s" | "\u{3bc}s" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return Err(DurationError::UnknownUnit { text: text.to_owned(), unit: unit.to_owned() }),
        };
        let too_long = || DurationError::TooLong(text.to_owned());
        let whole: u128 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| too_long())? };
        total = whole
            .checked_mul(nanos)
            .and_then(|n| n.checked_add(fraction_nanos(fraction, nanos)))
            .and_then(|n| n.checked_add(total))
            .filter(|n| *n <= MAX_NANOS)
            .ok_or_else(too_long)?;
        rest = next;
    }
    if negative && total > 0 {
        return Err(DurationError::Negative(text.to_owned()));
    }
    Ok(Duration::from_nanos(u64::try_from(total).expect("checked against MAX_NANOS above")))
}

/// The nanoseconds of the digits behind the point, of a unit of `unit` nanoseconds.
fn fraction_nanos(digits: &str, unit: u128) -> u128 {
    // 18 digits are finer than a nanosecond of an hour; more cannot change the result.
    let (sum, scale) = digits
        .bytes()
        .take(18)
        .fold((0u128, 1u128), |(sum, scale), digit| (sum * 10 + u128::from(digit - b'0'), scale * 10));
    sum * unit / scale
}

/// Writes a duration as Go does: `1h0m0s`, `1.5s`, `250ms`, `0s`.
#[must_use]
pub fn format(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    if nanos == 0 {
        return "0s".to_owned();
    }
    if nanos < 1_000 {
        return format!("{nanos}ns");
    }
    if nanos < 1_000_000 {
        return format!("{}\u{b5}s", decimal(nanos, 1_000));
    }
    if nanos < 1_000_000_000 {
        return format!("{}ms", decimal(nanos, 1_000_000));
    }
    let (hours, minutes) = (nanos / 3_600_000_000_000, nanos / 60_000_000_000 % 60);
    let mut text = String::new();
    if hours > 0 {
        write!(text, "{hours}h").expect("writing to a String cannot fail");
    }
    if hours > 0 || minutes > 0 {
        write!(text, "{minutes}m").expect("writing to a String cannot fail");
    }
    write!(text, "{}s", decimal(nanos % 60_000_000_000, 1_000_000_000)).expect("writing to a String cannot fail");
    text
}

/// `value / scale` without trailing zeros; `scale` is a power of ten.
fn decimal(value: u128, scale: u128) -> String {
    let (whole, rest) = (value / scale, value % scale);
    if rest == 0 {
        return whole.to_string();
    }
    let width = scale.ilog10() as usize;
    let digits = format!("{rest:0width$}");
    format!("{whole}.{}", digits.trim_end_matches('0'))
}

/// Durations in serialised form, for `#[serde(with = "duration::text")]`.
pub mod text {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer, de};

    /// Writes the duration as text.
    ///
    /// # Errors
    /// When the serializer fails.
    pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&super::format(*duration))
    }

    /// Reads a duration from text.
    ///
    /// # Errors
    /// When the value is no text or no duration.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        super::parse(&text).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_what_go_reads() {
        let cases = [
            ("0", 0),
            ("0s", 0),
            ("-0", 0),
            ("+5s", 5_000_000_000),
            ("-0s", 0),
            ("1h30m", 5_400_000_000_000),
            ("500ms", 500_000_000),
            ("1.5s", 1_500_000_000),
            (".5s", 500_000_000),
            ("1.s", 1_000_000_000),
            ("1us", 1_000),
            ("1\u{b5}s", 1_000),
            ("1\u{3bc}s", 1_000),
            ("12h0m0s", 43_200_000_000_000),
            ("8760h", 31_536_000_000_000_000),
            ("3m2s1ms", 182_001_000_000),
            ("0.3333333333333333333h", 1_199_999_999_999),
            ("9223372036854775807ns", i64::MAX as u64),
        ];
        for (text, nanos) in cases {
            assert_eq!(parse(text), Ok(Duration::from_nanos(nanos)), "{text}");
        }
    }

    #[test]
    fn refuses_the_rest_and_says_why() {
        let cases = [
            ("", "is empty"),
            ("5", "lacks a unit"),
            ("-1s", "is negative"),
            ("1d", "unknown unit \"d\""),
            ("s", "is malformed"),
            (".s", "is malformed"),
            ("-", "is malformed"),
            ("1.2.3s", "is malformed"),
            ("1h 30m", "unknown unit \"h \""),
            ("9223372036854775808ns", "is too long"),
            ("99999999999999999999999999999999999999999999h", "is too long"),
            ("340282366920938463463374607431768211455h", "is too long"),
            ("\u{0661}s", "is malformed"),
        ];
        for (text, reason) in cases {
            let error = parse(text).expect_err(text).to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn writes_as_go_writes() {
        let cases = [
            (0, "0s"),
            (1, "1ns"),
            (1_100, "1.1\u{b5}s"),
            (2_200_000, "2.2ms"),
            (3_300_000_000, "3.3s"),
            (245_000_000_000, "4m5s"),
            (245_001_000_000, "4m5.001s"),
            (18_367_001_000_000, "5h6m7.001s"),
            (43_200_000_000_000, "12h0m0s"),
            (480_000_000_001, "8m0.000000001s"),
        ];
        for (nanos, text) in cases {
            assert_eq!(format(Duration::from_nanos(nanos)), text);
        }
    }

    #[test]
    fn serde_uses_the_text() {
        #[derive(serde::Serialize, serde::Deserialize, PartialEq, Debug)]
        struct Holder {
            #[serde(with = "text")]
            every: Duration,
        }
        let holder: Holder = serde_json::from_str(r#"{"every":"90s"}"#).unwrap();
        assert_eq!(holder.every, Duration::from_secs(90));
        assert_eq!(serde_json::to_string(&holder).unwrap(), r#"{"every":"1m30s"}"#);
        assert!(serde_json::from_str::<Holder>(r#"{"every":"90"}"#).is_err());
    }

    proptest! {
        #[test]
        fn never_panics(text in "\\PC*") {
            let _ = parse(&text);
        }

        #[test]
        fn never_panics_on_likely_text(text in "[-+]?([0-9.]{0,30}(ns|us|ms|s|m|h|d)?){0,4}") {
            let _ = parse(&text);
        }

        #[test]
        fn reads_back_what_it_writes(nanos in 0..=i64::MAX as u64) {
            let duration = Duration::from_nanos(nanos);
            prop_assert_eq!(parse(&format(duration)), Ok(duration));
        }
    }
}
