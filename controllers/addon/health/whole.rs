//! The form in which caches keep objects whose kind has a health rule: a rule may ask for any field.

use std::sync::Arc;

use quarterdeck_runtime::object::{Cached, ObjectKey};
use quarterdeck_runtime::view::Metadata;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// An object's metadata and content, the latter as text: a tree would take ten times the memory.
#[derive(Clone, Debug, PartialEq)]
pub struct Entire {
    /// Its metadata.
    pub metadata: Metadata,
    content: Arc<str>,
}

impl Entire {
    /// The object, without `managedFields`.
    #[must_use]
    pub fn object(&self) -> Value {
        serde_json::from_str(&self.content).expect("it was written as JSON")
    }
}

impl<'de> Deserialize<'de> for Entire {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut object = Value::deserialize(deserializer)?;
        let metadata = Metadata::deserialize(&object).map_err(D::Error::custom)?;
        if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.remove("managedFields");
        }
        Ok(Self { metadata, content: object.to_string().into() })
    }
}

impl Cached for Entire {
    fn key(&self) -> ObjectKey {
        self.metadata.key()
    }

    fn uid(&self) -> &str {
        self.metadata.uid()
    }

    fn resource_version(&self) -> &str {
        self.metadata.resource_version()
    }

    fn is_deleting(&self) -> bool {
        self.metadata.is_deleting()
    }

    fn each_label(&self, visit: &mut dyn FnMut(&str, &str)) {
        self.metadata.each_label(visit);
    }
}

#[cfg(test)]
mod tests {
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
        assert_eq!(entire.object(), ship);
    }
}
