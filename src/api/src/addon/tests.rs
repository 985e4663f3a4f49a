//! Reading, writing, hashing and judging of Addons.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::*;

fn read(value: Value) -> Addon {
    serde_json::from_value(value).expect("an Addon")
}

/// The document's example, its steps cut.
fn example() -> Value {
    json!({
        "apiVersion": API_VERSION, "kind": KIND,
        "metadata": {"name": "fluentd-addon", "namespace": "addon-manager-system"},
        "spec": {
            "pkgName": "core/fluentd", "pkgVersion": "v0.0.1", "pkgType": "composite", "pkgDescription": "d",
            "pkgDeps": {"argoproj/workflows": "v2.2.1"},
            "params": {
                "namespace": "mynamespace",
                "clusterContext": {"clusterName": "my-test-cluster", "clusterRegion": "us-west-2"},
                "data": {"hec_splunk_server": "hec.splunk.example.com"},
            },
            "selector": {"matchLabels": {"app.kubernetes.io/name": "fluentd"}},
            "lifecycle": {"install": {"template": "kind: Workflow"}},
        },
    })
}

#[test]
fn the_documents_example_is_read() {
    let addon = read(example());
    assert_eq!((addon.name(), addon.namespace()), ("fluentd-addon", "addon-manager-system"));
    let expected = [
        ("clusterName", "my-test-cluster"),
        ("clusterRegion", "us-west-2"),
        ("hec_splunk_server", "hec.splunk.example.com"),
        ("namespace", "mynamespace"),
    ];
    let expected: BTreeMap<String, String> = expected.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
    assert_eq!(addon.spec.parameters().expect("parameters"), expected);
    assert_eq!(addon.spec.step(LifecycleStep::Install).expect("a step").template, "kind: Workflow");
    assert_eq!(addon.spec.step(LifecycleStep::Delete), None);
    assert_eq!(addon.problems(), []);
    assert_eq!(addon.phase(), Phase::Pending);
}

#[test]
fn what_is_read_is_written_again() {
    let addon = read(example());
    assert_eq!(serde_json::to_value(&addon).expect("JSON"), example());
}

#[test]
fn what_a_go_client_wrote_is_read() {
    let addon = read(json!({
        "metadata": {"name": "a"},
        "unknown": 1,
        "spec": {
            "pkgName": "a", "pkgVersion": "1", "pkgType": "composite", "pkgDescription": "", "pkgDeps": null,
            "params": {"namespace": "n", "context": {}, "data": {"on": true, "count": 3, "text": "x"}},
            "selector": {}, "overrides": {"kustomize": {"overlay": {}}}, "secrets": null, "new": {"a": 1},
            "lifecycle": {"prereqs": {"template": ""}, "install": {"template": ""}, "delete": null, "validate": {}},
        },
        "status": {
            "checksum": "5d3c2a1f", "lifecycle": {"prereqs": "", "installed": "Validation Failed"},
            "resources": null, "reason": "r", "starttime": 1_600_000_000_000_i64, "health": "Splendid",
        },
    }));
    let parameters = addon.spec.parameters().expect("parameters");
    assert_eq!((&*parameters["on"], &*parameters["count"], &*parameters["text"]), ("true", "3", "x"));
    for step in LifecycleStep::ALL {
        assert_eq!(addon.spec.step(step), None, "{step}");
    }
    let status = addon.status.as_ref().expect("a status");
    assert_eq!(status.lifecycle, StatusLifecycle { prereqs: None, installed: Some(Phase::ValidationFailed) });
    assert_eq!((status.health, status.starttime), (Some(Health::Unknown), 1_600_000_000_000));
    assert!(is_upstream_checksum(&status.checksum));
}

#[test]
fn upstreams_fields_of_the_status_are_always_written() {
    let written = serde_json::to_value(AddonStatus::default()).expect("JSON");
    assert_eq!(written, json!({"checksum": "", "lifecycle": {}, "resources": [], "reason": "", "starttime": 0}));
}

#[test]
fn phases_are_upstreams_words() {
    let words: Vec<&str> = Phase::ALL.iter().map(|phase| phase.as_str()).collect();
    assert_eq!(
        words,
        [
            "Pending",
            "Running",
            "Succeeded",
            "Failed",
            "Validation Failed",
            "Deleting",
            "Delete Failed",
            "Delete Succeeded"
        ]
    );
    for phase in Phase::ALL {
        assert_eq!(Phase::parse(phase.as_str()), *phase);
    }
    assert_eq!(Phase::parse("pending"), Phase::Unknown);
}

