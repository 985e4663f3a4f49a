//! The Workflow object that is made where Argo runs a template
//! (`keikoproj/addon-manager:pkg/workflows/workflow_lifecycle.go`), and what its status says.

use serde_json::{Map, Value, json};

use super::leaf::is_program_text;
use super::objects::{app_labels, stamp};
use super::parameters::{AddonFacts, Parameters};
use super::pod::owner;
use super::revision::short;
use super::substitute::{Found, Lookup, Miss, embedded, read_template, rewritten, shell};
use super::{Cause, Limits, Refusal};
use crate::addon::projection::{Content, Projection};

/// API group of Argo's kinds.
pub const GROUP: &str = "argoproj.io";
/// Version of them that is used.
pub const VERSION: &str = "v1alpha1";
/// Label that says which Argo controller takes a Workflow.
const INSTANCE_LABEL: &str = "workflows.argoproj.io/controller-instanceid";
/// Its value: the controller that upstream installs.
const INSTANCE: &str = "addon-manager-workflow-controller";
/// Seconds that a finished Workflow is kept, where the template does not say.
const KEPT: u64 = 259_200;
/// Seconds that a Workflow may take, where the template does not say.
const DEADLINE: u64 = 300;

/// Which Workflow is made.
#[derive(Clone, Copy, Debug)]
pub struct Run<'a> {
    /// The Addon.
    pub addon: &'a AddonFacts,
    /// Phase of its lifecycle: `prereqs`, `install`, `validate` or `delete`.
    pub phase: &'a str,
    /// The phase's `namePrefix`, empty if it has none.
    pub name_prefix: &'a str,
    /// The Addon's revision ([`revision`](super::revision::revision())).
    pub revision: &'a str,
    /// The phase's `role`: the service account where the template names none.
    pub role: Option<&'a str>,
}

/// `<addon>[-<namePrefix>]-<phase>-<revision>-wf`.
#[must_use]
pub fn name(run: &Run<'_>) -> String {
    let parts = [run.addon.name.as_str(), run.name_prefix, run.phase, short(run.revision), "wf"];
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("-")
}

/// The Workflow object for a template.
pub fn workflow(template: &str, parameters: &Parameters, run: &Run<'_>) -> Result<Value, Vec<Refusal>> {
    let most = Limits::default().template_bytes;
    if template.len() > most {
        return Err(vec![Refusal::new("", format!("{} bytes; at most {most} are read", template.len()))]);
    }
    let mut object = read_template(template).map_err(|refusal| vec![refusal])?;
    let is = |field: &str, expected: &str| object.get(field).and_then(Value::as_str) == Some(expected);
    if !is("apiVersion", &format!("{GROUP}/{VERSION}")) || !is("kind", "Workflow") {
        return Err(vec![Refusal::new("kind", format!("a template is a Workflow of {GROUP}/{VERSION}"))]);
    }
    let given = object["metadata"].take();
    let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) else {
        return Err(vec![Refusal::new("spec", "missing")]);
    };
    arguments(spec, parameters)?;
    if !spec.contains_key("ttlStrategy") {
        spec.insert("ttlStrategy".to_owned(), json!({"secondsAfterCompletion": KEPT}));
    }
    if !spec.contains_key("activeDeadlineSeconds") {
        spec.insert("activeDeadlineSeconds".to_owned(), DEADLINE.into());
    }
    if let Some(role) = run.role
        && !spec.contains_key("serviceAccountName")
    {
        spec.insert("serviceAccountName".to_owned(), role.into());
    }
    let mut refusals = Vec::new();
    check(&Value::Object(spec.clone()), "spec", &Globals(parameters), &mut refusals);
    if !refusals.is_empty() {
        return Err(refusals);
    }
    stamp_spec(spec, run.addon);
    let texts = |field: &str| given.get(field).and_then(Value::as_object).cloned().unwrap_or_default();
    let (mut labels, annotations) = (texts("labels"), texts("annotations"));
    labels.insert(INSTANCE_LABEL.to_owned(), INSTANCE.into());
    labels.extend(app_labels(run.addon).map(|(key, value)| (key.to_owned(), Value::from(value))));
    let mut metadata = Map::new();
    metadata.insert("name".to_owned(), name(run).into());
    metadata.insert("namespace".to_owned(), run.addon.namespace.as_str().into());
    metadata.insert("labels".to_owned(), labels.into());
    metadata.insert("ownerReferences".to_owned(), json!([owner(run.addon)]));
    if !annotations.is_empty() {
        metadata.insert("annotations".to_owned(), annotations.into());
    }
    let spec = object["spec"].take();
    Ok(json!({"apiVersion": format!("{GROUP}/{VERSION}"), "kind": "Workflow", "metadata": metadata, "spec": spec}))
}

