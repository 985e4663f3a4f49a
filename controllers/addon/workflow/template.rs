//! A template's text as a typed tree: the published part of Argo's `Workflow`
//! (`argoproj/argo-workflows:pkg/apis/workflow/v1alpha1/workflow_types.go` v3.4). Nothing is
//! substituted here.

use serde_json::{Map, Value};

use super::model::{
    Argument, ArtifactFrom, Body, Call, Container, InputArtifact, Output, OutputFrom, PodFields, Resource, RetryText,
    Template, Text, Workflow,
};
use super::read::{At, Fields, Sink};
use super::substitute::read_template;
use super::{Limits, Refusal};

/// Fields of `spec` that change nothing here.
pub(super) const SPEC_WITHOUT_EFFECT: &[&str] = &[
    "ttlStrategy",
    "ttlSecondsAfterFinished",
    "podGC",
    "archiveLogs",
    "priority",
    "workflowMetadata",
    "executor",
    "artifactGC",
    "podPriority",
];
/// Fields of a template that change nothing here.
pub(super) const TEMPLATE_WITHOUT_EFFECT: &[&str] = &["executor", "priority", "metrics", "archiveLocation"];

const SPEC_REFUSED: &[(&str, &str)] = &[
    ("workflowTemplateRef", "templates of other objects are not read"),
    ("volumeClaimTemplates", "claims made for one run are not supported; use an existing claim"),
    ("suspend", "a program cannot be suspended; pause the addon"),
    ("synchronization", "locks between workflows are not supported"),
    ("artifactRepositoryRef", "there is no artifact repository; use raw artifacts"),
    ("hooks", "hooks are not supported, only onExit"),
    ("podSpecPatch", "patches of pods are not supported"),
    ("templateDefaults", "write the fields into the templates"),
    ("shutdown", "a program cannot be shut down; pause the addon"),
];
const TEMPLATE_REFUSED: &[(&str, &str)] = &[
    ("suspend", "a program cannot be suspended"),
    ("http", "requests over HTTP are not supported; use a container"),
    ("plugin", "plugins are not supported"),
    ("containerSet", "sets of containers are not supported; use one container a step"),
    ("data", "data templates are not supported"),
    ("initContainers", "init containers are not supported; use a step before"),
    ("sidecars", "sidecars are not supported"),
    ("daemon", "daemons are not supported; use a Deployment"),
    ("synchronization", "locks between workflows are not supported"),
    ("memoize", "results are not memoized"),
    ("podSpecPatch", "patches of pods are not supported"),
    ("timeout", "use activeDeadlineSeconds"),
];
const CALL_REFUSED: &[(&str, &str)] = &[
    ("withItems", "loops are not supported; write the steps out"),
    ("withParam", "loops are not supported; write the steps out"),
    ("withSequence", "loops are not supported; write the steps out"),
    ("templateRef", "templates of other objects are not read"),
    ("inline", "inline templates are not supported; name one"),
    ("hooks", "hooks are not supported, only onExit of the workflow"),
    ("onExit", "onExit is supported for the whole workflow only"),
];
/// Fields of a container that go into the Pod as they are.
const CONTAINER_FIELDS: [&str; 8] = [
    "env",
    "envFrom",
    "resources",
    "volumeMounts",
    "workingDir",
    "imagePullPolicy",
    "securityContext",
    "volumeDevices",
];
/// Fields of a Pod that a workflow or a template may set, by their names in both.
const POD_FIELDS: [&str; 8] = [
    "nodeSelector",
    "tolerations",
    "affinity",
    "priorityClassName",
    "hostAliases",
    "securityContext",
    "schedulerName",
    "automountServiceAccountToken",
];
const SPEC_POD_FIELDS: [&str; 4] = ["imagePullSecrets", "dnsPolicy", "dnsConfig", "hostNetwork"];

