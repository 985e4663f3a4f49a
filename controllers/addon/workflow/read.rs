//! Reading a template field by field: what is read is known, everything else is refused by path.

use std::cell::RefCell;
use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::Refusal;

/// Where refusals are collected.
#[derive(Debug, Default)]
pub(super) struct Sink(RefCell<Vec<Refusal>>);

impl Sink {
    pub(super) fn refuse(&self, field_path: impl Into<String>, reason: impl Into<String>) {
        self.0.borrow_mut().push(Refusal::new(field_path, reason));
    }

    pub(super) fn extend(&self, refusals: Vec<Refusal>) {
        self.0.borrow_mut().extend(refusals);
    }

    /// All refusals, each once, the first `limit` of them.
    pub(super) fn into_refusals(self, limit: usize) -> Vec<Refusal> {
        let mut seen = BTreeSet::new();
        let mut all = self.0.into_inner();
        all.retain(|refusal| seen.insert(refusal.clone()));
        all.truncate(limit);
        all
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.borrow().is_empty()
    }
}

/// A field and where it stands.
#[derive(Clone, Debug)]
pub(super) struct At<'v> {
    pub(super) value: &'v Value,
    pub(super) path: String,
}

impl At<'_> {
    /// The text of a scalar; numbers and booleans as JSON writes them.
    pub(super) fn scalar(&self, sink: &Sink) -> Option<String> {
        match self.value {
            Value::String(text) => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            Value::Bool(flag) => Some(flag.to_string()),
            _ => {
                sink.refuse(&*self.path, "not a single value");
                None
            }
        }
    }

    /// The text of a scalar that is no truth value: `y`, `no` and `on` are one to YAML, and were hardly
    /// meant to be.
    pub(super) fn word(&self, sink: &Sink) -> Option<String> {
        if self.value.is_boolean() {
            sink.refuse(&*self.path, "a truth value to YAML; quote it");
            return None;
        }
        self.scalar(sink)
    }

    /// The items of a list.
    pub(super) fn items(&self, sink: &Sink) -> Vec<Self> {
        match self.value {
            Value::Array(items) => {
                let item = |(index, value)| At { value, path: format!("{}[{index}]", self.path) };
                items.iter().enumerate().map(item).collect()
            }
            _ => {
                sink.refuse(&*self.path, "not a list");
                Vec::new()
            }
        }
    }
}

/// The fields of a map. Dropped by [`Fields::finish`], which refuses what was not read.
pub(super) struct Fields<'v, 's> {
    map: &'v Map<String, Value>,
    pub(super) path: String,
    read: BTreeSet<&'static str>,
    pub(super) sink: &'s Sink,
}

impl<'v, 's> Fields<'v, 's> {
    pub(super) fn new(at: &At<'v>, sink: &'s Sink) -> Option<Self> {
        match at.value {
            Value::Object(map) => Some(Self { map, path: at.path.clone(), read: BTreeSet::new(), sink }),
            _ => {
                sink.refuse(&*at.path, "not a map");
                None
            }
        }
    }

    /// The path of one of its fields.
    pub(super) fn path_of(&self, field: &str) -> String {
        if self.path.is_empty() { field.to_owned() } else { format!("{}.{field}", self.path) }
    }

    pub(super) fn get(&mut self, field: &'static str) -> Option<At<'v>> {
        self.read.insert(field);
        self.map.get(field).map(|value| At { value, path: self.path_of(field) })
    }

    /// A truth value; false if it is not there.
    pub(super) fn flag(&mut self, field: &'static str) -> bool {
        match self.get(field).map(|at| (at.value, at.path)) {
            None => false,
            Some((Value::Bool(flag), _)) => *flag,
            Some((_, path)) => {
                self.sink.refuse(path, "not a truth value");
                false
            }
        }
    }

    /// A scalar as text.
    pub(super) fn text(&mut self, field: &'static str) -> Option<String> {
        self.get(field)?.scalar(self.sink)
    }

    /// Text that must be there.
    pub(super) fn required(&mut self, field: &'static str) -> Option<String> {
        match self.get(field) {
            Some(at) if matches!(field, "name" | "template") => at.word(self.sink),
            Some(at) => at.scalar(self.sink),
            None => {
                self.sink.refuse(self.path_of(field), "missing");
                None
            }
        }
    }

    /// The items of a list; none if it is not there.
    pub(super) fn items(&mut self, field: &'static str) -> Vec<At<'v>> {
        self.get(field).map(|at| at.items(self.sink)).unwrap_or_default()
    }

    /// A list of scalars.
    pub(super) fn texts(&mut self, field: &'static str) -> Vec<(String, String)> {
        let sink = self.sink;
        self.items(field).into_iter().filter_map(|at| Some((at.word(sink)?, at.path))).collect()
    }

    /// A map below this one.
    pub(super) fn fields(&mut self, field: &'static str) -> Option<Self> {
        let at = self.get(field)?;
        Fields::new(&at, self.sink)
    }

    /// Fields that are taken and have no effect here.
    pub(super) fn without_effect(&mut self, fields: &'static [&'static str]) {
        self.read.extend(fields);
    }

    /// Fields that are known and not done natively, and why.
    pub(super) fn refused(&mut self, fields: &'static [(&'static str, &'static str)]) {
        for (field, reason) in fields {
            if self.get(field).is_some() {
                self.sink.refuse(self.path_of(field), *reason);
            }
        }
    }

    /// Refuses every field that was not read.
    pub(super) fn finish(self) {
        for field in self.map.keys().filter(|field| !self.read.contains(field.as_str())) {
            self.sink.refuse(self.path_of(field), "not in the grammar of templates that run natively");
        }
    }
}
