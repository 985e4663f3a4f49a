//! Health from an object's status, kind by kind.

use serde_json::Value;

use super::Health;

/// How an object is, as the server has it.
#[must_use]
pub fn of(object: &Value) -> Health {
    if object.pointer("/metadata/deletionTimestamp").is_some() {
        return Health::progressing("it is being deleted");
    }
    let api_version = object["apiVersion"].as_str().unwrap_or_default();
    let group = api_version.split_once('/').map_or("", |(group, _)| group);
    let kind = object["kind"].as_str().unwrap_or_default();
    if let Some(health) = common(object) {
        return health;
    }
    match (group, kind) {
        ("apps", "Deployment") => deployment(object),
        ("apps", "DaemonSet") => daemon_set(object),
        ("apps", "StatefulSet") => stateful_set(object),
        ("apps", "ReplicaSet") | ("", "ReplicationController") => replica_set(object),
        ("batch", "Job") => job(object),
        ("", "Pod") => pod(object),
        ("", "PersistentVolumeClaim") => claim(object),
        ("", "Service") => service(object),
        ("apiextensions.k8s.io", "CustomResourceDefinition") => crd(object),
        ("apiregistration.k8s.io", "APIService") => by_condition(object, "Available"),
        ("batch", "CronJob") | ("policy", "PodDisruptionBudget") | ("", _) => Health::Ready,
        _ => by_condition(object, "Ready"),
    }
}

/// What holds for every kind: a spec that its controller has not seen yet, and the two conditions
/// that kstatus gave a meaning.
fn common(object: &Value) -> Option<Health> {
    let generation = number(object, "/metadata/generation");
    if let (Some(generation), Some(observed)) = (generation, number(object, "/status/observedGeneration"))
        && observed < generation
    {
        return Some(Health::progressing("its controller has not seen its spec yet"));
    }
    if let Some(stalled) = condition(object, "Stalled").filter(|condition| condition.is("True")) {
        return Some(Health::degraded(stalled.text()));
    }
    let reconciling = condition(object, "Reconciling").filter(|condition| condition.is("True"));
    reconciling.map(|condition| Health::progressing(condition.text()))
}

fn deployment(object: &Value) -> Health {
    let progress = condition(object, "Progressing");
    if let Some(progress) = progress.filter(|progress| progress.reason() == "ProgressDeadlineExceeded") {
        return Health::degraded(progress.text());
    }
    let wanted = number(object, "/spec/replicas").unwrap_or(1);
    let has = |field: &str| status(object, field);
    let replicas = has("replicas");
    match () {
        () if object.pointer("/status/observedGeneration").is_none() => unseen(),
        () if has("updatedReplicas") < wanted => short("updated", has("updatedReplicas"), wanted),
        () if replicas > has("updatedReplicas") => {
            Health::progressing(format!("{} old replicas are still there", replicas - has("updatedReplicas")))
        }
        () if has("readyReplicas") < wanted => short("ready", has("readyReplicas"), wanted),
        () if has("availableReplicas") < wanted => short("available", has("availableReplicas"), wanted),
        () => Health::Ready,
    }
}

fn daemon_set(object: &Value) -> Health {
    let wanted = status(object, "desiredNumberScheduled");
    let has = |field: &str| status(object, field);
    let on_delete = object.pointer("/spec/updateStrategy/type").and_then(Value::as_str) == Some("OnDelete");
    match () {
        () if object.pointer("/status/observedGeneration").is_none() => unseen(),
        () if !on_delete && has("updatedNumberScheduled") < wanted => {
            short("updated", has("updatedNumberScheduled"), wanted)
        }
        () if has("numberReady") < wanted => short("ready", has("numberReady"), wanted),
        () if has("numberAvailable") < wanted => short("available", has("numberAvailable"), wanted),
        () => Health::Ready,
    }
}

fn stateful_set(object: &Value) -> Health {
    if object.pointer("/spec/updateStrategy/type").and_then(Value::as_str) == Some("OnDelete") {
        return Health::Ready;
    }
    let wanted = number(object, "/spec/replicas").unwrap_or(1);
    let partition = number(object, "/spec/updateStrategy/rollingUpdate/partition").unwrap_or(0);
    let has = |field: &str| status(object, field);
    let revision = |field: &str| object.pointer("/status").and_then(|status| status[field].as_str());
    let updated = (wanted - partition).max(0);
    match () {
        () if object.pointer("/status/observedGeneration").is_none() => unseen(),
        () if has("replicas") < wanted => short("made", has("replicas"), wanted),
        () if has("readyReplicas") < wanted => short("ready", has("readyReplicas"), wanted),
        () if has("replicas") > wanted => {
            Health::progressing(format!("{} replicas are still to go", has("replicas") - wanted))
        }
        () if partition > 0 && has("updatedReplicas") < updated => short("updated", has("updatedReplicas"), updated),
        () if partition == 0 && revision("currentRevision") != revision("updateRevision") => {
            short("updated", has("updatedReplicas"), wanted)
        }
        () => Health::Ready,
    }
}

