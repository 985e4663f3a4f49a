use serde_json::json;

use super::*;

/// A Deployment as a file has it, as a server keeps it, and what a server says we own.
fn deployment() -> (Value, Value, FieldSet) {
    let wanted = json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "dns", "namespace": "a", "labels": {"x": "y"}},
        "spec": {
            "selector": {"matchLabels": {"app": "dns"}},
            "template": {"metadata": {"labels": {"app": "dns"}}, "spec": {
                "containers": [{"name": "c", "image": "i:1", "env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "p"}}}], "ports": [{"containerPort": 53}], "args": ["-a", "-b"]}],
                "tolerations": [{"key": "k"}], "volumes": [{"name": "v", "emptyDir": {}}],
            }},
        },
    });
    let mut live = wanted.clone();
    live["metadata"]["uid"] = "u".into();
    live["spec"]["replicas"] = 3.into();
    let pod = &mut live["spec"]["template"]["spec"];
    pod["containers"][0]["env"][0]["valueFrom"]["fieldRef"]["apiVersion"] = "v1".into();
    pod["containers"][0]["ports"][0]["protocol"] = "TCP".into();
    pod["containers"][0]["imagePullPolicy"] = "Always".into();
    pod["containers"].as_array_mut().expect("a list").insert(0, json!({"name": "injected"}));
    let ours = FieldSet::parse(&json!({
        "f:metadata": {"f:labels": {"f:x": {}}},
        "f:spec": {
            "f:selector": {},
            "f:template": {"f:metadata": {"f:labels": {"f:app": {}}}, "f:spec": {
                "f:containers": {"k:{\"name\":\"c\"}": {".": {}, "f:name": {}, "f:image": {}, "f:args": {},
                    "f:env": {"k:{\"name\":\"A\"}": {".": {}, "f:name": {}, "f:valueFrom": {"f:fieldRef": {}}}},
                    "f:ports": {"k:{\"containerPort\":53,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}}}}},
                "f:tolerations": {},
                "f:volumes": {"k:{\"name\":\"v\"}": {".": {}, "f:name": {}, "f:emptyDir": {}}},
            }},
        },
    }));
    (wanted, live, ours)
}

#[test]
fn what_a_server_adds_is_no_difference() {
    let (wanted, live, ours) = deployment();
    assert_eq!(differences(&wanted, &live, &ours), Vec::<String>::new());
}

#[test]
fn every_change_of_our_fields_is_found() {
    let changes: Vec<(&str, &str, Value)> = vec![
        ("a label", "/metadata/labels/x", json!("z")),
        ("an image", "/spec/template/spec/containers/1/image", json!("i:2")),
        ("an argument", "/spec/template/spec/containers/1/args/1", json!("-c")),
        ("arguments", "/spec/template/spec/containers/1/args", json!(["-a", "-b", "-c"])),
        ("a list without keys", "/spec/template/spec/tolerations", json!([{"key": "k"}, {"key": "l"}])),
        ("a selector", "/spec/selector/matchLabels", json!({})),
        ("a name", "/spec/template/spec/containers/1/name", json!("other")),
        ("a nested reference", "/spec/template/spec/containers/1/env/0/valueFrom/fieldRef/fieldPath", json!("q")),
    ];
    for (name, pointer, value) in changes {
        let (wanted, mut live, ours) = deployment();
        let before = fingerprint(&live, &ours);
        *live.pointer_mut(pointer).expect(name) = value;
        assert!(!differences(&wanted, &live, &ours).is_empty(), "{name}");
        assert_ne!(fingerprint(&live, &ours), before, "{name}");
    }
}

#[test]
fn others_fields_do_not_count() {
    for (pointer, value) in
        [("/spec/replicas", json!(9)), ("/spec/template/spec/containers/0", json!({"name": "injected", "image": "x"}))]
    {
        let (wanted, mut live, ours) = deployment();
        let before = fingerprint(&live, &ours);
        *live.pointer_mut(pointer).expect(pointer) = value;
        assert_eq!(differences(&wanted, &live, &ours), Vec::<String>::new());
        assert_eq!(fingerprint(&live, &ours), before);
    }
}

#[test]
fn a_file_that_changed_is_found_both_ways() {
    let (mut wanted, live, ours) = deployment();
    wanted["spec"]["paused"] = true.into();
    assert_eq!(differences(&wanted, &live, &ours), ["spec.paused"]);
    let (mut wanted, live, ours) = deployment();
    wanted["metadata"]["labels"] = json!({});
    assert_eq!(differences(&wanted, &live, &ours), ["metadata.labels.x"]);
    let (mut wanted, live, ours) = deployment();
    wanted["spec"]["template"]["spec"]["volumes"] = json!([]);
    assert_eq!(differences(&wanted, &live, &ours).len(), 1);
    let (mut wanted, live, ours) = deployment();
    wanted["spec"]["template"]["spec"]["containers"][0]["env"] = json!([{"name": "B"}]);
    assert_eq!(differences(&wanted, &live, &ours).len(), 2);
}

#[test]
fn fields_that_are_no_longer_ours_are_found() {
    let (wanted, live, mut ours) = deployment();
    ours.children.remove("f:spec");
    assert_eq!(differences(&wanted, &live, &ours), ["spec"]);
    assert_eq!(differences(&wanted, &live, &FieldSet::default()).len(), 2);
}

#[test]
fn an_object_of_names_alone_is_never_different() {
    let wanted = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": "b"}});
    assert_eq!(differences(&wanted, &wanted, &FieldSet::default()), Vec::<String>::new());
}

#[test]
fn differences_are_few() {
    let data: serde_json::Map<String, Value> = (0..100).map(|n| (format!("k{n}"), json!("v"))).collect();
    assert_eq!(
        differences(&json!({"data": data}), &json!({"data": {}}), &FieldSet::parse(&json!({"f:data": {".": {}}})))
            .len(),
        1
    );
    let owned: serde_json::Map<String, Value> = (0..100).map(|n| (format!("f:k{n}"), json!({}))).collect();
    assert_eq!(
        differences(&json!({"data": data}), &json!({"data": {}}), &FieldSet::parse(&json!({"f:data": owned}))).len(),
        5
    );
}

#[test]
fn fields_can_be_left_to_others() {
    let object = json!({"spec": {"replicas": 3, "other": 1}, "list": [{"replicas": 3}]});
    let set = FieldSet::parse(&json!({"f:spec": {"f:replicas": {}}, "f:list": {"i:0": {"f:replicas": {}}}}));
    assert_eq!(without(object, &set), json!({"spec": {"other": 1}, "list": [{"replicas": 3}]}));
}
