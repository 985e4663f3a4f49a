//! The workflows of the steps. They keep to the published grammar of the native runner: artifacts with
//! `kubectl apply|delete -f`, and scripts.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::Part;
use super::documents::Object;

/// Image with a shell and kubectl, for who runs the workflow with Argo. The native runner needs none.
const KUBECTL_IMAGE: &str = "alpine/k8s:1.34.0";
/// Image of Python scripts.
const PYTHON_IMAGE: &str = "python:3.13-alpine";
/// Account of the workflow, by upstream's convention.
const ACCOUNT: &str = "addon-manager-workflow-installer-sa";
/// Reference to the namespace of the addon.
const NAMESPACE: &str = "{{workflow.parameters.namespace}}";

/// What workflows are named after.
pub(super) struct Naming<'a> {
    /// Name of the Addon.
    pub(super) addon: &'a str,
    /// Namespace into which it is deployed.
    pub(super) namespace: &'a str,
}

/// One step of a workflow.
enum Task<'a> {
    /// `kubectl VERB -f` of some documents; with `-n` if they do not say where they live.
    Kubectl { text: String, place: Place },
    /// A script.
    Script { file: &'a str, source: &'a str },
}

/// A workflow that applies the parts in their order; `None` if there are none.
pub(super) fn apply(step: &str, naming: &Naming<'_>, parts: &[Part]) -> Option<String> {
    let mut tasks: Vec<Task<'_>> = Vec::new();
    for part in parts {
        match part {
            Part::Script { file, source } => tasks.push(Task::Script { file, source }),
            Part::Documents(documents) => {
                for document in documents {
                    let place = document.objects.iter().map(|object| place(object, naming));
                    add(&mut tasks, &document.text, place.max().unwrap_or(Place::Either));
                }
            }
        }
    }
    render(step, "apply", naming, &tasks)
}

/// A workflow that deletes what the parts brought, last first; `None` if that is nothing. Left out is
/// what takes more with it (Namespace, CustomResourceDefinition, volumes and their claims): whoever
/// removes the Addon is asked about those.
pub(super) fn delete(naming: &Naming<'_>, prereqs: &[Part], install: &[Part]) -> Option<String> {
    let objects = prereqs.iter().chain(install).flat_map(|part| match part {
        Part::Documents(documents) => documents.iter().flat_map(|document| &document.objects).collect::<Vec<_>>(),
        Part::Script { .. } => Vec::new(),
    });
    let mut seen = BTreeSet::new();
    let mut tasks = Vec::new();
    let all: Vec<&Object> = objects.collect();
    for object in all.into_iter().rev() {
        let identity = (&object.kind, &object.api_version, &object.namespace, &object.name);
        if object.name.is_empty() || object.is_dear() || !seen.insert(identity) {
            continue;
        }
        let mut text = format!(
            "apiVersion: {}\nkind: {}\nmetadata:\n  name: {}\n",
            object.api_version,
            object.kind,
            quoted(&object.name)
        );
        if !object.namespace.is_empty() {
            let _ = writeln!(text, "  namespace: {}", quoted(&object.namespace));
        }
        add(&mut tasks, &text, place(object, naming));
    }
    render("delete", "delete --ignore-not-found", naming, &tasks)
}

/// Where an object says that it lives.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    /// With or without `-n`, it comes to the same place.
    Either,
    /// In a namespace of its own, with which `-n` would disagree.
    Own,
    /// It does not say: in the addon's.
    Unsaid,
}

fn place(object: &Object, naming: &Naming<'_>) -> Place {
    let same = [naming.namespace, NAMESPACE, "{{ workflow.parameters.namespace }}"];
    if object.is_cluster_scoped() || same.contains(&object.namespace.as_str()) {
        Place::Either
    } else if object.namespace.is_empty() {
        Place::Unsaid
    } else {
        Place::Own
    }
}

/// Adds a document to the last task if it fits there, else as a task of its own.
fn add(tasks: &mut Vec<Task<'_>>, document: &str, place: Place) {
    if let Some(Task::Kubectl { text, place: of_task }) = tasks.last_mut()
        && (place == Place::Either || *of_task == Place::Either || *of_task == place)
    {
        *of_task = (*of_task).max(place);
        text.push_str("---\n");
        text.push_str(document);
    } else {
        tasks.push(Task::Kubectl { text: document.to_owned(), place });
    }
}

