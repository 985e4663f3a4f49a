//! The Pod of a container or script step, the Secret that holds its files, and what became of it.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Map, Value, json};

use super::canonical;
use super::objects::label_value;
use super::parameters::AddonFacts;
use super::program::{Node, PodStep};
use super::progress::Outcome;
use super::revision::short;

/// Name of the one container of a step's Pod, as in Argo.
pub const CONTAINER: &str = "main";
/// Label of Pods and Secrets of steps: their Addon's name.
pub const ADDON_LABEL: &str = "quarterdeck.dev/addon";
/// Label of Pods and Secrets of steps: the revision that they belong to.
pub const REVISION_LABEL: &str = "quarterdeck.dev/revision";
/// Annotation of Pods of steps: phase and step.
pub const STEP_ANNOTATION: &str = "quarterdeck.dev/step";
const FILES_VOLUME: &str = "quarterdeck-files";
/// Longest name: it becomes a host name and a label's value, too.
const LONGEST_NAME: usize = 63;

/// Which attempt of which step a Pod is for.
#[derive(Clone, Copy, Debug)]
pub struct Attempt<'a> {
    /// The Addon.
    pub addon: &'a AddonFacts,
    /// Phase of its lifecycle.
    pub phase: &'a str,
    /// The Addon's revision.
    pub revision: &'a str,
    /// The step.
    pub node: &'a Node,
    /// Number of the attempt ([`Progress::attempt`](super::Progress::attempt)).
    pub number: u32,
    /// The program's service account, for a step that has none of its own.
    pub account: Option<&'a str>,
    /// The program's deadline, for a step that has none of its own.
    pub deadline: Option<Duration>,
}

/// The owner reference of what an Addon makes.
#[must_use]
pub(super) fn owner(addon: &AddonFacts) -> Value {
    json!({"apiVersion": "addonmgr.keikoproj.io/v1alpha1", "kind": "Addon", "name": addon.name, "uid": addon.uid,
        "controller": true})
}

/// The name of an attempt's Pod and Secret: the same whoever asks, and another one for another Addon,
/// phase, revision, step, content or attempt.
#[must_use]
pub fn name(attempt: &Attempt<'_>) -> String {
    let addon = attempt.addon;
    let what = json!([
        addon.namespace,
        addon.name,
        addon.uid,
        attempt.phase,
        attempt.revision,
        attempt.node.name,
        attempt.node.content(),
        attempt.number
    ]);
    let hash = &canonical::hash(&what)[..12];
    let tail = format!("-{}-{hash}", attempt.phase);
    let plain = addon.name.replace('.', "-");
    let most = LONGEST_NAME.saturating_sub(tail.len());
    let head = plain.get(..plain.len().min(most)).unwrap_or_default().trim_end_matches('-');
    format!("{head}{tail}")
}

/// The Pod of an attempt. An error names what is no field of a Pod.
pub fn pod(attempt: &Attempt<'_>, step: &PodStep) -> Result<Pod, String> {
    let mut container = step.container.clone();
    container.insert("name".to_owned(), CONTAINER.into());
    if let Some((_, path)) = &step.output {
        container.insert("terminationMessagePath".to_owned(), path.as_str().into());
    } else {
        container.insert("terminationMessagePolicy".to_owned(), "FallbackToLogsOnError".into());
    }
    if let Some(resources) = container.get_mut("resources") {
        quantities(resources);
    }
    let mut volumes = step.volumes.clone();
    if !step.files.is_empty() {
        let mounts = container.entry("volumeMounts").or_insert_with(|| json!([]));
        let mounts = mounts.as_array_mut().ok_or("volumeMounts is not a list")?;
        let mut items = Vec::new();
        for (index, file) in step.files.iter().enumerate() {
            let key = format!("f{index}");
            mounts.push(json!({"name": FILES_VOLUME, "mountPath": file.path, "subPath": key, "readOnly": true}));
            items.push(match file.mode {
                Some(mode) => json!({"key": key, "path": key, "mode": mode}),
                None => json!({"key": key, "path": key}),
            });
        }
        volumes.push(json!({"name": FILES_VOLUME, "secret": {"secretName": name(attempt), "items": items}}));
    }
    let account = attempt.node.account.as_deref().or(attempt.account).filter(|account| !account.is_empty());
    let mut spec = Map::new();
    // Argo's users expect the token of an account that they name; nobody expects the default one's.
    spec.insert("automountServiceAccountToken".to_owned(), account.is_some().into());
    spec.insert("securityContext".to_owned(), json!({"seccompProfile": {"type": "RuntimeDefault"}}));
    spec.extend(step.spec.clone());
    if let Some(account) = account {
        spec.insert("serviceAccountName".to_owned(), account.into());
    }
    spec.insert("restartPolicy".to_owned(), "Never".into());
    spec.insert("containers".to_owned(), json!([container]));
    if !volumes.is_empty() {
        spec.insert("volumes".to_owned(), volumes.into());
    }
    if let Some(deadline) = [attempt.node.deadline, attempt.deadline].into_iter().flatten().min() {
        spec.insert("activeDeadlineSeconds".to_owned(), deadline.as_secs().max(1).into());
    }
    let spec = Value::Object(spec);
    let typed: k8s_openapi::api::core::v1::PodSpec =
        serde_json::from_value(spec.clone()).map_err(|error| error.to_string())?;
    if let Some(path) = lost(&spec, &json!(typed), "") {
        return Err(format!("{path} is no field of a Pod"));
    }
    Ok(Pod { metadata: metadata(attempt, step)?, spec: Some(typed), status: None })
}

