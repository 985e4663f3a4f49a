//! `{{…}}` in a text. Only what Argo takes for a reference is one; other double braces, such as those
//! of Go's or Prometheus' templates in a ConfigMap, are text.

/// A reference in a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Token<'t> {
    /// Where it begins, bytes, braces included.
    pub(super) start: usize,
    /// Where it ends.
    pub(super) end: usize,
    /// What stands between the braces, without blanks around it.
    pub(super) name: &'t str,
}

/// First parts of the names that Argo resolves (`argoproj/argo-workflows:workflow/validate/validate.go`).
const ROOTS: [&str; 13] = [
    "workflow",
    "inputs",
    "outputs",
    "steps",
    "tasks",
    "pod",
    "item",
    "retries",
    "lastRetry",
    "node",
    "cronworkflow",
    "env",
    "ctx",
];

/// Longest reference, bytes: a text full of braces is read in one pass.
const LONGEST: usize = 512;

/// The references of a text, in order.
pub(super) fn tokens(text: &str) -> Vec<Token<'_>> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(offset) = text[at..].find("{{") {
        // Of three braces the inner two are the token's: `{a: {{x}}}`, `{{{x}}}`.
        let mut start = at + offset;
        while text[start + 2..].starts_with('{') {
            start += 1;
        }
        at = start + 2;
        if let Some(token) = token_at(text, start) {
            at = token.end;
            found.push(token);
        }
    }
    found
}

/// The reference that begins at a place.
pub(super) fn token_at(text: &str, start: usize) -> Option<Token<'_>> {
    let inner = text[start..].strip_prefix("{{")?;
    let mut end = inner.len().min(LONGEST);
    while !inner.is_char_boundary(end) {
        end -= 1;
    }
    let length = inner[..end].find("}}")?;
    let name = inner[..length].trim_matches([' ', '\t']);
    is_reference(name).then_some(Token { start, end: start + 2 + length + 2, name })
}

fn is_reference(name: &str) -> bool {
    if name.contains(['\n', '\r', '{']) {
        return false;
    }
    if name.starts_with('=') {
        return true;
    }
    let root = name.split(['.', '[']).next().unwrap_or_default();
    ROOTS.contains(&root)
}

/// A text taken apart: literal parts and references in turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part<'t> {
    /// As it stands.
    Literal(&'t str),
    /// A reference, by name.
    Reference(&'t str),
}

/// The parts of a text; empty literals are left out.
pub(super) fn parts(text: &str) -> Vec<Part<'_>> {
    let mut out = Vec::new();
    let mut at = 0;
    for token in tokens(text) {
        if token.start > at {
            out.push(Part::Literal(&text[at..token.start]));
        }
        out.push(Part::Reference(token.name));
        at = token.end;
    }
    if at < text.len() {
        out.push(Part::Literal(&text[at..]));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<&str> {
        tokens(text).into_iter().map(|token| token.name).collect()
    }

    #[test]
    fn references_are_found_and_other_braces_are_text() {
        for (text, expected) in [
            ("{{workflow.parameters.a}}", vec!["workflow.parameters.a"]),
            (
                "x{{ workflow.parameters.a }}y{{inputs.parameters.b}}",
                vec!["workflow.parameters.a", "inputs.parameters.b"],
            ),
            ("{a: {{steps.x.status}}}", vec!["steps.x.status"]),
            ("{{{item}}}", vec!["item"]),
            ("{{=1+1}}", vec!["=1+1"]),
            ("{{ .Values.x }} {{ $labels.pod }} {{- if .x }}", vec![]),
            ("{{ {{item}} }}", vec!["item"]),
            ("{{workflow.parameters.a", vec![]),
            ("{{ workflow\n.x }}", vec![]),
            ("{{workflows.x}} {{items}}", vec![]),
            ("{{ .a }}{{item.b}}", vec!["item.b"]),
            ("é{{item}}é", vec!["item"]),
            ("{{}}", vec![]),
        ] {
            assert_eq!(names(text), expected, "{text}");
        }
    }

    #[test]
    fn a_text_full_of_braces_is_read_in_one_pass() {
        for piece in ["{{", "{{a ", "{{item}} ", "}}", "{{item", "{{{"] {
            let text = format!("{}}}}}", piece.repeat((1 << 19) / piece.len()));
            let count = names(&text).len();
            assert!(count <= text.len() / 8, "{piece}: {count}");
        }
        let long = format!("{{{{workflow.parameters.{}}}}}", "a".repeat(LONGEST));
        assert_eq!(names(&long), Vec::<&str>::new());
    }

    #[test]
    fn parts_put_together_are_the_text() {
        let text = "a{{item}}{{ .x }}b";
        assert_eq!(parts(text), [Part::Literal("a"), Part::Reference("item"), Part::Literal("{{ .x }}b")]);
        assert_eq!(parts(""), []);
    }
}