/// Kinds of volumes that a Pod step may use: those that need nothing made for the run.
const VOLUMES: [&str; 7] =
    ["emptyDir", "configMap", "secret", "projected", "downwardAPI", "persistentVolumeClaim", "hostPath"];

/// Reads a template's text, or says all that is not in the grammar.
pub(super) fn read(text: &str, limits: &Limits) -> Result<Workflow, Vec<Refusal>> {
    if text.len() > limits.template_bytes {
        let reason = format!("{} bytes; at most {} are read", text.len(), limits.template_bytes);
        return Err(vec![Refusal::new("", reason)]);
    }
    let value = read_template(text).map_err(|refusal| vec![refusal])?;
    let sink = Sink::default();
    let workflow = Fields::new(&At { value: &value, path: String::new() }, &sink).and_then(document);
    match workflow {
        Some(workflow) if sink.is_empty() => Ok(workflow),
        _ => Err(sink.into_refusals(limits.refusals)),
    }
}

fn document(mut fields: Fields<'_, '_>) -> Option<Workflow> {
    for (field, expected) in [("apiVersion", "argoproj.io/v1alpha1"), ("kind", "Workflow")] {
        if let Some(found) = fields.required(field)
            && found != expected
        {
            fields.sink.refuse(field, format!("{found:?}; a template is a Workflow of argoproj.io/v1alpha1"));
        }
    }
    // Upstream replaces the metadata by its own.
    fields.without_effect(&["metadata", "status"]);
    let Some(spec) = fields.fields("spec") else {
        if fields.get("spec").is_none() {
            fields.sink.refuse("spec", "missing");
        }
        return None;
    };
    fields.finish();
    workflow(spec)
}

fn workflow(mut fields: Fields<'_, '_>) -> Option<Workflow> {
    let sink = fields.sink;
    fields.without_effect(SPEC_WITHOUT_EFFECT);
    fields.refused(SPEC_REFUSED);
    let mut out = Workflow {
        entrypoint: with_path(&mut fields, "entrypoint"),
        on_exit: with_path(&mut fields, "onExit"),
        account: with_path(&mut fields, "serviceAccountName"),
        deadline: with_path(&mut fields, "activeDeadlineSeconds"),
        pod: pod_fields(&mut fields, "podMetadata"),
        parallelism: parallelism(&mut fields),
        ..Workflow::default()
    };
    for field in SPEC_POD_FIELDS {
        out.pod.fields.extend(fields.get(field).map(|at| (field, at.path, at.value.clone())));
    }
    if let Some(mut arguments) = fields.fields("arguments") {
        out.parameters = argument_parameters(&mut arguments);
        out.artifacts = argument_artifacts(&mut arguments);
        arguments.finish();
    }
    for at in fields.items("templates") {
        let Some((name, template)) = Fields::new(&at, sink).and_then(template) else { continue };
        out.parallelism = out.parallelism.into_iter().chain(template.parallelism).min();
        if out.templates.insert(name.clone(), template).is_some() {
            sink.refuse(format!("{}.name", at.path), format!("a second template {name}"));
        }
    }
    fields.finish();
    Some(out)
}

fn with_path(fields: &mut Fields<'_, '_>, field: &'static str) -> Option<Text> {
    let at = fields.get(field)?;
    Some((at.scalar(fields.sink)?, at.path))
}

/// A name of a step, a template, a parameter or an artifact.
fn name(fields: &mut Fields<'_, '_>) -> Option<String> {
    let name = fields.required("name")?;
    let fine = !name.is_empty()
        && name.len() <= 128
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
    if !fine {
        fields.sink.refuse(fields.path_of("name"), format!("{name:?} is not a name: letters, digits, - and _ are"));
    }
    fine.then_some(name)
}

