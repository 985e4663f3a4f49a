//! From documents to desired objects.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::split::documents;
use super::value::{Read, ReadError, from_json, from_yaml};
use super::{Body, Desired, LEGACY_LABEL, Limits, MODE_LABEL, Mode, Place, Problem};
use crate::addon::applyset::PART_OF_LABEL;
use crate::addon::ident::{GroupKind, Ident};

/// How a file is written, by the ending of its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `.yaml`, `.yml`.
    Yaml,
    /// `.json`.
    Json,
}

/// What a file holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decoded {
    /// The objects to manage, in order.
    pub objects: Vec<Desired>,
    /// Objects that carry none of the labels, or name another mode: not managed, but evidence
    /// that they are wanted.
    pub skipped: Vec<Ident>,
    /// What was wrong, and where.
    pub problems: Vec<Problem>,
}

impl Decoded {
    /// Whether everything in the file was understood: only then does an object that is missing in
    /// it count as taken out.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.problems.iter().all(|problem| problem.warning)
    }
}

/// Deepest nesting of lists in lists.
const LIST_DEPTH: usize = 4;

/// Which objects of a file are managed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Labels {
    /// Those whose labels say so, in the mode that they say.
    Choose,
    /// All, as [`Mode::Reconcile`]; labels do not matter.
    Ignored,
}

/// Reads the objects of a file, as their labels choose.
#[must_use]
pub fn decode(bytes: &[u8], format: Format, limits: &Limits) -> Decoded {
    decode_with(bytes, format, limits, Labels::Choose)
}

/// Reads the objects of a file.
#[must_use]
pub fn decode_with(bytes: &[u8], format: Format, limits: &Limits, labels: Labels) -> Decoded {
    let mut out = Decoded::default();
    if bytes.len() > limits.file_bytes {
        out.file_problem(0, format!("{} bytes; at most {} are read", bytes.len(), limits.file_bytes));
        return out;
    }
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            let line = bytes[..error.valid_up_to()].iter().filter(|byte| **byte == b'\n').count() + 1;
            out.file_problem(line, format!("not UTF-8 at byte {}", error.valid_up_to()));
            return out;
        }
    };
    if is_json(text, format) {
        for (index, read) in from_json(text, limits).into_iter().enumerate() {
            let document = index + 1;
            match read {
                Ok((read, line)) => out.document(read, Place { document, line }, limits, labels),
                Err(error) => out.unreadable(error, document, 1),
            }
        }
    } else {
        for (index, piece) in documents(text).into_iter().enumerate() {
            let (document, line) = (index + 1, piece.line);
            if piece.text.len() > limits.document_bytes {
                let message =
                    format!("document of {} bytes; at most {} are read", piece.text.len(), limits.document_bytes);
                out.problems.push(Problem {
                    place: Place { document, line },
                    object: None,
                    field: None,
                    message,
                    warning: false,
                });
                continue;
            }
            match from_yaml(piece.text, limits) {
                Ok(read) => out.document(read, Place { document, line: first_line(piece.text, line) }, limits, labels),
                Err(error) => out.unreadable(error, document, line),
            }
        }
    }
    out
}

/// The first document of a file as a value, `None` if there is none, and warnings about it.
///
/// # Errors
/// When it cannot be read, or is larger than the limits.
pub fn first_document(bytes: &[u8], format: Format, limits: &Limits) -> Result<(Option<Value>, Vec<Problem>), Problem> {
    let mut out = Decoded::default();
    let fault = |place: Place, field: Option<String>, message: String| {
        Err(Problem { place, object: None, field, message, warning: false })
    };
    if bytes.len() > limits.file_bytes {
        let message = format!("{} bytes; at most {} are read", bytes.len(), limits.file_bytes);
        return fault(Place::default(), None, message);
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return fault(Place::default(), None, "not UTF-8".to_owned()) };
    let (read, line) = if is_json(text, format) {
        match from_json(text, limits).into_iter().next() {
            Some(Ok((read, line))) => (Ok(read), line),
            Some(Err(error)) => (Err(error), 1),
            None => return Ok((None, Vec::new())),
        }
    } else {
        let pieces = documents(text);
        let Some(piece) = pieces.first() else { return Ok((None, Vec::new())) };
        if piece.text.len() > limits.document_bytes {
            let message = format!("document of {} bytes; at most {} are read", piece.text.len(), limits.document_bytes);
            return fault(Place { document: 1, line: piece.line }, None, message);
        }
        (from_yaml(piece.text, limits), piece.line)
    };
    match read {
        Ok(read) => {
            out.repeated(&read.repeated, Place { document: 1, line });
            Ok((Some(read.value), out.problems))
        }
        Err(error) => {
            out.unreadable(error, 1, line);
            Err(out.problems.remove(0))
        }
    }
}

