//! Tables that fit where they are shown: numbers on the right, texts cut where there is no room, nothing in them that a
//! terminal would obey.

use std::io::IsTerminal as _;

use crate::output;

/// How what is printed is dressed.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Dress {
    /// Whether there are colours.
    pub(crate) colours: bool,
    /// Columns of the terminal; `None` where there is no end to them.
    pub(crate) width: Option<usize>,
}

impl Dress {
    /// As the standard output wants it.
    pub(crate) fn of_stdout() -> Self {
        Self { colours: output::colours(), width: size().map(|(columns, _)| columns) }
    }

    /// A text in a colour (a terminal's code).
    pub(crate) fn paint(&self, colour: &str, text: &str) -> String {
        if colour.is_empty() || !self.colours { text.to_owned() } else { format!("\u{1b}[{colour}m{text}\u{1b}[0m") }
    }
}

/// Columns and rows of the terminal, if the standard output is one.
pub(crate) fn size() -> Option<(usize, usize)> {
    let out = std::io::stdout();
    if !out.is_terminal() {
        return None;
    }
    let size = rustix::termios::tcgetwinsize(&out).ok()?;
    // Some terminals do not know.
    (size.ws_col > 0 && size.ws_row > 0).then(|| (usize::from(size.ws_col), usize::from(size.ws_row)))
}

/// A column.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Column {
    heading: &'static str,
    right: bool,
    narrowest: Option<usize>,
}

/// A column of words.
pub(crate) const fn words(heading: &'static str) -> Column {
    Column { heading, right: false, narrowest: None }
}

/// A column of numbers.
pub(crate) const fn numbers(heading: &'static str) -> Column {
    Column { heading, right: true, narrowest: None }
}

/// A column of texts, which are cut where the table would become too wide.
pub(crate) const fn texts(heading: &'static str) -> Column {
    Column { heading, right: false, narrowest: Some(12) }
}

/// A cell.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cell {
    text: String,
    colour: &'static str,
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self { text: harmless(&text.into()), colour: "" }
    }
}

/// A cell in a colour (a terminal's code).
pub(crate) fn coloured(colour: &'static str, text: impl Into<String>) -> Cell {
    Cell { colour, ..Cell::from(text) }
}

/// The first line of a text, without what a terminal would obey.
pub(crate) fn harmless(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>().trim_end().to_owned()
}

/// A text of at most so many characters, its end cut where it is longer.
pub(crate) fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(width.saturating_sub(1)).collect();
    short.push('…');
    short
}

/// Spaces between two columns.
const GAP: usize = 2;

/// Rows under headings. Columns without a word in them are left out.
pub(crate) struct Sheet {
    columns: Vec<Column>,
    rows: Vec<Vec<Cell>>,
}

impl Sheet {
    /// A table without rows.
    pub(crate) fn new(columns: &[Column]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new() }
    }

    /// Adds a row, a cell for each column.
    pub(crate) fn row<const N: usize>(&mut self, cells: [Cell; N]) {
        debug_assert_eq!(N, self.columns.len(), "a cell for each column");
        self.rows.push(cells.into());
    }

    /// The lines of the table, each ending in a newline; none without rows.
    pub(crate) fn render(&self, dress: Dress) -> String {
        if self.rows.is_empty() {
            return String::new();
        }
        let used: Vec<usize> =
            (0..self.columns.len()).filter(|&at| self.rows.iter().any(|row| !row[at].text.is_empty())).collect();
        let widths = self.widths(&used, dress.width);
        let headings: Vec<Cell> = self.columns.iter().map(|column| coloured("1", column.heading)).collect();
        let mut lines = String::new();
        for row in std::iter::once(&headings).chain(&self.rows) {
            let mut line = String::new();
            for (&at, &width) in used.iter().zip(&widths) {
                let text = cut(&row[at].text, width);
                let space = " ".repeat(width - text.chars().count());
                let text = if text.is_empty() { text } else { dress.paint(row[at].colour, &text) };
                line.push_str(&if self.columns[at].right {
                    format!("{space}{text}")
                } else {
                    format!("{text}{space}")
                });
                line.push_str(&" ".repeat(GAP));
            }
            lines.push_str(line.trim_end());
            lines.push('\n');
        }
        lines
    }

    /// The width of each used column, so that the table is no wider than `limit` if that can be had.
    fn widths(&self, used: &[usize], limit: Option<usize>) -> Vec<usize> {
        let long = |at: usize| {
            let cells = self.rows.iter().map(|row| row[at].text.chars().count());
            cells.max().unwrap_or_default().max(self.columns[at].heading.len())
        };
        let mut widths: Vec<usize> = used.iter().map(|&at| long(at)).collect();
        let Some(limit) = limit else { return widths };
        let total = |widths: &[usize]| widths.iter().sum::<usize>() + GAP * widths.len().saturating_sub(1);
        while total(&widths) > limit {
            // The widest of those that may be cut.
            let shrinkable = used.iter().zip(&mut widths).filter_map(|(&at, width)| {
                let narrowest = self.columns[at].narrowest?;
                (*width > narrowest).then_some(width)
            });
            match shrinkable.max_by_key(|width| **width) {
                Some(width) => *width -= 1,
                None => break,
            }
        }
        widths
    }
}

