use super::*;
use crate::addon::workflow::program::{Action, PodFile, Retry, When};

fn addon() -> AddonFacts {
    AddonFacts {
        name: "fluentd-addon".into(),
        namespace: "addon-manager-system".into(),
        uid: "u".into(),
        ..AddonFacts::default()
    }
}

fn step() -> PodStep {
    let Value::Object(container) = json!({"image": "i", "command": ["sh", "-c"], "args": ["true"],
        "resources": {"limits": {"cpu": 1, "memory": "10Mi"}}})
    else {
        unreachable!()
    };
    let files = vec![
        PodFile { path: "/tmp/doc".into(), content: "a: 1\n".into(), mode: None },
        PodFile { path: "/quarterdeck/script".into(), content: "true".into(), mode: Some(0o755) },
    ];
    PodStep { container, files, ..PodStep::default() }
}

fn node(step: PodStep) -> Node {
    Node {
        name: "entry/a".into(),
        origin: "spec.templates[0]".into(),
        after: Vec::new(),
        when: When::Run,
        retry: Retry::default(),
        deadline: Some(Duration::from_secs(90)),
        account: None,
        continue_on_failure: false,
        action: Action::Pod(Box::new(step)),
        content: None,
    }
    .sealed()
}

fn attempt<'a>(addon: &'a AddonFacts, node: &'a Node) -> Attempt<'a> {
    Attempt {
        addon,
        phase: "install",
        revision: "0123456789abcdef",
        node,
        number: 1,
        account: Some("installer"),
        deadline: Some(Duration::from_secs(300)),
    }
}

#[test]
fn a_pod_runs_once_as_the_account_with_its_files() {
    let (addon, node) = (addon(), node(step()));
    let attempt = attempt(&addon, &node);
    let made = json!(pod(&attempt, &step()).unwrap());
    let name = name(&attempt);
    assert_eq!(
        made["metadata"],
        json!({
            "name": name, "namespace": "addon-manager-system",
            "labels": {"quarterdeck.dev/addon": "fluentd-addon", "quarterdeck.dev/revision": "01234567"},
            "annotations": {"quarterdeck.dev/step": "install/entry/a"},
            "ownerReferences": [{"apiVersion": "addonmgr.keikoproj.io/v1alpha1", "kind": "Addon", "name": "fluentd-addon", "uid": "u", "controller": true}]
        })
    );
    assert_eq!(
        made["spec"],
        json!({
            "restartPolicy": "Never", "activeDeadlineSeconds": 90, "serviceAccountName": "installer",
            "automountServiceAccountToken": true, "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{
                "name": "main", "image": "i", "command": ["sh", "-c"], "args": ["true"],
                "resources": {"limits": {"cpu": "1", "memory": "10Mi"}},
                "terminationMessagePolicy": "FallbackToLogsOnError",
                "volumeMounts": [
                    {"name": "quarterdeck-files", "mountPath": "/tmp/doc", "subPath": "f0", "readOnly": true},
                    {"name": "quarterdeck-files", "mountPath": "/quarterdeck/script", "subPath": "f1", "readOnly": true}
                ]
            }],
            "volumes": [{"name": "quarterdeck-files", "secret": {"secretName": name, "items": [
                {"key": "f0", "path": "f0"}, {"key": "f1", "path": "f1", "mode": 0o755}]}}]
        })
    );
    let secret = json!(secret(&attempt, &step()).unwrap().unwrap());
    assert_eq!((&secret["metadata"]["name"], &secret["immutable"]), (&json!(name), &json!(true)));
    assert_eq!(secret["data"], json!({"f0": "YTogMQo=", "f1": "dHJ1ZQ=="}));
    assert_eq!(secret["metadata"]["ownerReferences"], made["metadata"]["ownerReferences"]);
}

#[test]
fn without_an_account_there_is_no_token_and_without_files_no_secret() {
    let (addon, node) = (addon(), node(step()));
    let mut plain = step();
    plain.files.clear();
    plain.output = Some(("x".into(), "/tmp/out".into()));
    let attempt = Attempt { account: None, ..attempt(&addon, &node) };
    let made = json!(pod(&attempt, &plain).unwrap());
    assert_eq!(made["spec"]["automountServiceAccountToken"], false);
    assert_eq!(made["spec"]["serviceAccountName"], Value::Null);
    assert_eq!(made["spec"]["volumes"], Value::Null);
    assert_eq!(made["spec"]["containers"][0]["terminationMessagePath"], "/tmp/out");
    assert_eq!(secret(&attempt, &plain).unwrap(), None);
}

