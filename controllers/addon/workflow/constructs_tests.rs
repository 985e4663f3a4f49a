//! Every field of Argo's `Workflow` (`argoproj/argo-workflows:pkg/apis/workflow/v1alpha1/workflow_types.go`
//! v3.4 and what came until v3.6): each changes what runs, has no effect and the page on the grammar says
//! so, or is refused by its path. None is passed over in silence.

use serde_json::{Value, json};

use super::tests::{refusals, run};

/// What becomes of a field.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    /// It changes what runs.
    Runs,
    /// It is accepted, and documented to have no effect.
    NoEffect,
    /// It is refused by its path.
    Refused,
}
use Fate::{NoEffect, Refused, Runs};

/// A template with one of everything that a field may stand in.
fn base() -> Value {
    let manifest = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: m}\n";
    json!({
        "apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "metadata": {"name": "x"},
        "spec": {
            "entrypoint": "entry",
            "arguments": {"parameters": [{"name": "own", "value": "1"}]},
            "volumes": [{"name": "v", "emptyDir": {}}],
            "templates": [
                {"name": "entry", "steps": [[
                    {"name": "call", "template": "pod", "arguments": {
                        "parameters": [{"name": "p", "value": "1"}], "artifacts": [{"name": "a", "raw": {"data": "x"}}]}},
                    {"name": "graph", "template": "graph"},
                    {"name": "made", "template": "made"},
                    {"name": "patched", "template": "patched"},
                    {"name": "script", "template": "script"},
                ]]},
                {"name": "graph", "dag": {"tasks": [{"name": "one", "template": "made"}, {"name": "two", "template": "made"}]}},
                {"name": "pod",
                    "inputs": {"parameters": [{"name": "p"}], "artifacts": [{"name": "a", "path": "/a"}]},
                    "outputs": {"parameters": [{"name": "o", "valueFrom": {"path": "/o"}}]},
                    "retryStrategy": {"limit": 3, "backoff": {"duration": "5"}},
                    "container": {"image": "i", "command": ["x"], "volumeMounts": [{"name": "v", "mountPath": "/v"}]}},
                {"name": "made", "resource": {"action": "apply", "manifest": manifest}},
                {"name": "patched", "resource": {"action": "patch", "manifest": format!("{manifest}data: {{a: b}}\n")}},
                {"name": "script", "script": {"image": "i", "command": ["sh"], "source": "true"}},
            ],
        },
    })
}

/// The places in [`base`], by pointer and by path.
const SPEC: (&str, &str) = ("/spec", "spec");
const STEP: (&str, &str) = ("/spec/templates/0/steps/0/0", "spec.templates[0].steps[0][0]");
const TASK: (&str, &str) = ("/spec/templates/1/dag/tasks/1", "spec.templates[1].dag.tasks[1]");
const DAG: (&str, &str) = ("/spec/templates/1/dag", "spec.templates[1].dag");
const POD: (&str, &str) = ("/spec/templates/2", "spec.templates[2]");
const CONTAINER: (&str, &str) = ("/spec/templates/2/container", "spec.templates[2].container");
const RETRY: (&str, &str) = ("/spec/templates/2/retryStrategy", "spec.templates[2].retryStrategy");
const BACKOFF: (&str, &str) = ("/spec/templates/2/retryStrategy/backoff", "spec.templates[2].retryStrategy.backoff");
const INPUT: (&str, &str) = ("/spec/templates/2/inputs/parameters/0", "spec.templates[2].inputs.parameters[0]");
const FILE: (&str, &str) = ("/spec/templates/2/inputs/artifacts/0", "spec.templates[2].inputs.artifacts[0]");
const OUTPUTS: (&str, &str) = ("/spec/templates/2/outputs", "spec.templates[2].outputs");
const OUTPUT: (&str, &str) = ("/spec/templates/2/outputs/parameters/0", "spec.templates[2].outputs.parameters[0]");
const VALUE_FROM: (&str, &str) =
    ("/spec/templates/2/outputs/parameters/0/valueFrom", "spec.templates[2].outputs.parameters[0].valueFrom");
const ARGUMENT: (&str, &str) = ("/spec/arguments/parameters/0", "spec.arguments.parameters[0]");
const ARTIFACT: (&str, &str) =
    ("/spec/templates/0/steps/0/0/arguments/artifacts/0", "spec.templates[0].steps[0][0].arguments.artifacts[0]");
const MADE: (&str, &str) = ("/spec/templates/3/resource", "spec.templates[3].resource");
const PATCHED: (&str, &str) = ("/spec/templates/4/resource", "spec.templates[4].resource");
const SCRIPT: (&str, &str) = ("/spec/templates/5/script", "spec.templates[5].script");

