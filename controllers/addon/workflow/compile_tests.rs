use serde_json::{Value, json};

use super::*;
use crate::addon::manifest::{Desired, Mode};
use crate::addon::workflow::parameters;
use crate::addon::workflow::program::{Cascade, Ended, Known, PodStep, Strategy};

pub(super) fn addon() -> AddonFacts {
    AddonFacts {
        name: "fluentd-addon".into(),
        namespace: "addon-manager-system".into(),
        uid: "0a1b".into(),
        pkg_name: "core/fluentd".into(),
        pkg_version: "v0.0.1".into(),
        pkg_type: "composite".into(),
        pkg_description: "公司Fluentd插件。".into(),
        target_namespace: "mynamespace".into(),
        cluster_name: "my-test-cluster".into(),
        cluster_region: "us-west-2".into(),
        data: [("hec_splunk_server".to_owned(), "hec.splunk.example.com".to_owned())].into(),
        ..AddonFacts::default()
    }
}

pub(super) fn with(addon: &AddonFacts, template: &str, known: &KnownNodes) -> Result<Program, Vec<Refusal>> {
    let context = Context {
        addon,
        workflow_name: "fluentd-addon-install-0a1b2c3d-wf",
        role: None,
        known,
        status: None,
        limits: Limits::default(),
    };
    compile(template, &parameters(addon).unwrap(), &context)
}

pub(super) fn run(template: &str) -> Result<Program, Vec<Refusal>> {
    with(&addon(), template, &KnownNodes::new())
}

/// A template of these fields of `spec`.
pub(super) fn workflow(spec: &str) -> String {
    format!("apiVersion: argoproj.io/v1alpha1\nkind: Workflow\nspec:\n{spec}")
}

/// A template whose entry runs one step, called `work`, given as an item of `templates`.
pub(super) fn one(work: &str) -> String {
    workflow(&format!(
        "  entrypoint: entry\n  templates:\n  - name: entry\n    steps:\n    - - {{name: a, template: work}}\n{work}"
    ))
}

pub(super) fn refusals(template: &str) -> Vec<String> {
    run(template).expect_err(template).into_iter().map(|refusal| refusal.to_string()).collect()
}

fn objects(action: &Action) -> &[Desired] {
    match action {
        Action::Apply(objects) | Action::Create(objects) => &objects.objects,
        other => panic!("{other:?}"),
    }
}

pub(super) fn idents(action: &Action) -> Vec<String> {
    objects(action).iter().map(|object| object.ident.to_string()).collect()
}

fn pod(action: &Action) -> &PodStep {
    match action {
        Action::Pod(step) => step,
        other => panic!("{other:?}"),
    }
}

fn names(program: &Program) -> Vec<&str> {
    program.nodes.iter().map(|node| node.name.as_str()).collect()
}

/// The published example: a template of the shape that its prereqs section shows.
pub(super) const EXAMPLE: &str = r#"
apiVersion: argoproj.io/v1alpha1
kind: Workflow
metadata:
  generateName: prereqs-minion-manager-
spec:
  entrypoint: entry
  serviceAccountName: addon-manager-workflow-installer-sa
  templates:
  - name: entry
    steps:
    - - name: prereq-resources
        template: submit
        arguments:
          artifacts:
          - name: doc
            path: /tmp/doc
            raw:
              data: |
                apiVersion: v1
                kind: Namespace
                metadata:
                  name: "{{workflow.parameters.namespace}}"
                ---
                apiVersion: v1
                kind: ServiceAccount
                metadata:
                  name: example-sa
                  namespace: "{{workflow.parameters.namespace}}"
  - name: submit
    inputs:
      artifacts:
      - name: doc
        path: /tmp/doc
    container:
      image: expert360/kubectl-awscli:v1.11.2
      command: [sh, -c]
      args: ["kubectl apply -f /tmp/doc"]
"#;

