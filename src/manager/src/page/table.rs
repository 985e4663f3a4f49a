//! Tables that stay tables for those who hear them, also where a narrow screen shows their rows as cards: each cell
//! carries its role and the title of its column.

use super::html::Html;

/// A column.
#[derive(Clone, Copy, Debug)]
pub(super) struct Column {
    /// What stands over it.
    pub(super) title: &'static str,
    /// Whether it holds numbers.
    pub(super) number: bool,
}

/// A column of words.
pub(super) const fn words(title: &'static str) -> Column {
    Column { title, number: false }
}

/// A column of numbers.
pub(super) const fn number(title: &'static str) -> Column {
    Column { title, number: true }
}

/// A table that is being written.
pub(super) struct Table<'h> {
    html: &'h mut Html,
    columns: &'static [Column],
}

impl<'h> Table<'h> {
    /// Begins a table. The caption says what it shows, for those who jump from table to table.
    pub(super) fn begin(html: &'h mut Html, caption: &'static str, columns: &'static [Column]) -> Self {
        html.raw("<table role=\"table\"><caption>")
            .text(caption)
            .raw("</caption><thead role=\"rowgroup\"><tr role=\"row\">");
        for column in columns {
            html.raw("<th role=\"columnheader\" scope=\"col\"").raw(class(*column)).raw(">");
            html.text(column.title).raw("</th>");
        }
        html.raw("</tr></thead><tbody role=\"rowgroup\">");
        Self { html, columns }
    }

    /// Writes a row; its key is what it is recognised by when the page is renewed.
    pub(super) fn row(&mut self, key: &str, cells: impl FnOnce(&mut Row<'_>)) {
        self.html.raw("<tr role=\"row\"").attr("data-key", key).raw(">");
        let mut row = Row { html: self.html, columns: self.columns.iter() };
        cells(&mut row);
        debug_assert!(row.columns.next().is_none(), "a row has as many cells as the table has columns");
        self.html.raw("</tr>");
    }

    /// Ends the table.
    pub(super) fn end(self) {
        self.html.raw("</tbody></table>");
    }
}

/// A row that is being written.
pub(super) struct Row<'h> {
    html: &'h mut Html,
    columns: std::slice::Iter<'static, Column>,
}

impl Row<'_> {
    /// The cell that names the row.
    pub(super) fn head(&mut self, write: impl FnOnce(&mut Html) -> &mut Html) -> &mut Self {
        let column = self.next();
        self.html.raw("<th role=\"rowheader\" scope=\"row\"").attr("data-label", column.title).raw(">");
        write(self.html);
        self.html.raw("</th>");
        self
    }

    /// A cell.
    pub(super) fn cell(&mut self, write: impl FnOnce(&mut Html) -> &mut Html) -> &mut Self {
        let column = self.next();
        self.html.raw("<td role=\"cell\"").raw(class(column)).attr("data-label", column.title).raw("><span>");
        write(self.html);
        self.html.raw("</span></td>");
        self
    }

    /// A cell of plain text.
    pub(super) fn text(&mut self, text: &str) -> &mut Self {
        self.cell(|html| html.text(text))
    }

    /// A cell of plain text, or a dash where there is none.
    pub(super) fn or_none(&mut self, text: Option<&str>) -> &mut Self {
        self.cell(|html| match text.filter(|text| !text.is_empty()) {
            Some(text) => html.text(text),
            None => html.raw("<span class=\"none\">–</span>"),
        })
    }

    fn next(&mut self) -> Column {
        self.columns.next().copied().unwrap_or(words(""))
    }
}

fn class(column: Column) -> &'static str {
    if column.number { " class=\"number\"" } else { "" }
}