fn pod_fields(fields: &mut Fields<'_, '_>, metadata: &'static str) -> PodFields {
    let mut out = PodFields::default();
    for field in POD_FIELDS {
        out.fields.extend(fields.get(field).map(|at| (field, at.path, at.value.clone())));
    }
    for at in fields.items("volumes") {
        let kind = at.value.as_object().and_then(|volume| volume.keys().find(|key| *key != "name"));
        match kind {
            Some(kind) if VOLUMES.contains(&kind.as_str()) => out.volumes.push((at.path, at.value.clone())),
            Some(kind) => fields.sink.refuse(format!("{}.{kind}", at.path), "volumes of this kind are not supported"),
            None => fields.sink.refuse(at.path, "not a volume"),
        }
    }
    if let Some(mut metadata) = fields.fields(metadata) {
        for (field, to) in [("labels", &mut out.labels), ("annotations", &mut out.annotations)] {
            let Some(at) = metadata.get(field) else { continue };
            let Value::Object(pairs) = at.value else {
                metadata.sink.refuse(at.path, "not a map");
                continue;
            };
            for (key, value) in pairs {
                let at = At { value, path: format!("{}.{key}", at.path) };
                to.extend(at.scalar(metadata.sink).map(|text| (key.clone(), text, at.path)));
            }
        }
        metadata.finish();
    }
    out
}

fn argument_parameters(arguments: &mut Fields<'_, '_>) -> Vec<(String, String, String)> {
    let sink = arguments.sink;
    let mut out: Vec<(String, String, String)> = Vec::new();
    for at in arguments.items("parameters") {
        let Some(mut fields) = Fields::new(&at, sink) else { continue };
        fields.without_effect(&["description", "globalName"]);
        fields.refused(&[("valueFrom", "values are not read from elsewhere; use value"), ("enum", "not supported")]);
        if let (Some(name), Some(value)) = (name(&mut fields), fields.required("value")) {
            if out.iter().any(|(known, ..)| *known == name) {
                sink.refuse(fields.path_of("name"), format!("a second parameter {name}"));
            }
            out.push((name, value, fields.path_of("value")));
        }
        fields.finish();
    }
    out
}

fn argument_artifacts(arguments: &mut Fields<'_, '_>) -> Vec<Argument> {
    let sink = arguments.sink;
    let mut out: Vec<Argument> = Vec::new();
    for at in arguments.items("artifacts") {
        let Some(mut fields) = Fields::new(&at, sink) else { continue };
        // The callee's own path counts; Argo ignores it here, too.
        fields.without_effect(&["path", "mode", "archive"]);
        let name = name(&mut fields);
        let raw = raw(&mut fields);
        let from = with_path(&mut fields, "from");
        let from = match (raw, from) {
            (Some(raw), None) => Some(ArtifactFrom::Raw(raw)),
            (None, Some((text, path))) => match super::token::parts(text.trim()).as_slice() {
                [super::token::Part::Reference(name)] if name.starts_with("inputs.artifacts.") => {
                    Some(ArtifactFrom::Input(name["inputs.artifacts.".len()..].to_owned()))
                }
                _ => {
                    sink.refuse(
                        path,
                        "only artifacts of the inputs are handed on; those of other steps need a repository",
                    );
                    None
                }
            },
            _ => {
                sink.refuse(&*fields.path, "not a raw artifact: there is no artifact repository");
                None
            }
        };
        if let (Some(name), Some(from)) = (name, from) {
            if out.iter().any(|known| known.name == name) {
                sink.refuse(fields.path_of("name"), format!("a second artifact {name}"));
            }
            out.push(Argument { name, path: fields.path.clone(), from });
        }
        fields.finish();
    }
    out
}

fn raw(fields: &mut Fields<'_, '_>) -> Option<Text> {
    let mut raw = fields.fields("raw")?;
    let data = raw.required("data").map(|data| (data, raw.path_of("data")));
    raw.finish();
    data
}

