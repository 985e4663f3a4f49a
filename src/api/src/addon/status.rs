//! What is there of an addon.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Health, Phase, Source, is_default, lenient};

/// `status` of an Addon. Upstream's fields first; upstream's Go clients expect those to be there once a
/// status is written, so they are written always.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AddonStatus {
    /// Hash of the spec that was last acted on ([`AddonSpec::checksum`](super::AddonSpec::checksum));
    /// upstream's are eight hex digits at most ([`is_upstream_checksum`](super::is_upstream_checksum)).
    #[serde(deserialize_with = "lenient")]
    pub checksum: String,
    /// Phases of the steps.
    #[serde(deserialize_with = "lenient")]
    pub lifecycle: StatusLifecycle,
    /// What `spec.selector` observes.
    #[serde(deserialize_with = "lenient")]
    pub resources: Vec<ObservedResource>,
    /// Why the phase is as it is; empty when there is nothing to say.
    #[serde(deserialize_with = "lenient")]
    pub reason: String,
    /// When the present revision began, Unix time in milliseconds.
    #[serde(deserialize_with = "lenient")]
    pub starttime: i64,

    /// Generation of the spec that this status speaks of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Conditions in the common form.
    #[serde(deserialize_with = "lenient", skip_serializing_if = "is_default")]
    pub conditions: Vec<Condition>,
    /// How the addon is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<Health>,
    /// The version that was applied last.
    #[serde(deserialize_with = "lenient", skip_serializing_if = "is_default")]
    pub version: String,
    /// Where the addon comes from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
    /// How many objects it manages.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub objects: Option<u64>,
    /// How often an object was put back since this status began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drift: Option<u64>,
    /// When an object was put back last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_drift: Option<Time>,
    /// A removal that waits for a person.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held: Option<Held>,
    /// The objects that are the addon's, each as an [`InventoryEntry`](super::InventoryEntry).
    #[serde(deserialize_with = "lenient", skip_serializing_if = "is_default")]
    pub inventory: Vec<String>,
    /// Revisions that can be gone back to, newest first.
    #[serde(deserialize_with = "lenient", skip_serializing_if = "is_default")]
    pub revisions: Vec<Revision>,
    /// Progress within the steps: an open object that only the runner reads (and `addonctl logs`, which
    /// shows the `message` of each of its `nodes`: the end of the log of a pod that failed).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<Value>,
    /// What is wrong, one text each.
    #[serde(deserialize_with = "lenient", skip_serializing_if = "is_default")]
    pub errors: Vec<String>,
    /// Objects that are observed and not managed, each as an
    /// [`InventoryEntry`](super::InventoryEntry).
    #[serde(deserialize_with = "lenient", skip_serializing_if = "is_default")]
    pub not_managed: Vec<String>,
    /// How many observed objects `resources` leaves out, because there are too many.
    #[serde(deserialize_with = "lenient", skip_serializing_if = "is_default")]
    pub resources_omitted: u64,
}

/// `status.lifecycle`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StatusLifecycle {
    /// Phase of the prereqs step.
    #[serde(deserialize_with = "phase", skip_serializing_if = "Option::is_none")]
    pub prereqs: Option<Phase>,
    /// Phase of the addon as a whole.
    #[serde(deserialize_with = "phase", skip_serializing_if = "Option::is_none")]
    pub installed: Option<Phase>,
}

/// An empty phase is none: old Go clients wrote such.
fn phase<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Phase>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?.unwrap_or_default();
    Ok((!text.is_empty()).then(|| Phase::parse(&text)))
}

/// One object that `spec.selector` observes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ObservedResource {
    /// Path of the object at the API.
    #[serde(deserialize_with = "lenient", skip_serializing_if = "is_default")]
    pub link: String,
    /// Its name.
    #[serde(deserialize_with = "lenient", skip_serializing_if = "is_default")]
    pub name: String,
    /// Its namespace; upstream has none.
    #[serde(deserialize_with = "lenient", skip_serializing_if = "is_default")]
    pub namespace: String,
    /// Its kind.
    #[serde(deserialize_with = "lenient", skip_serializing_if = "is_default")]
    pub kind: String,
    /// Its API group.
    #[serde(deserialize_with = "lenient", skip_serializing_if = "is_default")]
    pub group: String,
    /// `InProgress`, `Ready` or `Failed`; upstream has the field and leaves it empty.
    #[serde(deserialize_with = "lenient", skip_serializing_if = "is_default")]
    pub status: String,
}

/// A removal that waits for a person.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Held {
    /// Hash of the plan, which a release names.
    #[serde(deserialize_with = "lenient")]
    pub plan: String,
    /// Why it waits.
    #[serde(deserialize_with = "lenient")]
    pub reason: String,
    /// What would be removed, as in the inventory.
    #[serde(deserialize_with = "lenient", skip_serializing_if = "is_default")]
    pub members: Vec<String>,
    /// The command that lets it go.
    #[serde(deserialize_with = "lenient", skip_serializing_if = "is_default")]
    pub release: String,
}

/// A revision that is kept.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Revision {
    /// Hash of its content, by which a roll-back names it.
    #[serde(deserialize_with = "lenient")]
    pub hash: String,
    /// Its version.
    #[serde(deserialize_with = "lenient", skip_serializing_if = "is_default")]
    pub version: String,
    /// When it came into force.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<Time>,
    /// What became of it: `current` is in force, `good` was all applied and healthy, `bad` failed.
    #[serde(deserialize_with = "lenient", skip_serializing_if = "is_default")]
    pub state: String,
    /// Why it is bad.
    #[serde(deserialize_with = "lenient", skip_serializing_if = "is_default")]
    pub reason: String,
}
