//! Values in the place of references.
//!
//! YAML is parsed first, with a placeholder for each reference, and the values are put into the tree:
//! a value can become one scalar or a part of one, never a key beside others, a list or a document.
//! A reference that stands alone and unquoted is a number to the parser, so that it can be told from
//! a quoted one by the type it has in the tree.

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::Refusal;
use super::scalar::{one_line, typed};
use super::token::{Part, parts, tokens};
use crate::addon::manifest::{Limits, Place, documents, from_yaml, patch_from_yaml};

/// What a reference stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// This value.
    Known(String),
    /// A value that is not known yet, or never will be, and why.
    Unknown(String),
}

/// Where references are looked up; an error says why there is no such thing.
pub(super) trait Lookup {
    /// The value of a reference.
    fn lookup(&self, name: &str) -> Result<Found, String>;
}

/// Why a text has no substituted form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Miss {
    /// It never will have one.
    Refused(Vec<Refusal>),
    /// Something that it refers to is not known yet.
    Unknown(String),
}

impl Miss {
    pub(super) fn refused(field_path: &str, reason: impl Into<String>) -> Self {
        Self::Refused(vec![Refusal::new(field_path, reason)])
    }
}

/// The refusal of a reference that means nothing: a parameter that is missing, or something that is
/// not in the grammar.
fn unresolved(path: &str, name: &str, reason: &str) -> Refusal {
    let is_value = name.starts_with("workflow.parameters.") || name.starts_with("inputs.parameters.");
    if is_value { Refusal::value(path, reason) } else { Refusal::new(path, reason) }
}

/// Longest text with its values, bytes.
const LONGEST: usize = 1 << 20;

/// Puts values into a text; what is refused counts for more than what is not known.
fn fill<'t>(
    text: &'t str,
    path: &str,
    lookup: &dyn Lookup,
    check: impl Fn(&str, &str, Option<&Part<'t>>) -> Result<(), String>,
) -> Result<String, Miss> {
    let parts = parts(text);
    let (mut out, mut refusals, mut unknown) = (String::new(), Vec::new(), None);
    for (index, part) in parts.iter().enumerate() {
        if out.len() > LONGEST {
            refusals.push(Refusal::value(path, format!("with its values it is longer than {LONGEST} bytes")));
            break;
        }
        let name = match part {
            Part::Literal(literal) => {
                out.push_str(literal);
                continue;
            }
            Part::Reference(name) => name,
        };
        match lookup.lookup(name) {
            Ok(Found::Known(value)) => match check(&value, &out, parts.get(index + 1)) {
                Ok(()) => out.push_str(&value),
                Err(reason) => refusals.push(Refusal::value(path, format!("{{{{{name}}}}}: {reason}"))),
            },
            Ok(Found::Unknown(reason)) => unknown = unknown.or(Some(reason)),
            Err(reason) => refusals.push(unresolved(path, name, &format!("{{{{{name}}}}}: {reason}"))),
        }
    }
    match unknown {
        _ if !refusals.is_empty() => Err(Miss::Refused(refusals)),
        Some(reason) => Err(Miss::Unknown(reason)),
        None => Ok(out),
    }
}

/// A text that is one value whatever it holds, such as an argument or a variable of a container.
pub(super) fn text(text: &str, path: &str, lookup: &dyn Lookup) -> Result<String, Miss> {
    fill(
        text,
        path,
        lookup,
        |value, _, _| {
            if value.contains('\0') { Err("its value holds a NUL".to_owned()) } else { Ok(()) }
        },
    )
}

/// A text that a shell or another interpreter reads: a value must be one plain word, or a part of one.
pub(super) fn shell(text: &str, path: &str, lookup: &dyn Lookup) -> Result<String, Miss> {
    fill(text, path, lookup, |value, before, after| {
        if let Some(bad) = value.chars().find(|c| !is_plain(*c)) {
            return Err(format!(
                "its value holds {bad:?}, and stands in text for a shell, where only letters, digits and . _ : / @ = + , - may"
            ));
        }
        let before = before.chars().next_back();
        let begins_word = before.is_none_or(|c| !(is_plain(c) || c == '}' || c == '$'));
        if begins_word && value.starts_with('-') {
            return Err("its value begins a word with -, and would be taken for an option".to_owned());
        }
        let parts_words = |c: char| c.is_whitespace() || ";|&()<>`".contains(c);
        let ends_word = match after {
            Some(Part::Literal(literal)) => literal.starts_with(parts_words),
            Some(Part::Reference(_)) => false,
            None => true,
        };
        if value.is_empty() && before.is_none_or(parts_words) && ends_word {
            return Err("its value is empty, and the word would vanish; quote it".to_owned());
        }
        Ok(())
    })
}