fn render(step: &str, verb: &str, naming: &Naming<'_>, tasks: &[Task<'_>]) -> Option<String> {
    if tasks.is_empty() {
        return None;
    }
    let mut out = Yaml::default();
    out.line(0, "apiVersion: argoproj.io/v1alpha1");
    out.line(0, "kind: Workflow");
    out.line(0, "metadata:");
    out.line(2, &format!("generateName: {step}-{}-", naming.addon));
    out.line(0, "spec:");
    out.line(2, "entrypoint: entry");
    out.line(2, &format!("serviceAccountName: {ACCOUNT}"));
    out.line(2, "templates:");
    out.line(4, "- name: entry");
    out.line(6, "steps:");
    let mut plain = false;
    let mut in_addon = false;
    let mut scripts = Vec::new();
    for (index, task) in tasks.iter().enumerate() {
        let number = index + 1;
        match task {
            Task::Kubectl { text, place } => {
                let unsaid = *place == Place::Unsaid;
                let template = if unsaid { "submit-in-namespace" } else { "submit" };
                (plain, in_addon) = (plain || !unsaid, in_addon || unsaid);
                out.line(8, &format!("- - name: {step}-resources-{number}"));
                out.line(12, &format!("template: {template}"));
                out.line(12, "arguments:");
                out.line(14, "artifacts:");
                out.line(16, "- name: doc");
                out.line(18, "path: /tmp/doc");
                out.line(18, "raw:");
                out.block(20, "data", text);
            }
            Task::Script { file, source } => {
                let name = format!("script-{number}-{}", slug(file));
                out.line(8, &format!("- - name: {name}"));
                out.line(12, &format!("template: {name}"));
                scripts.push((name, *source));
            }
        }
    }
    for (wanted, name, flag) in
        [(plain, "submit", String::new()), (in_addon, "submit-in-namespace", format!(" -n {NAMESPACE}"))]
    {
        if wanted {
            out.line(4, &format!("- name: {name}"));
            out.line(6, "inputs:");
            out.line(8, "artifacts:");
            out.line(10, "- name: doc");
            out.line(12, "path: /tmp/doc");
            out.line(6, "container:");
            out.line(8, &format!("image: {KUBECTL_IMAGE}"));
            out.line(8, "command: [sh, -c]");
            out.line(8, &format!("args: [\"kubectl {verb} -f /tmp/doc{flag}\"]"));
        }
    }
    for (name, source) in scripts {
        out.line(4, &format!("- name: {name}"));
        out.line(6, "script:");
        out.line(8, &format!("image: {PYTHON_IMAGE}"));
        out.line(8, "command: [python]");
        out.block(8, "source", source);
    }
    Some(out.0)
}

/// The name of a script's file as part of a step's name.
fn slug(file: &str) -> String {
    let stem = file.rsplit_once('.').map_or(file, |(stem, _)| stem);
    let letters = stem.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' });
    letters.take(30).collect::<String>().trim_matches('-').to_owned()
}

/// A text as YAML's quoted scalar: JSON's is one.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// YAML that is written line by line.
#[derive(Default)]
struct Yaml(String);

impl Yaml {
    fn line(&mut self, indent: usize, text: &str) {
        let _ = writeln!(self.0, "{:indent$}{text}", "");
    }

    /// A key with a text of several lines, as a block if YAML can say it so.
    fn block(&mut self, indent: usize, key: &str, text: &str) {
        let text = format!("{}\n", text.trim_end_matches('\n'));
        let odd =
            |c: char| (c.is_control() && c != '\n' && c != '\t') || matches!(c, '\u{feff}' | '\u{2028}' | '\u{2029}');
        if text.contains(odd) {
            self.line(indent, &format!("{key}: {}", quoted(&text)));
            return;
        }
        // The first line tells the depth, unless it has spaces or nothing of its own.
        let hint = if text.starts_with([' ', '\n', '\t']) { "2" } else { "" };
        self.line(indent, &format!("{key}: |{hint}"));
        for line in text.lines() {
            if line.is_empty() { self.0.push('\n') } else { self.line(indent + 2, line) }
        }
    }
}
