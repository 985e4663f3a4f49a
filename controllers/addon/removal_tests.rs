use std::sync::Arc;

use k8s_openapi::api::core::v1::ConfigMap;

use super::*;
use crate::addon::manifest::{Format, Limits, decode};
use crate::addon::parent::{self, Content, RELEASE_ANNOTATION};
use crate::addon::source::{Addon, Policy};

/// A source and what its addons had.
#[derive(Default)]
struct World {
    snapshot: Snapshot,
    parents: BTreeMap<AddonId, Parent>,
}

fn id(name: &str) -> AddonId {
    AddonId { source: "directory", name: name.into() }
}

fn stored(id: &AddonId, content: &Content, released: Option<&str>) -> Parent {
    let mut value = parent::writing(id, None, content).apply.expect("a manifest");
    if let Some(plan) = released {
        value["metadata"]["annotations"][RELEASE_ANNOTATION] = plan.into();
    }
    parent::read(&serde_json::from_value::<ConfigMap>(value).expect("a ConfigMap")).expect("a parent")
}

impl World {
    fn new() -> Self {
        let snapshot = Snapshot { complete: true, settled: true, ..Snapshot::default() };
        Self { snapshot, ..Self::default() }
    }

    /// A file that names these objects (`Kind/namespace/name`).
    fn file(&mut self, name: &str, objects: &[String]) {
        let documents: Vec<String> = objects
            .iter()
            .map(|text| {
                let ident = Ident::parse(text).expect("an ident");
                format!("{{apiVersion: v1, kind: {}, metadata: {{name: {}, namespace: '{}', labels: {{addonmanager.kubernetes.io/mode: Reconcile}}}}}}", ident.kind.kind, ident.name, ident.namespace)
            })
            .map(|text| text.replace(", namespace: ''", ""))
            .collect();
        let decoded = decode(documents.join("\n---\n").as_bytes(), Format::Yaml, &Limits::default());
        assert_eq!(decoded.problems, []);
        let addon = Addon {
            id: id(name),
            version: "v".into(),
            complete: true,
            objects: decoded.objects.into_iter().map(Into::into).collect(),
            package: None,
            description: "".into(),
            account: None,
            lifecycle: None,
            policy: Policy::default(),
            dependencies: Vec::new(),
            skipped: decoded.skipped,
            problems: Vec::new(),
        };
        self.snapshot.addons.insert(name.into(), Arc::new(addon));
    }

    /// The inventory of a file.
    fn had(&mut self, name: &str, objects: &[String]) {
        let members = objects.iter().map(|text| (Ident::parse(text).expect("an ident"), "u".to_owned())).collect();
        self.parents.insert(id(name), stored(&id(name), &Content { members, ..Content::default() }, None));
    }

    fn decide(&self) -> BTreeMap<AddonId, Verdict> {
        let mut named = Named::default();
        named.add(&self.snapshot);
        let protected = ["Namespace", "PersistentVolumeClaim"].map(|kind| GroupKind::new("", kind)).into();
        decide(&Losing {
            snapshot: &self.snapshot,
            parents: &self.parents,
            named: &named,
            protected: &protected,
            recent_files: 0,
            recent_objects: 0,
        })
    }

    /// Writes what was decided to the parents, as the engine does; `released` is what a person says.
    fn settle(&mut self, released: Option<&str>) {
        for (id, verdict) in self.decide() {
            let parent = self.parents.get_mut(&id).expect("a parent");
            let content = Content { held: verdict.held, ..parent.content.clone() };
            *parent = stored(&id, &content, released);
        }
    }
}

fn maps(name: &str, count: usize) -> Vec<String> {
    (0..count).map(|n| format!("ConfigMap/a/{name}{n}")).collect()
}

fn counts(verdicts: &BTreeMap<AddonId, Verdict>) -> Vec<(String, usize, usize)> {
    verdicts
        .iter()
        .map(|(id, verdict)| {
            (id.name.to_string(), verdict.go.len(), verdict.held.as_ref().map_or(0, |held| held.members.len()))
        })
        .collect()
}

fn row(name: &str, go: usize, held: usize) -> (String, usize, usize) {
    (name.to_owned(), go, held)
}

#[test]
fn a_file_that_is_gone_goes_and_an_edit_goes() {
    let mut world = World::new();
    world.had("gone.yaml", &maps("g", 40));
    world.had("edited.yaml", &maps("e", 3));
    world.had("same.yaml", &maps("s", 1));
    world.file("edited.yaml", &maps("e", 1));
    world.file("same.yaml", &maps("s", 1));
    assert_eq!(counts(&world.decide()), [row("edited.yaml", 2, 0), row("gone.yaml", 40, 0)]);
}

#[test]
fn absence_of_evidence_removes_nothing() {
    let mut world = World::new();
    world.had("a.yaml", &maps("a", 2));
    world.had("b.yaml", &maps("b", 2));
    world.file("a.yaml", &maps("a", 1));
    assert_eq!(counts(&world.decide()), [row("a.yaml", 1, 0), row("b.yaml", 2, 0)]);
    world.snapshot.settled = false;
    assert!(world.decide().is_empty());
    world.snapshot.settled = true;
    world.snapshot.complete = false;
    assert!(world.decide().is_empty());
    world.snapshot.complete = true;
    let addon = Arc::clone(&world.snapshot.addons["a.yaml"]);
    let half = Addon { complete: false, ..(*addon).clone() };
    world.snapshot.addons.insert("a.yaml".into(), Arc::new(half));
    assert_eq!(counts(&world.decide()), [row("b.yaml", 2, 0)]);
    world.file("a.yaml", &[]);
    assert_eq!(counts(&world.decide()), [row("b.yaml", 2, 0)], "an empty file");
}