#[test]
fn the_published_example_runs_natively() {
    let program = run(EXAMPLE).unwrap();
    assert_eq!(program.account.as_deref(), Some("addon-manager-workflow-installer-sa"));
    assert_eq!((names(&program), program.exit.len()), (vec!["entry/prereq-resources"], 0));
    let Action::Apply(made) = &program.nodes[0].action else { panic!("{program:?}") };
    assert_eq!(idents(&program.nodes[0].action), ["Namespace//mynamespace", "ServiceAccount/mynamespace/example-sa"]);
    assert!(made.objects.iter().all(|object| object.mode == Mode::Reconcile));
    assert_eq!(made.origin, "spec.templates[0].steps[0][0].arguments.artifacts[0].raw.data");
    assert_eq!(made.objects[1].place.to_string(), "document 2, line 5");
    assert_eq!(
        made.objects[1].body.tree()["metadata"]["labels"],
        json!({
            "app.kubernetes.io/name": "fluentd-addon",
            "app.kubernetes.io/version": "v0.0.1",
            "app.kubernetes.io/part-of": "fluentd-addon",
            "app.kubernetes.io/managed-by": "addonmgr.keikoproj.io"
        })
    );
}

#[test]
fn every_usual_spelling_of_the_example_comes_to_the_same() {
    let plain = run(EXAMPLE).unwrap();
    for (command, args) in [
        (r#"[kubectl, apply, "-f", /tmp/doc]"#, ""),
        ("[kubectl]", "args: [apply, --filename=/tmp/doc]"),
        ("[/bin/bash, -ec]", "args: ['kubectl apply -f \"/tmp/doc\"']"),
        ("[sh, -c, kubectl apply -f /tmp/doc --server-side]", ""),
        ("[sh, -c]", "args:\n      - |\n        kubectl apply \\\n          -f /tmp/doc\n"),
    ] {
        let template = EXAMPLE
            .replace("command: [sh, -c]", &format!("command: {command}"))
            .replace("args: [\"kubectl apply -f /tmp/doc\"]", args);
        assert_eq!(run(&template).unwrap(), plain, "{command} {args}");
    }
    let created = run(&EXAMPLE.replace("kubectl apply", "kubectl create")).unwrap();
    assert!(objects(&created.nodes[0].action).iter().all(|object| object.mode == Mode::EnsureExists));
    let deleted = run(&EXAMPLE.replace("kubectl apply", "kubectl delete --ignore-not-found")).unwrap();
    let Action::Delete(deletion) = &deleted.nodes[0].action else { panic!("{deleted:?}") };
    let idents: Vec<String> = deletion.objects.iter().map(|object| object.ident.to_string()).collect();
    assert_eq!(idents, ["Namespace//mynamespace", "ServiceAccount/mynamespace/example-sa"]);
    assert_eq!((deletion.cascade, deletion.wait), (Cascade::Background, true));
}

#[test]
fn several_commands_are_several_steps_in_order() {
    let args = "kubectl delete -f /tmp/doc && kubectl apply -f /tmp/doc";
    let program = run(&EXAMPLE.replace("kubectl apply -f /tmp/doc", args)).unwrap();
    assert_eq!(names(&program), ["entry/prereq-resources/1", "entry/prereq-resources/2"]);
    assert_eq!(program.nodes[1].after, [0]);
    assert!(matches!(program.nodes[0].action, Action::Delete(_)));
    assert!(matches!(program.nodes[1].action, Action::Apply(_)));
}

#[test]
fn the_namespace_of_a_command_is_a_value_and_nothing_else() {
    let args = "kubectl apply -f /tmp/doc -n {{workflow.parameters.namespace}}";
    let template = EXAMPLE.replace("kubectl apply -f /tmp/doc", args);
    let program = run(&template).unwrap();
    let Action::Apply(objects) = &program.nodes[0].action else { panic!("{program:?}") };
    assert_eq!(objects.namespace, "mynamespace");
    for bad in ["x --all", "-A", "a b", "", "A", "a;b"] {
        let addon = AddonFacts { target_namespace: bad.into(), ..addon() };
        assert!(with(&addon, &template, &KnownNodes::new()).is_err(), "{bad}");
    }
    let other = refusals(&EXAMPLE.replace("kubectl apply -f /tmp/doc", "kubectl apply -f /tmp/doc -n other"));
    assert!(
        other[0].starts_with(
            "spec.templates[0].steps[0][0].arguments.artifacts[0].raw.data: example-sa is in namespace mynamespace"
        ),
        "{other:?}"
    );
}

#[test]
fn resources_in_parallel_with_retries_run_natively() {
    let template = workflow(
        r#"  activeDeadlineSeconds: 600
  entrypoint: entry
  serviceAccountName: installer
  templates:
  - name: entry
    retryStrategy: {limit: 2, retryPolicy: Always}
    steps:
    - - {name: prereq-namespace, template: ns}
      - {name: prereq-config, template: cm}
    - - {name: install, template: deploy}
  - name: ns
    resource:
      action: apply
      manifest: |
        apiVersion: v1
        kind: Namespace
        metadata: {name: "{{workflow.parameters.namespace}}"}
  - name: cm
    resource:
      action: create
      manifest: |
        apiVersion: v1
        kind: ConfigMap
        metadata: {name: config}
        data: {config.json: '{"sink": "{{ .not.ours }}"}'}
  - name: deploy
    resource:
      action: apply
      manifest: |
        apiVersion: apps/v1
        kind: Deployment
        metadata:
          name: router
          namespace: {{workflow.parameters.namespace}}
          labels: {app: router}
        spec:
          template:
            metadata: {labels: {app: router}}
"#,
    );
    let program = run(&template).unwrap();
    assert_eq!(program.deadline, Some(Duration::from_secs(600)));
    assert_eq!(names(&program), ["entry/prereq-namespace", "entry/prereq-config", "entry/install"]);
    let after: Vec<&[usize]> = program.nodes.iter().map(|node| node.after.as_slice()).collect();
    assert_eq!(after, [&[][..], &[], &[0, 1]]);
    assert!(program.nodes.iter().all(|node| node.retry.limit == Some(2) && node.retry.given));
    let Action::Create(config) = &program.nodes[1].action else { panic!("{program:?}") };
    assert_eq!((config.namespace.as_str(), config.objects[0].mode), ("addon-manager-system", Mode::EnsureExists));
    assert_eq!(config.objects[0].body.tree()["data"]["config.json"], "{\"sink\": \"{{ .not.ours }}\"}");
    let body = &objects(&program.nodes[2].action)[0].body.tree();
    assert_eq!(body["metadata"]["namespace"], "mynamespace");
    assert_eq!(body["metadata"]["labels"].as_object().map(serde_json::Map::len), Some(5));
    assert_eq!(body["spec"]["template"]["metadata"]["labels"], json!({"app": "router"}), "pods are not relabelled");
}

#[test]
fn many_documents_with_values_within_longer_words_are_applied() {
    let template = workflow(
        r#"  entrypoint: entry
  serviceAccountName: installer
  templates:
  - name: entry
    steps:
    - - name: install
        template: submit
        arguments:
          artifacts:
          - name: doc
            path: /tmp/doc
            raw:
              data: |
                apiVersion: rbac.authorization.k8s.io/v1
                kind: RoleBinding
                metadata:
                  name: scaler
                  namespace: "{{workflow.parameters.namespace}}"
                subjects:
                  - kind: ServiceAccount
                    name: scaler
                    namespace: "{{workflow.parameters.namespace}}"

                ---
                apiVersion: apps/v1
                kind: Deployment
                metadata: {name: scaler, namespace: "{{workflow.parameters.namespace}}"}
                spec:
                  template:
                    spec:
                      containers:
                      - command:
                        - ./scaler
                        - --tag=k8s.io/enabled,kubernetes.io/cluster/{{workflow.parameters.clusterName}}
                        - --scan-interval=10s
                        env:
                        - {name: REGION, value: "{{workflow.parameters.clusterRegion}}"}
  - name: submit
    inputs: {artifacts: [{name: doc, path: /tmp/doc}]}
    container: {image: k, command: [sh, -c], args: ["kubectl apply -f /tmp/doc"]}
"#,
    );
    let program = run(&template).unwrap();
    let found = objects(&program.nodes[0].action);
    assert_eq!(
        idents(&program.nodes[0].action).join(" "),
        "RoleBinding.rbac.authorization.k8s.io/mynamespace/scaler Deployment.apps/mynamespace/scaler"
    );
    let container = &found[1].body.tree()["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(container["command"][1], "--tag=k8s.io/enabled,kubernetes.io/cluster/my-test-cluster");
    assert_eq!(container["env"][0]["value"], "us-west-2");
    assert_eq!(found[0].body.tree()["subjects"][0]["namespace"], "mynamespace");
}

#[test]
fn a_container_that_does_more_becomes_a_pod() {
    let program = run(&one(r#"  - name: work
    serviceAccountName: deleter
    activeDeadlineSeconds: "30"
    container:
      image: kubectl:{{workflow.parameters.pkgVersion}}
      command: [sh, -c]
      args: ["kubectl delete all -n {{workflow.parameters.namespace}} --all"]
      env: [{name: ABOUT, value: "{{workflow.parameters.pkgDescription}}"}]
      resources: {limits: {cpu: 100m}}
"#))
    .unwrap();
    let node = &program.nodes[0];
    assert_eq!((node.name.as_str(), node.account.as_deref()), ("entry/a", Some("deleter")));
    assert_eq!(node.deadline, Some(Duration::from_secs(30)));
    let step = pod(&node.action);
    assert_eq!(
        Value::Object(step.container.clone()),
        json!({"image": "kubectl:v0.0.1", "command": ["sh", "-c"], "args": ["kubectl delete all -n mynamespace --all"],
            "env": [{"name": "ABOUT", "value": "公司Fluentd插件。"}], "resources": {"limits": {"cpu": "100m"}}})
    );
    assert!(step.files.is_empty() && !step.capture_result);
}

#[test]
fn a_container_that_reaches_another_cluster_is_not_run_natively() {
    for field in ["env: [{name: KUBECONFIG, value: /other}]", "envFrom: [{secretRef: {name: x}}]"] {
        let template = EXAMPLE.replace("command: [sh, -c]", &format!("command: [sh, -c]\n      {field}"));
        let program = run(&template).unwrap();
        let step = pod(&program.nodes[0].action);
        assert_eq!((step.files.len(), step.files[0].path.as_str()), (1, "/tmp/doc"));
        assert!(step.files[0].content.contains("name: \"mynamespace\""), "{}", step.files[0].content);
    }
}

#[test]
fn scripts_and_files_take_plain_values_only() {
    let script = |source: &str| {
        one(&format!(
            "  - name: work\n    script:\n      image: python\n      command: [python]\n      source: |\n        {source}\n"
        ))
    };
    let program = run(&script("print('{{workflow.parameters.namespace}}')")).unwrap();
    let step = pod(&program.nodes[0].action);
    assert_eq!(step.container["command"], json!(["python", "/quarterdeck/script"]));
    assert_eq!((step.files[0].content.as_str(), step.files[0].mode), ("print('mynamespace')\n", Some(0o755)));
    let refused = refusals(&script("print('{{workflow.parameters.pkgDescription}}')"));
    assert!(
        refused[0]
            .starts_with("spec.templates[1].script.source: {{workflow.parameters.pkgDescription}}: its value holds"),
        "{refused:?}"
    );
    let unknown = refusals(&script("print('{{workflow.parameters.nothing}}')"));
    assert_eq!(
        unknown,
        ["spec.templates[1].script.source: {{workflow.parameters.nothing}}: there is no such parameter"]
    );
    // An argument that no interpreter reads is one argument, whatever it holds.
    let container = |command: &str| {
        one(&format!(
            "  - name: work\n    container:\n      image: i\n{command}      args: [say, \"{{{{workflow.parameters.pkgDescription}}}}\"]\n"
        ))
    };
    assert!(run(&container("      command: [/app]\n")).is_ok());
    for command in [
        "",
        "      command: [bash]\n",
        "      command: [/bin/sh, -c]\n",
        "      command: [python, -c]\n",
        "      command: [env, sh]\n",
    ] {
        let refused = refusals(&container(command));
        assert!(refused[0].starts_with("spec.templates[1].container.args[1]: "), "{refused:?}");
    }
}

#[test]
fn values_are_handed_down_through_calls() {
    let template = workflow(
        r#"  entrypoint: entry
  arguments: {parameters: [{name: greeting, value: "hello-{{workflow.parameters.namespace}}"}]}
  templates:
  - name: entry
    steps:
    - - name: outer
        template: outer
        arguments: {parameters: [{name: who, value: "{{workflow.parameters.greeting}}"}]}
  - name: outer
    inputs: {parameters: [{name: who}, {name: more, default: "{{workflow.parameters.clusterName}}"}]}
    dag:
      tasks:
      - {name: b, template: work, dependencies: [a], arguments: {parameters: [{name: text, value: "b {{inputs.parameters.more}}"}]}}
      - {name: a, template: work, arguments: {parameters: [{name: text, value: "{{inputs.parameters.who}}"}]}}
      - {name: c, template: work, depends: "a && b", arguments: {parameters: [{name: text, value: 5}]}}
  - name: work
    inputs: {parameters: [{name: text}]}
    container: {image: i, command: [/say], args: ["{{inputs.parameters.text}}"]}
"#,
    );
    let program = run(&template).unwrap();
    assert_eq!(names(&program), ["entry/outer/a", "entry/outer/b", "entry/outer/c"]);
    let after: Vec<&[usize]> = program.nodes.iter().map(|node| node.after.as_slice()).collect();
    assert_eq!(after, [&[][..], &[0], &[0, 1]]);
    let args: Vec<&Value> = program.nodes.iter().map(|node| &pod(&node.action).container["args"][0]).collect();
    assert_eq!(args, ["hello-mynamespace", "b my-test-cluster", "5"]);
}

const OUTPUTS: &str = r#"  entrypoint: entry
  onExit: bye
  templates:
  - name: entry
    steps:
    - - {name: flip, template: flip}
    - - name: heads
        template: work
        when: "{{steps.flip.outputs.result}} == heads && {{steps.flip.status}} == Succeeded"
        arguments: {parameters: [{name: text, value: "{{steps.flip.outputs.parameters.side}}"}]}
      - {name: never, template: work, when: "{{workflow.parameters.namespace}} != mynamespace", arguments: {parameters: [{name: text, value: "{{workflow.parameters.pkgDescription}}"}]}}
  - name: flip
    outputs: {parameters: [{name: side, valueFrom: {path: /tmp/side}}]}
    container: {image: i, command: [flip]}
  - name: work
    inputs: {parameters: [{name: text}]}
    container: {image: i, command: [sh, -c], args: ["echo {{inputs.parameters.text}}"]}
  - name: bye
    container: {image: i, command: [sh, -c], args: ["echo '{{workflow.status}}'"]}
"#;

fn ended(ended: Ended, result: Option<&str>, outputs: &[(&str, &str)]) -> Known {
    let parameters = outputs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Known { ended, parameters, result: result.map(str::to_owned) }
}

#[test]
fn what_rests_on_outputs_waits_for_them() {
    let template = workflow(OUTPUTS);
    let first = run(&template).unwrap();
    assert_eq!(names(&first), ["entry/flip", "entry/heads", "entry/never"]);
    let flip = pod(&first.nodes[0].action);
    assert_eq!(flip.output, Some(("side".to_owned(), "/tmp/side".to_owned())));
    assert!(flip.capture_result);
    assert_eq!(first.nodes[1].when, When::Unknown("step entry/flip has not ended".into()));
    assert!(matches!(first.nodes[1].action, Action::Pending(_)));
    assert_eq!(first.nodes[2].when, When::Skip, "whatever its values hold");
    assert_eq!(first.exit[0].name, "onExit.bye");
    let known = |result| {
        KnownNodes::from([("entry/flip".to_owned(), ended(Ended::Succeeded, Some(result), &[("side", "front")]))])
    };
    let heads = with(&addon(), &template, &known("heads")).unwrap();
    assert_eq!(heads.nodes[1].when, When::Run);
    assert_eq!(pod(&heads.nodes[1].action).container["args"], json!(["echo front"]));
    assert_eq!(heads.nodes[0].content(), first.nodes[0].content(), "what ran is not another step now");
    assert_eq!(with(&addon(), &template, &known("tails")).unwrap().nodes[1].when, When::Skip);
    let sly =
        KnownNodes::from([("entry/flip".to_owned(), ended(Ended::Succeeded, Some("heads"), &[("side", "$(rm)")]))]);
    let refused = with(&addon(), &template, &sly).unwrap_err();
    assert_eq!(refused[0].field_path, "spec.templates[2].container.args[0]");
    let lost = KnownNodes::from([("entry/flip".to_owned(), ended(Ended::Skipped, None, &[]))]);
    assert!(matches!(with(&addon(), &template, &lost).unwrap().nodes[1].when, When::Unknown(_)));
}

#[test]
fn what_is_wrong_with_the_values_of_a_skipped_step_does_no_harm() {
    let step = |when: &str| {
        workflow(&format!(
            "  entrypoint: entry\n  templates:\n  - name: entry\n    steps: [[{{name: a, template: work, when: \"{when}\", arguments: {{parameters: [{{name: count, value: 2}}]}}}}]]\n  - name: work\n    inputs: {{parameters: [{{name: count}}]}}\n    retryStrategy: {{limit: \"{{{{inputs.parameters.count}}}}\"}}\n    container: {{image: i, command: [sh, -c], args: [\"echo {{{{workflow.parameters.pkgDescription}}}}\"]}}\n"
        ))
    };
    assert_eq!(run(&step("'{{workflow.parameters.pkgChannel}}' != ''")).unwrap().nodes[0].when, When::Skip);
    let refused = refusals(&step("true"));
    assert!(refused[0].starts_with("spec.templates[1].container.args[0]"), "{refused:?}");
}

#[test]
fn a_patch_keeps_its_nulls_and_names_its_object() {
    let patch = |strategy: &str| {
        one(&format!(
            "  - name: work\n    resource:\n      action: patch\n{strategy}      manifest: |\n        apiVersion: apps/v1\n        kind: Deployment\n        metadata: {{name: d, annotations: {{a: \"{{{{workflow.parameters.namespace}}}}\"}}}}\n        spec: {{paused: null, replicas: 2}}\n"
        ))
    };
    let program = run(&patch("")).unwrap();
    let Action::Patch(strategic) = &program.nodes[0].action else { panic!("{program:?}") };
    assert_eq!(strategic.strategy, Strategy::Strategic);
    assert_eq!(strategic.object.ident.to_string(), "Deployment.apps//d");
    assert_eq!(
        strategic.body,
        json!({"metadata": {"annotations": {"a": "mynamespace"}}, "spec": {"paused": null, "replicas": 2}})
    );
    let merge = run(&patch("      mergeStrategy: merge\n")).unwrap();
    assert!(matches!(&merge.nodes[0].action, Action::Patch(patch) if patch.strategy == Strategy::Merge));
    assert!(
        refusals(&patch("      mergeStrategy: json\n"))[0].starts_with("spec.templates[1].resource.mergeStrategy: ")
    );
}

#[test]
fn volumes_and_pod_fields_reach_the_pod() {
    let program = run(&workflow(
        r#"  entrypoint: work
  nodeSelector: {os: linux}
  volumes: [{name: conf, configMap: {name: c}}, {name: unused, emptyDir: {}}]
  templates:
  - name: work
    metadata: {labels: {team: a}}
    nodeSelector: {os: "{{workflow.parameters.clusterRegion}}"}
    container: {image: i, command: [x], volumeMounts: [{name: conf, mountPath: /conf}]}
"#,
    ))
    .unwrap();
    assert_eq!(names(&program), ["work"]);
    let step = pod(&program.nodes[0].action);
    assert_eq!(step.volumes, [json!({"name": "conf", "configMap": {"name": "c"}})]);
    assert_eq!(step.spec["nodeSelector"], json!({"os": "us-west-2"}));
    assert_eq!(step.labels["team"], "a");
}

#[test]
fn a_lists_items_are_objects_of_their_own() {
    let program = run(&one(
        "  - name: work\n    resource:\n      action: apply\n      manifest: |\n        apiVersion: v1\n        kind: List\n        items:\n        - {apiVersion: v1, kind: ConfigMap, metadata: {name: a, labels: {addonmanager.kubernetes.io/mode: EnsureExists}}}\n        - {apiVersion: v1, kind: Secret, metadata: {name: b}}\n",
    ))
    .unwrap();
    assert_eq!(idents(&program.nodes[0].action), ["ConfigMap//a", "Secret//b"]);
    assert!(objects(&program.nodes[0].action).iter().all(|object| object.mode == Mode::Reconcile));
}

#[test]
fn the_role_is_the_account_of_a_template_that_names_none() {
    let (addon, known) = (addon(), KnownNodes::new());
    let context = Context {
        addon: &addon,
        workflow_name: "w",
        role: Some("role"),
        known: &known,
        status: None,
        limits: Limits::default(),
    };
    let parameters = parameters(&addon).unwrap();
    let account = |template: &str| compile(template, &parameters, &context).unwrap().account;
    assert_eq!(account(EXAMPLE).as_deref(), Some("addon-manager-workflow-installer-sa"));
    let without = EXAMPLE.replace("  serviceAccountName: addon-manager-workflow-installer-sa\n", "");
    assert_eq!(account(&without).as_deref(), Some("role"));
}
