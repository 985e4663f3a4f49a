//! What is printed: objects and tables.

use std::io::{IsTerminal as _, Write as _};

use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};

use crate::cli::ObjectForm;

/// Writes to the standard output.
///
/// # Errors
/// When nobody reads it any more.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

/// An object in one of its forms, ending in a newline.
pub(crate) fn object(object: &impl Serialize, form: ObjectForm) -> anyhow::Result<String> {
    let mut text = match form {
        ObjectForm::Json => serde_json::to_string_pretty(object)?,
        ObjectForm::Yaml => serde_saphyr::to_string(object)?,
    };
    if !text.ends_with('\n') {
        text.push('\n');
    }
    Ok(text)
}

/// A list of objects, as kubectl writes one.
pub(crate) fn list(items: &[impl Serialize]) -> anyhow::Result<Value> {
    Ok(json!({"apiVersion": "v1", "kind": "List", "items": serde_json::to_value(items)?, "metadata": {}}))
}

/// Rows under headings, each column as wide as its widest cell.
pub(crate) struct Table {
    headings: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table without rows.
    pub(crate) fn new(headings: &[&'static str]) -> Self {
        Self { headings: headings.to_vec(), rows: Vec::new() }
    }

    /// Adds a row; of a cell only the first line is shown.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let line = |cell: String| cell.lines().next().unwrap_or_default().trim_end().to_owned();
        self.rows.push(cells.into_iter().map(line).collect());
    }

    /// The text of the table, ending in a newline. `paint` may dress a cell, by its heading, without
    /// changing its width.
    pub(crate) fn render(&self, paint: impl Fn(&str, &str) -> Option<&'static str>) -> String {
        let headings: Vec<String> = self.headings.iter().map(|&heading| heading.to_owned()).collect();
        let widths: Vec<usize> = (0..headings.len())
            .map(|column| {
                let cells = self.rows.iter().filter_map(|row| row.get(column));
                cells.chain(headings.get(column)).map(|cell| cell.chars().count()).max().unwrap_or_default()
            })
            .collect();
        let mut text = String::new();
        for (number, row) in std::iter::once(&headings).chain(&self.rows).enumerate() {
            let mut line = String::new();
            for (column, cell) in row.iter().enumerate() {
                let gap = widths[column] - cell.chars().count() + 3;
                match paint(self.headings[column], cell).filter(|_| number > 0 && colours()) {
                    Some(colour) => line.push_str(&format!("\u{1b}[{colour}m{cell}\u{1b}[0m")),
                    None => line.push_str(cell),
                }
                if column + 1 < row.len() {
                    line.push_str(&" ".repeat(gap));
                }
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// Whether the standard output is a terminal that is to be coloured.
pub(crate) fn colours() -> bool {
    std::env::var_os("NO_COLOR").is_none() && std::io::stdout().is_terminal()
}

/// A text in a colour (a terminal's code), if the standard output takes colours.
pub(crate) fn paint(colour: &str, text: &str) -> String {
    if colour.is_empty() || !colours() { text.to_owned() } else { format!("\u{1b}[{colour}m{text}\u{1b}[0m") }
}

/// A span of time as kubectl writes an age: `45s`, `3m10s`, `2h`, `5d`.
pub(crate) fn age(since: Timestamp, now: Timestamp) -> String {
    span(now.duration_since(since).as_secs())
}

/// A number of seconds as kubectl writes an age.
pub(crate) fn span(seconds: i64) -> String {
    let seconds = seconds.max(0);
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    let with = |big: i64, unit: &str, rest: i64, small: &str| {
        if rest == 0 { format!("{big}{unit}") } else { format!("{big}{unit}{rest}{small}") }
    };
    match seconds {
        0..120 => format!("{seconds}s"),
        120..600 => with(minutes, "m", seconds % 60, "s"),
        600..10_800 => format!("{minutes}m"),
        10_800..28_800 => with(hours, "h", minutes % 60, "m"),
        28_800..172_800 => format!("{hours}h"),
        172_800..691_200 => with(days, "d", hours % 24, "h"),
        691_200..63_072_000 => format!("{days}d"),
        _ => format!("{}y", days / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_cells() {
        let mut table = Table::new(&["NAME", "REASON"]);
        table.row(["a".to_owned(), "first\nsecond".to_owned()]);
        table.row(["längerer-name".to_owned(), String::new()]);
        assert_eq!(table.render(|_, _| None), "NAME            REASON\na               first\nlängerer-name\n");
    }

    #[test]
    fn ages_are_as_kubectl_writes_them() {
        let now: Timestamp = "2024-01-01T00:00:00Z".parse().expect("a time");
        let cases = [
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (190, "3m10s"),
            (3600, "60m"),
            (10_860, "3h1m"),
            (90_000, "25h"),
            (176_400, "2d1h"),
            (864_000, "10d"),
            (63_072_000, "2y"),
            (-5, "0s"),
        ];
        for (seconds, text) in cases {
            assert_eq!(age(now - jiff::SignedDuration::from_secs(seconds), now), text);
        }
    }

    #[test]
    fn texts_of_several_lines_are_blocks_and_come_back_whole() {
        for text in ["a: b\nc: d\n", "  x\n", "no end", "trailing \n\n\n", "tab\there\n\n  deep\n", &"long ".repeat(99)]
        {
            let value = json!({"template": text});
            let yaml = object(&value, ObjectForm::Yaml).expect("YAML");
            assert_eq!(serde_saphyr::from_str::<Value>(&yaml).expect("YAML"), value, "{yaml}");
        }
        // Whoever reads it by YAML 1.1, as kubectl does, reads texts again.
        for text in
            ["n", "on", "Yes", "null", "~", "1", "1e3", "0x1", "0o7", "010", "1.10", ".5", "", " x", "a: b", "# c"]
        {
            let yaml = object(&json!({"x": text}), ObjectForm::Yaml).expect("YAML");
            let value = yaml.trim_end().strip_prefix("x: ").expect("a field");
            assert!(value.starts_with(['"', '\'']), "{text:?} is written as {value}");
        }
        let yaml = object(&json!({"template": "a: b\nc: d\n"}), ObjectForm::Yaml).expect("YAML");
        assert_eq!(yaml, "template: |\n  a: b\n  c: d\n");
    }
}
