//! Reading the fields of a JSON value, with the path of whatever is wrong.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::Problem;

/// A mapping and where it stands.
pub(super) struct Fields<'a> {
    pub(super) path: String,
    map: &'a Map<String, Value>,
}

impl<'a> Fields<'a> {
    pub(super) fn new(path: impl Into<String>, value: &'a Value) -> Result<Self, Problem> {
        let path = path.into();
        match value.as_object() {
            Some(map) => Ok(Self { path, map }),
            None => Err(Problem::error(path, format!("{} is not a mapping", shown(value)))),
        }
    }

    pub(super) fn at(&self, field: &str) -> String {
        if self.path.is_empty() { field.to_owned() } else { format!("{}.{field}", self.path) }
    }

    /// A field that is not null; like Go's decoder it is found in any case if not in the right one.
    pub(super) fn get(&self, field: &str) -> Option<&'a Value> {
        let anyhow = || self.map.iter().find(|(name, _)| name.eq_ignore_ascii_case(field)).map(|(_, value)| value);
        self.map.get(field).or_else(anyhow).filter(|value| !value.is_null())
    }

    pub(super) fn mapping(&self, field: &str) -> Result<Option<Fields<'a>>, Problem> {
        self.get(field).map(|value| Fields::new(self.at(field), value)).transpose()
    }

    pub(super) fn list(&self, field: &str) -> Result<&'a [Value], Problem> {
        match self.get(field) {
            None => Ok(&[]),
            Some(Value::Array(items)) => Ok(items),
            Some(other) => Err(Problem::error(self.at(field), format!("{} is not a list", shown(other)))),
        }
    }

    /// Text; absent and empty are the same, as they are to kOps.
    pub(super) fn text(&self, field: &str) -> Result<Option<&'a str>, Problem> {
        match self.get(field) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.as_str()).filter(|text| !text.is_empty())),
            Some(other) => Err(Problem::error(self.at(field), format!("{} is not text; quote it", shown(other)))),
        }
    }

    pub(super) fn flag(&self, field: &str) -> Result<bool, Problem> {
        match self.get(field) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(other) => Err(Problem::error(self.at(field), format!("{} is neither true nor false", shown(other)))),
        }
    }

    pub(super) fn texts(&self, field: &str) -> Result<Vec<String>, Problem> {
        let text = |(index, item): (usize, &Value)| match item {
            Value::String(text) => Ok(text.clone()),
            other => Err(Problem::error(
                format!("{}[{index}]", self.at(field)),
                format!("{} is not text; quote it", shown(other)),
            )),
        };
        self.list(field)?.iter().enumerate().map(text).collect()
    }

    pub(super) fn labels(&self, field: &str) -> Result<BTreeMap<String, String>, Problem> {
        let Some(labels) = self.mapping(field)? else { return Ok(BTreeMap::new()) };
        let label = |(name, value): (&String, &Value)| match value {
            Value::String(text) => Ok((name.clone(), text.clone())),
            other => Err(Problem::error(labels.at(name), format!("{} is not text; quote it", shown(other)))),
        };
        labels.map.iter().map(label).collect()
    }

    /// A warning for each field that is none of these.
    pub(super) fn unknown(&self, known: &[&str]) -> Vec<Problem> {
        let unknown = |name: &&String| !known.iter().any(|known| known.eq_ignore_ascii_case(name));
        let warn = |name: &String| Problem::warning(self.at(name), "there is no such field; it is passed over");
        self.map.keys().filter(unknown).take(MOST_WARNINGS).map(warn).collect()
    }
}

/// Unknown fields of one mapping that are named.
const MOST_WARNINGS: usize = 8;

/// A value in a message.
fn shown(value: &Value) -> String {
    const LONGEST: usize = 60;
    match value {
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "a mapping".to_owned(),
        Value::Null => "null".to_owned(),
        other => {
            let text = other.to_string();
            match text.char_indices().nth(LONGEST) {
                Some((end, _)) => format!("{}…", &text[..end]),
                None => text,
            }
        }
    }
}
