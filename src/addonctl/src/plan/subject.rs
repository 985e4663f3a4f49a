//! One addon as it should be.

use std::collections::BTreeSet;
use std::sync::Arc;

use quarterdeck_api::addon::{Addon, InventoryEntry, LifecycleStep, names};
use quarterdeck_controllers::addon::applyset::PART_OF_LABEL;
use quarterdeck_controllers::addon::ident::Ident;
use quarterdeck_controllers::addon::lifecycle::facts;
use quarterdeck_controllers::addon::manifest::{Decoded, Desired, Mode};
use quarterdeck_controllers::addon::parent;
use quarterdeck_controllers::addon::source::{AddonId, OBJECTS};
use quarterdeck_controllers::addon::workflow::program::{Action, KnownNodes, Objects, When};
use quarterdeck_controllers::addon::workflow::{Context, Limits, Node, compile, parameters};
use serde_json::Value;

/// Longest part of a workflow's name that a plan needs: none is made.
const WORKFLOW: &str = "plan";

/// An addon to be planned.
#[derive(Debug, Default)]
pub(crate) struct Subject {
    /// What it is called in the plan.
    pub(crate) title: String,
    /// The Addon object itself, if the plan would change it.
    pub(crate) own: Option<Value>,
    /// Its objects.
    pub(crate) wishes: Vec<Wish>,
    /// What its inventory holds now.
    pub(crate) inventory: Vec<InventoryEntry>,
    /// What its steps would run besides, in words.
    pub(crate) steps: Vec<String>,
    /// What is worth knowing.
    pub(crate) notes: Vec<String>,
    /// Why it cannot be planned whole. Nothing is said about its prune list then.
    pub(crate) problems: Vec<String>,
}

/// An object that an addon wants.
#[derive(Debug)]
pub(crate) struct Wish {
    /// Which.
    pub(crate) ident: Ident,
    /// API version, without the group.
    pub(crate) version: Arc<str>,
    /// What would be applied, less its namespace if it names none.
    pub(crate) body: Value,
    /// Namespace if it names none and lives in one.
    pub(crate) namespace: String,
    /// Whether it is only seen to that it exists.
    pub(crate) only_exists: bool,
}

impl Wish {
    fn new(desired: &Desired, namespace: &str, set: &str, only_exists: bool) -> Self {
        let mut body = desired.body.tree();
        let only_exists = only_exists || desired.mode == Mode::EnsureExists;
        if !only_exists && let Some(metadata) = body["metadata"].as_object_mut() {
            let labels = metadata.entry("labels").or_insert_with(|| Value::Object(serde_json::Map::new()));
            labels[PART_OF_LABEL] = set.into();
        }
        Self {
            ident: desired.ident.clone(),
            version: Arc::clone(&desired.version),
            body,
            namespace: namespace.to_owned(),
            only_exists,
        }
    }
}

/// An Addon: what its prereqs and install steps would apply and run. `live` is the one in the cluster,
/// `own` the object as the file writes it.
pub(super) fn of_addon(addon: &Addon, live: Option<&Addon>, own: Option<Value>) -> Subject {
    let mut subject = Subject {
        title: format!("addon {}/{}", addon.namespace(), addon.name()),
        own,
        problems: addon.problems().iter().map(ToString::to_string).collect(),
        ..Subject::default()
    };
    if live.is_some_and(Addon::is_paused) {
        subject.notes.push("it is paused: nothing of this is done until it is resumed".to_owned());
    }
    for entry in live.iter().filter_map(|live| live.status.as_ref()).flat_map(|status| &status.inventory) {
        match entry.parse() {
            Ok(entry) => subject.inventory.push(entry),
            Err(error) => subject.problems.push(format!("status.inventory: {error}")),
        }
    }
    let facts = match addon.spec.parameters() {
        Ok(_) => facts(addon),
        Err(error) => {
            subject.problems.push(error.to_string());
            return subject;
        }
    };
    let id = AddonId { source: OBJECTS, name: format!("{}/{}", addon.namespace(), addon.name()).into() };
    let set = parent::set_id(&id);
    for step in [LifecycleStep::Prereqs, LifecycleStep::Install, LifecycleStep::Validate] {
        let Some(found) = addon.spec.step(step) else { continue };
        let known = KnownNodes::new();
        let context = Context {
            addon: &facts,
            workflow_name: WORKFLOW,
            role: Some(found.role.as_str()).filter(|role| !role.is_empty()),
            known: &known,
            status: None,
            limits: Limits::default(),
        };
        let compiled = parameters(&facts).and_then(|parameters| compile(&found.template, &parameters, &context));
        match compiled {
            Ok(program) => program.all().for_each(|node| add(&mut subject, step, node, &set)),
            Err(refusals) => subject
                .problems
                .extend(refusals.iter().map(|refusal| format!("spec.lifecycle.{step}.template: {refusal}"))),
        }
    }
    if addon.annotation(names::RUNNER_ANNOTATION) == Some("argo") {
        subject.notes.push("Argo runs it: what it would do is only read from its templates".to_owned());
    }
    subject
}

