//! A parent that is a ConfigMap.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::{Value, json};

use super::{
    ADDON_ANNOTATION, BackTo, Content, Form, Held, LONGEST, NAMESPACE, Parent, RELEASE_ANNOTATION, SOURCE_LABEL, State,
    TOLD, candidates_command, inventory, name, release_command, set_id,
};
use crate::addon::applyset::{
    self, ID_LABEL, KINDS_ANNOTATION, NAMESPACES_ANNOTATION, TOOLING, TOOLING_ANNOTATION, parent_kind,
};
use crate::addon::candidates::Candidates;
use crate::addon::edited;
use crate::addon::ident::Ident;
use crate::addon::revision::Revisions;
use crate::addon::source::AddonId;

/// The manifest of a parent.
pub(super) fn manifest(id: &AddonId, content: &Content) -> Value {
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
        ("inventory", lines(content.inventory().into_iter())),
    ]);
    for (name, texts) in [("errors", &content.errors), ("unhealthy", &content.unhealthy), ("drifted", &content.drifted)]
    {
        if !texts.is_empty() {
            data.insert(name, told(texts));
        }
    }
    if content.revisions != Revisions::default() {
        data.insert("revisions", content.revisions.to_value().to_string());
    }
    if let Some(told) = content.revisions.told() {
        data.insert("rolledBack", shortened(told));
    }
    if let Some(held) = &content.held {
        data.insert("held", lines(held.members.iter().map(ToString::to_string)));
        data.insert("heldPlan", held.plan.clone());
        data.insert("heldReason", held.reason.clone());
        data.insert("heldBy", if held.braked { "brake" } else { "kind" }.to_owned());
        data.insert("release", release_command(id, &held.plan));
    }
    if !content.edited.is_empty() {
        data.insert("edited", lines(edited::to_lines(&content.edited)));
    }
    let candidates = &content.candidates;
    if !candidates.of.is_empty() {
        data.insert("candidatesOf", candidates.of.clone());
    }
    if !candidates.members.is_empty() {
        data.insert("candidates", lines(candidates.lines()));
        data.insert("candidatesPlan", candidates.plan.clone());
        data.insert("candidatesRelease", candidates_command(id, &candidates.plan));
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

pub(super) fn read(map: &ConfigMap) -> Option<Parent> {
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
    let (members, marks) = inventory(text("inventory").lines());
    let held = data.contains_key("held").then(|| Held {
        plan: text("heldPlan").to_owned(),
        members: text("held").lines().filter_map(Ident::parse).collect(),
        reason: text("heldReason").to_owned(),
        braked: text("heldBy") == "brake",
    });
    let content = Content {
        members,
        marks,
        version: text("version").to_owned(),
        state: State::ALL.into_iter().find(|state| state.as_str() == text("state")),
        objects: text("objects").parse().unwrap_or_default(),
        skipped: text("skipped").parse().unwrap_or_default(),
        drift: text("drift").parse().unwrap_or_default(),
        errors: text("errors").lines().map(str::to_owned).collect(),
        unhealthy: text("unhealthy").lines().map(str::to_owned).collect(),
        drifted: text("drifted").lines().map(str::to_owned).collect(),
        held,
        revisions: Revisions::from_value(&serde_json::from_str(text("revisions")).unwrap_or_default()),
        lifecycle: None,
        observed: Vec::new(),
        observed_omitted: 0,
        edited: edited::from_lines(text("edited").lines()),
        candidates: Candidates::parse(text("candidatesOf"), text("candidatesPlan"), text("candidates")),
    };
    let intact = annotations(&addon, &content).iter().all(|(name, value)| annotation(name) == Some(value));
    Some(Parent {
        source,
        addon: addon.into(),
        uid: meta.uid.clone().unwrap_or_default(),
        resource_version: meta.resource_version.clone().unwrap_or_default(),
        content,
        released: annotation(RELEASE_ANNOTATION).cloned(),
        back: BackTo::read(|name| annotation(name).map(String::as_str)),
        intact,
        form: Form::ConfigMap(data.clone()),
    })
}

/// Whether the data of a ConfigMap already say this.
pub(super) fn says(stored: &BTreeMap<String, String>, id: &AddonId, content: &Content) -> bool {
    let data = data(id, content);
    data.len() == stored.len() && data.iter().all(|(name, text)| stored.get(*name) == Some(text))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::addon::revision::{Kept, RollBack, Verdict};

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
            marks: BTreeMap::from([(ident("ConfigMap/a/x"), "0123456789abcdef".to_owned())]),
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
            revisions: Revisions {
                kept: vec![Kept { hash: "a".into(), verdict: Verdict::Good, time: 7, ..Kept::default() }],
                back: Some(RollBack { from: "b".into(), to: "a".into(), ..RollBack::default() }),
                asked: None,
            },
            lifecycle: None,
            observed: Vec::new(),
            observed_omitted: 0,
            edited: edited::from_lines(["ConfigMap/a/x data.k"].into_iter()),
            candidates: Candidates::parse("v", "p2", "Secret/a/y u3 selector"),
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
        assert!(!parent.says(&id, &Content { marks: BTreeMap::new(), ..content() }));
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