#[test]
fn names_are_short_stable_and_differ_for_all_that_differs() {
    let (mut addon, one) = (addon(), node(step()));
    let first = name(&attempt(&addon, &one));
    assert_eq!(first, name(&attempt(&addon, &one)));
    assert!(first.starts_with("fluentd-addon-install-"), "{first}");
    let mut names = vec![first];
    let mut other = node(step());
    other.name = "entry/b".into();
    names.push(name(&attempt(&addon, &other)));
    other = node(PodStep { capture_result: true, ..step() });
    names.push(name(&attempt(&addon, &other)));
    names.push(name(&Attempt { number: 2, ..attempt(&addon, &one) }));
    names.push(name(&Attempt { revision: "1", ..attempt(&addon, &one) }));
    names.push(name(&Attempt { phase: "validate", ..attempt(&addon, &one) }));
    addon.uid = "v".into();
    names.push(name(&attempt(&addon, &one)));
    addon.name = format!("a.b-{}", "-x".repeat(120));
    names.push(name(&attempt(&addon, &one)));
    for name in &names {
        let fine = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        assert!(name.len() <= 63 && name.bytes().all(fine) && !name.contains("--install"), "{name}");
    }
    let count = names.len();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), count, "{names:?}");
}

#[test]
fn what_is_no_field_of_a_pod_is_named() {
    for (field, value, expected) in [
        ("env", json!([{"name": "a", "valu": "b"}]), "containers[0].env[0].valu is no field of a Pod"),
        (
            "securityContext",
            json!({"priviledged": true}),
            "containers[0].securityContext.priviledged is no field of a Pod",
        ),
        ("env", json!([{"name": "a", "value": 5}]), "invalid type"),
    ] {
        let mut bad = step();
        bad.container.insert(field.into(), value);
        let refused = check(&bad).unwrap_err();
        assert!(refused.contains(expected), "{refused}");
    }
    assert_eq!(check(&step()), Ok(()));
}

fn with_status(status: &Value) -> Pod {
    serde_json::from_value(json!({"metadata": {"name": "p"}, "status": status})).unwrap()
}

#[test]
fn a_pods_status_is_read() {
    let ended = |code: i32, reason: &str, message: &str| {
        json!([{"name": "main", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": {"terminated": {
            "exitCode": code, "reason": reason, "message": message, "finishedAt": "2023-11-14T22:13:20Z"}}}])
    };
    let waiting = json!([{"name": "main", "image": "", "imageID": "", "ready": false, "restartCount": 0,
        "state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}}]);
    let mut step = step();
    let under_way = |message: &str| Seen::UnderWay { message: message.into() };
    let failed = |exit_code, message: &str| Seen::Failed { exit_code, message: message.into() };
    for (status, expected) in [
        (json!({}), under_way("")),
        (json!({"phase": "Running"}), under_way("")),
        (json!({"phase": "Pending", "containerStatuses": waiting}), under_way("ImagePullBackOff: no such image")),
        (
            json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes"}]}),
            under_way("Unschedulable: 0/1 nodes"),
        ),
        (
            json!({"phase": "Succeeded", "containerStatuses": ended(0, "Completed", "x\n")}),
            Seen::Succeeded { output: None },
        ),
        (
            json!({"phase": "Failed", "containerStatuses": ended(2, "Error", "said\n")}),
            failed(Some(2), "Error (exit code 2): said"),
        ),
        (
            json!({"phase": "Failed", "containerStatuses": ended(137, "OOMKilled", "")}),
            failed(Some(137), "OOMKilled (exit code 137)"),
        ),
        (json!({"phase": "Failed", "reason": "Evicted", "message": "disk"}), failed(None, "Evicted: disk")),
        (json!({"phase": "Failed"}), failed(None, "failed")),
    ] {
        assert_eq!(seen(&with_status(&status), &step), expected, "{status}");
    }
    step.output = Some(("side".into(), "/tmp/side".into()));
    step.capture_result = true;
    let done = seen(
        &with_status(&json!({"phase": "Succeeded", "containerStatuses": ended(0, "Completed", "front\n")})),
        &step,
    );
    assert_eq!(
        outcome(&done, &step, Some("heads\n")),
        Some(Outcome::Succeeded {
            outputs: [("side".to_owned(), "front".to_owned())].into(),
            result: Some("heads".into()),
            message: String::new()
        })
    );
    assert_eq!(outcome(&under_way(""), &step, None), None);
    let why = |message: &str, log: Option<&str>| outcome(&failed(Some(1), message), &step, log);
    assert_eq!(why("Error", Some("boom\n")), Some(Outcome::Failed { message: "Error\nboom".into() }));
    assert_eq!(why("Error: boom", Some("boom\n")), Some(Outcome::Failed { message: "Error: boom".into() }));
    assert_eq!(why("Error", None), Some(Outcome::Failed { message: "Error".into() }));
}