/// Appends the Addon's parameters to the template's own, which may not have their names.
fn arguments(spec: &mut Map<String, Value>, parameters: &Parameters) -> Result<(), Vec<Refusal>> {
    let arguments = spec.entry("arguments").or_insert_with(|| json!({}));
    let Some(arguments) = arguments.as_object_mut() else {
        return Err(vec![Refusal::new("spec.arguments", "not a map")]);
    };
    let own = arguments.entry("parameters").or_insert_with(|| json!([]));
    let Some(own) = own.as_array_mut() else {
        return Err(vec![Refusal::new("spec.arguments.parameters", "not a list")]);
    };
    let mut refusals = Vec::new();
    for (index, parameter) in own.iter().enumerate() {
        if let Some(name) = parameter["name"].as_str()
            && parameters.get(name).is_some()
        {
            let path = format!("spec.arguments.parameters[{index}].name");
            refusals.push(Refusal::value(path, format!("a global parameter {name} exists already")));
        }
    }
    own.extend(parameters.iter().map(|(name, value)| json!({"name": name, "value": value})));
    if refusals.is_empty() { Ok(()) } else { Err(refusals) }
}

/// The Addon's parameters; whatever else there is to refer to is Argo's business.
struct Globals<'a>(&'a Parameters);

impl Lookup for Globals<'_> {
    fn lookup(&self, name: &str) -> Result<Found, String> {
        let value = name.strip_prefix("workflow.parameters.").and_then(|name| self.0.get(name));
        Ok(value.map_or_else(|| Found::Unknown(String::new()), |value| Found::Known(value.to_owned())))
    }
}

/// Refuses values that would change what Argo pastes them into: manifests, files, scripts and words
/// that a shell reads.
fn check(value: &Value, path: &str, lookup: &Globals<'_>, refusals: &mut Vec<Refusal>) {
    let mut take = |miss: Option<Miss>| {
        if let Some(Miss::Refused(found)) = miss {
            refusals.extend(found.into_iter().filter(|refusal| refusal.cause == Cause::Value));
        }
    };
    match value {
        Value::Object(fields) => {
            for (field, place) in [("data", ".raw"), ("manifest", ".resource")] {
                if let Some(text) = fields.get(field).and_then(Value::as_str).filter(|_| path.ends_with(place)) {
                    let path = format!("{path}.{field}");
                    let miss = match rewritten(text, &|_| {}) {
                        Some(_) => embedded(text, &path, lookup).err(),
                        None => shell(text, &path, lookup).err(),
                    };
                    take(miss);
                }
            }
            if let Some(source) = fields.get("source").and_then(Value::as_str).filter(|_| fields.contains_key("image"))
            {
                take(shell(source, &format!("{path}.source"), lookup).err());
            }
            let words = |field: &str| fields.get(field).and_then(Value::as_array).cloned().unwrap_or_default();
            let (command, args) = (words("command"), words("args"));
            let all = command.iter().chain(&args).filter_map(Value::as_str);
            if fields.contains_key("image") && is_program_text(command.is_empty(), all) {
                for (field, words) in [("command", &command), ("args", &args)] {
                    for (index, word) in words.iter().enumerate().filter_map(|(at, word)| Some((at, word.as_str()?))) {
                        take(shell(word, &format!("{path}.{field}[{index}]"), lookup).err());
                    }
                }
            }
            for (field, value) in fields {
                check(value, &format!("{path}.{field}"), lookup, refusals);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                check(item, &format!("{path}[{index}]"), lookup, refusals);
            }
        }
        _ => {}
    }
}

