//! The ConfigMap that stands for an addon: parent of its ApplySet, its inventory, and its status for
//! people who ask with kubectl.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fmt::Write as _;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, ObjectReference};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::applyset::{
    self, ID_LABEL, KINDS_ANNOTATION, NAMESPACES_ANNOTATION, TOOLING, TOOLING_ANNOTATION, parent_kind,
};
use super::ident::Ident;
use super::source::AddonId;

/// Namespace of all parents.
pub const NAMESPACE: &str = "kube-system";
/// Label on a parent: the source of its addon.
pub const SOURCE_LABEL: &str = "quarterdeck.dev/addon-source";
/// Annotation on a parent: the name of its addon.
pub const ADDON_ANNOTATION: &str = "quarterdeck.dev/addon";
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
}

/// A parent as the server has it.
#[derive(Clone, Debug, PartialEq, Eq)]
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
    /// Whether its labels and annotations are as we write them.
    pub intact: bool,
    /// Its data as it stands.
    data: BTreeMap<String, String>,
}

/// The name of an addon's parent: readable, and never that of another addon's.
#[must_use]
pub fn name(id: &AddonId) -> String {
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

/// The parent as an object among others.
#[must_use]
pub fn ident(id: &AddonId) -> Ident {
    Ident::new(parent_kind(), NAMESPACE, name(id))
}

/// The id of the addon's ApplySet.
#[must_use]
pub fn set_id(id: &AddonId) -> String {
    applyset::id(&ident(id))
}

/// What events are about.
#[must_use]
pub fn reference(id: &AddonId, uid: &str) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".into()),
        kind: Some("ConfigMap".into()),
        namespace: Some(NAMESPACE.into()),
        name: Some(name(id)),
        uid: Some(uid.to_owned()).filter(|uid| !uid.is_empty()),
        ..ObjectReference::default()
    }
}

/// The command that lets what is held go: one for all addons that share the plan.
#[must_use]
pub fn release_command(id: &AddonId, plan: &str) -> String {
    format!(
        "kubectl -n {NAMESPACE} annotate configmap -l {SOURCE_LABEL}={} --overwrite {RELEASE_ANNOTATION}={plan}",
        id.source
    )
}

/// The manifest of a parent.
#[must_use]
pub fn manifest(id: &AddonId, content: &Content) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": name(id),
            "namespace": NAMESPACE,
            "labels": {ID_LABEL: set_id(id), SOURCE_LABEL: id.source},
            "annotations": annotations(&id.name, content),
        },
        "data": data(id, content),
    })
}

fn annotations(addon: &str, content: &Content) -> BTreeMap<&'static str, String> {
    BTreeMap::from([
        (TOOLING_ANNOTATION, TOOLING.to_owned()),
        (KINDS_ANNOTATION, applyset::kinds(content.members.keys())),
        (NAMESPACES_ANNOTATION, applyset::namespaces(content.members.keys(), NAMESPACE)),
        (ADDON_ANNOTATION, addon.to_owned()),
    ])
}

fn data(id: &AddonId, content: &Content) -> BTreeMap<&'static str, String> {
    let mut data = BTreeMap::from([
        ("addon", id.to_string()),
        ("version", content.version.clone()),
        ("state", content.state.map_or("", State::as_str).to_owned()),
        ("objects", content.objects.to_string()),
        ("skipped", content.skipped.to_string()),
        ("drift", content.drift.to_string()),
        ("inventory", lines(content.members.iter().map(|(member, uid)| format!("{member} {uid}")))),
    ]);
    for (name, texts) in [("errors", &content.errors), ("unhealthy", &content.unhealthy), ("drifted", &content.drifted)]
    {
        if !texts.is_empty() {
            data.insert(name, told(texts));
        }
    }
    if let Some(held) = &content.held {
        data.insert("held", lines(held.members.iter().map(ToString::to_string)));
        data.insert("heldPlan", held.plan.clone());
        data.insert("heldReason", held.reason.clone());
        data.insert("heldBy", if held.braked { "brake" } else { "kind" }.to_owned());
        data.insert("release", release_command(id, &held.plan));
    }
    data
}

/// The first of many lines.
fn told(texts: &[String]) -> String {
    let mut text = lines(texts.iter().take(TOLD).cloned());
    if texts.len() > TOLD {
        let _ = writeln!(text, "and {} more", texts.len() - TOLD);
    }
    shortened(text)
}

fn lines(lines: impl Iterator<Item = String>) -> String {
    lines.fold(String::new(), |mut text, line| {
        let _ = writeln!(text, "{}", line.trim_end());
        text
    })
}

