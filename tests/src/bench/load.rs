//! Objects as real clusters hold them: pods of about 7 KiB with probes, volumes and full status.

use serde_json::{Value, json};

/// The namespace of all pods and services.
pub(crate) const NAMESPACE: &str = "bench";

const STARTED: &str = "2026-01-02T03:04:05Z";

/// Name of a service.
pub(crate) fn service_name(index: usize) -> String {
    format!("web-{index:02}")
}

/// Name of a pod.
pub(crate) fn pod_name(index: usize) -> String {
    format!("web-6d4cf56db6-{index:05}")
}

/// Path of a pod's status.
pub(crate) fn pod_status_path(index: usize) -> String {
    format!("/api/v1/namespaces/{NAMESPACE}/pods/{}/status", pod_name(index))
}

fn node_name(index: usize) -> String {
    format!("worker-{index:02}.example.internal")
}

/// A node in one of three zones.
pub(crate) fn node(index: usize) -> Value {
    let images: Vec<_> = (0..30)
        .map(|image| {
            json!({
                "names": [format!("registry.example.com/team/program-{image}@sha256:{image:064x}")],
                "sizeBytes": 100_000_000 + image,
            })
        })
        .collect();
    let amounts = json!({ "cpu": "16", "memory": "65536Mi", "pods": "250", "ephemeral-storage": "200Gi" });
    json!({
        "metadata": {
            "name": node_name(index),
            "labels": {
                "kubernetes.io/hostname": node_name(index),
                "kubernetes.io/arch": "amd64",
                "kubernetes.io/os": "linux",
                "topology.kubernetes.io/region": "north",
                "topology.kubernetes.io/zone": format!("north-{}", index % 3),
            },
        },
        "spec": { "podCIDR": format!("10.{index}.0.0/16") },
        "status": {
            "addresses": [{ "type": "InternalIP", "address": format!("172.16.0.{}", index + 1) }],
            "capacity": amounts,
            "allocatable": amounts,
            "conditions": [condition("Ready", true)],
            "images": images,
        },
    })
}

/// A service that selects the pods of its name.
pub(crate) fn service(name: &str) -> Value {
    json!({
        "metadata": { "name": name, "labels": { "app.kubernetes.io/name": name } },
        "spec": {
            "selector": { "app.kubernetes.io/name": name },
            "ports": [
                { "name": "http", "port": 80, "targetPort": "http" },
                { "name": "metrics", "port": 9090, "targetPort": 9090 },
            ],
        },
    })
}

/// A pod of the service whose turn it is, on a node.
pub(crate) fn pod(index: usize, services: usize, nodes: usize) -> Value {
    let probe = |path: &str| json!({ "httpGet": { "path": path, "port": "http" }, "periodSeconds": 10 });
    let env: Vec<_> = (0..10)
        .map(|number| json!({ "name": format!("SETTING_{number}"), "value": format!("value-{number}") }))
        .collect();
    json!({
        "metadata": {
            "name": pod_name(index),
            "labels": {
                "app.kubernetes.io/name": service_name(index % services),
                "app.kubernetes.io/instance": "production",
                "app.kubernetes.io/part-of": "shop",
                "pod-template-hash": "6d4cf56db6",
            },
            "annotations": { "prometheus.io/scrape": "true", "checksum/config": format!("{index:064x}") },
            "ownerReferences": [{
                "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-6d4cf56db6", "controller": true,
                "blockOwnerDeletion": true, "uid": format!("00000000-0000-4000-8000-{:012x}", index % services),
            }],
        },
        "spec": {
            "nodeName": node_name(index % nodes),
            "containers": [{
                "name": "web",
                "image": "registry.example.com/team/web:1.2.3",
                "args": ["--listen=:8080", "--log-format=json"],
                "env": env,
                "ports": [{ "name": "http", "containerPort": 8080 }, { "name": "metrics", "containerPort": 9090 }],
                "readinessProbe": probe("/ready"),
                "livenessProbe": probe("/live"),
                "resources": { "requests": { "cpu": "100m", "memory": "128Mi" }, "limits": { "memory": "256Mi" } },
                "volumeMounts": [{ "name": "config", "mountPath": "/etc/web" }],
            }, {
                "name": "sidecar",
                "image": "registry.example.com/team/sidecar:4.5.6",
                "resources": { "requests": { "cpu": "10m", "memory": "32Mi" } },
            }],
            "volumes": [{ "name": "config", "configMap": { "name": "web" } }],
        },
    })
}

/// The status that a kubelet writes of a running, ready pod.
pub(crate) fn pod_status(index: usize, nodes: usize) -> Value {
    let ip = format!("10.{}.{}.{}", 64 + index / 65536, index / 256 % 256, index % 256);
    let container = |name: &str| {
        json!({
            "name": name,
            "image": format!("registry.example.com/team/{name}:1.2.3"),
            "imageID": format!("registry.example.com/team/{name}@sha256:{index:064x}"),
            "containerID": format!("containerd://{index:064x}"),
            "ready": true, "started": true, "restartCount": 0,
            "state": { "running": { "startedAt": STARTED } },
        })
    };
    json!({
        "phase": "Running",
        "hostIP": format!("172.16.0.{}", index % nodes + 1),
        "hostIPs": [{ "ip": format!("172.16.0.{}", index % nodes + 1) }],
        "podIP": ip,
        "podIPs": [{ "ip": ip }],
        "qosClass": "Burstable",
        "startTime": STARTED,
        "conditions": conditions(true),
        "containerStatuses": [container("web"), container("sidecar")],
    })
}

/// The conditions of a pod that is ready or not.
pub(crate) fn conditions(ready: bool) -> Value {
    json!([
        condition("PodReadyToStartContainers", true),
        condition("Initialized", true),
        condition("Ready", ready),
        condition("ContainersReady", ready),
        condition("PodScheduled", true),
    ])
}

fn condition(kind: &str, holds: bool) -> Value {
    let status = if holds { "True" } else { "False" };
    json!({ "type": kind, "status": status, "lastTransitionTime": STARTED })
}