fn add(subject: &mut Subject, step: LifecycleStep, node: &Node, set: &str) {
    let mut wish = |objects: &Objects, only_exists: bool| {
        let wishes = objects.objects.iter().map(|desired| Wish::new(desired, &objects.namespace, set, only_exists));
        subject.wishes.extend(wishes);
    };
    let condition = match &node.when {
        When::Run => String::new(),
        When::Skip => return,
        When::Unknown(why) => format!(", if it comes to that ({why})"),
    };
    let what = match &node.action {
        Action::Apply(objects) => return wish(objects, false),
        Action::Create(objects) => return wish(objects, true),
        Action::Delete(deletion) => {
            let objects: Vec<String> = deletion.objects.iter().map(|object| object.ident.to_string()).collect();
            format!("delete {}", objects.join(", "))
        }
        Action::Patch(patch) => format!("patch {}", patch.object.ident),
        Action::Pod(pod) => format!("run a container of {}", pod.container["image"].as_str().unwrap_or("no image")),
        Action::Pending(why) => format!("not known before: {why}"),
    };
    subject.steps.push(format!("{step} {}: {what}, once a revision{condition}", node.name));
}

/// A file of a directory, by its path below it.
pub(super) fn of_file(path: &str, decoded: &Decoded, inventory: Vec<InventoryEntry>) -> Subject {
    let set = parent::set_id(&AddonId { source: "directory", name: path.into() });
    let mut subject = Subject {
        title: format!("directory addon {path}"),
        wishes: decoded.objects.iter().map(|desired| Wish::new(desired, "default", &set, false)).collect(),
        inventory,
        ..Subject::default()
    };
    for problem in &decoded.problems {
        let list = if problem.warning { &mut subject.notes } else { &mut subject.problems };
        list.push(problem.to_string());
    }
    for skipped in &decoded.skipped {
        subject.notes.push(format!("{skipped} has no label addonmanager.kubernetes.io/mode: it is not managed"));
    }
    subject
}

impl Subject {
    /// Members of the inventory that the addon does not want any more; `namespaced` tells where a wish
    /// without a namespace lives.
    pub(crate) fn superfluous(&self, resolved: &BTreeSet<(String, String, String)>) -> Vec<&InventoryEntry> {
        self.inventory
            .iter()
            .filter(|entry| {
                let kind =
                    if entry.group.is_empty() { entry.kind.clone() } else { format!("{}.{}", entry.kind, entry.group) };
                !resolved.contains(&(kind, entry.namespace.clone(), entry.name.clone()))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use serde_json::json;

    use super::*;
    use crate::create::CreateFlags;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        flags: CreateFlags,
    }

    /// What `create` writes, the manager runs by itself.
    #[test]
    fn generated_templates_are_in_the_native_grammar() {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |name: &str, text: &str| {
            std::fs::write(folder.path().join(name), text).expect("a file");
            folder.path().join(name).display().to_string()
        };
        let prereqs = write(
            "prereqs.yaml",
            "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: \"{{workflow.parameters.namespace}}\"\n",
        );
        let steps = folder.path().join("steps");
        std::fs::create_dir(&steps).expect("a folder");
        write(
            "steps/1.yaml",
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {x: '{{workflow.parameters.x}}'}\n",
        );
        write("steps/2.yaml", "apiVersion: v1\nkind: Secret\nmetadata: {name: b, namespace: other}\n");
        write("steps/3.py", "import os\nprint('hello')\n");
        let steps = steps.display().to_string();
        let args = ["create", "-n", "deep", "-v", "v1", "-p", "x=1", "--prereqs", &prereqs, "--install", &steps];
        let line = Line::try_parse_from(args).expect("flags");
        let mut addon = crate::create::addon("core/app", &line.flags).expect("an addon");
        let subject = of_addon(&addon, None, None);
        assert_eq!(subject.problems, Vec::<String>::new());
        let wishes: Vec<_> =
            subject.wishes.iter().map(|wish| (wish.ident.to_string(), wish.namespace.as_str())).collect();
        assert_eq!(
            wishes,
            [
                ("Namespace//deep".to_owned(), "addon-manager-system"),
                ("ConfigMap//a".to_owned(), "deep"),
                ("Secret/other/b".to_owned(), "addon-manager-system"),
            ]
        );
        assert_eq!(subject.wishes[1].body["data"]["x"], "1");
        let [script] = &subject.steps[..] else { panic!("one script: {:?}", subject.steps) };
        assert!(script.starts_with("install entry/") && script.contains("run a container of python"), "{script}");

        // The delete step, which no plan shows, is in it too.
        addon.spec.lifecycle.install = addon.spec.lifecycle.delete.clone();
        let subject = of_addon(&addon, None, None);
        assert_eq!(subject.problems, Vec::<String>::new());
        let all = subject.steps.join("\n");
        assert!(all.contains("delete Secret/other/b") && all.contains("delete ConfigMap//a"), "{all}");
    }

    #[test]
    fn what_is_not_in_the_grammar_is_named_by_its_field() {
        let addon: Addon = serde_json::from_value(json!({
            "metadata": {"name": "a", "namespace": "n"},
            "spec": {
                "pkgName": "a", "pkgVersion": "1", "params": {"namespace": "n"},
                "lifecycle": {"install": {"template": "kind: Nothing"}},
            },
        }))
        .expect("an Addon");
        let subject = of_addon(&addon, None, None);
        assert!(subject.problems[0].starts_with("spec.lifecycle.install.template: "), "{:?}", subject.problems);
    }
}