/// A number of bytes: `512`, `1.5Ki`, `20Mi`.
pub(crate) fn bytes(number: u64) -> String {
    const UNITS: [&str; 5] = ["Ki", "Mi", "Gi", "Ti", "Pi"];
    if number < 1024 {
        return number.to_string();
    }
    let mut value = number as f64;
    let mut unit = "";
    for next in UNITS {
        if value < 1024.0 {
            break;
        }
        (value, unit) = (value / 1024.0, next);
    }
    if value < 10.0 { format!("{value:.1}{unit}") } else { format!("{value:.0}{unit}") }
}

/// A rate: `0`, `0.5`, `120`.
pub(crate) fn rate(number: f64) -> String {
    match number {
        number if number < 0.05 => "0".to_owned(),
        number if number < 10.0 => format!("{number:.1}"),
        number => format!("{number:.0}"),
    }
}

/// A number that is only worth showing if there is something: `0` is shown as nothing.
pub(crate) fn some(number: impl Into<u64>) -> String {
    match number.into() {
        0 => String::new(),
        number => number.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sheet() -> Sheet {
        let mut sheet = Sheet::new(&[words("NAME"), numbers("KEYS"), words("NONE"), texts("REASON")]);
        sheet.row(["a".into(), "1".into(), "".into(), "because it is so".into()]);
        sheet.row(["länger".into(), coloured("31", "12345"), "".into(), "x\u{1b}[2Jy\nmore".into()]);
        sheet
    }

    #[test]
    fn numbers_stand_on_the_right_and_empty_columns_are_left_out() {
        let text = sheet().render(Dress::default());
        assert_eq!(text, "NAME     KEYS  REASON\na           1  because it is so\nlänger  12345  x [2Jy\n");
        assert_eq!(Sheet::new(&[words("NAME")]).render(Dress::default()), "");
    }

    #[test]
    fn texts_are_cut_to_the_width_and_no_further() {
        let at = |width| sheet().render(Dress { width: Some(width), colours: false });
        assert!(at(29).contains("a           1  because it is…\n"), "{}", at(29));
        assert!(at(29).lines().all(|line| line.chars().count() <= 29));
        // Words and numbers are never cut.
        assert_eq!(at(5), at(27));
        assert_eq!(at(80), sheet().render(Dress::default()));
    }

    #[test]
    fn colours_do_not_change_the_width() {
        let text = sheet().render(Dress { width: Some(80), colours: true });
        let plain = text.replace("\u{1b}[31m", "").replace("\u{1b}[1m", "").replace("\u{1b}[0m", "");
        assert_eq!(plain, sheet().render(Dress::default()));
        assert_ne!(plain, text);
    }

    #[test]
    fn amounts_are_short() {
        let cases =
            [(0, "0"), (1023, "1023"), (1024, "1.0Ki"), (15_360, "15Ki"), (20 << 20, "20Mi"), (3 << 30, "3.0Gi")];
        for (number, text) in cases {
            assert_eq!(bytes(number), text);
        }
        assert_eq!([rate(0.0), rate(0.04), rate(0.5), rate(123.4)], ["0", "0", "0.5", "123"]);
        assert_eq!((some(0_u64), some(7_u64)), (String::new(), "7".to_owned()));
    }
}