fn with_field(place: &str, field: &str, value: &Value) -> String {
    let mut template = base();
    template.pointer_mut(place).expect("a place")[field] = value.clone();
    template.to_string()
}

type Row = ((&'static str, &'static str), &'static str, Value, Fate);

fn spec_fields() -> Vec<Row> {
    vec![
        (SPEC, "activeDeadlineSeconds", json!(9), Runs),
        (SPEC, "affinity", json!({"nodeAffinity": {}}), Runs),
        (SPEC, "archiveLogs", json!(true), NoEffect),
        (SPEC, "artifactGC", json!({"strategy": "Never"}), NoEffect),
        (SPEC, "artifactRepositoryRef", json!({"key": "k"}), Refused),
        (SPEC, "automountServiceAccountToken", json!(false), Runs),
        (SPEC, "dnsConfig", json!({"nameservers": ["1.1.1.1"]}), Runs),
        (SPEC, "dnsPolicy", json!("Default"), Runs),
        (SPEC, "entrypoint", json!("made"), Runs),
        (SPEC, "executor", json!({"serviceAccountName": "e"}), NoEffect),
        (SPEC, "hooks", json!({"exit": {"template": "made"}}), Refused),
        (SPEC, "hostAliases", json!([{"ip": "1.1.1.1", "hostnames": ["h"]}]), Runs),
        (SPEC, "hostNetwork", json!(true), Runs),
        (SPEC, "imagePullSecrets", json!([{"name": "s"}]), Runs),
        (SPEC, "metrics", json!({"prometheus": []}), Refused),
        (SPEC, "nodeSelector", json!({"a": "b"}), Runs),
        (SPEC, "onExit", json!("made"), Runs),
        (SPEC, "parallelism", json!(1), Runs),
        (SPEC, "parallelism", json!("many"), Refused),
        (SPEC, "podDisruptionBudget", json!({"minAvailable": 1}), Refused),
        (SPEC, "podGC", json!({"strategy": "OnPodCompletion"}), NoEffect),
        (SPEC, "podMetadata", json!({"labels": {"a": "b"}}), Runs),
        (SPEC, "podPriority", json!(1), NoEffect),
        (SPEC, "podPriorityClassName", json!("p"), Refused),
        (SPEC, "podSpecPatch", json!("{}"), Refused),
        (SPEC, "priority", json!(1), NoEffect),
        (SPEC, "retryStrategy", json!({"limit": 1}), Refused),
        (SPEC, "schedulerName", json!("s"), Runs),
        (SPEC, "securityContext", json!({"runAsUser": 1}), Runs),
        (SPEC, "serviceAccountName", json!("s"), Runs),
        (SPEC, "shutdown", json!("Stop"), Refused),
        (SPEC, "suspend", json!(true), Refused),
        (SPEC, "synchronization", json!({"mutex": {"name": "m"}}), Refused),
        (SPEC, "templateDefaults", json!({"timeout": "1s"}), Refused),
        (SPEC, "tolerations", json!([{"operator": "Exists"}]), Runs),
        (SPEC, "ttlStrategy", json!({"secondsAfterCompletion": 1}), NoEffect),
        (SPEC, "volumeClaimGC", json!({"strategy": "OnWorkflowCompletion"}), Refused),
        (SPEC, "volumeClaimTemplates", json!([{"metadata": {"name": "c"}}]), Refused),
        (SPEC, "volumes", json!([{"name": "v", "hostPath": {"path": "/"}}]), Runs),
        (SPEC, "workflowMetadata", json!({"labels": {"a": "b"}}), NoEffect),
        (SPEC, "workflowTemplateRef", json!({"name": "t"}), Refused),
        (ARGUMENT, "valueFrom", json!({"configMapKeyRef": {"name": "c", "key": "k"}}), Refused),
        (ARGUMENT, "enum", json!(["1"]), Refused),
        (ARGUMENT, "default", json!("1"), Refused),
        (ARGUMENT, "value", json!("2"), NoEffect),
    ]
}

fn call_fields() -> Vec<Row> {
    vec![
        (STEP, "continueOn", json!({"failed": true}), Runs),
        (STEP, "continueOn", json!({"failed": "true"}), Refused),
        (STEP, "continueOn", json!({"other": true}), Refused),
        (STEP, "hooks", json!({"exit": {"template": "made"}}), Refused),
        (STEP, "inline", json!({"container": {}}), Refused),
        (STEP, "onExit", json!("made"), Refused),
        (STEP, "template", json!("script"), Runs),
        (STEP, "templateRef", json!({"name": "t", "template": "x"}), Refused),
        (STEP, "when", json!("a == b"), Runs),
        (STEP, "withItems", json!([1, 2]), Refused),
        (STEP, "withParam", json!("[1]"), Refused),
        (STEP, "withSequence", json!({"count": "2"}), Refused),
        (TASK, "continueOn", json!({"error": true}), Runs),
        (TASK, "dependencies", json!(["one"]), Runs),
        (TASK, "depends", json!("one"), Runs),
        (TASK, "depends", json!("one.Succeeded || one.Failed"), Refused),
        (TASK, "hooks", json!({}), Refused),
        (TASK, "inline", json!({}), Refused),
        (TASK, "onExit", json!("made"), Refused),
        (TASK, "templateRef", json!({}), Refused),
        (TASK, "when", json!("a == b"), Runs),
        (TASK, "withItems", json!([1]), Refused),
        (TASK, "withParam", json!("[1]"), Refused),
        (TASK, "withSequence", json!({"count": "2"}), Refused),
        (DAG, "target", json!("one"), Refused),
        (DAG, "failFast", json!(true), NoEffect),
        (DAG, "failFast", json!(false), Refused),
        (ARTIFACT, "raw", json!({"data": "y"}), Runs),
        (ARTIFACT, "from", json!("{{steps.x.outputs.artifacts.y}}"), Refused),
        (ARTIFACT, "fromExpression", json!("x"), Refused),
        (ARTIFACT, "s3", json!({"key": "k"}), Refused),
        (ARTIFACT, "http", json!({"url": "u"}), Refused),
        (ARTIFACT, "git", json!({"repo": "r"}), Refused),
        (ARTIFACT, "optional", json!(true), Refused),
        (ARTIFACT, "subPath", json!("s"), Refused),
        (ARTIFACT, "globalName", json!("g"), Refused),
    ]
}

fn template_fields() -> Vec<Row> {
    vec![
        (POD, "activeDeadlineSeconds", json!(9), Runs),
        (POD, "affinity", json!({"nodeAffinity": {}}), Runs),
        (POD, "annotations", json!({"a": "b"}), Refused),
        (POD, "archiveLocation", json!({"archiveLogs": true}), NoEffect),
        (POD, "automountServiceAccountToken", json!(false), Runs),
        (POD, "containerSet", json!({"containers": []}), Refused),
        (POD, "daemon", json!(true), Refused),
        (POD, "data", json!({}), Refused),
        (POD, "executor", json!({}), NoEffect),
        (POD, "failFast", json!(true), NoEffect),
        (POD, "failFast", json!(false), Refused),
        (POD, "hostAliases", json!([{"ip": "1.1.1.1", "hostnames": ["h"]}]), Runs),
        (POD, "http", json!({"url": "u"}), Refused),
        (POD, "initContainers", json!([]), Refused),
        (POD, "memoize", json!({"key": "k"}), Refused),
        (POD, "metadata", json!({"annotations": {"a": "b"}}), Runs),
        (POD, "metrics", json!({"prometheus": []}), NoEffect),
        (POD, "nodeSelector", json!({"a": "b"}), Runs),
        (POD, "parallelism", json!(1), Runs),
        (POD, "parallelism", json!(0), Refused),
        (POD, "plugin", json!({}), Refused),
        (POD, "podSpecPatch", json!("{}"), Refused),
        (POD, "priority", json!(1), NoEffect),
        (POD, "priorityClassName", json!("p"), Runs),
        (POD, "schedulerName", json!("s"), Runs),
        (POD, "securityContext", json!({"runAsUser": 1}), Runs),
        (POD, "serviceAccountName", json!("s"), Runs),
        (POD, "sidecars", json!([]), Refused),
        (POD, "suspend", json!({}), Refused),
        (POD, "synchronization", json!({}), Refused),
        (POD, "timeout", json!("1s"), Refused),
        (POD, "tolerations", json!([{"operator": "Exists"}]), Runs),
        (POD, "volumes", json!([{"name": "v", "hostPath": {"path": "/"}}]), Runs),
        (RETRY, "limit", json!(4), Runs),
        (RETRY, "retryPolicy", json!("Always"), NoEffect),
        (RETRY, "retryPolicy", json!("OnFailure"), NoEffect),
        (RETRY, "retryPolicy", json!("OnError"), Refused),
        (RETRY, "retryPolicy", json!("OnTransientError"), Refused),
        (RETRY, "expression", json!("true"), Refused),
        (RETRY, "affinity", json!({"nodeAntiAffinity": {}}), Refused),
        (BACKOFF, "factor", json!(2), Runs),
        (BACKOFF, "maxDuration", json!("9s"), Runs),
        (BACKOFF, "cap", json!("9s"), Refused),
        (INPUT, "default", json!("2"), NoEffect),
        (INPUT, "description", json!("d"), NoEffect),
        (INPUT, "enum", json!(["1"]), Refused),
        (INPUT, "globalName", json!("g"), Refused),
        (INPUT, "valueFrom", json!({"configMapKeyRef": {"name": "c", "key": "k"}}), Refused),
        (FILE, "mode", json!(256), Runs),
        (FILE, "optional", json!("yes"), Refused),
        (FILE, "recurseMode", json!(true), Refused),
        (FILE, "s3", json!({"key": "k"}), Refused),
        (FILE, "oss", json!({"key": "k"}), Refused),
        (FILE, "gcs", json!({"key": "k"}), Refused),
        (FILE, "azure", json!({"blob": "b"}), Refused),
        (OUTPUTS, "artifacts", json!([{"name": "a", "path": "/a"}]), Refused),
        (OUTPUT, "globalName", json!("g"), Refused),
        (OUTPUT, "value", json!("1"), Refused),
        (VALUE_FROM, "default", json!("1"), Refused),
        (VALUE_FROM, "event", json!("e"), Refused),
        (VALUE_FROM, "expression", json!("1"), Refused),
        (VALUE_FROM, "jqFilter", json!(".a"), Refused),
        (VALUE_FROM, "jsonPath", json!("{.a}"), Refused),
        (VALUE_FROM, "supplied", json!({}), Refused),
        (VALUE_FROM, "configMapKeyRef", json!({"name": "c", "key": "k"}), Refused),
    ]
}

fn body_fields() -> Vec<Row> {
    let patch = |strategy: &str| (PATCHED, "mergeStrategy", json!(strategy));
    let (merge, unlike, strategic) = (patch("merge"), patch("json"), patch("strategic"));
    let mut rows = vec![
        (MADE, "action", json!("create"), Runs),
        (MADE, "action", json!("delete"), Runs),
        (MADE, "action", json!("get"), Refused),
        (MADE, "action", json!("replace"), Refused),
        (MADE, "successCondition", json!("status.phase == x"), Refused),
        (MADE, "failureCondition", json!("status.phase == x"), Refused),
        (MADE, "flags", json!(["--force"]), Refused),
        (MADE, "manifestFrom", json!({"artifact": {"name": "a"}}), Refused),
        (MADE, "mergeStrategy", json!("merge"), Refused),
        (MADE, "setOwnerReference", json!(true), Refused),
        (merge.0, merge.1, merge.2, Runs),
        (strategic.0, strategic.1, strategic.2, NoEffect),
        (unlike.0, unlike.1, unlike.2, Refused),
        (CONTAINER, "args", json!(["y"]), Runs),
        (CONTAINER, "env", json!([{"name": "A", "value": "b"}]), Runs),
        (CONTAINER, "envFrom", json!([{"configMapRef": {"name": "c"}}]), Runs),
        (CONTAINER, "image", json!("j"), Runs),
        (CONTAINER, "imagePullPolicy", json!("Always"), Runs),
        (CONTAINER, "name", json!("n"), NoEffect),
        (CONTAINER, "resources", json!({"limits": {"cpu": "1"}}), Runs),
        (CONTAINER, "securityContext", json!({"privileged": true}), Runs),
        (CONTAINER, "volumeDevices", json!([{"name": "v", "devicePath": "/d"}]), Runs),
        (CONTAINER, "workingDir", json!("/w"), Runs),
        (SCRIPT, "source", json!("false"), Runs),
        (SCRIPT, "args", json!(["-e"]), Runs),
    ];
    let unused = [
        "lifecycle",
        "livenessProbe",
        "mirrorVolumeMounts",
        "ports",
        "readinessProbe",
        "resizePolicy",
        "restartPolicy",
        "startupProbe",
        "stdin",
        "stdinOnce",
        "terminationMessagePath",
        "terminationMessagePolicy",
        "tty",
    ];
    rows.extend(unused.map(|field| (CONTAINER, field, json!(true), Refused)));
    rows
}

#[test]
fn every_construct_of_argo_runs_or_is_refused_or_is_told_to_have_no_effect() {
    let page = include_str!("../../../docs/addon-template-grammar.md");
    let plain = run(&base().to_string()).unwrap();
    let rows: Vec<Row> =
        [spec_fields(), call_fields(), template_fields(), body_fields()].into_iter().flatten().collect();
    let mut wrong = Vec::new();
    for ((place, path), field, value, fate) in &rows {
        let template = with_field(place, field, value);
        let is_right = match (fate, run(&template)) {
            (Runs, Ok(program)) => program != plain,
            (NoEffect, Ok(program)) => program == plain && page.contains(&format!("`{field}`")),
            (Refused, Err(_)) => {
                let at = format!("{path}.{field}");
                // What makes a field one too many is told of what it stands in.
                refusals(&template)
                    .iter()
                    .any(|refusal| refusal.starts_with(&at) || refusal.starts_with(&format!("{path}: ")))
            }
            _ => false,
        };
        if !is_right {
            wrong.push(format!("{path}.{field} = {value}: not {fate:?}: {:?}", run(&template).err()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
