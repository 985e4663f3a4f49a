//! `/statusz` and `/flagz`: what a person looks at first, as text or as JSON.

use std::collections::BTreeMap;
use std::fmt;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::{HeaderMap, StatusCode, header};
use jiff::Timestamp;
use quarterdeck_api::status::{Status, Statusz};
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::Error as _;
use serde_json::value::RawValue;

use super::respond::{Answer, JSON, answer, json, text};

/// The note under the title, as upstream's pages carry it.
const NOTE: &str = "Warning: This page is for people. Its text may change; programs should ask for application/json.";

/// What runs.
#[derive(Clone, Debug)]
pub struct Component {
    /// Name of the program.
    pub name: String,
    /// Its version.
    pub version: String,
    /// When the process started.
    pub started: SystemTime,
}

/// Gives the status of the moment, as JSON text with its fields in order.
#[derive(Clone)]
pub struct StatusSource(Arc<dyn Fn() -> Result<Box<RawValue>, serde_json::Error> + Send + Sync>);

impl StatusSource {
    /// A source that serialises what `status` returns. Fields are shown in their order.
    pub fn new<T: serde::Serialize>(status: impl Fn() -> T + Send + Sync + 'static) -> Self {
        Self(Arc::new(move || serde_json::value::to_raw_value(&status())))
    }
}

impl fmt::Debug for StatusSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StatusSource")
    }
}

/// What a client wants to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Text,
    Json,
}

/// The first form in the Accept header that we have; none for a header that wants something else.
fn form(headers: &HeaderMap) -> Option<Form> {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if accept.trim().is_empty() {
        return Some(Form::Text);
    }
    accept.split(',').find_map(|range| match range.split(';').next().unwrap_or_default().trim() {
        "text/plain" | "text/*" | "*/*" => Some(Form::Text),
        "application/json" | "application/*" => Some(Form::Json),
        _ => None,
    })
}

fn not_acceptable() -> Answer {
    text(StatusCode::NOT_ACCEPTABLE, "only text/plain and application/json are served here\n")
}

/// What `/statusz` and the status page tell, around a status of either form.
fn around<S>(component: &Component, paths: &[&str], status: S) -> Statusz<S> {
    let started = Timestamp::try_from(component.started).unwrap_or_default();
    Statusz {
        kind: "Statusz".to_owned(),
        api_version: "config.k8s.io/v1beta1".to_owned(),
        metadata: BTreeMap::from([("name".to_owned(), component.name.clone())]),
        start_time: format!("{started:.0}"),
        uptime_seconds: component.started.elapsed().unwrap_or_default().as_secs(),
        binary_version: component.version.clone(),
        paths: paths.iter().map(|path| (*path).to_owned()).collect(),
        status,
    }
}

fn no_status(error: &serde_json::Error) -> Answer {
    text(StatusCode::INTERNAL_SERVER_ERROR, format!("no status: {error}\n"))
}

/// Answers `/status`: the same as a page for people. It is read as any client reads it.
pub(crate) fn page(component: &Component, paths: &[&str], source: &StatusSource, query: &str) -> Answer {
    match source.0().and_then(|status| serde_json::from_str::<Status>(status.get())) {
        Ok(status) => crate::page::page(&around(component, paths, status), query),
        Err(error) => no_status(&error),
    }
}

/// Answers `/statusz`.
pub(crate) fn statusz(component: &Component, paths: &[&str], source: &StatusSource, headers: &HeaderMap) -> Answer {
    let Some(form) = form(headers) else { return not_acceptable() };
    let status = match source.0() {
        Ok(status) => status,
        Err(error) => return no_status(&error),
    };
    let told = around(component, paths, &status);
    if form == Form::Json {
        return json(StatusCode::OK, &told);
    }
    let mut page = format!("\n{} statusz\n{NOTE}\n\n", component.name);
    write!(
        page,
        "Started: {}\nUp: {}\nBinary version: {}\nPaths: {}\n\n",
        told.start_time,
        clock(Duration::from_secs(told.uptime_seconds)),
        component.version,
        paths.join(" ")
    )
    .expect("writing to a String cannot fail");
    match serde_json::from_str::<Node>(status.get()) {
        Ok(node) => node.render(0, &mut page),
        Err(error) => writeln!(page, "no status: {error}").expect("writing to a String cannot fail"),
    }
    text(StatusCode::OK, page)
}