/// What may stand in shell text.
pub(super) fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || "._:/@=+,-".contains(c)
}

/// Text with a placeholder for each reference.
struct Prepared<'t> {
    text: String,
    /// References as they stand in the text, and their names.
    originals: Vec<(&'t str, &'t str)>,
    /// Begins a placeholder that is text wherever it stands.
    word: String,
    /// Begins a placeholder that YAML takes for a number where it stands alone.
    number: String,
}

/// Digits of a reference's index in a placeholder.
const INDEX_DIGITS: usize = 6;

impl<'t> Prepared<'t> {
    fn new(source: &'t str) -> Self {
        // From the text itself, so that no text holds many placeholders to be avoided.
        let digest = Sha256::digest(source.as_bytes());
        let mut nonce = u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]) % 100_000_000;
        let (word, number) = loop {
            let (word, number) = (format!("qdt{nonce:08}x"), format!("7{nonce:08}"));
            if !source.contains(&word) && !source.contains(&number) {
                break (word, number);
            }
            nonce = (nonce + 1) % 100_000_000;
        };
        let mut prepared = Self { text: String::with_capacity(source.len()), originals: Vec::new(), word, number };
        let mut at = 0;
        for token in tokens(source) {
            let (before, after) = (&source[..token.start], &source[token.end..]);
            let opens = before.chars().next_back().is_none_or(|c| c.is_whitespace() || "[{,".contains(c));
            let closes = after.chars().next().is_none_or(|c| c.is_whitespace() || "]},".contains(c));
            let index = prepared.originals.len();
            prepared.text.push_str(&source[at..token.start]);
            let placeholder = if opens && closes && index < 10_usize.pow(6) {
                format!("{}{index:06}", prepared.number)
            } else {
                format!("{}{index:06}x", prepared.word)
            };
            prepared.text.push_str(&placeholder);
            prepared.originals.push((&source[token.start..token.end], token.name));
            at = token.end;
        }
        prepared.text.push_str(&source[at..]);
        prepared
    }

    /// The reference that a number in the tree stands for.
    fn alone(&self, value: &Value) -> Option<usize> {
        let number = value.as_u64()?.to_string();
        let index = number.strip_prefix(&self.number)?;
        (index.len() == INDEX_DIGITS).then(|| index.parse().ok())?.filter(|index| *index < self.originals.len())
    }

    /// Replaces the placeholders in a text.
    fn replace(&self, text: &str, mut by: impl FnMut(usize, &mut String)) -> String {
        let mut out = String::with_capacity(text.len());
        let (mut done, mut from) = (0, 0);
        let find = |prefix: &str, from: usize| text[from..].find(prefix).map(|at| from + at);
        // Each kind is looked for anew only once its last find is behind.
        let (mut word, mut number) = (find(&self.word, 0), find(&self.number, 0));
        loop {
            word = if word.is_some_and(|at| at < from) { find(&self.word, from) } else { word };
            number = if number.is_some_and(|at| at < from) { find(&self.number, from) } else { number };
            let (at, prefix, tail) = match (word, number) {
                (None, None) => break,
                (Some(at), other) if other.is_none_or(|number| at < number) => (at, self.word.len(), 1),
                (_, Some(at)) => (at, self.number.len(), 0),
                (Some(_), None) => unreachable!("a word without a number comes first"),
            };
            let digits = text.get(at + prefix..at + prefix + INDEX_DIGITS);
            let index = digits.and_then(|digits| digits.parse::<usize>().ok()).filter(|at| *at < self.originals.len());
            from = at + prefix;
            if let Some(index) = index {
                out.push_str(&text[done..at]);
                by(index, &mut out);
                from = (from + INDEX_DIGITS + tail).min(text.len());
                done = from;
            }
        }
        out.push_str(&text[done..]);
        out
    }

    fn has_placeholder(&self, text: &str) -> bool {
        text.contains(&self.word) || text.contains(&self.number)
    }
}

