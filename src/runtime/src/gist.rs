//! What of an error stays the same from try to try.

use std::fmt::{self, Display};

/// An error without the words that hold a digit: versions, times, ports and counts differ from try to try.
pub(crate) fn gist(error: &dyn Display) -> String {
    /// What lies further on is detail.
    const LONGEST: usize = 512;
    let mut gist = Gist { text: String::new(), most: LONGEST };
    let _ = fmt::write(&mut gist, format_args!("{error}"));
    let words = gist.text.split_whitespace().filter(|word| !word.bytes().any(|byte| byte.is_ascii_digit()));
    words.collect::<Vec<_>>().join(" ")
}

/// The beginning of a text.
struct Gist {
    text: String,
    most: usize,
}

impl fmt::Write for Gist {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let left = self.most.saturating_sub(self.text.len());
        let end = (0..=left.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        self.text.push_str(&text[..end]);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_cut_where_a_character_ends() {
        let long = "ä".repeat(1000);
        assert!(gist(&long).len() <= 512);
        assert_eq!(gist(&"a b2 c"), "a c");
    }
}
