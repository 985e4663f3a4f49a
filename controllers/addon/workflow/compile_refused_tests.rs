use proptest::prelude::*;

use super::tests::{EXAMPLE, addon, idents, one, refusals, run, with, workflow};
use super::*;

#[path = "constructs_tests.rs"]
mod constructs_tests;

#[test]
fn whatever_is_not_in_the_grammar_is_refused_by_field() {
    let container = "    container: {image: i, command: [x]}\n";
    let cases = [
        ("a: 1".to_owned(), "apiVersion: missing"),
        ("apiVersion: v1\nkind: Workflow\nspec: {}".to_owned(), "apiVersion: "),
        ("apiVersion: argoproj.io/v1alpha1\nkind: CronWorkflow\nspec: {}".to_owned(), "kind: "),
        (workflow("  templates: []\n"), "spec.entrypoint: missing"),
        (workflow("  entrypoint: x\n"), "spec.entrypoint: there is no template x"),
        (workflow("  entrypoint: x\n  suspend: true\n"), "spec.suspend: "),
        (
            one(
                "  - name: work\n    inputs: {parameters: [{name: n, value: a}]}\n    container: {image: i, command: [x]}\n",
            ),
            "spec.templates[1].inputs.parameters[0].name: a truth value",
        ),
        (
            one("  - name: work\n    container: {image: i, command: [say], args: [yes]}\n"),
            "spec.templates[1].container.args[0]: a truth value",
        ),
        (workflow("  entrypoint: x\n  volumeClaimTemplates: []\n"), "spec.volumeClaimTemplates: "),
        (workflow("  entrypoint: x\n  novelty: 1\n"), "spec.novelty: not in the grammar"),
        (one(&format!("  - name: work\n    daemon: true\n{container}")), "spec.templates[1].daemon: "),
        (one(&format!("  - name: work\n    sidecars: []\n{container}")), "spec.templates[1].sidecars: "),
        (one("  - name: work\n    suspend: {}\n"), "spec.templates[1].suspend: "),
        (one("  - name: work\n    http: {url: x}\n"), "spec.templates[1].http: "),
        (one("  - name: work\n    containerSet: {}\n"), "spec.templates[1].containerSet: "),
        (
            one("  - name: work\n    container: {image: i, command: [x], livenessProbe: {}}\n"),
            "spec.templates[1].container.livenessProbe: ",
        ),
        (one("  - name: work\n    container: {command: [x]}\n"), "spec.templates[1].container.image: missing"),
        (one("  - name: work\n    resource: {action: get, manifest: x}\n"), "spec.templates[1].resource.action: "),
        (
            one("  - name: work\n    resource: {action: apply, manifest: 'a: 1', successCondition: x}\n"),
            "spec.templates[1].resource.successCondition: ",
        ),
        (
            one("  - name: work\n    resource: {action: apply, manifest: 'a: 1'}\n"),
            "spec.templates[1].resource.manifest, document 1, line 1, apiVersion: missing",
        ),
        (
            one("  - name: work\n    resource: {action: apply, manifest: '# nothing'}\n"),
            "spec.templates[1].resource.manifest: no object in it",
        ),
        (
            one(
                "  - name: work\n    inputs: {artifacts: [{name: a, path: /a}]}\n    container: {image: i, command: [x]}\n",
            ),
            "spec.templates[1].inputs.artifacts[0]: ",
        ),
        (
            one(
                "  - name: work\n    inputs: {artifacts: [{name: a, path: /a, s3: {key: x}}]}\n    container: {image: i, command: [x]}\n",
            ),
            "spec.templates[1].inputs.artifacts[0].s3: ",
        ),
        (
            one("  - name: work\n    inputs: {parameters: [{name: p}]}\n    container: {image: i, command: [x]}\n"),
            "spec.templates[1].inputs.parameters[0]: input p has no value",
        ),
        (
            one(
                "  - name: work\n    outputs: {artifacts: [{name: a, path: /a}]}\n    container: {image: i, command: [x]}\n",
            ),
            "spec.templates[1].outputs.artifacts: ",
        ),
        (
            one(
                "  - name: work\n    outputs: {parameters: [{name: a, valueFrom: {path: /a}}, {name: b, valueFrom: {path: /b}}]}\n    container: {image: i, command: [x]}\n",
            ),
            "spec.templates[1].outputs.parameters[1]: ",
        ),
        (
            one("  - name: work\n    steps:\n    - - {name: x, template: work}\n"),
            "spec.templates[1].steps[0][0].template: template work calls itself",
        ),
        (
            one("  - name: work\n    steps:\n    - - {name: x, template: entry, withItems: [1]}\n"),
            "spec.templates[1].steps[0][0].withItems: loops",
        ),
        (
            one("  - name: work\n    dag: {tasks: [{name: x, template: last, dependencies: [x]}]}\n"),
            "spec.templates[1].dag.tasks: tasks that wait for each other: x",
        ),
        (
            one("  - name: work\n    dag: {tasks: [{name: x, template: last, dependencies: [z]}]}\n"),
            "spec.templates[1].dag.tasks[0].dependencies: there is no task z",
        ),
        (
            one("  - name: work\n    dag: {tasks: [{name: x, template: last, depends: 'z.Failed'}]}\n"),
            "spec.templates[1].dag.tasks[0].depends: ",
        ),
        (
            one("  - name: work\n    container: {image: i, command: [x]}\n    script: {image: i}\n"),
            "spec.templates[1]: both container and script",
        ),
        (one("  - name: work\n    script: {image: i, command: [x]}\n"), "spec.templates[1].script.source: missing"),
        (
            one("  - name: work\n    volumes: [{name: v, nfs: {}}]\n    container: {image: i, command: [x]}\n"),
            "spec.templates[1].volumes[0].nfs: ",
        ),
        (
            one("  - name: work\n    container: {image: i, command: [x], volumeMounts: [{name: v, mountPath: /x}]}\n"),
            "spec.templates[1].container.volumeMounts: there is no volume v",
        ),
        (
            one("  - name: work\n    container: {image: i, command: [x], args: ['{{item}}']}\n"),
            "spec.templates[1].container.args[0]: {{item}}: not in the grammar",
        ),
        (
            one("  - name: work\n    container: {image: i, command: [x], args: ['{{=1+1}}']}\n"),
            "spec.templates[1].container.args[0]: {{=1+1}}: expressions",
        ),
        (
            one("  - name: work\n    retryStrategy: {limit: many}\n    container: {image: i, command: [x]}\n"),
            "spec.templates[1].retryStrategy.limit: ",
        ),
        (
            one("  - name: work\n    serviceAccountName: a/b\n    container: {image: i, command: [x]}\n"),
            "spec.templates[1].serviceAccountName: ",
        ),
        (
            workflow(
                "  entrypoint: x\n  serviceAccountName: \"a\\nb\"\n  templates: [{name: x, container: {image: i}}]\n",
            ),
            "spec.serviceAccountName: ",
        ),
        (
            workflow(
                "  entrypoint: x\n  arguments: {parameters: [{name: namespace, value: a}]}\n  templates: [{name: x, container: {image: i}}]\n",
            ),
            "spec.arguments.parameters[0].value: a global parameter namespace exists already",
        ),
        (
            one(
                "  - name: work\n    steps:\n    - - {name: x, template: last, continueOn: {failed: true}}\n  - name: last\n    steps: []\n",
            ),
            "spec.templates[1].steps[0][0].continueOn: ",
        ),
        (
            one(
                "  - name: work\n    steps:\n    - - {name: x, template: last, when: '{{steps.z.status}} == a'}\n  - name: last\n    steps: []\n",
            ),
            "spec.templates[1].steps[0][0].when: {{steps.z.status}}: no step z",
        ),
    ];
    for (template, expected) in cases {
        let found = refusals(&template);
        assert!(found.iter().any(|refusal| refusal.starts_with(expected)), "{template}\n{found:?}");
    }
}