/// The Secret with an attempt's files, if it has any.
pub fn secret(attempt: &Attempt<'_>, step: &PodStep) -> Result<Option<Secret>, String> {
    if step.files.is_empty() {
        return Ok(None);
    }
    let data = step
        .files
        .iter()
        .enumerate()
        .map(|(index, file)| (format!("f{index}"), k8s_openapi::ByteString(file.content.clone().into_bytes())));
    let plain = PodStep::default();
    Ok(Some(Secret {
        metadata: metadata(attempt, &plain)?,
        data: Some(data.collect()),
        immutable: Some(true),
        type_: Some("Opaque".to_owned()),
        ..Secret::default()
    }))
}

fn metadata(attempt: &Attempt<'_>, step: &PodStep) -> Result<ObjectMeta, String> {
    let addon = attempt.addon;
    let (mut labels, mut annotations) = (step.labels.clone(), step.annotations.clone());
    labels.insert(ADDON_LABEL.to_owned(), label_value(&addon.name));
    labels.insert(REVISION_LABEL.to_owned(), short(attempt.revision).to_owned());
    annotations.insert(STEP_ANNOTATION.to_owned(), format!("{}/{}", attempt.phase, attempt.node.name));
    let owner = serde_json::from_value(owner(addon)).map_err(|error| error.to_string())?;
    Ok(ObjectMeta {
        name: Some(name(attempt)),
        namespace: Some(addon.namespace.clone()),
        labels: Some(labels),
        annotations: Some(annotations),
        owner_references: Some(vec![owner]),
        ..ObjectMeta::default()
    })
}

/// Whether a step's fields are those of a Pod; an error names the one that is not.
pub(super) fn check(step: &PodStep) -> Result<(), String> {
    let addon = AddonFacts { name: "a".into(), namespace: "a".into(), uid: "a".into(), ..AddonFacts::default() };
    let node = Node {
        name: "a".into(),
        origin: String::new(),
        after: Vec::new(),
        when: super::program::When::Run,
        retry: super::program::Retry::default(),
        deadline: None,
        account: None,
        continue_on_failure: false,
        action: super::program::Action::Pending(String::new()),
        content: None,
    };
    let attempt =
        Attempt { addon: &addon, phase: "a", revision: "a", node: &node, number: 1, account: None, deadline: None };
    pod(&attempt, step).map(|_| ())
}

/// Quantities may be written as numbers; on the wire they are texts.
fn quantities(resources: &mut Value) {
    for field in ["limits", "requests"] {
        for quantity in resources.get_mut(field).and_then(Value::as_object_mut).into_iter().flat_map(Map::values_mut) {
            if quantity.is_number() {
                *quantity = quantity.to_string().into();
            }
        }
    }
}

