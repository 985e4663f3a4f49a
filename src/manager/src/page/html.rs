//! Writes HTML: markup is literal text of this program, everything else is escaped.

/// A piece of a page.
#[derive(Debug, Default)]
pub(super) struct Html {
    text: String,
}

impl Html {
    /// Markup. Only what stands in the program's own text has this lifetime, so nothing else gets in unescaped.
    pub(super) fn raw(&mut self, markup: &'static str) -> &mut Self {
        self.text.push_str(markup);
        self
    }

    /// Text that is shown.
    pub(super) fn text(&mut self, text: &str) -> &mut Self {
        for letter in text.chars() {
            match letter {
                '&' => self.text.push_str("&amp;"),
                '<' => self.text.push_str("&lt;"),
                '>' => self.text.push_str("&gt;"),
                '"' => self.text.push_str("&quot;"),
                '\'' => self.text.push_str("&#39;"),
                // What would turn the order of the letters around makes one name look like another.
                '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => self.text.push('\u{fffd}'),
                other if other.is_control() => self.text.push(' '),
                other => self.text.push(other),
            }
        }
        self
    }

    /// An attribute of the tag that is being written.
    pub(super) fn attr(&mut self, name: &'static str, value: &str) -> &mut Self {
        self.raw(" ").raw(name).raw("=\"").text(value).raw("\"")
    }

    /// Text that a machine wrote or reads: names, keys, addresses.
    pub(super) fn code(&mut self, text: &str) -> &mut Self {
        self.raw("<code>").text(text).raw("</code>")
    }

    /// Another piece.
    pub(super) fn append(&mut self, other: &Self) -> &mut Self {
        self.text.push_str(&other.text);
        self
    }

    /// All of it.
    pub(super) fn into_text(self) -> String {
        self.text
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_shown_is_never_markup() {
        let mut html = Html::default();
        html.raw("<td").attr("title", "a\" onload=\"x").raw(">").text("<script>'&\u{202e}\n").raw("</td>");
        assert_eq!(html.into_text(), "<td title=\"a&quot; onload=&quot;x\">&lt;script&gt;&#39;&amp;\u{fffd} </td>");
    }

    proptest! {
        #[test]
        fn no_text_leaves_a_letter_of_markup(text in ".*") {
            let mut html = Html::default();
            html.text(&text);
            let written = html.into_text();
            prop_assert!(!written.contains(['<', '>', '"', '\'']));
            let unescaped = written.replace("&amp;", "").replace("&lt;", "").replace("&gt;", "").replace("&quot;", "").replace("&#39;", "");
            prop_assert!(!unescaped.contains('&'));
        }
    }
}
