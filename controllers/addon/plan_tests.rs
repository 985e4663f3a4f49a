use quarterdeck_runtime::object::Kind;
use serde_json::json;

use super::*;
use crate::addon::ident::GroupKind;
use crate::addon::manifest::{Desired, Format, Limits, decode};

const SET: &str = "applyset-ours-v1";

const MAP: &str =
    "{apiVersion: v1, kind: ConfigMap, metadata: {name: x, labels: {addonmanager.kubernetes.io/mode: Reconcile}}}";

fn wanted(mode: &str) -> Wanted {
    let text = format!(
        "{{apiVersion: v1, kind: ConfigMap, metadata: {{name: x, namespace: a, labels: {{addonmanager.kubernetes.io/mode: {mode}}}}}, data: {{k: v}}}}"
    );
    let decoded = decode(text.as_bytes(), Format::Yaml, &Limits::default());
    Wanted::new(&decoded.objects[0].clone().into(), Kind::new("", "v1", "ConfigMap", "configmaps", true), SET)
}

fn our_fields() -> Value {
    json!({"f:data": {"f:k": {}}, "f:metadata": {"f:labels": {"f:addonmanager.kubernetes.io/mode": {}, "f:applyset.kubernetes.io/part-of": {}}}})
}

fn entry(manager: &str, operation: &str, fields: &Value) -> Value {
    json!({"manager": manager, "operation": operation, "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": fields})
}

/// The object as the server has it after our apply.
fn live() -> Value {
    let mut live = wanted("Reconcile").body;
    live["metadata"]["uid"] = "u".into();
    live["metadata"]["resourceVersion"] = "5".into();
    live["metadata"]["managedFields"] = json!([entry(MANAGER, "Apply", &our_fields())]);
    live
}

fn run(wanted: &Wanted, live: Live<'_>, right: Option<Right>) -> Option<Op> {
    let objects = [Seen { wanted, live, right }];
    plan(&View { objects: &objects, overrides: &Overrides::default(), is_ours: &|set| set == SET }).pop()
}

#[test]
fn what_is_seen_decides() {
    let reconcile = wanted("Reconcile");
    let ensure = wanted("EnsureExists");
    let good = live();
    let known = Some(right(&reconcile, &good, &Overrides::default()));
    let with = |edit: &dyn Fn(&mut Value)| {
        let mut live = live();
        edit(&mut live);
        live
    };
    let changed = with(&|live| live["data"]["k"] = "w".into());
    let deleting = with(&|live| live["metadata"]["deletionTimestamp"] = "now".into());
    let moved = with(&|live| live["metadata"]["labels"][PART_OF_LABEL] = "applyset-other-v1".into());
    let foreign = with(&|live| {
        live["metadata"]["labels"][PART_OF_LABEL] = "applyset-other-v1".into();
        live["metadata"]["managedFields"] = json!([entry("kubectl-applyset", "Apply", &our_fields())]);
    });
    let added_by_controller = with(&|live| {
        live["data"]["n"] = "1".into();
        live["metadata"]["managedFields"] = json!([
            entry(MANAGER, "Apply", &our_fields()),
            entry("some-controller", "Update", &json!({"f:data": {"f:n": {}}}))
        ]);
    });
    let added_by_person = with(&|live| {
        live["data"]["n"] = "1".into();
        live["metadata"]["managedFields"] = json!([
            entry(MANAGER, "Apply", &our_fields()),
            entry("kubectl-edit", "Update", &json!({"f:data": {"f:n": {}}}))
        ]);
    });
    let kubectl_only = with(&|live| {
        live["metadata"]["managedFields"] = json!([entry("kubectl-client-side-apply", "Update", &our_fields())])
    });

    let name = |op: Option<Op>| match op {
        None => "nothing".to_owned(),
        Some(Op::Create { .. }) => "create".to_owned(),
        Some(Op::Accept { .. }) => "accept".to_owned(),
        Some(Op::Release { .. }) => "release".to_owned(),
        Some(Op::Wait { .. }) => "wait".to_owned(),
        Some(Op::Refuse { .. }) => "refuse".to_owned(),
        Some(Op::Apply { take_back, drift, fields, .. }) => {
            format!(
                "{} {} {}",
                if drift { "repair" } else { "apply" },
                if take_back.is_some() { "taking back" } else { "alone" },
                fields.join(" ")
            )
        }
    };
    for (case, wanted, live, right, expected) in [
        ("quiet", &reconcile, Live::Quiet, known, "nothing"),
        ("absent", &reconcile, Live::Absent, known, "create"),
        ("right, never seen before", &reconcile, Live::Present(&good), None, "accept"),
        ("right", &reconcile, Live::Present(&good), known, "accept"),
        ("changed", &reconcile, Live::Present(&changed), known, "repair alone data.k"),
        ("changed while nobody looked", &reconcile, Live::Present(&changed), None, "apply alone data.k"),
        ("a controller added", &reconcile, Live::Present(&added_by_controller), known, "accept"),
        ("a person added", &reconcile, Live::Present(&added_by_person), known, "repair taking back "),
        ("a person added while nobody looked", &reconcile, Live::Present(&added_by_person), None, "apply taking back "),
        ("kubectl applied it", &reconcile, Live::Present(&kubectl_only), None, "apply taking back data metadata"),
        ("being deleted", &reconcile, Live::Present(&deleting), known, "wait"),
        ("another tool's", &reconcile, Live::Present(&foreign), known, "refuse"),
        (
            "from another set of ours",
            &reconcile,
            Live::Present(&moved),
            None,
            "apply alone metadata.labels.applyset.kubernetes.io/part-of",
        ),
        ("ensure: absent", &ensure, Live::Absent, None, "create"),
        ("ensure: a member before, changed", &ensure, Live::Present(&changed), None, "release"),
        ("ensure: never a member", &ensure, Live::Present(&kubectl_only), None, "accept"),
        ("ensure: a member before", &ensure, Live::Present(&good), None, "release"),
        ("ensure: another tool's", &ensure, Live::Present(&foreign), None, "accept"),
    ] {
        assert_eq!(name(run(wanted, live, right)), expected, "{case}");
    }
}

