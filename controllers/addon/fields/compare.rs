//! Comparing a live object with what a file wants, without a schema: the fields that the server
//! says we own tell which lists merge by key and which count as a whole.
//!
//! A server may keep a value in another spelling (`1000m` as `1`, `stringData` as `data`), so a
//! difference found here only means that an apply has to settle it. After an apply the
//! [`fingerprint`] of what the server made of our fields is the reference.

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::set::{FieldSet, step};

/// Most differences that are told.
const TOLD: usize = 5;

/// Where a live object does not show what is wanted: paths of fields that differ, are missing, are
/// wanted but not ours, or are ours but no longer wanted. At most a few.
#[must_use]
pub fn differences(wanted: &Value, live: &Value, ours: &FieldSet) -> Vec<String> {
    let mut found = Found::default();
    found.compare(wanted, live, ours);
    found.paths
}

#[derive(Default)]
struct Found {
    path: Vec<String>,
    paths: Vec<String>,
}

impl Found {
    fn note(&mut self) {
        if self.paths.len() < TOLD {
            self.paths.push(self.path.concat().trim_start_matches('.').to_owned());
        }
    }

    fn below(&mut self, step: String, look: impl FnOnce(&mut Self)) {
        self.path.push(step);
        look(self);
        self.path.pop();
    }

    fn compare(&mut self, wanted: &Value, live: &Value, ours: &FieldSet) {
        match (wanted, live) {
            (Value::Object(fields), Value::Object(live_fields)) if !ours.is_leaf() || self.path.is_empty() => {
                for (name, wanted) in fields {
                    if self.is_identity(name) {
                        continue;
                    }
                    self.below(format!(".{name}"), |found| match (live_fields.get(name), ours.field(name)) {
                        (Some(live), Some(ours)) => found.compare(wanted, live, ours),
                        // `metadata` and its like hold nothing of their own.
                        (Some(_), None) if is_hollow(wanted) => {}
                        (None, None) if is_hollow(wanted) => {}
                        _ => found.note(),
                    });
                }
                for (element, child) in &ours.children {
                    let name = element.strip_prefix("f:").unwrap_or(element);
                    if !fields.contains_key(name) && !child.is_empty() {
                        self.below(format!(".{name}"), Self::note);
                    }
                }
            }
            (Value::Array(items), Value::Array(_)) if !ours.is_leaf() => self.compare_items(items, live, ours),
            _ if is_within(wanted, live) => {}
            _ => self.note(),
        }
    }

    fn compare_items(&mut self, items: &[Value], live: &Value, ours: &FieldSet) {
        let mut matched = vec![false; ours.children.len()];
        for (index, wanted) in items.iter().enumerate() {
            let element = ours
                .children
                .iter()
                .enumerate()
                .find(|(at, (element, _))| !matched[*at] && names(element, wanted, index));
            match element.and_then(|(at, (element, child))| step(live, element).map(|live| (at, live, child))) {
                Some((at, live, child)) => {
                    matched[at] = true;
                    self.below(format!("[{index}]"), |found| found.compare(wanted, live, child));
                }
                None => self.below(format!("[{index}]"), Self::note),
            }
        }
        for ((element, child), matched) in ours.children.iter().zip(matched) {
            if !matched && !child.is_empty() {
                self.below(format!("[{}]", element.get(2..).unwrap_or_default()), Self::note);
            }
        }
    }

    /// What names an object is in no set of fields.
    fn is_identity(&self, name: &str) -> bool {
        match self.path.as_slice() {
            [] => matches!(name, "apiVersion" | "kind"),
            [only] => only == ".metadata" && matches!(name, "name" | "namespace"),
            _ => false,
        }
    }
}

/// A mapping that, without its identity, holds nothing.
fn is_hollow(value: &Value) -> bool {
    value.as_object().is_some_and(|fields| {
        fields.iter().all(|(name, value)| matches!(name.as_str(), "name" | "namespace") || is_hollow(value))
    }) && !value.as_object().is_some_and(|fields| fields.contains_key("name") && fields.len() > 2)
}

/// Whether an element names an item as it is written. A key that is not written takes its default
/// (a port's protocol), so only the written ones are compared.
fn names(element: &str, wanted: &Value, index: usize) -> bool {
    let Some((form, text)) = element.split_at_checked(2) else { return false };
    match form {
        "k:" => {
            let keys: Option<serde_json::Map<String, Value>> = serde_json::from_str(text).ok();
            keys.is_some_and(|keys| {
                keys.iter().all(|(key, value)| wanted.get(key).is_none_or(|wanted| wanted == value))
            })
        }
        "v:" => serde_json::from_str::<Value>(text).is_ok_and(|value| value == *wanted),
        "i:" => text.parse() == Ok(index),
        _ => false,
    }
}

/// Whether everything written is there; what a server adds to a mapping (defaults) is no
/// difference.
#[must_use]
pub fn is_within(wanted: &Value, live: &Value) -> bool {
    match (wanted, live) {
        (Value::Object(wanted), Value::Object(live)) => {
            wanted.iter().all(|(name, wanted)| live.get(name).is_some_and(|live| is_within(wanted, live)))
        }
        (Value::Array(wanted), Value::Array(live)) => {
            wanted.len() == live.len() && wanted.iter().zip(live).all(|(wanted, live)| is_within(wanted, live))
        }
        _ => wanted == live,
    }
}

/// A hash of the fields of `set` and their live values; any change of either changes it.
#[must_use]
pub fn fingerprint(live: &Value, set: &FieldSet) -> [u8; 32] {
    let mut hasher = Sha256::new();
    hash(Some(live), set, &mut hasher);
    hasher.finalize().into()
}

fn hash(live: Option<&Value>, set: &FieldSet, hasher: &mut Sha256) {
    match live {
        None => hasher.update(b"-"),
        Some(live) if set.is_leaf() => hash_value(live, hasher),
        Some(live) => {
            for (element, child) in &set.children {
                hash_text(element, hasher);
                hash(step(live, element), child, hasher);
            }
            hasher.update(b".");
        }
    }
}

fn hash_value(value: &Value, hasher: &mut Sha256) {
    match value {
        Value::Object(fields) => {
            hasher.update(b"{");
            let mut sorted: Vec<_> = fields.iter().collect();
            sorted.sort_by_key(|(name, _)| *name);
            for (name, value) in sorted {
                hash_text(name, hasher);
                hash_value(value, hasher);
            }
            hasher.update(b"}");
        }
        Value::Array(items) => {
            hasher.update(b"[");
            items.iter().for_each(|item| hash_value(item, hasher));
            hasher.update(b"]");
        }
        other => hash_text(&other.to_string(), hasher),
    }
}

fn hash_text(text: &str, hasher: &mut Sha256) {
    hasher.update(u64::try_from(text.len()).unwrap_or(u64::MAX).to_le_bytes());
    hasher.update(text.as_bytes());
}

/// An object without the leaf fields of a set (lists are left whole).
#[must_use]
pub fn without(mut object: Value, set: &FieldSet) -> Value {
    take_out(&mut object, set);
    object
}

fn take_out(value: &mut Value, set: &FieldSet) {
    let Value::Object(fields) = value else { return };
    for (element, child) in &set.children {
        let Some(name) = element.strip_prefix("f:") else { continue };
        if child.is_leaf() {
            fields.remove(name);
        } else if let Some(below) = fields.get_mut(name) {
            take_out(below, child);
        }
    }
}

#[cfg(test)]
#[path = "compare_tests.rs"]
mod tests;