/// Puts the labels on the objects of raw artifacts and of resource templates, wherever they stand.
fn stamp_spec(spec: &mut Map<String, Value>, addon: &AddonFacts) {
    stamp_arguments(spec.get_mut("arguments"), addon);
    for template in spec.get_mut("templates").and_then(Value::as_array_mut).into_iter().flatten() {
        stamp_arguments(template.get_mut("arguments"), addon);
        stamp_arguments(template.get_mut("inputs"), addon);
        if let Some(manifest) = template.pointer_mut("/resource/manifest") {
            stamp_text(manifest, addon);
        }
        for group in template.get_mut("steps").and_then(Value::as_array_mut).into_iter().flatten() {
            match group {
                Value::Array(steps) => {
                    steps.iter_mut().for_each(|step| stamp_arguments(step.get_mut("arguments"), addon))
                }
                step => stamp_arguments(step.get_mut("arguments"), addon),
            }
        }
        for task in template.pointer_mut("/dag/tasks").and_then(Value::as_array_mut).into_iter().flatten() {
            stamp_arguments(task.get_mut("arguments"), addon);
        }
    }
}

fn stamp_arguments(arguments: Option<&mut Value>, addon: &AddonFacts) {
    let artifacts = arguments.and_then(|arguments| arguments.get_mut("artifacts")).and_then(Value::as_array_mut);
    for artifact in artifacts.into_iter().flatten() {
        if let Some(data) = artifact.pointer_mut("/raw/data") {
            stamp_text(data, addon);
        }
    }
}

/// Leaves alone what is no manifest.
fn stamp_text(text: &mut Value, addon: &AddonFacts) {
    let new = text.as_str().and_then(|source| rewritten(source, &|tree| stamp(tree, addon)));
    if let Some(new) = new {
        *text = new.into();
    }
}

/// How a Workflow stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Argo has not taken it yet, or is at it.
    UnderWay {
        /// What it says, if anything.
        message: String,
    },
    /// It did what it was to do.
    Succeeded,
    /// It did not.
    Failed {
        /// Why.
        message: String,
    },
}