#[test]
fn a_value_in_another_spelling_is_settled_by_one_apply() {
    let mut other = live();
    other["data"]["k"] = "v (as the server writes it)".into();
    let reconcile = wanted("Reconcile");
    assert!(matches!(run(&reconcile, Live::Present(&other), None), Some(Op::Apply { .. })));
    // The answer to that apply was the same object: from now on it is the reference.
    let known = Some(right(&reconcile, &other, &Overrides::default()));
    assert_eq!(run(&reconcile, Live::Present(&other), known), Some(Op::Accept { index: 0 }));
    assert!(matches!(run(&reconcile, Live::Present(&live()), known), Some(Op::Apply { drift: true, .. })));
}

#[test]
fn members_are_labelled_and_others_are_not() {
    assert_eq!(wanted("Reconcile").body["metadata"]["labels"][PART_OF_LABEL], SET);
    assert_eq!(wanted("EnsureExists").body["metadata"]["labels"].get(PART_OF_LABEL), None);
}

#[test]
fn an_autoscalers_replicas_are_not_applied() {
    let text = "{apiVersion: apps/v1, kind: Deployment, metadata: {name: x, namespace: a, labels: {addonmanager.kubernetes.io/mode: Reconcile}}, spec: {replicas: 1, paused: true}}";
    let decoded = decode(text.as_bytes(), Format::Yaml, &Limits::default());
    let deployment = Wanted::new(
        &decoded.objects[0].clone().into(),
        Kind::new("apps", "v1", "Deployment", "deployments", true),
        SET,
    );
    let fields = json!({"f:metadata": {"f:labels": {"f:addonmanager.kubernetes.io/mode": {}, "f:applyset.kubernetes.io/part-of": {}}}, "f:spec": {"f:paused": {}}});
    let mut live = deployment.body.clone();
    live["spec"]["replicas"] = 7.into();
    let scale = |manager: &str| json!({"manager": manager, "operation": "Update", "subresource": "scale", "apiVersion": "apps/v1", "fieldsV1": {"f:spec": {"f:replicas": {}}}});
    live["metadata"]["managedFields"] = json!([entry(MANAGER, "Apply", &fields), scale("kube-controller-manager")]);
    assert_eq!(run(&deployment, Live::Present(&live), None), Some(Op::Accept { index: 0 }));
    live["spec"]["paused"] = false.into();
    let Some(Op::Apply { body, .. }) = run(&deployment, Live::Present(&live), None) else {
        panic!("a change is reverted")
    };
    assert_eq!(body["spec"], json!({"paused": true}));
    // A person who scales is reverted: the file says how many.
    live["spec"]["paused"] = true.into();
    let known = right(&deployment, &live, &Overrides::default());
    assert_eq!(run(&deployment, Live::Present(&live), Some(known)), Some(Op::Accept { index: 0 }));
    live["metadata"]["managedFields"] = json!([entry(MANAGER, "Apply", &fields), scale("kubectl")]);
    for right in [None, Some(known)] {
        let Some(Op::Apply { body, .. }) = run(&deployment, Live::Present(&live), right) else {
            panic!("a scale is reverted")
        };
        assert_eq!(body["spec"]["replicas"], 1);
    }
}

#[test]
fn namespaces_and_crds_come_first() {
    let object = |group: &'static str, kind: &'static str, name: &str| Wanted {
        ident: Ident::new(GroupKind::new(group, kind), "", name),
        kind: Kind::new(group, "v1", kind, "things", false),
        ..wanted("Reconcile")
    };
    let objects = [
        object("", "ConfigMap", "c"),
        object("apiextensions.k8s.io", "CustomResourceDefinition", "d"),
        object("", "Namespace", "n"),
        object("", "Secret", "s"),
    ];
    let seen: Vec<Seen<'_>> = objects.iter().map(|wanted| Seen { wanted, live: Live::Absent, right: None }).collect();
    let ops = plan(&View { objects: &seen, overrides: &Overrides::default(), is_ours: &|_| false });
    assert_eq!(ops, [2, 1, 0, 3].map(|index| Op::Create { index }));
}

#[test]
fn namespaces_follow_the_kinds_scope() {
    let ident = |text: &str| Ident::parse(text).expect("an ident");
    for (written, namespaced, expected) in [
        ("ConfigMap//x", true, "ConfigMap/default/x"),
        ("ConfigMap/a/x", true, "ConfigMap/a/x"),
        ("Namespace/a/x", false, "Namespace//x"),
    ] {
        let decoded = decode(MAP.as_bytes(), Format::Yaml, &Limits::default()).objects.remove(0);
        let object = Object::from(Desired { ident: ident(written), ..decoded });
        assert_eq!(object.resolved(namespaced), ident(expected), "{written}");
    }
}

#[test]
fn an_answer_that_shows_a_persons_hand_is_not_the_end() {
    let overrides = Overrides::default();
    let mut answer = live();
    assert!(is_settled(&wanted("Reconcile"), &answer, &overrides));
    answer["metadata"]["managedFields"] = json!([
        entry(MANAGER, "Apply", &our_fields()),
        entry("kubectl-edit", "Update", &json!({"f:data": {"f:n": {}}}))
    ]);
    assert!(!is_settled(&wanted("Reconcile"), &answer, &overrides));
    assert!(is_settled(&wanted("EnsureExists"), &answer, &overrides));
}