#[test]
fn a_step_sees_only_what_has_always_ended_before_it() {
    let dag = |dependencies: &str| {
        one(&format!(
            "  - name: work\n    dag:\n      tasks:\n      - {{name: x, template: last}}\n      - {{name: z, template: last, {dependencies}when: '{{{{tasks.x.status}}}} == Failed'}}\n  - name: last\n    container: {{image: i, command: [x]}}\n"
        ))
    };
    assert!(run(&dag("dependencies: [x], ")).is_ok());
    assert!(refusals(&dag(""))[0].contains("no step x has always ended before"));
}

#[test]
fn hostile_templates_are_refused_quickly() {
    let long = format!("# {}", "x".repeat(2 << 20));
    assert!(refusals(&long)[0].contains("bytes"));
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
    for level in 1..12 {
        let previous = level - 1;
        bomb.push_str(&format!("a{level}: &a{level} [{}]\n", vec![format!("*a{previous}"); 9].join(", ")));
    }
    assert!(run(&bomb).is_err());
    assert!(run(&format!("spec: {}", "[".repeat(10_000))).is_err());
    // Each template calls the next one ten times: 10^15 steps if nothing stopped it.
    let mut doubling = String::from("  entrypoint: t0\n  templates:\n");
    for level in 0..15 {
        let calls: String =
            (0..10).map(|call| format!("      - {{name: c{call}, template: t{}}}\n", level + 1)).collect();
        doubling.push_str(&format!("  - name: t{level}\n    steps:\n    - {}\n", calls.trim_start()));
    }
    doubling.push_str("  - name: t15\n    container: {image: i, command: [x]}\n");
    let found = refusals(&workflow(&doubling));
    assert!(found.iter().any(|refusal| refusal.contains("more than 500 steps")), "{found:?}");
    let mut deep = String::from("  entrypoint: t0\n  templates:\n");
    for level in 0..40 {
        deep.push_str(&format!("  - name: t{level}\n    steps: [[{{name: c, template: t{}}}]]\n", level + 1));
    }
    deep.push_str("  - name: t40\n    container: {image: i, command: [x]}\n");
    assert!(refusals(&workflow(&deep))[0].contains("nested deeper than 16"));
}

