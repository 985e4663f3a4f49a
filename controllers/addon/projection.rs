//! The form in which caches keep objects of kinds that are known at run time only: their metadata, and
//! what is drawn from the rest.

use quarterdeck_runtime::object::{Cached, ObjectKey};
use quarterdeck_runtime::view::Metadata;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// What is kept of an object besides its metadata.
pub trait Content: Send + Sync + 'static {
    /// Name of the form, on status pages and in metrics.
    const FORM: &'static str;

    /// Draws it from the object as the server sent it.
    fn of(object: Value) -> Self;
}

/// An object's metadata, and what is kept besides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Projection<C> {
    /// Its metadata.
    pub metadata: Metadata,
    /// The rest, as far as it is kept.
    pub content: C,
}

impl<'de, C: Content> Deserialize<'de> for Projection<C> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let object = Value::deserialize(deserializer)?;
        let metadata = Metadata::deserialize(&object).map_err(D::Error::custom)?;
        Ok(Self { metadata, content: C::of(object) })
    }
}

impl<C: Content> Cached for Projection<C> {
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

    fn form() -> &'static str {
        C::FORM
    }
}