/// kubectl takes JSON by its first character, whatever the file is called.
fn is_json(text: &str, format: Format) -> bool {
    let looks_like_json = text.trim_start_matches('\u{feff}').trim_start().starts_with('{');
    format == Format::Json || (looks_like_json && serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok())
}

/// The line of the first text of a document that begins at `line`.
fn first_line(text: &str, line: usize) -> usize {
    let blank = |text: &str| text.trim().is_empty() || text.trim_start().starts_with('#');
    line + text.lines().take_while(|text| blank(text)).count()
}

impl Decoded {
    fn file_problem(&mut self, line: usize, message: String) {
        self.problems.push(Problem {
            place: Place { document: 0, line },
            object: None,
            field: None,
            message,
            warning: false,
        });
    }

    fn unreadable(&mut self, error: ReadError, document: usize, first: usize) {
        let line = if error.line == 0 { first } else { first + error.line - 1 };
        let place = Place { document, line };
        self.problems.push(Problem { place, object: None, field: error.field, message: error.message, warning: false });
    }

    fn repeated(&mut self, paths: &[String], place: Place) {
        for path in paths {
            let message = "the key stands twice; its last value counts".to_owned();
            self.problems.push(Problem { place, object: None, field: Some(path.clone()), message, warning: true });
        }
    }

    fn document(&mut self, read: Read, place: Place, limits: &Limits, labels: Labels) {
        self.repeated(&read.repeated, place);
        self.object(read.value, place, limits, labels, 0);
    }

    fn object(&mut self, value: Value, place: Place, limits: &Limits, labels: Labels, depth: usize) {
        let Value::Object(mut body) = value else {
            if !value.is_null() {
                let message = "not an object: a manifest is a mapping with apiVersion, kind and metadata".to_owned();
                self.problems.push(Problem { place, object: None, field: None, message, warning: false });
            }
            return;
        };
        let is_list = body.get("kind").and_then(Value::as_str).is_some_and(|kind| kind.ends_with("List"));
        if is_list && body.get("items").is_some_and(Value::is_array) {
            if depth >= LIST_DEPTH {
                let message = format!("lists nested deeper than {LIST_DEPTH}");
                self.problems.push(Problem {
                    place,
                    object: None,
                    field: Some("items".into()),
                    message,
                    warning: false,
                });
            } else if let Some(Value::Array(items)) = body.remove("items") {
                for item in items {
                    self.object(item, place, limits, labels, depth + 1);
                }
            }
            return;
        }
        let name = describe(&body);
        let chosen = |(desired, mode)| match labels {
            Labels::Choose => (desired, mode),
            Labels::Ignored => (desired, Some(Mode::Reconcile)),
        };
        match read_object(body, place).map(chosen) {
            Ok((desired, Some(_))) if self.objects.len() >= limits.objects => {
                let message = format!("more than {} objects in one file; split it", limits.objects);
                self.problems.push(Problem {
                    place,
                    object: Some(describe_ident(&desired.ident)),
                    field: None,
                    message,
                    warning: false,
                });
            }
            Ok((mut desired, Some(mode))) => {
                desired.mode = mode;
                self.objects.push(desired);
            }
            Ok((desired, None)) => self.skipped.push(desired.ident),
            Err((field, message)) => {
                self.problems.push(Problem {
                    place,
                    object: name,
                    field: Some(field.to_owned()),
                    message,
                    warning: false,
                });
            }
        }
    }
}

