//! Parameters of an addon, which become the global parameters of its workflows.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{is_default, lenient};

/// `spec.params`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AddonParams {
    /// Namespace into which the addon is deployed; parameter `namespace`.
    #[serde(deserialize_with = "lenient", skip_serializing_if = "is_default")]
    pub namespace: String,
    /// The cluster, as today's CRD spells it. Read through [`AddonParams::cluster`].
    #[serde(deserialize_with = "lenient", skip_serializing_if = "is_default")]
    pub context: ClusterContext,
    /// The cluster, as the document's example spells it. Read through [`AddonParams::cluster`].
    #[serde(deserialize_with = "lenient", skip_serializing_if = "is_default")]
    pub cluster_context: ClusterContext,
    /// Further parameters by name.
    #[serde(deserialize_with = "lenient", skip_serializing_if = "is_default")]
    pub data: BTreeMap<String, Scalar>,
}

impl AddonParams {
    /// The cluster, however it is spelled: what `context` leaves open is taken from `clusterContext`.
    #[must_use]
    pub fn cluster(&self) -> ClusterContext {
        let first = |a: &String, b: &String| if a.is_empty() { b.clone() } else { a.clone() };
        let mut additional_configs = self.cluster_context.additional_configs.clone();
        additional_configs.extend(self.context.additional_configs.clone());
        ClusterContext {
            cluster_name: first(&self.context.cluster_name, &self.cluster_context.cluster_name),
            cluster_region: first(&self.context.cluster_region, &self.cluster_context.cluster_region),
            additional_configs,
        }
    }
}

/// `spec.params.context`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClusterContext {
    /// Name of the cluster; parameter `clusterName`.
    #[serde(deserialize_with = "lenient", skip_serializing_if = "is_default")]
    pub cluster_name: String,
    /// Region of the cluster; parameter `clusterRegion`.
    #[serde(deserialize_with = "lenient", skip_serializing_if = "is_default")]
    pub cluster_region: String,
    /// Further facts about the cluster, each a parameter of its name.
    #[serde(deserialize_with = "lenient", skip_serializing_if = "is_default")]
    pub additional_configs: BTreeMap<String, Scalar>,
}

/// A parameter's value as it was written: a string, a bool or a whole number. Anything else is kept,
/// so that the object is read all the same, and refused by [`Scalar::text`].
///
/// Fractions are refused on purpose: YAML reads `version: 1.10` as 1.1.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Scalar(Value);

impl Scalar {
    /// The value as text: `true`, `3`, or the string itself. `None` if it is neither a string, a bool
    /// nor a whole number.
    #[must_use]
    pub fn text(&self) -> Option<String> {
        match &self.0 {
            Value::String(text) => Some(text.clone()),
            Value::Bool(value) => Some(value.to_string()),
            Value::Number(number) if number.is_i64() || number.is_u64() => Some(number.to_string()),
            _ => None,
        }
    }

    /// The value as it was written.
    #[must_use]
    pub fn raw(&self) -> &Value {
        &self.0
    }
}

impl From<&str> for Scalar {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl From<String> for Scalar {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

/// A parameter that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParamError {
    /// Path of the field, such as `spec.params.data.replicas`.
    pub field: String,
    /// What it holds.
    pub value: String,
}

impl fmt::Display for ParamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} is neither a string, a bool nor a whole number; put it in quotes", self.field, self.value)
    }
}

impl std::error::Error for ParamError {}

/// The texts of a map of scalars.
pub(super) fn texts(field: &str, map: &BTreeMap<String, Scalar>) -> Result<BTreeMap<String, String>, ParamError> {
    map.iter()
        .map(|(name, value)| match value.text() {
            Some(text) => Ok((name.clone(), text)),
            None => Err(ParamError { field: format!("{field}.{name}"), value: value.raw().to_string() }),
        })
        .collect()
}