#[test]
fn values_and_texts_that_calls_multiply_are_refused() {
    // Each call hands on its input ten times over.
    let mut growing = String::from(
        "  entrypoint: t0\n  templates:\n  - name: t0\n    inputs: {parameters: [{name: v, value: \"0123456789\"}]}\n    steps: [[{name: c, template: t1, arguments: {parameters: [{name: v, value: \"{{inputs.parameters.v}}\"}]}}]]\n",
    );
    for level in 1..14 {
        let ten = "{{inputs.parameters.v}}".repeat(10);
        growing.push_str(&format!("  - name: t{level}\n    inputs: {{parameters: [{{name: v}}]}}\n    steps: [[{{name: c, template: t{}, arguments: {{parameters: [{{name: v, value: \"{ten}\"}}]}}}}]]\n", level + 1));
    }
    growing.push_str("  - name: t14\n    inputs: {parameters: [{name: v}]}\n    container: {image: i, command: [x], args: [\"{{inputs.parameters.v}}\"]}\n");
    let found = refusals(&workflow(&growing));
    assert!(found[0].contains("longer than 65536 bytes"), "{found:?}");
    // One large manifest, applied by many steps.
    let data = "x".repeat(100_000);
    let calls: String = (0..200).map(|call| format!("    - - {{name: c{call}, template: work}}\n")).collect();
    let many = format!(
        "  entrypoint: entry\n  templates:\n  - name: entry\n    steps:\n{calls}  - name: work\n    resource:\n      action: apply\n      manifest: |\n        apiVersion: v1\n        kind: ConfigMap\n        metadata: {{name: a}}\n        data: {{a: {data}}}\n"
    );
    let found = refusals(&workflow(&many));
    assert!(found[0].contains("more than 8388608 bytes in all steps"), "{found:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn no_parameter_changes_what_the_example_does(value in "[a-z{}\\[\\]:, \\-'\"#&*!|>\n;$()\\\\]{0,12}") {
        let addon = AddonFacts { target_namespace: value.clone(), ..addon() };
        if let Ok(program) = with(&addon, EXAMPLE, &KnownNodes::new()) {
            let idents = idents(&program.nodes[0].action);
            prop_assert_eq!(idents, [format!("Namespace//{value}"), format!("ServiceAccount/{value}/example-sa")]);
        }
    }

    #[test]
    fn no_template_upsets_the_compiler(cut in 0..EXAMPLE.len(), insert in "[a-z{}\\[\\]:, \\-\n|&*]{0,6}") {
        prop_assume!(EXAMPLE.is_char_boundary(cut));
        let _ = run(&format!("{}{insert}{}", &EXAMPLE[..cut], &EXAMPLE[cut..]));
        let _ = run(&EXAMPLE[..cut]);
    }
}
