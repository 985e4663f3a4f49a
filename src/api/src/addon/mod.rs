//! The `Addon` object of keikoproj's addon-manager (`addonmgr.keikoproj.io/v1alpha1`): its spec, its
//! status, and the names by which people and controllers speak about it.
//!
//! [`Addon`] implements the traits of `k8s_openapi`, and by them `kube::Resource` and the runtime's
//! `Cached`, `Typed` and `Whole`: an informer takes it as it is (`Kind::of::<Addon>()`).
//!
//! **Reading is tolerant.** Stored objects are older than this CRD, and Go clients write empty structs
//! for what is absent (`lifecycle.delete: {template: ""}`). Unknown fields are passed over, `null` is
//! the same as absent, and a phase or health that this build does not know reads as `Unknown`. What
//! is wrong with a spec is said by [`Addon::problems`], not by a failed read.
//!
//! **What to use**: [`AddonSpec::parameters`] for the workflow parameters, [`AddonSpec::step`] for a
//! template (`None` if the step does nothing), [`AddonSpec::checksum`] for change detection,
//! [`AddonStatus`] as the body of a status write (absent fields are left out).
//!
//! Upstream: keikoproj/addon-manager `api/addon/v1alpha1/addon_types.go`.

mod checksum;
mod inventory;
pub mod names;
mod params;
mod phase;
mod spec;
mod status;
#[cfg(test)]
mod tests;
mod validate;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::ser::SerializeStruct as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use checksum::is_upstream_checksum;
pub use inventory::{InventoryEntry, InventoryError};
pub use params::{AddonParams, ClusterContext, ParamError, Scalar};
pub use phase::{Health, Phase, Source};
pub use spec::{
    AddonLifecycle, AddonOverrides, AddonSpec, KustomizeOverlay, KustomizeOverrides, LifecycleStep, SecretSpec, Step,
};
pub use status::{AddonStatus, Held, ObservedResource, Revision, StatusLifecycle};
pub use validate::Problem;

/// API group of the `Addon`.
pub const GROUP: &str = "addonmgr.keikoproj.io";
/// The one API version.
pub const VERSION: &str = "v1alpha1";
/// `apiVersion` as objects carry it.
pub const API_VERSION: &str = "addonmgr.keikoproj.io/v1alpha1";
/// Kind.
pub const KIND: &str = "Addon";
/// Plural name, as it stands in paths.
pub const PLURAL: &str = "addons";
/// The custom resource definition, as YAML.
pub const CRD: &str = include_str!("../../../../deploy/crds/addons.addonmgr.keikoproj.io.yaml");

/// One addon: a package to bring into the cluster, or (with the label [`names::MIRROR_LABEL`]) the
/// picture of one that comes from a directory or a channel.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct Addon {
    /// Standard metadata.
    #[serde(default, deserialize_with = "lenient")]
    pub metadata: ObjectMeta,
    /// What is wanted.
    #[serde(default, deserialize_with = "lenient")]
    pub spec: AddonSpec,
    /// What is there; `None` before anybody looked.
    #[serde(default)]
    pub status: Option<AddonStatus>,
}

impl Addon {
    /// Name, empty if the object has none.
    #[must_use]
    pub fn name(&self) -> &str {
        self.metadata.name.as_deref().unwrap_or_default()
    }

    /// Namespace, empty if the object has none.
    #[must_use]
    pub fn namespace(&self) -> &str {
        self.metadata.namespace.as_deref().unwrap_or_default()
    }

    /// The value of a label.
    #[must_use]
    pub fn label(&self, key: &str) -> Option<&str> {
        self.metadata.labels.as_ref()?.get(key).map(String::as_str)
    }

    /// The value of an annotation.
    #[must_use]
    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.metadata.annotations.as_ref()?.get(key).map(String::as_str)
    }

    /// Whether it only shows an addon of another source: nothing is installed because of it.
    #[must_use]
    pub fn is_mirror(&self) -> bool {
        self.label(names::MIRROR_LABEL).is_some()
    }

    /// Whether a person paused it.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.annotation(names::PAUSED_ANNOTATION) == Some("true")
    }

    /// The phase of its installation; [`Phase::Pending`] before anybody looked.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.status.as_ref().and_then(|status| status.lifecycle.installed).unwrap_or(Phase::Pending)
    }
}

impl Serialize for Addon {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_struct(KIND, 4 + usize::from(self.status.is_some()))?;
        object.serialize_field("apiVersion", API_VERSION)?;
        object.serialize_field("kind", KIND)?;
        object.serialize_field("metadata", &self.metadata)?;
        object.serialize_field("spec", &self.spec)?;
        if let Some(status) = &self.status {
            object.serialize_field("status", status)?;
        }
        object.end()
    }
}

impl k8s_openapi::Resource for Addon {
    const API_VERSION: &'static str = API_VERSION;
    const GROUP: &'static str = GROUP;
    const KIND: &'static str = KIND;
    const VERSION: &'static str = VERSION;
    const URL_PATH_SEGMENT: &'static str = PLURAL;
    type Scope = NamespaceResourceScope;
}

impl k8s_openapi::Metadata for Addon {
    type Ty = ObjectMeta;

    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn metadata_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// Reads `null` as the default, as Go does.
fn lenient<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// Whether a value is its type's default, and so need not be written.
fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