fn shortened(mut text: String) -> String {
    if text.len() > LONGEST {
        let end = (0..=LONGEST).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
    text
}

/// Reads a parent; `None` if it is not one of ours: another tool's, or with an id that is not its
/// own.
#[must_use]
pub fn read(map: &ConfigMap) -> Option<Parent> {
    let meta = &map.metadata;
    let label = |name: &str| meta.labels.as_ref().and_then(|labels| labels.get(name));
    let annotation = |name: &str| meta.annotations.as_ref().and_then(|annotations| annotations.get(name));
    let source = label(SOURCE_LABEL)?.clone();
    let addon = annotation(ADDON_ANNOTATION)?.clone();
    let name = meta.name.clone()?;
    if meta.namespace.as_deref() != Some(NAMESPACE)
        || !applyset::is_ours(annotation(TOOLING_ANNOTATION).map(String::as_str))
        || label(ID_LABEL)? != &applyset::id(&Ident::new(parent_kind(), NAMESPACE, &*name))
    {
        return None;
    }
    let empty = BTreeMap::new();
    let data = map.data.as_ref().unwrap_or(&empty);
    let text = |field: &str| data.get(field).map_or("", String::as_str);
    let members = text("inventory").lines().filter_map(|line| {
        let (member, uid) = line.split_once(' ').unwrap_or((line, ""));
        Some((Ident::parse(member)?, uid.to_owned()))
    });
    let held = data.contains_key("held").then(|| Held {
        plan: text("heldPlan").to_owned(),
        members: text("held").lines().filter_map(Ident::parse).collect(),
        reason: text("heldReason").to_owned(),
        braked: text("heldBy") == "brake",
    });
    let content = Content {
        members: members.collect(),
        version: text("version").to_owned(),
        state: State::ALL.into_iter().find(|state| state.as_str() == text("state")),
        objects: text("objects").parse().unwrap_or_default(),
        skipped: text("skipped").parse().unwrap_or_default(),
        drift: text("drift").parse().unwrap_or_default(),
        errors: text("errors").lines().map(str::to_owned).collect(),
        unhealthy: text("unhealthy").lines().map(str::to_owned).collect(),
        drifted: text("drifted").lines().map(str::to_owned).collect(),
        held,
    };
    let intact = annotations(&addon, &content).iter().all(|(name, value)| annotation(name) == Some(value));
    Some(Parent {
        source,
        addon: addon.into(),
        uid: meta.uid.clone().unwrap_or_default(),
        resource_version: meta.resource_version.clone().unwrap_or_default(),
        content,
        released: annotation(RELEASE_ANNOTATION).cloned(),
        intact,
        data: data.clone(),
    })
}

impl Parent {
    /// Whether writing `content` would change what it says.
    #[must_use]
    pub fn says(&self, id: &AddonId, content: &Content) -> bool {
        let data = data(id, content);
        self.intact
            && data.len() == self.data.len()
            && data.iter().all(|(name, text)| self.data.get(*name) == Some(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addon(name: &str) -> AddonId {
        AddonId { source: "directory", name: name.into() }
    }

    fn content() -> Content {
        let ident = |text: &str| Ident::parse(text).expect("an ident");
        Content {
            members: BTreeMap::from([
                (ident("ConfigMap/a/x"), "u1".to_owned()),
                (ident("Namespace//n"), String::new()),
            ]),
            version: "v".into(),
            state: Some(State::Held),
            objects: 2,
            skipped: 1,
            drift: 3,
            errors: vec!["document 1: bad".into()],
            unhealthy: vec!["Pod/a/x: progressing: slow".into()],
            drifted: vec!["ConfigMap/a/x: data.a".into()],
            held: Some(Held {
                plan: "p1".into(),
                members: BTreeSet::from([ident("Namespace//n")]),
                reason: "why".into(),
                braked: true,
            }),
        }
    }

    fn stored(id: &AddonId, content: &Content) -> ConfigMap {
        let mut value = manifest(id, content);
        value["metadata"]["uid"] = "parent".into();
        value["metadata"]["resourceVersion"] = "7".into();
        serde_json::from_value(value).expect("a ConfigMap")
    }

    #[test]
    fn names_are_readable_legal_and_unique() {
        let names: BTreeSet<String> =
            ["dns.yaml", "dns.json", "a/dns.yaml", "A/Dns.yaml", "über.yaml", "---.yaml", &"x".repeat(300), "a b.yaml"]
                .iter()
                .map(|path| name(&addon(path)))
                .collect();
        assert_eq!(names.len(), 8);
        for name in &names {
            assert!(
                name.len() < 100 && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'),
                "{name}"
            );
            assert!(name.starts_with("addon-directory-") && !name.ends_with('-'));
        }
        assert!(name(&addon("dns.yaml")).starts_with("addon-directory-dns-"));
    }

    #[test]
    fn what_is_written_is_read_back() {
        let id = addon("dns.yaml");
        let parent = read(&stored(&id, &content())).expect("a parent of ours");
        assert_eq!((parent.content.clone(), &*parent.addon, parent.intact), (content(), "dns.yaml", true));
        assert!(parent.says(&id, &content()));
        assert!(!parent.says(&id, &Content { drift: 4, ..content() }));
        assert!(!parent.says(&id, &Content { held: None, ..content() }));
        let empty = Content { state: Some(State::Ready), ..Content::default() };
        assert_eq!(read(&stored(&id, &empty)).expect("a parent").content, empty);
    }

    #[test]
    fn what_is_not_ours_is_not_read() {
        let id = addon("dns.yaml");
        let change = |edit: fn(&mut ConfigMap)| {
            let mut map = stored(&id, &content());
            edit(&mut map);
            read(&map)
        };
        assert_eq!(change(|map| map.metadata.name = Some("copy".into())), None);
        assert_eq!(change(|map| map.metadata.namespace = Some("a".into())), None);
        assert_eq!(change(|map| map.metadata.labels = None), None);
        assert_eq!(
            change(|map| map
                .metadata
                .annotations
                .iter_mut()
                .for_each(|all| drop(all.insert(TOOLING_ANNOTATION.into(), "kubectl/v1".into())))),
            None
        );
        let touched = change(|map| {
            map.metadata
                .annotations
                .iter_mut()
                .for_each(|all| drop(all.insert(KINDS_ANNOTATION.into(), "Secret".into())))
        });
        assert!(!touched.expect("still ours").intact);
        assert_eq!(change(|map| map.data = None).expect("still ours").content, Content::default());
    }

    #[test]
    fn many_errors_are_cut() {
        let content = Content { errors: vec!["é".repeat(1000); 50], ..Content::default() };
        let id = addon("a");
        assert!(manifest(&id, &content)["data"]["errors"].as_str().expect("text").len() < LONGEST + 100);
        assert!(
            read(&stored(&id, &content)).expect("a parent").says(&id, &content),
            "what is cut is not written again"
        );
    }
}