/// Answers `/flagz`.
pub(crate) fn flagz(component: &Component, flags: &BTreeMap<String, String>, headers: &HeaderMap) -> Answer {
    match form(headers) {
        None => not_acceptable(),
        Some(Form::Text) => {
            let mut page = format!("\n{} flagz\n{NOTE}\n\n", component.name);
            for (name, value) in flags {
                writeln!(page, "{name}={value}").expect("writing to a String cannot fail");
            }
            text(StatusCode::OK, page)
        }
        Some(Form::Json) => {
            let object = serde_json::json!({
                "kind": "Flagz",
                "apiVersion": "config.k8s.io/v1beta1",
                "metadata": {"name": component.name},
                "flags": flags,
            });
            answer(StatusCode::OK, JSON, object.to_string())
        }
    }
}

/// Hours, minutes and seconds.
fn clock(uptime: Duration) -> String {
    let seconds = uptime.as_secs();
    format!("{} hr {:02} min {:02} sec", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

/// A JSON value that keeps the order of its fields.
#[derive(Debug)]
enum Node {
    Scalar(String),
    List(Vec<Node>),
    Object(Vec<(String, Node)>),
}

impl Node {
    fn scalar(&self) -> Option<&str> {
        match self {
            Self::Scalar(text) => Some(text),
            _ => None,
        }
    }

    /// Scalars on one line, or `None` if there is something else within.
    fn inline(&self) -> Option<String> {
        match self {
            Self::Scalar(text) => Some(text.clone()),
            Self::List(items) if !items.is_empty() => {
                Some(items.iter().map(Self::scalar).collect::<Option<Vec<_>>>()?.join(", "))
            }
            Self::List(_) => Some("none".into()),
            Self::Object(fields) if fields.is_empty() => Some("none".into()),
            Self::Object(_) => None,
        }
    }

    fn render(&self, indent: usize, page: &mut String) {
        match self {
            Self::Object(fields) => {
                for (name, value) in fields {
                    let line = match value.inline() {
                        Some(text) => format!("{:indent$}{}: {text}", "", title(name)),
                        None => format!("{:indent$}{}:", "", title(name)),
                    };
                    writeln!(page, "{line}").expect("writing to a String cannot fail");
                    if value.inline().is_none() {
                        value.render(indent + 2, page);
                    }
                }
            }
            Self::List(items) => match table(items) {
                Some(rows) => {
                    for row in rows {
                        writeln!(page, "{:indent$}{row}", "").expect("writing to a String cannot fail");
                    }
                }
                None => {
                    for item in items {
                        let line = item.inline().map_or_else(|| "-".to_owned(), |text| format!("- {text}"));
                        writeln!(page, "{:indent$}{line}", "").expect("writing to a String cannot fail");
                        if item.inline().is_none() {
                            item.render(indent + 2, page);
                        }
                    }
                }
            },
            Self::Scalar(text) => writeln!(page, "{:indent$}{text}", "").expect("writing to a String cannot fail"),
        }
    }
}

/// A field's name for people: `oldestKeySeconds` and `oldest_key_seconds` both as `Oldest key seconds`.
fn title(name: &str) -> String {
    let mut text = String::new();
    for letter in name.chars() {
        match letter {
            '_' => text.push(' '),
            upper if upper.is_ascii_uppercase() && !text.is_empty() => {
                text.push(' ');
                text.push(upper.to_ascii_lowercase());
            }
            other if text.is_empty() => text.extend(other.to_uppercase()),
            other => text.push(other),
        }
    }
    text
}

/// Objects of scalars as the lines of a table, with a line of titles; `None` if they are not that.
fn table(items: &[Node]) -> Option<Vec<String>> {
    let mut columns: Vec<&str> = Vec::new();
    let mut rows: Vec<BTreeMap<&str, String>> = Vec::new();
    for item in items {
        let Node::Object(fields) = item else { return None };
        let mut row = BTreeMap::new();
        for (name, value) in fields {
            if !columns.contains(&name.as_str()) {
                columns.push(name);
            }
            row.insert(name.as_str(), value.inline()?);
        }
        rows.push(row);
    }
    let titles = columns.iter().map(|name| (*name, title(name).to_uppercase())).collect();
    rows.insert(0, titles);
    let width = |column: &&str| rows.iter().map(|row| row.get(*column).map_or(0, |c| c.chars().count())).max();
    let widths: Vec<usize> = columns.iter().map(|column| width(column).unwrap_or(0)).collect();
    let line = |row: &BTreeMap<&str, String>| {
        let cells = columns.iter().zip(&widths).map(|(column, width)| {
            let cell = row.get(column).map_or("", String::as_str);
            format!("{cell:width$}")
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    Some(rows.iter().map(line).collect())
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Node;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("JSON")
            }
            fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
                Ok(Node::Scalar(if value { "yes" } else { "no" }.into()))
            }
            fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
                Ok(Node::Scalar(value.to_string()))
            }
            fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
                Ok(Node::Scalar(value.to_string()))
            }
            fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
                Ok(Node::Scalar(format!("{value:.3}").trim_end_matches('0').trim_end_matches('.').to_owned()))
            }
            fn visit_str<E>(self, value: &str) -> Result<Node, E> {
                // One field, one line: nothing that is shown can pass for another field.
                Ok(Node::Scalar(value.replace(|c: char| c.is_control(), " ")))
            }
            fn visit_unit<E>(self) -> Result<Node, E> {
                Ok(Node::Scalar("-".into()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Node, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = seq.next_element()? {
                    items.push(item);
                }
                Ok(Node::List(items))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Node::Object(fields))
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

/// A source that has nothing to say, for programs without a status of their own.
impl Default for StatusSource {
    fn default() -> Self {
        Self(Arc::new(|| RawValue::from_string("{}".to_owned()).map_err(serde_json::Error::custom)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(serde::Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Queue {
        name: &'static str,
        depth: u32,
        oldest_key: Option<&'static str>,
        waited_seconds: f64,
    }

    #[derive(serde::Serialize)]
    struct Sample {
        leader: &'static str,
        is_me: bool,
        queues: Vec<Queue>,
        controllers: BTreeMap<&'static str, &'static str>,
        nothing: Vec<u8>,
        nested: Vec<Vec<u8>>,
    }

    #[test]
    fn text_keeps_the_order_and_makes_tables() {
        let sample = Sample {
            leader: "one\nfake: line",
            is_me: true,
            queues: vec![
                Queue { name: "endpoint_slice", depth: 12, oldest_key: Some("a/b"), waited_seconds: 0.25 },
                Queue { name: "ns", depth: 0, oldest_key: None, waited_seconds: 3.0 },
            ],
            controllers: BTreeMap::from([("endpointslice-controller", "running")]),
            nothing: vec![],
            nested: vec![vec![1, 2]],
        };
        let mut page = String::new();
        serde_json::from_str::<Node>(&serde_json::to_string(&sample).unwrap()).unwrap().render(0, &mut page);
        assert_eq!(
            page,
            "Leader: one fake: line\n\
             Is me: yes\n\
             Queues:\n  \
               NAME            DEPTH  OLDEST KEY  WAITED SECONDS\n  \
               endpoint_slice  12     a/b         0.25\n  \
               ns              0      -           3\n\
             Controllers:\n  \
               Endpointslice-controller: running\n\
             Nothing: none\n\
             Nested:\n  \
               - 1, 2\n"
        );
    }

    #[test]
    fn the_accept_header_chooses() {
        let cases = [
            ("", Some(Form::Text)),
            ("*/*", Some(Form::Text)),
            ("application/json", Some(Form::Json)),
            ("application/json;as=Statusz;g=config.k8s.io;v=v1beta1", Some(Form::Json)),
            ("text/html, application/json;q=0.9, */*", Some(Form::Json)),
            ("application/yaml", None),
        ];
        for (accept, expected) in cases {
            let headers = HeaderMap::from_iter([(header::ACCEPT, accept.parse().unwrap())]);
            assert_eq!(form(&headers), expected, "{accept}");
        }
        assert_eq!(form(&HeaderMap::new()), Some(Form::Text));
    }
}
