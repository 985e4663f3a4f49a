//! Times, sizes and rates as people read them.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::html::Html;

/// A length of time.
pub(super) fn span(seconds: f64) -> String {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "not negative, and far from 2^64")]
    let whole = seconds.max(0.0).round() as u64;
    match whole {
        0 if seconds >= 0.0005 => format!("{:.0} ms", seconds * 1000.0),
        1..=9 if seconds < 9.95 => format!("{seconds:.1} s"),
        0..=119 => format!("{whole} s"),
        120..=7199 => format!("{} min", whole / 60),
        7200..=172_799 => format!("{} h {:02} min", whole / 3600, whole / 60 % 60),
        _ => format!("{} days", whole / 86_400),
    }
}

/// A number of bytes.
pub(super) fn bytes(bytes: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "one digit is shown")]
    let (bytes, kibi) = (bytes as f64, 1024.0);
    if bytes < kibi {
        format!("{bytes:.0} B")
    } else if bytes < kibi * kibi {
        format!("{:.1} KiB", bytes / kibi)
    } else {
        format!("{:.1} MiB", bytes / kibi / kibi)
    }
}

/// Events a second.
pub(super) fn rate(rate: f64) -> String {
    match rate {
        0.0 => "0".to_owned(),
        rate if rate < 0.1 => format!("{rate:.3}"),
        rate => format!("{rate:.1}"),
    }
}

/// A count with its noun, in the number that goes with it.
pub(super) fn count(number: usize, one: &str, many: &str) -> String {
    match number {
        1 => format!("1 {one}"),
        _ => format!("{number} {many}"),
    }
}

/// A moment in UTC, to the second; what is no time is shown as it stands.
pub(super) fn moment<'h>(html: &'h mut Html, text: &str) -> &'h mut Html {
    let Ok(time) = text.parse::<Timestamp>() else {
        return html.text(text);
    };
    let shown = time.to_zoned(TimeZone::UTC).strftime("%Y-%m-%d %H:%M:%S UTC").to_string();
    html.raw("<time").attr("datetime", text).raw(">").text(&shown).raw("</time>")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_as_precise_as_they_matter() {
        let cases = [
            (0.0, "0 s"),
            (0.0207, "21 ms"),
            (1.25, "1.2 s"),
            (15.6, "16 s"),
            (119.4, "119 s"),
            (600.0, "10 min"),
            (7260.0, "2 h 01 min"),
            (900_000.0, "10 days"),
            (-1.0, "0 s"),
        ];
        for (seconds, expected) in cases {
            assert_eq!(span(seconds), expected, "{seconds}");
        }
    }

    #[test]
    fn sizes_and_rates_are_short() {
        assert_eq!([bytes(12), bytes(1536), bytes(3 << 20)], ["12 B", "1.5 KiB", "3.0 MiB"]);
        assert_eq!([rate(0.0), rate(0.0166), rate(12.34)], ["0", "0.017", "12.3"]);
        assert_eq!([count(1, "object", "objects"), count(0, "object", "objects")], ["1 object", "0 objects"]);
    }

    #[test]
    fn moments_are_in_utc_and_whatever_else_is_escaped() {
        let mut html = Html::default();
        moment(&mut html, "2026-11-23T07:31:10.123456Z");
        moment(&mut html, "<b>");
        let text = html.into_text();
        assert!(text.contains(">2026-11-23 07:31:10 UTC</time>") && text.ends_with("&lt;b&gt;"), "{text}");
    }
}