fn template(mut fields: Fields<'_, '_>) -> Option<(String, Template)> {
    let sink = fields.sink;
    let name = name(&mut fields);
    fields.without_effect(TEMPLATE_WITHOUT_EFFECT);
    fields.refused(TEMPLATE_REFUSED);
    let (inputs, artifacts) = fields.fields("inputs").map(inputs).unwrap_or_default();
    let outputs = fields.fields("outputs").map(outputs).unwrap_or_default();
    let retry = fields.fields("retryStrategy").map(retry);
    if let Some(at) = fields.get("failFast")
        && at.value != &Value::Bool(true)
    {
        sink.refuse(at.path, "once a step has failed nothing new begins");
    }
    let deadline = with_path(&mut fields, "activeDeadlineSeconds");
    let account = with_path(&mut fields, "serviceAccountName");
    let pod = pod_fields(&mut fields, "metadata");
    let parallelism = parallelism(&mut fields);
    let bodies = ["steps", "dag", "resource", "container", "script"];
    let given: Vec<&'static str> = bodies.into_iter().filter(|field| fields.get(field).is_some()).collect();
    let body = match given[..] {
        ["steps"] => Some(Body::Steps(steps(&mut fields))),
        ["dag"] => fields.fields("dag").map(dag),
        ["resource"] => fields.fields("resource").and_then(resource),
        ["container"] => fields.fields("container").and_then(|at| container(at, false)),
        ["script"] => fields.fields("script").and_then(|at| container(at, true)),
        [] => {
            if sink.is_empty() {
                sink.refuse(&*fields.path, "none of steps, dag, resource, container and script");
            }
            None
        }
        _ => {
            sink.refuse(&*fields.path, format!("both {} and {}", given[0], given[1]));
            None
        }
    };
    let path = fields.path.clone();
    fields.finish();
    Some((
        name?,
        Template { path, inputs, artifacts, outputs, retry, deadline, account, pod, parallelism, body: body? },
    ))
}

/// How many steps may run at once.
fn parallelism(fields: &mut Fields<'_, '_>) -> Option<u32> {
    let at = fields.get("parallelism")?;
    let number = at.value.as_u64().and_then(|number| u32::try_from(number).ok()).filter(|number| *number > 0);
    if number.is_none() {
        fields.sink.refuse(at.path, "not a whole number above 0");
    }
    number
}

type Inputs = (Vec<(String, Option<String>, String)>, Vec<InputArtifact>);

fn inputs(mut fields: Fields<'_, '_>) -> Inputs {
    let sink = fields.sink;
    let (mut parameters, mut artifacts) = Inputs::default();
    for at in fields.items("parameters") {
        let Some(mut fields) = Fields::new(&at, sink) else { continue };
        fields.without_effect(&["description"]);
        fields.refused(&[("valueFrom", "values are not read from elsewhere; use value"), ("enum", "not supported")]);
        let value = fields.text("value").or_else(|| fields.text("default"));
        fields.without_effect(&["value", "default"]);
        parameters.extend(name(&mut fields).map(|name| (name, value, fields.path.clone())));
        fields.finish();
    }
    for at in fields.items("artifacts") {
        let Some(mut fields) = Fields::new(&at, sink) else { continue };
        fields.without_effect(&["archive"]);
        let path = with_path(&mut fields, "path");
        let raw = raw(&mut fields);
        let mode = with_path(&mut fields, "mode");
        let optional = fields.flag("optional");
        let name = name(&mut fields);
        artifacts.extend(name.map(|name| InputArtifact { name, path, raw, mode, optional, at: fields.path.clone() }));
        fields.finish();
    }
    fields.finish();
    (parameters, artifacts)
}