fn replica_set(object: &Value) -> Health {
    if let Some(failure) = condition(object, "ReplicaFailure").filter(|failure| failure.is("True")) {
        return Health::progressing(failure.text());
    }
    let wanted = number(object, "/spec/replicas").unwrap_or(1);
    let has = |field: &str| status(object, field);
    match () {
        () if object.pointer("/status/observedGeneration").is_none() => unseen(),
        () if has("readyReplicas") < wanted => short("ready", has("readyReplicas"), wanted),
        () if has("availableReplicas") < wanted => short("available", has("availableReplicas"), wanted),
        () if has("replicas") > wanted => {
            Health::progressing(format!("{} replicas are still to go", has("replicas") - wanted))
        }
        () => Health::Ready,
    }
}

fn job(object: &Value) -> Health {
    if let Some(failed) = condition(object, "Failed").filter(|failed| failed.is("True")) {
        return Health::degraded(failed.text());
    }
    let started = object.pointer("/status/startTime").is_some_and(|time| !time.is_null());
    let suspended = object.pointer("/spec/suspend").and_then(Value::as_bool) == Some(true);
    if started || suspended { Health::Ready } else { Health::progressing("it has not started yet") }
}

fn pod(object: &Value) -> Health {
    let phase = object.pointer("/status/phase").and_then(Value::as_str).unwrap_or_default();
    let message = || {
        let text = object.pointer("/status/message").and_then(Value::as_str).filter(|text| !text.is_empty());
        text.unwrap_or("it has failed").to_owned()
    };
    match phase {
        "Succeeded" => return Health::Ready,
        "Failed" => return Health::degraded(message()),
        _ => {}
    }
    let statuses = ["initContainerStatuses", "containerStatuses"]
        .into_iter()
        .filter_map(|field| object.pointer("/status")?[field].as_array())
        .flatten();
    for container in statuses {
        let reason = container.pointer("/state/waiting/reason").and_then(Value::as_str).unwrap_or_default();
        if reason == "CrashLoopBackOff" {
            let name = container["name"].as_str().unwrap_or_default();
            return Health::degraded(format!("container {name} crashes again and again"));
        }
    }
    match condition(object, "Ready") {
        Some(ready) if ready.is("True") => Health::Ready,
        Some(ready) if phase == "Running" => Health::progressing(ready.text()),
        _ => match condition(object, "PodScheduled").filter(|scheduled| scheduled.is("False")) {
            Some(scheduled) => Health::progressing(scheduled.text()),
            None => Health::progressing("its containers are being made"),
        },
    }
}

fn claim(object: &Value) -> Health {
    match object.pointer("/status/phase").and_then(Value::as_str) {
        Some("Bound") => Health::Ready,
        Some("Lost") => Health::degraded("its volume is lost"),
        _ => {
            let class = object.pointer("/spec/storageClassName").and_then(Value::as_str);
            Health::Unbound { class: class.unwrap_or_default().into() }
        }
    }
}

fn service(object: &Value) -> Health {
    let balanced = object.pointer("/spec/type").and_then(Value::as_str) == Some("LoadBalancer");
    let ingress = object.pointer("/status/loadBalancer/ingress").and_then(Value::as_array);
    if balanced && ingress.is_none_or(Vec::is_empty) {
        return Health::progressing("it has no load balancer yet");
    }
    Health::Ready
}

fn crd(object: &Value) -> Health {
    if let Some(names) = condition(object, "NamesAccepted").filter(|names| names.is("False")) {
        return Health::degraded(names.text());
    }
    match condition(object, "Established") {
        Some(established) if established.is("True") => Health::Ready,
        Some(established) if established.is("False") && established.reason() != "Installing" => {
            Health::degraded(established.text())
        }
        _ => Health::progressing("it is not established yet"),
    }
}

/// Any other kind tells by one condition, if it has that.
fn by_condition(object: &Value, name: &str) -> Health {
    match condition(object, name) {
        Some(condition) if !condition.is("True") => Health::progressing(condition.text()),
        _ => Health::Ready,
    }
}

fn unseen() -> Health {
    Health::progressing("its controller has not seen it yet")
}

fn short(what: &str, has: i64, wanted: i64) -> Health {
    Health::progressing(format!("{has} of {wanted} replicas are {what}"))
}

fn number(object: &Value, pointer: &str) -> Option<i64> {
    object.pointer(pointer).and_then(Value::as_i64)
}

fn status(object: &Value, field: &str) -> i64 {
    object.pointer("/status").and_then(|status| status[field].as_i64()).unwrap_or(0)
}

/// One of an object's conditions.
#[derive(Clone, Copy)]
struct Condition<'a>(&'a Value);

impl<'a> Condition<'a> {
    fn is(self, status: &str) -> bool {
        self.0["status"].as_str() == Some(status)
    }

    fn reason(self) -> &'a str {
        self.0["reason"].as_str().unwrap_or_default()
    }

    /// Its message, or else its reason, within bounds: whoever writes it may write anything.
    fn text(self) -> String {
        const LONGEST: usize = 300;
        let message = self.0["message"].as_str().unwrap_or_default();
        let text = if message.is_empty() { self.reason() } else { message };
        let text = if text.is_empty() { self.0["type"].as_str().unwrap_or_default() } else { text };
        text.chars().take(LONGEST).collect()
    }
}

fn condition<'a>(object: &'a Value, name: &str) -> Option<Condition<'a>> {
    let conditions = object.pointer("/status/conditions")?.as_array()?;
    conditions.iter().find(|condition| condition["type"].as_str() == Some(name)).map(Condition)
}

#[cfg(test)]
#[path = "rules_tests.rs"]
mod tests;