#[test]
fn the_checksum_is_of_what_the_spec_means() {
    let spec = |edit: &dyn Fn(&mut Value)| {
        let mut value = example();
        edit(&mut value["spec"]);
        read(value).spec.checksum()
    };
    let same = spec(&|_| {});
    assert_eq!(same.len(), 64);
    let respelled = spec(&|spec| {
        let context = spec["params"]["clusterContext"].take();
        spec["params"] = json!({"namespace": "mynamespace", "context": context, "data": spec["params"]["data"]});
        spec["lifecycle"]["delete"] = json!({"template": ""});
        spec["overrides"] = json!({"kustomize": {"overlay": {}}});
    });
    assert_eq!(same, respelled);
    let number = spec(&|spec| spec["params"]["data"]["n"] = json!(3));
    let text = spec(&|spec| spec["params"]["data"]["n"] = json!("3"));
    assert_eq!(number, text);
    assert_ne!(number, same);
    assert_ne!(same, spec(&|spec| spec["lifecycle"]["install"]["template"] = json!("kind: Workflow ")));
    // A change of this value would run every addon's containers again.
    assert_eq!(AddonSpec::default().checksum(), "d11fcc0635478de5e62bb886993c7e717fd2fd1f43b4e84d3380fac0f475ec33");
}

#[test]
fn problems_name_their_fields() {
    let fields = |edit: &dyn Fn(&mut Value)| {
        let mut value = example();
        edit(&mut value);
        read(value).problems().into_iter().map(|problem| problem.field).collect::<Vec<_>>()
    };
    assert_eq!(fields(&|addon| addon["metadata"]["name"] = json!("n".repeat(32))), ["metadata.name"]);
    assert_eq!(fields(&|addon| addon["spec"]["params"]["namespace"] = json!("")), ["spec.params.namespace"]);
    for wrong in ["../kube-system", "a/b", "A", "-a", "a.b"] {
        let namespace = |addon: &mut Value| addon["spec"]["params"]["namespace"] = json!(wrong);
        assert_eq!(fields(&namespace), ["spec.params.namespace"], "{wrong}");
    }
    assert_eq!(fields(&|addon| addon["spec"]["secrets"] = json!([{"name": ".."}])), ["spec.secrets[0].name"]);
    assert_eq!(fields(&|addon| addon["spec"]["pkgDeps"]["core/fluentd"] = json!("*")), ["spec.pkgDeps.core/fluentd"]);
    assert_eq!(fields(&|addon| addon["spec"]["params"]["data"]["f"] = json!(1.5)), ["spec.params.data.f"]);
    assert_eq!(
        fields(&|addon| addon["spec"]["params"]["clusterContext"]["additionalConfigs"] = json!({"m": {}})),
        ["spec.params.clusterContext.additionalConfigs.m"]
    );
    assert_eq!(
        fields(&|addon| addon["spec"]["params"]["context"] = json!({"clusterName": "other"})),
        ["spec.params.clusterContext.clusterName"]
    );
    assert_eq!(
        fields(&|addon| addon["spec"]["secrets"] = json!([{"name": "a"}, {"name": "", "cmd": 2}])),
        ["spec.secrets[1].name", "spec.secrets[1].cmd"]
    );
    assert_eq!(
        fields(&|addon| addon["spec"]["lifecycle"]["install"]["namePrefix"] = json!("12345678901")),
        ["spec.lifecycle.install.namePrefix"]
    );
    let mirror = |addon: &mut Value| {
        addon["metadata"]["labels"] = json!({names::MIRROR_LABEL: "channel"});
        addon["metadata"]["name"] = json!("n".repeat(60));
    };
    assert_eq!(fields(&mirror), Vec::<String>::new());
}

#[test]
fn inventory_entries_are_read_back() {
    for text in
        ["Deployment.apps/a/x u-1", "ConfigMap/a/x", "Namespace//n 7", "ClusterRole.rbac.authorization.k8s.io//a:b u"]
    {
        assert_eq!(text.parse::<InventoryEntry>().expect(text).to_string(), text);
    }
    for text in ["", "Pod", "Pod/a", "/a/b", "Pod/a/"] {
        assert!(text.parse::<InventoryEntry>().is_err(), "{text:?}");
    }
}
