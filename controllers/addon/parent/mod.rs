//! The object that stands for an addon: parent of its ApplySet, its inventory, and its status. For an
//! Addon object it is that object itself; every other addon has a ConfigMap in `kube-system`.

mod config_map;
mod object;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, ObjectReference};
use quarterdeck_api::addon::{self as api, Phase, names};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::applyset::{self, parent_kind};
use super::candidates::Candidates;
use super::edited::Edits;
use super::ident::{GroupKind, Ident};
use super::revision::Revisions;
use super::source::{Addon, AddonId, OBJECTS};

/// Namespace of the parents that are ConfigMaps.
pub const NAMESPACE: &str = "kube-system";
/// Label on a parent: the source of its addon.
pub const SOURCE_LABEL: &str = "quarterdeck.dev/addon-source";
/// Annotation on a parent: the name of its addon.
pub const ADDON_ANNOTATION: &str = api::names::SOURCE_NAME_ANNOTATION;
/// Annotation that a person sets on a parent to let a held removal go; its value is the plan's hash.
pub const RELEASE_ANNOTATION: &str = "quarterdeck.dev/release-prune";
/// Field manager of parents.
pub const PARENT_MANAGER: &str = "quarterdeck-applyset";

/// Most errors, or objects of one sort, that a parent tells.
const TOLD: usize = 10;
/// Longest text in a parent's status, bytes.
const LONGEST: usize = 4096;

/// How an addon is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// All of it is as its source says.
    Ready,
    /// Some of it waits for something else of it, such as a CRD.
    Progressing,
    /// A removal waits for a person.
    Held,
    /// Something failed, or could not be read.
    Degraded,
    /// Only looked at, while a predecessor is alive.
    Observing,
    /// The manager may not act as the account that the addon names.
    Blocked,
    /// A person asked to leave it alone.
    Paused,
    /// It goes.
    Deleting,
}

impl State {
    /// All states.
    pub const ALL: [Self; 8] = [
        Self::Ready,
        Self::Progressing,
        Self::Held,
        Self::Degraded,
        Self::Observing,
        Self::Blocked,
        Self::Paused,
        Self::Deleting,
    ];

    /// As it is written in status and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Progressing => "progressing",
            Self::Held => "held",
            Self::Degraded => "degraded",
            Self::Observing => "observing",
            Self::Blocked => "blocked",
            Self::Paused => "paused",
            Self::Deleting => "deleting",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A removal that waits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// The plan that a release names.
    pub plan: String,
    /// What would be removed.
    pub members: BTreeSet<Ident>,
    /// Why it waits.
    pub reason: String,
    /// Whether the brake holds it, rather than the kinds of its objects.
    pub braked: bool,
}

/// What a parent says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Content {
    /// The objects that are ours by this addon, with their uid where it is known.
    pub members: BTreeMap<Ident, String>,
    /// Of members that are right: by what they are known after a start ([`drift::mark`](super::drift::mark)).
    pub marks: BTreeMap<Ident, String>,
    /// The version of the addon that was applied last.
    pub version: String,
    /// How it is.
    pub state: Option<State>,
    /// Objects that it manages.
    pub objects: usize,
    /// Objects that it names and does not manage.
    pub skipped: usize,
    /// How often an object was put back since this status began.
    pub drift: u64,
    /// What is wrong.
    pub errors: Vec<String>,
    /// Objects that are not healthy, and why.
    pub unhealthy: Vec<String>,
    /// Objects that differ from what was applied and are left so, and how.
    pub drifted: Vec<String>,
    /// What waits.
    pub held: Option<Held>,
    /// What can be gone back to, and was.
    pub revisions: Revisions,
    /// Where an Addon object's lifecycle stands.
    pub lifecycle: Option<LifecycleState>,
    /// What an Addon object observes.
    pub observed: Vec<api::ObservedResource>,
    /// How many observed objects are too many to be told.
    pub observed_omitted: u64,
    /// Keys that users edited and that stay as they are.
    pub edited: Edits,
    /// What waits beside the inventory.
    pub candidates: Candidates,
}

impl Content {
    /// Members with uid and mark, a line each.
    fn inventory(&self) -> Vec<String> {
        let line = |(member, uid): (&Ident, &String)| match self.marks.get(member) {
            Some(mark) if !uid.is_empty() => format!("{member} {uid} {mark}"),
            _ => format!("{member} {uid}").trim_end().to_owned(),
        };
        self.members.iter().map(line).collect()
    }