fn outputs(mut fields: Fields<'_, '_>) -> Vec<Output> {
    let sink = fields.sink;
    let mut out = Vec::new();
    for at in fields.items("parameters") {
        let Some(mut fields) = Fields::new(&at, sink) else { continue };
        fields.without_effect(&["description"]);
        fields.refused(&[("globalName", "outputs are read by their step; global names are not supported")]);
        let name = name(&mut fields);
        let mut sources: Vec<OutputFrom> = fields.text("value").map(OutputFrom::Text).into_iter().collect();
        if let Some(mut value_from) = fields.fields("valueFrom") {
            sources.extend(value_from.text("parameter").map(OutputFrom::Text));
            sources.extend(value_from.text("path").map(OutputFrom::File));
            value_from.refused(&[
                ("jsonPath", "fields of objects are not read; read them in a container"),
                ("jqFilter", "fields of objects are not read; read them in a container"),
                ("default", "an output has no default; write the file in any case"),
            ]);
            value_from.finish();
        }
        if sources.len() > 1 {
            sink.refuse(&*fields.path, "it has more than one value");
        }
        match (name, sources.pop()) {
            (Some(name), Some(from)) => out.push(Output { name, path: fields.path.clone(), from }),
            (Some(_), None) if sink.is_empty() => sink.refuse(&*fields.path, "it has no value"),
            _ => {}
        }
        fields.finish();
    }
    fields.refused(&[("artifacts", "output artifacts need a repository; there is none")]);
    fields.without_effect(&["result", "exitCode"]);
    fields.finish();
    out
}

fn retry(mut fields: Fields<'_, '_>) -> RetryText {
    // Every kind of failure is tried again, as `Always` does.
    if let Some((policy, path)) = with_path(&mut fields, "retryPolicy")
        && !matches!(&*policy, "Always" | "OnFailure")
    {
        fields.sink.refuse(path, format!("{policy:?} is not supported: every failure counts, as with Always"));
    }
    fields.refused(&[
        ("expression", "conditions on the kind of failure are not supported"),
        ("affinity", "retries on other nodes are not supported"),
    ]);
    let limit = with_path(&mut fields, "limit");
    let mut out = RetryText { limit, duration: None, factor: None, max: None };
    if let Some(mut backoff) = fields.fields("backoff") {
        out.duration = with_path(&mut backoff, "duration");
        out.factor = with_path(&mut backoff, "factor");
        out.max = with_path(&mut backoff, "maxDuration");
        backoff.finish();
    }
    fields.finish();
    out
}

fn steps(fields: &mut Fields<'_, '_>) -> Vec<Vec<Call>> {
    let sink = fields.sink;
    fields
        .items("steps")
        .into_iter()
        .map(|group| {
            // A step without a group of its own is taken as a group of one, as Argo does.
            let calls = if group.value.is_array() { group.items(sink) } else { vec![group] };
            calls
                .into_iter()
                .filter_map(|at| {
                    let mut fields = Fields::new(&at, sink)?;
                    let call = call(&mut fields);
                    fields.finish();
                    call
                })
                .collect()
        })
        .collect()
}

fn dag(mut fields: Fields<'_, '_>) -> Body {
    let sink = fields.sink;
    fields.refused(&[("target", "the whole graph runs")]);
    if let Some(at) = fields.get("failFast")
        && at.value != &Value::Bool(true)
    {
        sink.refuse(at.path, "once a task has failed nothing new begins");
    }
    let mut tasks = Vec::new();
    for at in fields.items("tasks") {
        let Some(mut fields) = Fields::new(&at, sink) else { continue };
        let mut after: Vec<String> = fields.texts("dependencies").into_iter().map(|(name, _)| name).collect();
        if let Some((text, path)) = with_path(&mut fields, "depends") {
            let names: Vec<&str> = text.split("&&").map(str::trim).collect();
            let plain = |name: &&str| name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
            if names.iter().all(plain) && !names.contains(&"") {
                after.extend(names.into_iter().map(str::to_owned));
            } else {
                sink.refuse(path, "only names joined by && are supported");
            }
        }
        tasks.extend(call(&mut fields).map(|call| (call, after)));
        fields.finish();
    }
    fields.finish();
    Body::Dag(tasks)
}