/// A field and what is wrong with it.
pub(in crate::addon) type Fault = (&'static str, String);

/// `Deployment a/b`, as far as the body tells.
fn describe(body: &Map<String, Value>) -> Option<String> {
    let kind = body.get("kind")?.as_str()?;
    let text = |field: &str| body.get("metadata").and_then(|metadata| metadata.get(field)).and_then(Value::as_str);
    Some(match (text("namespace"), text("name")) {
        (Some(namespace), Some(name)) => format!("{kind} {namespace}/{name}"),
        (None, Some(name)) => format!("{kind} {name}"),
        (_, None) => kind.to_owned(),
    })
}

fn describe_ident(ident: &Ident) -> String {
    if ident.namespace.is_empty() {
        format!("{} {}", ident.kind.kind, ident.name)
    } else {
        format!("{} {}/{}", ident.kind.kind, ident.namespace, ident.name)
    }
}

/// The object and its mode; no mode means that it is not to be managed.
pub(in crate::addon) fn read_object(body: Map<String, Value>, place: Place) -> Result<(Desired, Option<Mode>), Fault> {
    let api_version = text(&body, "apiVersion", "apiVersion")?;
    let kind = text(&body, "kind", "kind")?;
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let dns = |text: &str| {
        text.split('.').all(|label| {
            !label.is_empty() && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        })
    };
    if !(group.is_empty() || dns(group)) || api_version.starts_with('/') || !dns(version) || version.contains('.') {
        return Err(("apiVersion", format!("{api_version:?} is not a version or group/version")));
    }
    if !kind.bytes().all(|b| b.is_ascii_alphanumeric()) || kind.is_empty() {
        return Err(("kind", format!("{kind:?} is not a kind")));
    }
    let metadata = match body.get("metadata") {
        Some(Value::Object(metadata)) => metadata,
        Some(_) => return Err(("metadata", "not a mapping".into())),
        None => return Err(("metadata", "missing".into())),
    };
    if !metadata.contains_key("name") && metadata.contains_key("generateName") {
        return Err((
            "metadata.generateName",
            "an addon's object needs a name: a generated one would be made anew each time".into(),
        ));
    }
    let name = text(metadata, "name", "metadata.name")?;
    check_segment(name).map_err(|message| ("metadata.name", message))?;
    let namespace =
        if metadata.contains_key("namespace") { text(metadata, "namespace", "metadata.namespace")? } else { "" };
    if !namespace.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') || namespace.len() > 63 {
        return Err(("metadata.namespace", format!("{namespace:?} is not a namespace's name")));
    }
    check_texts(metadata, "annotations", "metadata.annotations")?;
    let mode = match check_texts(metadata, "labels", "metadata.labels")? {
        Some(labels) if labels.contains_key(PART_OF_LABEL) => {
            return Err((
                "metadata.labels",
                format!("{PART_OF_LABEL} says that the object belongs to another set; take it out"),
            ));
        }
        Some(labels) => mode(labels),
        None => None,
    };
    let ident = Ident::new(GroupKind::new(group, kind), namespace, name);
    let version: Arc<str> = version.into();
    let desired = Desired {
        ident,
        version,
        mode: mode.unwrap_or(Mode::Reconcile),
        body: Body::new(&Value::Object(strip(body))),
        place,
    };
    Ok((desired, mode))
}

/// Takes out what only a server may set, so that a manifest made with `kubectl get -o yaml` works.
fn strip(mut body: Map<String, Value>) -> Map<String, Value> {
    if let Some(Value::Object(metadata)) = body.get_mut("metadata") {
        for field in [
            "managedFields",
            "resourceVersion",
            "uid",
            "creationTimestamp",
            "generation",
            "selfLink",
            "deletionTimestamp",
            "deletionGracePeriodSeconds",
        ] {
            metadata.remove(field);
        }
        if let Some(Value::Object(annotations)) = metadata.get_mut("annotations") {
            annotations.remove(LAST_APPLIED);
        }
    }
    body
}

/// kubectl's copy of what it applied, in an annotation.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Upstream's selectors (`kubernetes:cluster/addons/addon-manager/kube-addons.sh`): `EnsureExists`
/// first, then the older label, then `Reconcile`.
fn mode(labels: &Map<String, Value>) -> Option<Mode> {
    let label = |name: &str| labels.get(name).and_then(Value::as_str);
    match label(MODE_LABEL) {
        Some("EnsureExists") => Some(Mode::EnsureExists),
        Some("Reconcile") => Some(Mode::Reconcile),
        _ if label(LEGACY_LABEL) == Some("true") => Some(Mode::Reconcile),
        _ => None,
    }
}

fn text<'a>(body: &'a Map<String, Value>, field: &str, path: &'static str) -> Result<&'a str, Fault> {
    match body.get(field) {
        Some(Value::String(text)) if !text.is_empty() => Ok(text),
        Some(Value::String(_)) => Err((path, "empty".into())),
        Some(other) => Err((path, format!("{other} is not text; quote it"))),
        None => Err((path, "missing".into())),
    }
}

fn check_texts<'a>(
    metadata: &'a Map<String, Value>,
    field: &str,
    path: &'static str,
) -> Result<Option<&'a Map<String, Value>>, Fault> {
    match metadata.get(field) {
        None => Ok(None),
        Some(Value::Object(pairs)) => match pairs.iter().find(|(_, value)| !value.is_string()) {
            Some((key, value)) => Err((path, format!("{key}: {value} is not text; quote it"))),
            None => Ok(Some(pairs)),
        },
        Some(_) => Err((path, "not a mapping".into())),
    }
}

/// A name becomes a part of a request's path: nothing in it may change the path.
fn check_segment(name: &str) -> Result<(), String> {
    let fine = |b: u8| b.is_ascii_graphic() && !matches!(b, b'/' | b'%' | b'?' | b'#' | b'\\');
    if name == "." || name == ".." || name.len() > 253 || !name.bytes().all(fine) {
        return Err(format!("{name:?} is not an object's name"));
    }
    Ok(())
}

#[cfg(test)]
#[path = "decode_tests.rs"]
mod tests;