/// The first field that a value has and its typed form lost.
fn lost(given: &Value, typed: &Value, path: &str) -> Option<String> {
    match (given, typed) {
        (Value::Object(given), _) => given.iter().find_map(|(key, value)| {
            let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            match typed.get(key) {
                Some(typed) => lost(value, typed, &path),
                None if is_empty(value) => None,
                None => Some(path),
            }
        }),
        (Value::Array(given), Value::Array(typed)) => given
            .iter()
            .zip(typed)
            .enumerate()
            .find_map(|(index, (given, typed))| lost(given, typed, &format!("{path}[{index}]"))),
        _ => None,
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(fields) => fields.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    }
}

/// What a Pod says of its attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// It is not over.
    UnderWay {
        /// What it waits for, empty if it runs.
        message: String,
    },
    /// It did what it was to do.
    Succeeded {
        /// The file that is its output parameter.
        output: Option<String>,
    },
    /// It did not.
    Failed {
        /// Exit code of the container, if it has one.
        exit_code: Option<i32>,
        /// Why, such as `OOMKilled (exit code 137): …`.
        message: String,
    },
}

/// Reads what became of an attempt's Pod.
#[must_use]
pub fn seen(pod: &Pod, step: &PodStep) -> Seen {
    let status = pod.status.clone().unwrap_or_default();
    let container = status.container_statuses.unwrap_or_default().into_iter().find(|one| one.name == CONTAINER);
    let state = container.and_then(|one| one.state).unwrap_or_default();
    let ended = state.terminated.unwrap_or_default();
    let said = ended.message.unwrap_or_default();
    match status.phase.as_deref() {
        Some("Succeeded") => Seen::Succeeded { output: step.output.as_ref().map(|_| trimmed(&said)) },
        Some("Failed") => {
            let reason = status.reason.or(ended.reason).unwrap_or_else(|| "failed".to_owned());
            let exit_code = ended.finished_at.is_some().then_some(ended.exit_code);
            let code = exit_code.map(|code| format!(" (exit code {code})")).unwrap_or_default();
            let why = [status.message.unwrap_or_default(), said];
            let why: Vec<&str> = why.iter().map(|text| text.trim()).filter(|text| !text.is_empty()).collect();
            let why = if why.is_empty() { String::new() } else { format!(": {}", why.join("; ")) };
            Seen::Failed { exit_code, message: format!("{reason}{code}{why}") }
        }
        _ if pod.metadata.deletion_timestamp.is_some() => {
            Seen::UnderWay { message: "its Pod is being deleted".to_owned() }
        }
        _ => {
            let waiting = state.waiting.map(|waiting| (waiting.reason, waiting.message));
            let unscheduled = status
                .conditions
                .unwrap_or_default()
                .into_iter()
                .find(|condition| condition.type_ == "PodScheduled" && condition.status == "False");
            let (reason, message) =
                waiting.or(unscheduled.map(|condition| (condition.reason, condition.message))).unwrap_or_default();
            let parts: Vec<String> = [reason, message].into_iter().flatten().collect();
            Seen::UnderWay { message: parts.join(": ") }
        }
    }
}

/// As Argo does, one line end at the end is no part of an output.
fn trimmed(output: &str) -> String {
    output.strip_suffix('\n').unwrap_or(output).to_owned()
}

/// The outcome of an attempt whose Pod has ended; `log` is the end of what it wrote.
#[must_use]
pub fn outcome(seen: &Seen, step: &PodStep, log: Option<&str>) -> Option<Outcome> {
    match seen {
        Seen::UnderWay { .. } => None,
        Seen::Succeeded { output } => {
            let mut outputs = BTreeMap::new();
            if let (Some((name, _)), Some(value)) = (&step.output, output) {
                outputs.insert(name.clone(), value.clone());
            }
            let result = step.capture_result.then(|| trimmed(log.unwrap_or_default()));
            Some(Outcome::Succeeded { outputs, result, message: String::new() })
        }
        Seen::Failed { message, .. } => {
            let log = log.unwrap_or_default().trim_end();
            let message = match log {
                "" => message.clone(),
                // The kubelet may have put the same lines there already.
                log if message.contains(log) => message.clone(),
                log => format!("{message}\n{log}"),
            };
            Some(Outcome::Failed { message })
        }
    }
}

#[cfg(test)]
#[path = "pod_tests.rs"]
mod tests;