    /// What ran of an Addon object's steps.
    #[must_use]
    pub fn steps(&self) -> &Value {
        self.lifecycle.as_ref().map_or(&Value::Null, |lifecycle| &lifecycle.progress)
    }
}

/// Where an Addon object's lifecycle stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LifecycleState {
    /// Hash of the spec that is worked on.
    pub checksum: String,
    /// Its generation.
    pub generation: i64,
    /// When that began, Unix time in milliseconds.
    pub started: i64,
    /// The package's version that was installed last.
    pub version: String,
    /// Where the prereqs stand.
    pub prereqs: Option<Phase>,
    /// Where the addon stands as a whole.
    pub installed: Option<Phase>,
    /// Why.
    pub reason: String,
    /// What ran of its steps; only the runner reads it.
    pub progress: Value,
}

/// Members with their uids, and marks, of an inventory's lines.
fn inventory<'l>(lines: impl Iterator<Item = &'l str>) -> (BTreeMap<Ident, String>, BTreeMap<Ident, String>) {
    let (mut members, mut marks) = (BTreeMap::new(), BTreeMap::new());
    for line in lines {
        let mut words = line.split(' ');
        let Some(member) = words.next().and_then(Ident::parse) else { continue };
        let uid = words.next().unwrap_or_default();
        if let Some(mark) = words.next() {
            marks.insert(member.clone(), mark.to_owned());
        }
        members.insert(member, uid.to_owned());
    }
    (members, marks)
}

/// What a person says about going back: annotations on a parent, or on a mirror.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackTo {
    /// Hash of a revision, or the beginning of it.
    pub to: String,
    /// Hash of the revision that it counts for, if that is said.
    pub from: Option<String>,
}

impl BackTo {
    /// Reads annotations.
    pub(super) fn read<'a>(annotation: impl Fn(&str) -> Option<&'a str>) -> Option<Self> {
        let to = annotation(names::ROLLBACK_ANNOTATION).filter(|to| !to.is_empty())?.to_owned();
        Some(Self { to, from: annotation(names::ROLLBACK_FROM_ANNOTATION).map(str::to_owned) })
    }

    /// Reads the annotations of an Addon object.
    #[must_use]
    pub fn of(addon: &api::Addon) -> Option<Self> {
        Self::read(|name| addon.annotation(name))
    }
}