/// Reads a Workflow's status.
#[must_use]
pub fn state(workflow: &Value) -> State {
    let text = |field: &str| {
        workflow.pointer(&format!("/status/{field}")).and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    let message = text("message");
    match text("phase").as_str() {
        "Succeeded" => State::Succeeded,
        phase @ ("Failed" | "Error") => {
            State::Failed { message: if message.is_empty() { phase.to_lowercase() } else { message } }
        }
        _ => State::UnderWay { message },
    }
}

/// A Workflow in the form in which a cache keeps it.
pub type Watched = Projection<State>;

impl Content for State {
    const FORM: &'static str = "Watched";

    fn of(object: Value) -> Self {
        state(&object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addon::workflow::parameters;

    fn addon() -> AddonFacts {
        AddonFacts {
            name: "event-router".into(),
            namespace: "addon-manager-system".into(),
            uid: "u".into(),
            pkg_name: "event-router".into(),
            pkg_version: "v0.2".into(),
            target_namespace: "router".into(),
            ..AddonFacts::default()
        }
    }

    const TEMPLATE: &str = r##"
apiVersion: argoproj.io/v1alpha1
kind: Workflow
metadata:
  generateName: x-
  labels: {mine: "1"}
spec:
  entrypoint: entry
  arguments: {parameters: [{name: own, value: "1"}]}
  templates:
  - name: entry
    steps:
    - - name: a
        template: b
        arguments:
          artifacts:
          - name: doc
            raw:
              data: |
                apiVersion: v1
                kind: ConfigMap
                metadata: {name: "{{workflow.parameters.namespace}}"}
                data: {n: {{workflow.parameters.own}}, gone: null}
                ---
                apiVersion: apps/v1
                kind: Deployment
                metadata: {name: d}
                spec: {template: {metadata: {labels: {a: b}}}}
          - {name: other, raw: {data: "#!/bin/sh\nkubectl get pods\n"}}
  - name: r
    resource: {action: apply, manifest: "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: x\n"}
"##;

    fn made() -> Value {
        let addon = addon();
        let run =
            Run { addon: &addon, phase: "install", name_prefix: "er", revision: "0123456789abcdef", role: Some("r") };
        workflow(TEMPLATE, &parameters(&addon).unwrap(), &run).unwrap()
    }

    #[test]
    fn the_object_is_the_one_that_upstream_makes() {
        let made = made();
        let metadata = &made["metadata"];
        assert_eq!(metadata["name"], "event-router-er-install-01234567-wf");
        assert_eq!(metadata["namespace"], "addon-manager-system");
        assert_eq!(metadata["generateName"], Value::Null);
        assert_eq!(
            metadata["labels"],
            json!({
                "mine": "1",
                "workflows.argoproj.io/controller-instanceid": "addon-manager-workflow-controller",
                "app.kubernetes.io/name": "event-router",
                "app.kubernetes.io/version": "v0.2",
                "app.kubernetes.io/part-of": "event-router",
                "app.kubernetes.io/managed-by": "addonmgr.keikoproj.io"
            })
        );
        assert_eq!(metadata["ownerReferences"][0]["uid"], "u");
        let spec = &made["spec"];
        assert_eq!((&spec["activeDeadlineSeconds"], &spec["serviceAccountName"]), (&json!(300), &json!("r")));
        assert_eq!(spec["ttlStrategy"], json!({"secondsAfterCompletion": 259_200}));
        let names: Vec<&str> = spec["arguments"]["parameters"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one["name"].as_str().unwrap())
            .collect();
        assert_eq!(
            names.join(" "),
            "own namespace pkgChannel pkgName pkgVersion pkgType pkgDescription clusterName clusterRegion"
        );
    }

    #[test]
    fn labels_are_put_on_objects_and_references_stay() {
        let made = made();
        let artifacts = &made["spec"]["templates"][0]["steps"][0][0]["arguments"]["artifacts"];
        let data = artifacts[0]["raw"]["data"].as_str().unwrap();
        let documents: Vec<&str> = data.split("---\n").collect();
        assert_eq!(documents.len(), 2);
        assert!(documents[0].contains("\"n\":{{workflow.parameters.own}}"), "typed by who reads it: {data}");
        let first: Value = serde_json::from_str(&documents[0].replace("{{workflow.parameters.own}}", "1")).unwrap();
        assert_eq!(first["metadata"]["name"], "{{workflow.parameters.namespace}}");
        assert_eq!(first["metadata"]["labels"]["app.kubernetes.io/name"], "event-router");
        assert_eq!(first["data"], json!({"n": 1, "gone": null}));
        let second: Value = serde_json::from_str(documents[1]).unwrap();
        assert_eq!(second["metadata"]["labels"]["app.kubernetes.io/version"], "v0.2");
        assert_eq!(second["spec"]["template"]["metadata"]["labels"], json!({"a": "b"}));
        assert_eq!(artifacts[1]["raw"]["data"], "#!/bin/sh\nkubectl get pods\n");
        let manifest: Value =
            serde_json::from_str(made["spec"]["templates"][1]["resource"]["manifest"].as_str().unwrap()).unwrap();
        assert_eq!(manifest["metadata"]["labels"]["app.kubernetes.io/part-of"], "event-router");
    }

    #[test]
    fn what_is_no_workflow_or_collides_is_refused() {
        let addon = addon();
        let run = Run { addon: &addon, phase: "install", name_prefix: "", revision: "0", role: None };
        let parameters = parameters(&addon).unwrap();
        let refused = |template: &str| workflow(template, &parameters, &run).unwrap_err()[0].field_path.clone();
        assert_eq!(refused("kind: Workflow"), "kind");
        assert_eq!(refused("apiVersion: argoproj.io/v1alpha1\nkind: Workflow"), "spec");
        assert_eq!(refused(&TEMPLATE.replace("name: own", "name: clusterName")), "spec.arguments.parameters[0].name");
        assert_eq!(refused("a: ["), "a[0]");
        assert_eq!(name(&run), "event-router-install-0-wf");
    }

    #[test]
    fn keiko_b5_objects_of_dag_tasks_get_the_labels_too() {
        let template = "apiVersion: argoproj.io/v1alpha1\nkind: Workflow\nspec:\n  templates:\n  - name: a\n    dag:\n      tasks:\n      - name: t\n        arguments:\n          artifacts:\n          - {name: doc, raw: {data: \"apiVersion: v1\\nkind: ConfigMap\\nmetadata: {name: m}\\n\"}}\n";
        let addon = addon();
        let run = Run { addon: &addon, phase: "install", name_prefix: "", revision: "0", role: None };
        let made = workflow(template, &parameters(&addon).unwrap(), &run).unwrap();
        let data = made.pointer("/spec/templates/0/dag/tasks/0/arguments/artifacts/0/raw/data").unwrap();
        let object: Value = serde_json::from_str(data.as_str().unwrap()).unwrap();
        assert_eq!(object["metadata"]["labels"]["app.kubernetes.io/part-of"], "event-router");
    }

    #[test]
    fn a_value_that_would_change_what_it_is_pasted_into_never_reaches_argo() {
        let refused = |template: &str, value: &str| {
            let addon = AddonFacts { target_namespace: value.into(), ..addon() };
            let run = Run { addon: &addon, phase: "install", name_prefix: "", revision: "0", role: None };
            workflow(template, &parameters(&addon).unwrap(), &run).err().map(|all| all[0].field_path.clone())
        };
        assert_eq!(refused(TEMPLATE, "fine"), None);
        let data = "spec.templates[0].steps[0][0].arguments.artifacts[0].raw.data, document 1, line 1, metadata.name";
        assert_eq!(refused(TEMPLATE, "x\ny: z").as_deref(), Some(data));
        let container = |words: &str| {
            let spec = format!("spec: {{templates: [{{name: a, suspend: {{}}, container: {{image: i, {words}}}}}]}}");
            format!("apiVersion: argoproj.io/v1alpha1\nkind: Workflow\n{spec}\n")
        };
        let shell = container("command: [sh, -c], args: ['get {{workflow.parameters.namespace}}']");
        assert_eq!(refused(&shell, "a-b"), None);
        assert_eq!(refused(&shell, "a; b").as_deref(), Some("spec.templates[0].container.args[0]"));
        let plain = container("command: [say], args: ['{{workflow.parameters.namespace}}']");
        assert_eq!(refused(&plain, "a; b"), None);
        let script = container("command: [say], source: 'get {{workflow.parameters.namespace}}'");
        assert_eq!(refused(&script, "a; b").as_deref(), Some("spec.templates[0].container.source"));
    }

    #[test]
    fn a_status_is_read() {
        let of = |status: Value| state(&json!({"status": status}));
        let under_way = |message: &str| State::UnderWay { message: message.into() };
        let failed = |message: &str| State::Failed { message: message.into() };
        for (status, expected) in [
            (Value::Null, under_way("")),
            (json!({"phase": "Pending"}), under_way("")),
            (json!({"phase": "Running", "message": "m"}), under_way("m")),
            (json!({"phase": "Succeeded"}), State::Succeeded),
            (json!({"phase": "Failed", "message": "child failed"}), failed("child failed")),
            (json!({"phase": "Error"}), failed("error")),
        ] {
            assert_eq!(of(status.clone()), expected, "{status}");
        }
    }
}
