//! Sets of fields, in the form `FieldsV1`
//! (`sigs.k8s.io/structured-merge-diff:fieldpath/serialize.go`).

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// A set of fields as a tree. An element is kept in the server's own spelling: `f:name` a field,
/// `k:{"name":"x"}` an item of a list by its keys, `v:"x"` an item of a set by its value, `i:0` an
/// item by its place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSet {
    /// Whether the field itself is in the set.
    pub member: bool,
    /// What is below it.
    pub children: BTreeMap<String, FieldSet>,
}

impl FieldSet {
    /// Reads a `fieldsV1` value. What is not of its form is left out.
    #[must_use]
    pub fn parse(value: &Value) -> Self {
        let mut set = Self::default();
        for (element, below) in value.as_object().into_iter().flatten() {
            if element == "." {
                set.member = true;
            } else if is_element(element) {
                let mut child = Self::parse(below);
                child.member |= child.children.is_empty();
                set.children.insert(element.clone(), child);
            }
        }
        set
    }

    /// Writes it as a `fieldsV1` value.
    #[must_use]
    pub fn to_value(&self) -> Value {
        let mut fields = Map::new();
        if self.member && !self.children.is_empty() {
            fields.insert(".".into(), Value::Object(Map::new()));
        }
        for (element, child) in &self.children {
            fields.insert(element.clone(), child.to_value());
        }
        Value::Object(fields)
    }

    /// Whether nothing is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.member && self.children.values().all(Self::is_empty)
    }

    /// Whether it ends here: the field counts as a whole.
    #[must_use]
    pub fn is_leaf(&self) -> bool {
        self.children.is_empty()
    }

    /// Adds all of another set.
    pub fn add(&mut self, other: &Self) {
        self.member |= other.member;
        for (element, child) in &other.children {
            self.children.entry(element.clone()).or_default().add(child);
        }
    }

    /// Takes the field at `path` out, with all below it and with what is empty without it; whether it was there.
    pub fn take(&mut self, path: &[&str]) -> bool {
        let Some((name, rest)) = path.split_first() else { return false };
        let element = format!("f:{name}");
        if rest.is_empty() {
            return self.children.remove(&element).is_some();
        }
        let Some(child) = self.children.get_mut(&element) else { return false };
        let taken = child.take(rest);
        // Whoever owned a map for this one entry has nothing left in it.
        if taken && child.children.is_empty() {
            self.children.remove(&element);
        }
        taken
    }

    /// A field below, by name.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&Self> {
        self.children.get(&format!("f:{name}"))
    }
}

fn is_element(text: &str) -> bool {
    matches!(text.as_bytes(), [b'f' | b'k' | b'v' | b'i', b':', ..])
}

/// The item of a list that an element names.
pub(super) fn item<'v>(items: &'v [Value], element: &str) -> Option<&'v Value> {
    let (form, text) = element.split_at_checked(2)?;
    match form {
        "k:" => {
            let keys: Map<String, Value> = serde_json::from_str(text).ok()?;
            items.iter().find(|item| keys.iter().all(|(key, value)| item.get(key) == Some(value)))
        }
        "v:" => {
            let value: Value = serde_json::from_str(text).ok()?;
            items.iter().find(|item| **item == value)
        }
        "i:" => items.get(text.parse::<usize>().ok()?),
        _ => None,
    }
}

/// What an element names below a value.
pub(super) fn step<'v>(value: &'v Value, element: &str) -> Option<&'v Value> {
    match value {
        Value::Object(fields) => fields.get(element.strip_prefix("f:")?),
        Value::Array(items) => item(items, element),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_written_is_what_was_read() {
        let value = json!({
            "f:metadata": {"f:labels": {".": {}, "f:a": {}}},
            "f:spec": {"f:ports": {"k:{\"port\":53,\"protocol\":\"UDP\"}": {".": {}, "f:name": {}}}, "f:finalizers": {"v:\"x\"": {}}},
        });
        assert_eq!(FieldSet::parse(&value).to_value(), value);
        assert!(FieldSet::parse(&json!({})).is_empty());
        assert!(FieldSet::parse(&json!({"x": {}, "": {}, "f": 1})).is_empty());
    }

    #[test]
    fn union_holds_both() {
        let mut a = FieldSet::parse(&json!({"f:a": {"f:b": {}}, "f:c": {}}));
        a.add(&FieldSet::parse(&json!({"f:a": {".": {}, "f:d": {}}})));
        assert_eq!(a.to_value(), json!({"f:a": {".": {}, "f:b": {}, "f:d": {}}, "f:c": {}}));
    }

    #[test]
    fn elements_find_items() {
        let list = json!([{"port": 53, "protocol": "TCP", "n": 1}, {"port": 53, "protocol": "UDP", "n": 2}]);
        assert_eq!(step(&list, "k:{\"port\":53,\"protocol\":\"UDP\"}").and_then(|item| item.get("n")), Some(&json!(2)));
        assert_eq!(step(&json!(["a", "b"]), "v:\"b\""), Some(&json!("b")));
        assert_eq!(step(&json!(["a", "b"]), "i:1"), Some(&json!("b")));
        for bad in ["k:{", "v:", "i:x", "i:9", "x", "é", ""] {
            assert_eq!(step(&list, bad), None, "{bad}");
        }
    }
}