/// A parent as the server has it.
#[derive(Clone, Debug, PartialEq)]
pub struct Parent {
    /// Its addon.
    pub source: String,
    /// Name of its addon.
    pub addon: Arc<str>,
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.resourceVersion`.
    pub resource_version: String,
    /// What it says.
    pub content: Content,
    /// The plan that a person released.
    pub released: Option<String>,
    /// The revision that a person wants to go back to.
    pub back: Option<BackTo>,
    /// Whether its labels and annotations are as we write them.
    pub intact: bool,
    /// What it is, as it stands.
    form: Form,
}

#[derive(Clone, Debug, PartialEq)]
enum Form {
    ConfigMap(BTreeMap<String, String>),
    Object(Arc<api::Addon>),
}

/// What has to be written of a parent.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Writing {
    /// The object to apply: all of a ConfigMap, the metadata of an Addon object.
    pub apply: Option<Value>,
    /// The new status of an Addon object.
    pub status: Option<api::AddonStatus>,
}

/// The name of an addon's parent: readable, and never that of another addon's.
#[must_use]
pub fn name(id: &AddonId) -> String {
    if let Some((_, name)) = object_name(id) {
        return name.to_owned();
    }
    const READABLE: usize = 40;
    let mut slug = String::new();
    for c in id.name.trim_end_matches(".yaml").trim_end_matches(".yml").trim_end_matches(".json").chars() {
        match c.to_ascii_lowercase() {
            c if c.is_ascii_alphanumeric() => slug.push(c),
            _ if !slug.ends_with('-') => slug.push('-'),
            _ => {}
        }
    }
    slug.truncate(READABLE);
    let digest = Sha256::digest(id.to_string().as_bytes());
    let hash: String = digest.iter().take(5).map(|byte| format!("{byte:02x}")).collect();
    format!("addon-{}-{}-{hash}", id.source, slug.trim_matches('-')).replace("--", "-")
}

/// Namespace and name of the Addon object that an addon is.
#[must_use]
pub fn object_name(id: &AddonId) -> Option<(&str, &str)> {
    id.name.split_once('/').filter(|_| id.source == OBJECTS)
}

/// The kind of Addon objects.
#[must_use]
pub fn object_kind() -> GroupKind {
    GroupKind::new(api::GROUP, api::KIND)
}

/// The parent as an object among others.
#[must_use]
pub fn ident(id: &AddonId) -> Ident {
    match object_name(id) {
        Some((namespace, name)) => Ident::new(object_kind(), namespace, name),
        None => Ident::new(parent_kind(), NAMESPACE, name(id)),
    }
}

/// The id of the addon's ApplySet.
#[must_use]
pub fn set_id(id: &AddonId) -> String {
    applyset::id(&ident(id))
}

/// What events are about.
#[must_use]
pub fn reference(id: &AddonId, uid: &str) -> ObjectReference {
    let ident = ident(id);
    let api_version = if object_name(id).is_some() { api::API_VERSION } else { "v1" };
    ObjectReference {
        api_version: Some(api_version.into()),
        kind: Some(ident.kind.kind.to_string()),
        namespace: Some(ident.namespace.to_string()),
        name: Some(ident.name.to_string()),
        uid: Some(uid.to_owned()).filter(|uid| !uid.is_empty()),
        ..ObjectReference::default()
    }
}

/// The command that lets what is held go: one for all addons of a source that share the plan.
#[must_use]
pub fn release_command(id: &AddonId, plan: &str) -> String {
    match object_name(id) {
        Some((namespace, name)) => {
            format!("kubectl -n {namespace} annotate addon {name} --overwrite {RELEASE_ANNOTATION}={plan}")
        }
        None => format!(
            "kubectl -n {NAMESPACE} annotate configmap -l {SOURCE_LABEL}={} --overwrite {RELEASE_ANNOTATION}={plan}",
            id.source
        ),
    }
}

/// The command that lets an addon's candidates go: its own parent only.
#[must_use]
pub fn candidates_command(id: &AddonId, plan: &str) -> String {
    format!("kubectl -n {NAMESPACE} annotate configmap {} --overwrite {RELEASE_ANNOTATION}={plan}", name(id))
}

/// Reads a ConfigMap; `None` if it is not one of ours: another tool's, or with an id that is not its
/// own.
#[must_use]
pub fn read(map: &ConfigMap) -> Option<Parent> {
    config_map::read(map)
}

/// Reads an Addon object; `None` if another tool keeps a set of its own under it.
#[must_use]
pub fn read_object(addon: &Arc<api::Addon>) -> Option<Parent> {
    object::read(addon)
}

/// What has to be written so that the parent says `content`; nothing if it does already.
#[must_use]
pub fn writing(id: &AddonId, before: Option<&Parent>, content: &Content) -> Writing {
    match before.map(|parent| (&parent.form, parent.intact)) {
        Some((Form::Object(addon), _)) => object::writing(id, addon, content),
        Some((Form::ConfigMap(data), true)) if config_map::says(data, id, content) => Writing::default(),
        _ => Writing { apply: Some(config_map::manifest(id, content)), status: None },
    }
}

/// What has to be written so that a mirror shows what an addon's parent says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Mirror {
    /// The object to apply.
    pub apply: Option<Value>,
    /// Its new status.
    pub status: Option<api::AddonStatus>,
}

/// The mirror of an addon, as far as it has to be written; `shown` is the mirror as it stands.
#[must_use]
pub fn mirror(id: &AddonId, addon: Option<&Addon>, content: &Content, shown: Option<&api::Addon>) -> Mirror {
    object::mirror(id, addon, content, shown)
}

/// The merge patch that takes an Addon object's status to `new`.
#[must_use]
pub fn status_patch(addon: &api::Addon, new: &api::AddonStatus) -> Value {
    object::status_patch(addon, new)
}

impl Parent {
    /// [`Parent::says`], its marks aside: they alone are not worth a write.
    #[must_use]
    pub fn says_but_marks(&self, id: &AddonId, content: &Content) -> bool {
        self.says(id, &Content { marks: self.content.marks.clone(), ..content.clone() })
    }

    /// Whether writing `content` would change what it says.
    #[must_use]
    pub fn says(&self, id: &AddonId, content: &Content) -> bool {
        writing(id, Some(self), content) == Writing::default()
    }

    /// The Addon object that it is.
    #[must_use]
    pub fn object(&self) -> Option<&Arc<api::Addon>> {
        match &self.form {
            Form::Object(addon) => Some(addon),
            Form::ConfigMap(_) => None,
        }
    }
}
