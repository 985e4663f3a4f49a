use serde_json::{Value, json};

use super::*;

#[expect(clippy::needless_pass_by_value, reason = "rows of tables read better so")]
fn object(api_version: &str, kind: &str, spec: Value, status: Value) -> Value {
    json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": "x", "generation": 2}, "spec": spec, "status": status})
}

fn condition_of(name: &str, status: &str, reason: &str, message: &str) -> Value {
    json!([{"type": name, "status": status, "reason": reason, "message": message}])
}

/// What is expected of a row.
#[derive(Debug, PartialEq)]
enum Expect {
    Ready,
    Progressing,
    Degraded,
    Unbound,
}

fn kind_of(health: &Health) -> Expect {
    match health {
        Health::Ready => Expect::Ready,
        Health::Progressing(_) => Expect::Progressing,
        Health::Degraded(_) => Expect::Degraded,
        Health::Unbound { .. } => Expect::Unbound,
    }
}

#[test]
fn workloads() {
    use Expect::{Degraded, Progressing, Ready};
    let deployment = |spec, status| object("apps/v1", "Deployment", spec, status);
    let full = json!({"observedGeneration": 2, "replicas": 2, "updatedReplicas": 2, "readyReplicas": 2, "availableReplicas": 2});
    let with = |field: &str, value: i64| {
        let mut status = full.clone();
        status[field] = value.into();
        status
    };
    let late = json!({"observedGeneration": 2, "conditions": condition_of("Progressing", "False", "ProgressDeadlineExceeded", "late")});
    let set = |spec, status| object("apps/v1", "StatefulSet", spec, status);
    let revisions = |current: &str, updated: i64| json!({"observedGeneration": 2, "replicas": 2, "readyReplicas": 2, "updatedReplicas": updated, "currentRevision": current, "updateRevision": "b"});
    let partition = json!({"replicas": 2, "updateStrategy": {"rollingUpdate": {"partition": 1}}});
    let two = || json!({"replicas": 2});
    let daemons = |ready: i64| json!({"observedGeneration": 2, "desiredNumberScheduled": 2, "updatedNumberScheduled": 2, "numberReady": ready, "numberAvailable": ready});
    for (case, object, expected) in [
        ("new", deployment(two(), json!({})), Progressing),
        ("all there", deployment(two(), full.clone()), Ready),
        ("scaled to nothing", deployment(json!({"replicas": 0}), json!({"observedGeneration": 2})), Ready),
        ("one by default", deployment(json!({}), json!({"observedGeneration": 2})), Progressing),
        ("not seen", deployment(two(), with("observedGeneration", 1)), Progressing),
        ("one not updated", deployment(two(), with("updatedReplicas", 1)), Progressing),
        ("one old left", deployment(two(), with("replicas", 3)), Progressing),
        ("one not ready", deployment(two(), with("readyReplicas", 1)), Progressing),
        ("one not available", deployment(two(), with("availableReplicas", 1)), Progressing),
        ("past its deadline", deployment(two(), late), Degraded),
        ("set: all there", set(two(), revisions("b", 2)), Ready),
        ("set: old revision", set(two(), revisions("a", 1)), Progressing),
        ("set: half by partition", set(partition.clone(), revisions("a", 1)), Ready),
        ("set: none by partition", set(partition, revisions("a", 0)), Progressing),
        ("set: by hand", set(json!({"updateStrategy": {"type": "OnDelete"}}), json!({})), Ready),
        ("daemons: all there", object("apps/v1", "DaemonSet", json!({}), daemons(2)), Ready),
        ("daemons: one missing", object("apps/v1", "DaemonSet", json!({}), daemons(1)), Progressing),
        ("daemons: no node", object("apps/v1", "DaemonSet", json!({}), json!({"observedGeneration": 2})), Ready),
        ("replicas: all there", object("apps/v1", "ReplicaSet", two(), full.clone()), Ready),
        ("replicas: too many", object("v1", "ReplicationController", two(), with("replicas", 3)), Progressing),
        (
            "replicas: quota",
            object(
                "apps/v1",
                "ReplicaSet",
                two(),
                json!({"conditions": condition_of("ReplicaFailure", "True", "", "quota")}),
            ),
            Progressing,
        ),
    ] {
        let health = of(&object);
        assert_eq!(kind_of(&health), expected, "{case}: {health}");
    }
}