fn call(fields: &mut Fields<'_, '_>) -> Option<Call> {
    fields.refused(CALL_REFUSED);
    let name = name(fields);
    let template = fields.required("template");
    let when = with_path(fields, "when");
    let mut out = Call {
        path: fields.path.clone(),
        name: String::new(),
        template: String::new(),
        parameters: Vec::new(),
        artifacts: Vec::new(),
        when,
        continue_on_failure: false,
    };
    if let Some(mut arguments) = fields.fields("arguments") {
        out.parameters = argument_parameters(&mut arguments);
        out.artifacts = argument_artifacts(&mut arguments);
        arguments.finish();
    }
    if let Some(mut continue_on) = fields.fields("continueOn") {
        // Failed and Error are one here: a step that did not succeed.
        let (error, failed) = (continue_on.flag("error"), continue_on.flag("failed"));
        out.continue_on_failure = error || failed;
        continue_on.finish();
    }
    out.name = name?;
    out.template = template?;
    Some(out)
}

fn resource(mut fields: Fields<'_, '_>) -> Option<Body> {
    let why = "conditions on the state of an object are not supported; health is watched anyway";
    if fields.get("successCondition").is_some() {
        fields.sink.refuse(fields.path_of("successCondition"), why);
    }
    if fields.get("failureCondition").is_some() {
        fields.sink.refuse(fields.path_of("failureCondition"), why);
    }
    fields.refused(&[
        ("flags", "flags of kubectl are not supported"),
        ("setOwnerReference", "what a native run applies belongs to the Addon's inventory"),
        ("manifestFrom", "write the manifest into the template"),
    ]);
    let action = with_path(&mut fields, "action");
    let manifest = with_path(&mut fields, "manifest");
    for (field, text) in [("action", &action), ("manifest", &manifest)] {
        if text.is_none() && fields.sink.is_empty() {
            fields.sink.refuse(fields.path_of(field), "missing");
        }
    }
    let merge_strategy = with_path(&mut fields, "mergeStrategy");
    let path = fields.path.clone();
    fields.finish();
    Some(Body::Resource(Resource { path, action: action?, manifest: manifest?, merge_strategy }))
}

fn container(mut fields: Fields<'_, '_>, script: bool) -> Option<Body> {
    // The container has one name in every Pod.
    fields.without_effect(&["name"]);
    let image = match with_path(&mut fields, "image") {
        Some(image) => Some(image),
        None => {
            fields.sink.refuse(fields.path_of("image"), "missing");
            None
        }
    };
    let command = fields.texts("command");
    let args = fields.texts("args");
    let source = if script { with_path(&mut fields, "source") } else { None };
    if script && source.is_none() {
        fields.sink.refuse(fields.path_of("source"), "missing");
    }
    let taken = CONTAINER_FIELDS
        .into_iter()
        .filter_map(|field| Some((field, fields.get(field)?)))
        .map(|(field, at)| (field, at.path, at.value.clone()))
        .collect();
    let path = fields.path.clone();
    fields.finish();
    Some(Body::Container(Box::new(Container { path, image: image?, command, args, source, fields: taken })))
}

/// The name of a volume.
pub(super) fn volume_name(volume: &Value) -> Option<&str> {
    volume.as_object().and_then(|volume: &Map<String, Value>| volume.get("name")).and_then(Value::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_grammar_names_every_field_that_is_taken() {
        let page = include_str!("../../../docs/addon-template-grammar.md");
        let all = SPEC_WITHOUT_EFFECT.iter().chain(TEMPLATE_WITHOUT_EFFECT).chain(&CONTAINER_FIELDS);
        for field in all.chain(&POD_FIELDS).chain(&SPEC_POD_FIELDS).chain(&VOLUMES) {
            assert!(page.contains(&format!("`{field}`")), "{field} is not on the page");
        }
    }
}
