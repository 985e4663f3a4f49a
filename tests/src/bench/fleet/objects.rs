//! What an addon of the fleet holds, and how each source has it.

use serde_json::{Value, json};

use super::{INSTALLER, Source};

/// Objects of one addon.
pub(crate) const EACH: usize = 10;
/// Label of all that belongs to the fleet.
pub(crate) const LABEL: &str = "bench";

/// Kinds of an addon's objects, as paths of all namespaces.
pub(crate) const KINDS: [&str; 8] = [
    "/api/v1/configmaps",
    "/api/v1/secrets",
    "/api/v1/serviceaccounts",
    "/api/v1/services",
    "/apis/rbac.authorization.k8s.io/v1/roles",
    "/apis/rbac.authorization.k8s.io/v1/rolebindings",
    "/apis/networking.k8s.io/v1/networkpolicies",
    "/apis/batch/v1/cronjobs",
];

/// Name of an addon.
pub(crate) fn name(index: usize) -> String {
    format!("addon-{index:03}")
}

/// Path of the object that the figures harm: the addon's first ConfigMap.
pub(crate) fn path(source: Source, index: usize) -> String {
    format!("/api/v1/namespaces/{}/configmaps/{}-0", source.namespace(), name(index))
}

/// The objects of an addon; `value` stands in the first ConfigMap.
pub(crate) fn objects(source: Source, index: usize, value: &str) -> Vec<Value> {
    let addon = name(index);
    let meta = |name: &str| {
        let mut labels = json!({ LABEL: "fleet", "app.kubernetes.io/name": addon });
        if source == Source::Directory {
            labels["addonmanager.kubernetes.io/mode"] = "Reconcile".into();
        }
        json!({ "name": name, "namespace": source.namespace(), "labels": labels })
    };
    let map = |number: usize, value: &str| {
        let rules: String = (0..20).map(|line| format!("rule-{line}: forward to upstream {number}.{line}\n")).collect();
        json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": meta(&format!("{addon}-{number}")),
            "data": { "value": value, "rules": rules },
        })
    };
    let port = json!({ "name": "http", "port": 80, "protocol": "TCP", "targetPort": 8080 });
    let role = "rbac.authorization.k8s.io";
    vec![
        map(0, value),
        map(1, "one"),
        map(2, "two"),
        json!({ "apiVersion": "v1", "kind": "Secret", "metadata": meta(&addon), "data": { "token": "Zm9vYmFy" } }),
        json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta(&addon) }),
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": meta(&addon),
            "spec": { "selector": { "app.kubernetes.io/name": addon }, "ports": [port] },
        }),
        json!({
            "apiVersion": format!("{role}/v1"), "kind": "Role", "metadata": meta(&addon),
            "rules": [{ "apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list", "watch"] }],
        }),
        json!({
            "apiVersion": format!("{role}/v1"), "kind": "RoleBinding", "metadata": meta(&addon),
            "roleRef": { "apiGroup": role, "kind": "Role", "name": addon },
            "subjects": [{ "kind": "ServiceAccount", "name": addon, "namespace": source.namespace() }],
        }),
        json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": meta(&addon),
            "spec": {
                "podSelector": { "matchLabels": { "app.kubernetes.io/name": addon } },
                "ingress": [{ "ports": [{ "port": 8080, "protocol": "TCP" }] }],
                "policyTypes": ["Ingress"],
            },
        }),
        cron_job(&meta(&addon), &addon),
    ]
}

/// A suspended job: nothing follows from it.
fn cron_job(meta: &Value, addon: &str) -> Value {
    let env: Vec<_> = (0..10).map(|number| json!({ "name": format!("SETTING_{number}"), "value": "on" })).collect();
    json!({
        "apiVersion": "batch/v1", "kind": "CronJob", "metadata": meta,
        "spec": {
            "schedule": "0 3 * * *", "suspend": true,
            "jobTemplate": { "spec": { "template": { "spec": {
                "restartPolicy": "Never", "serviceAccountName": addon,
                "containers": [{
                    "name": "work", "image": "registry.example.com/team/work:1.2.3", "args": ["--all"], "env": env,
                    "resources": { "requests": { "cpu": "100m", "memory": "128Mi" } },
                }],
            } } } },
        },
    })
}

