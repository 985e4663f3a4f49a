//! A value as one YAML scalar, typed by the core schema (YAML 1.2.2, 10.3.2).

use serde_json::{Number, Value};

use crate::addon::manifest::{Limits, from_yaml};

/// Characters that end a line in YAML.
const LINE_ENDS: [char; 5] = ['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}'];

/// Refuses a value of several lines: in embedded YAML it would not stay where it is put.
pub(super) fn one_line(value: &str) -> Result<&str, &'static str> {
    if value.contains(LINE_ENDS) { Err("its value has several lines") } else { Ok(value) }
}

/// The scalar that a value is where it stands alone and unquoted.
pub(super) fn typed(value: &str) -> Result<Value, &'static str> {
    one_line(value)?;
    // A value that YAML would read as a collection was meant to be one.
    let tight = Limits { depth: 2, nodes: 64, text_bytes: 64 << 10, ..Limits::default() };
    let collection = value.starts_with(['{', '['])
        || value.starts_with("- ")
        || value == "-"
        || value.starts_with("? ")
        || value.contains(": ")
        || value.ends_with(':')
        || from_yaml(value, &tight).is_ok_and(|read| read.value.is_object() || read.value.is_array());
    if collection {
        return Err("its value would become a map or a list; quote the reference to have it as text");
    }
    let text = value.trim_matches([' ', '\t']);
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Ok(Value::Null),
        "true" | "True" | "TRUE" => return Ok(Value::Bool(true)),
        "false" | "False" | "FALSE" => return Ok(Value::Bool(false)),
        _ => {}
    }
    if let Some(integer) = integer(text) {
        return integer.map(Value::Number).ok_or("its value is an integer out of range; quote the reference");
    }
    if is_float(text) {
        let float = text.parse().ok().and_then(Number::from_f64);
        return float.map(Value::Number).ok_or("its value is a number that JSON cannot hold; quote the reference");
    }
    let unsigned = text.trim_start_matches(['+', '-']);
    if [".inf", ".Inf", ".INF"].contains(&unsigned) || [".nan", ".NaN", ".NAN"].contains(&text) {
        return Err("its value is a number that JSON cannot hold; quote the reference");
    }
    Ok(Value::String(value.to_owned()))
}

/// The integer that a text is: none if it is not one, an inner none if it is too large.
fn integer(text: &str) -> Option<Option<Number>> {
    let radix = |digits: &str, radix: u32| u64::from_str_radix(digits, radix).ok().map(Number::from);
    if let Some(digits) = text.strip_prefix("0o") {
        return all(digits, |byte| (b'0'..=b'7').contains(&byte)).then(|| radix(digits, 8));
    }
    if let Some(digits) = text.strip_prefix("0x") {
        return all(digits, |byte| byte.is_ascii_hexdigit()).then(|| radix(digits, 16));
    }
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if !all(digits, |byte| byte.is_ascii_digit()) {
        return None;
    }
    let signed = text.strip_prefix('+').unwrap_or(text);
    Some(signed.parse::<i64>().map(Number::from).or_else(|_| signed.parse::<u64>().map(Number::from)).ok())
}

fn all(text: &str, fine: impl Fn(u8) -> bool) -> bool {
    !text.is_empty() && text.bytes().all(fine)
}

/// `[-+]? ( \. [0-9]+ | [0-9]+ ( \. [0-9]* )? ) ( [eE] [-+]? [0-9]+ )?`
fn is_float(text: &str) -> bool {
    let text = text.strip_prefix(['+', '-']).unwrap_or(text);
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent.strip_prefix(['+', '-']).unwrap_or(exponent))),
        None => (text, None),
    };
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    digits(whole)
        && digits(fraction)
        && !(whole.is_empty() && fraction.is_empty())
        && exponent.is_none_or(|exponent| !exponent.is_empty() && digits(exponent))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_core_schema_types_a_lone_value() {
        for (text, expected) in [
            ("a", json!("a")),
            ("", json!(null)),
            ("~", json!(null)),
            ("NULL", json!(null)),
            ("nUll", json!("nUll")),
            ("true", json!(true)),
            ("FALSE", json!(false)),
            ("yes", json!("yes")),
            ("on", json!("on")),
            ("3", json!(3)),
            ("-3", json!(-3)),
            ("+12", json!(12)),
            ("0644", json!(644)),
            ("0o17", json!(15)),
            ("0xfF", json!(255)),
            ("18446744073709551615", json!(18_446_744_073_709_551_615_u64)),
            ("1.5", json!(1.5)),
            ("1e3", json!(1000.0)),
            (".5", json!(0.5)),
            ("-1.", json!(-1.0)),
            (".", json!(".")),
            ("1e", json!("1e")),
            ("e3", json!("e3")),
            ("1.2.3", json!("1.2.3")),
            ("1_000", json!("1_000")),
            ("12:30", json!("12:30")),
            ("*", json!("*")),
            ("#x", json!("#x")),
            ("it's", json!("it's")),
            ("a \"b\"", json!("a \"b\"")),
            ("0o8", json!("0o8")),
        ] {
            assert_eq!(typed(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_would_be_more_than_one_scalar_is_refused() {
        for text in [
            "a: b",
            "a:",
            "{a: b}",
            "{}",
            "[1]",
            "-",
            "- a",
            "? a",
            "a\nb",
            "a\rb",
            "a\u{2028}b",
            "a\u{85}b",
            "99999999999999999999",
            ".inf",
            "-.Inf",
            ".nan",
            "!!map {a: b}",
            "&x {a: b}",
            "\"a\": b",
            "1e999",
        ] {
            assert!(typed(text).is_err(), "{text}");
        }
    }
}