#[test]
fn other_kinds() {
    use Expect::{Degraded, Progressing, Ready, Unbound};
    let pod = |status| object("v1", "Pod", json!({}), status);
    let crash = json!({"phase": "Running", "containerStatuses": [{"name": "c", "state": {"waiting": {"reason": "CrashLoopBackOff"}}}]});
    let ready = |status: &str| json!({"phase": "Running", "conditions": condition_of("Ready", status, "r", "m")});
    let claim = |status| object("v1", "PersistentVolumeClaim", json!({"storageClassName": "fast"}), status);
    let crd = |status| object("apiextensions.k8s.io/v1", "CustomResourceDefinition", json!({}), status);
    let custom = |status| object("example.com/v1", "Widget", json!({}), status);
    for (case, object, expected) in [
        ("pod: pending", pod(json!({"phase": "Pending"})), Progressing),
        ("pod: ready", pod(ready("True")), Ready),
        ("pod: not ready", pod(ready("False")), Progressing),
        ("pod: done", pod(json!({"phase": "Succeeded"})), Ready),
        ("pod: failed", pod(json!({"phase": "Failed"})), Degraded),
        ("pod: crashes", pod(crash), Degraded),
        ("claim: bound", claim(json!({"phase": "Bound"})), Ready),
        ("claim: pending", claim(json!({"phase": "Pending"})), Unbound),
        ("claim: lost", claim(json!({"phase": "Lost"})), Degraded),
        ("service", object("v1", "Service", json!({"type": "ClusterIP"}), json!({})), Ready),
        (
            "balancer to come",
            object("v1", "Service", json!({"type": "LoadBalancer"}), json!({"loadBalancer": {}})),
            Progressing,
        ),
        (
            "balancer",
            object(
                "v1",
                "Service",
                json!({"type": "LoadBalancer"}),
                json!({"loadBalancer": {"ingress": [{"ip": "1.2.3.4"}]}}),
            ),
            Ready,
        ),
        ("crd: new", crd(json!({})), Progressing),
        ("crd: there", crd(json!({"conditions": condition_of("Established", "True", "", "")})), Ready),
        ("crd: name taken", crd(json!({"conditions": condition_of("NamesAccepted", "False", "", "taken")})), Degraded),
        ("job: new", object("batch/v1", "Job", json!({}), json!({})), Progressing),
        ("job: runs", object("batch/v1", "Job", json!({}), json!({"startTime": "now"})), Ready),
        ("job: suspended", object("batch/v1", "Job", json!({"suspend": true}), json!({})), Ready),
        (
            "job: failed",
            object("batch/v1", "Job", json!({}), json!({"conditions": condition_of("Failed", "True", "", "")})),
            Degraded,
        ),
        (
            "api: away",
            object(
                "apiregistration.k8s.io/v1",
                "APIService",
                json!({}),
                json!({"conditions": condition_of("Available", "False", "", "")}),
            ),
            Progressing,
        ),
        ("custom: says nothing", custom(json!({})), Ready),
        ("custom: ready", custom(json!({"conditions": condition_of("Ready", "True", "", "")})), Ready),
        ("custom: not ready", custom(json!({"conditions": condition_of("Ready", "Unknown", "", "")})), Progressing),
        ("custom: behind", custom(json!({"observedGeneration": 1})), Progressing),
        ("custom: stalled", custom(json!({"conditions": condition_of("Stalled", "True", "", "")})), Degraded),
        ("custom: at it", custom(json!({"conditions": condition_of("Reconciling", "True", "", "")})), Progressing),
        ("config", object("v1", "ConfigMap", json!({}), json!({})), Ready),
    ] {
        let health = of(&object);
        assert_eq!(kind_of(&health), expected, "{case}: {health}");
    }
    let mut going = object("v1", "ConfigMap", json!({}), json!({}));
    going["metadata"]["deletionTimestamp"] = "now".into();
    assert_eq!(kind_of(&of(&going)), Progressing);
}

#[test]
fn reasons_are_told_and_bounded() {
    let long = "é".repeat(10_000);
    let status = json!({"conditions": condition_of("Stalled", "True", "", &long)});
    let Health::Degraded(reason) = of(&object("example.com/v1", "Widget", json!({}), status)) else {
        panic!("degraded")
    };
    assert_eq!(reason.chars().count(), 300);
    let status = json!({"conditions": [{"type": "Ready", "status": "False", "reason": "Why"}]});
    let health = of(&object("example.com/v1", "Widget", json!({}), status));
    assert_eq!(health.to_string(), "progressing: Why");
}

#[test]
fn garbage_is_no_trouble() {
    for object in [
        json!(null),
        json!([]),
        json!({"status": 5, "spec": "x"}),
        json!({"kind": "Pod", "apiVersion": "v1", "status": {"conditions": {"type": 1}}}),
    ] {
        let _ = of(&object);
    }
}
