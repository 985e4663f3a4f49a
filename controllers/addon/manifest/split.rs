//! Splitting a YAML stream into documents by its text, as kubectl does
//! (`k8s.io/apimachinery:pkg/util/yaml/decoder.go`), so that each can fail alone.

/// One document's text and the line it begins at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::addon) struct Piece<'a> {
    /// The text, without the separator.
    pub(in crate::addon) text: &'a str,
    /// Number of its first line, counted from 1.
    pub(in crate::addon) line: usize,
}

/// The documents of a stream, empty and comment-only ones left out.
pub(in crate::addon) fn documents(text: &str) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    let (mut start, mut start_line, mut at) = (0, 1, 0);
    for (number, line) in text.split_inclusive('\n').enumerate() {
        if is_separator(line) {
            pieces.push(Piece { text: &text[start..at], line: start_line });
            // What follows the dashes on their line belongs to the new document.
            (start, start_line) = (at + 3, number + 1);
        }
        at += line.len();
    }
    pieces.push(Piece { text: &text[start..], line: start_line });
    pieces.retain(|piece| has_content(piece.text));
    pieces
}

fn is_separator(line: &str) -> bool {
    line.strip_prefix("---").is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']))
}

fn has_content(text: &str) -> bool {
    text.lines()
        .map(|line| line.trim_start_matches('\u{feff}').trim())
        .any(|line| !line.is_empty() && !line.starts_with('#') && line != "...")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(text: &str) -> Vec<(&str, usize)> {
        documents(text).into_iter().map(|piece| (piece.text.trim(), piece.line)).collect()
    }

    #[test]
    fn separators_split_and_empty_documents_vanish() {
        assert_eq!(split("a: 1\n---\nb: 2\n"), [("a: 1", 1), ("b: 2", 2)]);
        assert_eq!(split("---\n# only a comment\n---\n\n---\na: 1"), [("a: 1", 5)]);
        assert_eq!(split("--- {a: 1}\n--- # said\nb: 2"), [("{a: 1}", 1), ("# said\nb: 2", 2)]);
        assert_eq!(split("a: |\n  ---\n  b\n---x: 1"), [("a: |\n  ---\n  b\n---x: 1", 1)]);
        assert_eq!(split("a: 1\r\n---\r\nb: 2\r\n"), [("a: 1", 1), ("b: 2", 2)]);
        assert_eq!(split(""), []);
        assert_eq!(split("---\n---\n...\n"), []);
    }
}
