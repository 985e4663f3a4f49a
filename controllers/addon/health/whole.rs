//! The form in which caches keep objects whose kind has a health rule: a rule may ask for any field.

use std::sync::Arc;

use serde_json::Value;

use crate::addon::projection::{Content, Projection};

/// An object's metadata and content.
pub type Entire = Projection<Text>;

/// An object as text, without `managedFields`: a tree would take ten times the memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text(Arc<str>);

impl Text {
    /// The object.
    #[must_use]
    pub fn object(&self) -> Value {
        serde_json::from_str(&self.0).expect("it was written as JSON")
    }
}

impl Content for Text {
    const FORM: &'static str = "Entire";

    fn of(mut object: Value) -> Self {
        if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.remove("managedFields");
        }
        Self(object.to_string().into())
    }
}

#[cfg(test)]
mod tests {
    use quarterdeck_runtime::object::{Cached as _, ObjectKey};
    use serde_json::json;

    use super::*;

    #[test]
    fn all_but_the_managers_is_kept() {
        let mut ship = json!({
            "apiVersion": "fleet.example/v1", "kind": "Ship", "spec": {"sails": 3}, "status": {"phase": "Afloat"},
            "metadata": {"name": "s", "namespace": "a", "uid": "u", "resourceVersion": "7", "managedFields": [{}]},
        });
        let entire: Entire = serde_json::from_value(ship.clone()).expect("an object");
        assert_eq!((entire.key(), entire.uid()), (ObjectKey::new("a", "s"), "u"));
        ship["metadata"].as_object_mut().expect("metadata").remove("managedFields");
        assert_eq!(entire.content.object(), ship);
    }
}