/// Reads a template's own text. References stay as they are written, those that stand alone and
/// unquoted, which YAML would read as maps, included.
pub(super) fn read_template(text: &str) -> Result<Value, Refusal> {
    let prepared = Prepared::new(text);
    let limits = Limits::default();
    let mut all = documents(&prepared.text);
    if all.len() > 1 {
        return Err(Refusal::new("", format!("{} documents; a template is one Workflow", all.len())));
    }
    let Some(piece) = all.pop() else { return Err(Refusal::new("", "empty; a template is one Workflow")) };
    let read = from_yaml(piece.text, &limits).map_err(|error| {
        let line = if error.line == 0 { piece.line } else { piece.line + error.line - 1 };
        Refusal::new(error.field.unwrap_or_default(), format!("line {line}: {}", error.message))
    })?;
    if let Some(path) = read.repeated.first() {
        return Err(Refusal::new(path.as_str(), "the key stands twice"));
    }
    Ok(restored(read.value, &prepared))
}

/// Changes the documents of a manifest that stands in a template, references kept as they are; none if
/// it is no manifest. The new text is JSON, a document a line.
pub(super) fn rewritten(source: &str, edit: &dyn Fn(&mut Value)) -> Option<String> {
    let prepared = Prepared::new(source);
    let limits = Limits::default();
    let mut out = String::new();
    for piece in documents(&prepared.text) {
        let mut tree = patch_from_yaml(piece.text, &limits).ok().filter(|read| read.repeated.is_empty())?.value;
        let is_text = |field: &str| tree.get(field).is_some_and(Value::is_string);
        if !(is_text("apiVersion") && is_text("kind") && tree.get("metadata").is_some_and(Value::is_object)) {
            return None;
        }
        edit(&mut tree);
        if !out.is_empty() {
            out.push_str("---\n");
        }
        out.push_str(&prepared.replace(&tree.to_string(), |index, out| out.push_str(prepared.originals[index].0)));
        out.push('\n');
    }
    // A reference with quotes in it would end the text that it stands in.
    let plain = prepared.originals.iter().all(|(original, _)| !original.contains(['"', '\\']));
    (plain && !out.is_empty()).then_some(out)
}

fn restored(value: Value, prepared: &Prepared<'_>) -> Value {
    if let Some(index) = prepared.alone(&value) {
        return prepared.originals[index].0.into();
    }
    let restore = |text: &str| prepared.replace(text, |index, out| out.push_str(prepared.originals[index].0));
    match value {
        Value::String(text) => Value::String(restore(&text)),
        Value::Array(items) => items.into_iter().map(|item| restored(item, prepared)).collect(),
        Value::Object(fields) => {
            Value::Object(fields.into_iter().map(|(key, value)| (restore(&key), restored(value, prepared))).collect())
        }
        other => other,
    }
}

/// Reads YAML that stands in a template and puts the values into its tree.
pub(super) fn embedded(source: &str, path: &str, lookup: &dyn Lookup) -> Result<Vec<(Value, Place)>, Miss> {
    trees(source, path, lookup, false)
}

/// The same for a patch, in which a null field means removal.
pub(super) fn embedded_patch(source: &str, path: &str, lookup: &dyn Lookup) -> Result<Vec<(Value, Place)>, Miss> {
    trees(source, path, lookup, true)
}