/// An addon's file: its objects, one document each.
pub(crate) fn manifest(source: Source, index: usize, value: &str) -> String {
    objects(source, index, value).iter().map(|object| format!("---\n{object}\n")).collect()
}

/// An Addon object that applies its objects as keiko's examples do. The first ConfigMap's value is a
/// parameter.
pub(crate) fn addon(index: usize, value: &str) -> Value {
    let template = json!({
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Workflow",
        "spec": {
            "entrypoint": "entry",
            "serviceAccountName": INSTALLER,
            "templates": [
                {
                    "name": "entry",
                    "steps": [[{
                        "name": "install", "template": "submit",
                        "arguments": { "artifacts": [{ "name": "doc", "path": "/tmp/doc", "raw": {
                            "data": manifest(Source::Object, index, "{{workflow.parameters.value}}"),
                        } }] },
                    }]],
                },
                {
                    "name": "submit",
                    "inputs": { "artifacts": [{ "name": "doc", "path": "/tmp/doc" }] },
                    "container": {
                        "image": "registry.example.com/kubectl:1.36.3",
                        "command": ["sh", "-c"], "args": ["kubectl apply -f /tmp/doc"],
                    },
                },
            ],
        },
    });
    json!({
        "apiVersion": "addonmgr.keikoproj.io/v1alpha1", "kind": "Addon",
        "metadata": { "name": name(index), "namespace": Source::Object.namespace() },
        "spec": {
            "pkgName": format!("fleet/{}", name(index)), "pkgVersion": "1.0.0", "pkgType": "composite",
            "pkgDescription": "one of many",
            "params": { "namespace": Source::Object.namespace(), "data": { "value": value } },
            "lifecycle": { "install": { "template": template.to_string() } },
        },
    })
}

/// The index of a channel with these addons, whose manifests lie beside it.
pub(crate) fn index(addons: impl Iterator<Item = usize>) -> Value {
    let entries: Vec<_> = addons
        .map(|index| {
            json!({ "name": name(index), "version": "1.0.0", "id": "a", "manifest": format!("{}.yaml", name(index)) })
        })
        .collect();
    json!({ "kind": "Addons", "metadata": { "name": "fleet" }, "spec": { "addons": entries } })
}

/// An object of somebody else, of one of the fleet's kinds.
pub(crate) fn stranger(index: usize) -> (&'static str, Value) {
    let name = format!("other-{index:05}");
    let meta = json!({
        "name": name,
        "labels": { "app.kubernetes.io/name": "shop", "app.kubernetes.io/instance": name, "tier": "backend" },
        "annotations": { "checksum/config": format!("{index:064x}") },
    });
    match index % 9 {
        0..4 => {
            let data = json!({ "settings": "listen = 8080\n".repeat(40) });
            ("/api/v1/namespaces/others/configmaps", json!({ "metadata": meta, "data": data }))
        }
        4 | 5 => {
            let data = json!({ "password": "c2VjcmV0c2VjcmV0" });
            ("/api/v1/namespaces/others/secrets", json!({ "metadata": meta, "data": data }))
        }
        6 => ("/api/v1/namespaces/others/serviceaccounts", json!({ "metadata": meta })),
        7 => {
            let rules = json!([{ "apiGroups": [""], "resources": ["secrets"], "verbs": ["get"] }]);
            let path = "/apis/rbac.authorization.k8s.io/v1/namespaces/others/roles";
            (path, json!({ "metadata": meta, "rules": rules }))
        }
        _ => ("/apis/batch/v1/namespaces/others/cronjobs", cron_job(&meta, "default")),
    }
}