#[test]
fn what_another_file_names_is_not_lost() {
    let mut world = World::new();
    world.had("old.yaml", &["ConfigMap/a/x".into(), "ConfigMap/default/z".into(), "ConfigMap/b/x".into()]);
    world.file("new.yaml", &["ConfigMap/a/x".into(), "ConfigMap//z".into()]);
    let verdicts = world.decide();
    assert_eq!(verdicts[&id("old.yaml")].go, BTreeSet::from([Ident::parse("ConfigMap/b/x").expect("an ident")]));
}

#[test]
fn protected_kinds_wait_for_their_release() {
    let mut world = World::new();
    world.had("a.yaml", &["ConfigMap/a/x".into(), "Namespace//n".into(), "PersistentVolumeClaim/a/p".into()]);
    world.file("other.yaml", &maps("o", 1));
    assert_eq!(counts(&world.decide()), [row("a.yaml", 1, 2)]);
    world.settle(None);
    let plan = world.parents[&id("a.yaml")].content.held.clone().expect("held").plan;
    for wrong in [None, Some(""), Some("other")] {
        world.settle(wrong);
        assert_eq!(counts(&world.decide()), [row("a.yaml", 1, 2)], "{wrong:?}");
    }
    // A restart changes nothing: all of it stands in the parent.
    world.parents.insert(id("a.yaml"), stored(&id("a.yaml"), &world.parents[&id("a.yaml")].content, Some(&plan)));
    assert_eq!(counts(&world.decide()), [row("a.yaml", 3, 0)]);
}

#[test]
fn a_release_is_good_only_for_what_it_named() {
    let mut world = World::new();
    world.had("a.yaml", &["Namespace//n".into()]);
    world.file("other.yaml", &maps("o", 1));
    world.settle(None);
    let parent = &world.parents[&id("a.yaml")];
    let plan = parent.content.held.clone().expect("held").plan;
    let mut content = parent.content.clone();
    content.members.insert(Ident::parse("Namespace//m").expect("an ident"), "u".into());
    world.parents.insert(id("a.yaml"), stored(&id("a.yaml"), &content, Some(&plan)));
    let verdicts = world.decide();
    assert_eq!(counts(&verdicts), [row("a.yaml", 0, 2)]);
    assert_ne!(verdicts[&id("a.yaml")].held.as_ref().expect("held").plan, plan);
}

#[test]
fn one_command_lets_a_whole_plan_go_piece_by_piece() {
    let mut world = World::new();
    for name in ["a.yaml", "b.yaml", "c.yaml"] {
        world.had(name, &maps(&name[..1], 5));
    }
    world.had("stays.yaml", &maps("s", 5));
    world.file("stays.yaml", &maps("s", 5));
    assert_eq!(counts(&world.decide()), [row("a.yaml", 0, 5), row("b.yaml", 0, 5), row("c.yaml", 0, 5)]);
    world.settle(None);
    let plans: BTreeSet<String> =
        world.parents.values().filter_map(|parent| Some(parent.content.held.clone()?.plan)).collect();
    assert_eq!(plans.len(), 1);
    let plan = plans.into_iter().next().expect("one");
    for name in ["a.yaml", "b.yaml"] {
        let content = world.parents[&id(name)].content.clone();
        world.parents.insert(id(name), stored(&id(name), &content, Some(&plan)));
    }
    assert_eq!(counts(&world.decide()), [row("a.yaml", 5, 0), row("b.yaml", 5, 0), row("c.yaml", 0, 5)]);
    // One is carried out and its parent gone; the rest of the plan keeps its name.
    world.parents.remove(&id("a.yaml"));
    let verdicts = world.decide();
    assert_eq!(counts(&verdicts), [row("b.yaml", 5, 0), row("c.yaml", 0, 5)]);
    assert_eq!(verdicts[&id("c.yaml")].held.as_ref().expect("held").plan, plan);
}

#[test]
fn what_the_brake_held_stays_held_while_others_come_back() {
    let mut world = World::new();
    for name in ["a.yaml", "b.yaml", "c.yaml"] {
        world.had(name, &maps(&name[..1], 5));
    }
    assert_eq!(counts(&world.decide()).iter().map(|(_, go, _)| go).sum::<usize>(), 0);
    world.settle(None);
    world.file("a.yaml", &maps("a", 5));
    world.file("b.yaml", &maps("b", 5));
    assert_eq!(counts(&world.decide()), [row("c.yaml", 0, 5)], "the last file of a copy in progress");
    world.file("c.yaml", &maps("c", 5));
    assert!(world.decide().is_empty());
}

#[test]
fn a_gone_file_without_members_is_told() {
    let mut world = World::new();
    world.had("empty.yaml", &[]);
    assert_eq!(world.decide(), BTreeMap::from([(id("empty.yaml"), Verdict { gone: true, ..Verdict::default() })]));
}