fn trees(source: &str, path: &str, lookup: &dyn Lookup, keep_nulls: bool) -> Result<Vec<(Value, Place)>, Miss> {
    let prepared = Prepared::new(source);
    let limits = Limits::default();
    let mut filler = Filler {
        prepared: &prepared,
        lookup,
        path,
        keep_nulls,
        refusals: Vec::new(),
        unknown: None,
        text: limits.text_bytes,
    };
    let mut trees = Vec::new();
    for (index, piece) in documents(&prepared.text).into_iter().enumerate() {
        let place = Place { document: index + 1, line: piece.line };
        let read = if keep_nulls { patch_from_yaml } else { from_yaml };
        match read(piece.text, &limits) {
            Ok(read) => {
                if let Some(key) = read.repeated.first() {
                    filler.refuse(place, key, "the key stands twice");
                }
                let mut at = String::new();
                trees.push((filler.value(read.value, place, &mut at), place));
            }
            Err(error) => {
                let line = if error.line == 0 { piece.line } else { piece.line + error.line - 1 };
                filler.refuse(Place { line, ..place }, &error.field.unwrap_or_default(), &error.message);
            }
        }
    }
    match filler.unknown {
        _ if !filler.refusals.is_empty() => Err(Miss::Refused(filler.refusals)),
        Some(reason) => Err(Miss::Unknown(reason)),
        None => Ok(trees),
    }
}

struct Filler<'a> {
    prepared: &'a Prepared<'a>,
    lookup: &'a dyn Lookup,
    path: &'a str,
    keep_nulls: bool,
    refusals: Vec<Refusal>,
    unknown: Option<String>,
    /// Bytes that values may still take.
    text: usize,
}

/// The field path of something within a document that stands in a field.
pub(super) fn within(path: &str, place: Place, field: &str) -> String {
    if field.is_empty() { format!("{path}, {place}") } else { format!("{path}, {place}, {field}") }
}

impl Filler<'_> {
    fn refuse(&mut self, place: Place, field: &str, reason: &str) {
        self.refusals.push(Refusal::new(within(self.path, place, field), reason));
    }

    fn value(&mut self, value: Value, place: Place, at: &mut String) -> Value {
        if let Some(index) = self.prepared.alone(&value) {
            let read = |value: &str| typed(value).map_err(str::to_owned);
            return self.found(index, place, at, read).unwrap_or_default();
        }
        match value {
            Value::String(text) => Value::String(self.text(text, place, at)),
            Value::Array(items) => {
                let length = at.len();
                let filled = items.into_iter().enumerate().map(|(index, item)| {
                    at.push_str(&format!("[{index}]"));
                    let item = self.value(item, place, at);
                    at.truncate(length);
                    item
                });
                Value::Array(filled.collect())
            }
            Value::Object(fields) => {
                let length = at.len();
                let mut filled = Map::new();
                for (key, value) in fields {
                    if !at.is_empty() {
                        at.push('.');
                    }
                    at.push_str(&key);
                    let key = self.text(key, place, at);
                    let value = self.value(value, place, at);
                    // Nulls are left out, as in every manifest: to a server they mean absence.
                    if (self.keep_nulls || !value.is_null()) && filled.insert(key, value).is_some() {
                        let path = within(self.path, place, at);
                        self.refusals.push(Refusal::value(path, "a value makes this key equal to another one"));
                    }
                    at.truncate(length);
                }
                Value::Object(filled)
            }
            other => other,
        }
    }

    fn text(&mut self, text: String, place: Place, at: &str) -> String {
        if !self.prepared.has_placeholder(&text) {
            return text;
        }
        let prepared = self.prepared;
        prepared.replace(&text, |index, out| {
            let read = |value: &str| one_line(value).map(str::to_owned).map_err(str::to_owned);
            out.push_str(&self.found(index, place, at, read).unwrap_or_default());
        })
    }

    fn found<T>(
        &mut self,
        index: usize,
        place: Place,
        at: &str,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        let (original, name) = self.prepared.originals[index];
        let outcome = match self.lookup.lookup(name) {
            Ok(Found::Known(value)) if value.len() > self.text => Err("too much text".to_owned()),
            Ok(Found::Known(value)) => {
                self.text -= value.len();
                read(&value)
            }
            Ok(Found::Unknown(reason)) => {
                self.unknown.get_or_insert(reason);
                return None;
            }
            Err(reason) => {
                let path = within(self.path, place, at);
                self.refusals.push(unresolved(&path, name, &format!("{original}: {reason}")));
                return None;
            }
        };
        outcome
            .map_err(|reason| {
                let path = within(self.path, place, at);
                self.refusals.push(Refusal::value(path, format!("{original}: {reason}")));
            })
            .ok()
    }
}

#[cfg(test)]
#[path = "substitute_tests.rs"]
mod tests;
