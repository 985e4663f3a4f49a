//! `create` from flags and files to the object.

use std::path::Path;

use clap::Parser as _;
use quarterdeck_api::addon::LifecycleStep;
use serde_json::Value;

use super::*;

#[derive(Debug, clap::Parser)]
struct Line {
    #[command(flatten)]
    flags: CreateFlags,
}

fn made(name: &str, args: &[&str]) -> anyhow::Result<Addon> {
    let line = Line::try_parse_from(["create"].iter().chain(args))?;
    addon(name, &line.flags)
}

/// Flags that every addon needs.
const NEEDED: [&str; 4] = ["-n", "ns", "-v", "1"];

fn with(args: &[&str]) -> anyhow::Result<Addon> {
    made("a", &[&NEEDED, args].concat())
}

fn error(args: &[&str]) -> String {
    format!("{:#}", with(args).expect_err("it is wrong"))
}

fn write(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    std::fs::write(&path, text).expect("a file");
    path.display().to_string()
}

/// A step's workflow.
fn workflow(addon: &Addon, step: LifecycleStep) -> Value {
    let template = &addon.spec.step(step).unwrap_or_else(|| panic!("{step}")).template;
    serde_saphyr::from_str(template).unwrap_or_else(|error| panic!("{error}:\n{template}"))
}

/// Command and documents of each task of a workflow, in order; of a script its source.
fn tasks(workflow: &Value) -> Vec<(String, String)> {
    let templates = workflow["spec"]["templates"].as_array().expect("templates");
    let named = |name: &Value| templates.iter().find(|template| template["name"] == *name).expect("a template");
    let entry = named(&workflow["spec"]["entrypoint"]);
    let groups = entry["steps"].as_array().expect("steps");
    groups
        .iter()
        .map(|group| {
            let step = &group[0];
            let template = named(&step["template"]);
            let text = |value: &Value| value.as_str().expect("a text").to_owned();
            if template["script"].is_object() {
                return (template["script"]["command"].to_string(), text(&template["script"]["source"]));
            }
            assert_eq!(template["inputs"]["artifacts"][0]["path"], step["arguments"]["artifacts"][0]["path"]);
            let data = &step["arguments"]["artifacts"][0]["raw"]["data"];
            (text(&template["container"]["args"][0]), text(data))
        })
        .collect()
}

const APPLY: &str = "kubectl apply -f /tmp/doc";
const APPLY_IN: &str = "kubectl apply -f /tmp/doc -n {{workflow.parameters.namespace}}";
const DELETE: &str = "kubectl delete --ignore-not-found -f /tmp/doc";
const DELETE_IN: &str = "kubectl delete --ignore-not-found -f /tmp/doc -n {{workflow.parameters.namespace}}";

const NAMESPACE: &str = "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: \"{{workflow.parameters.namespace}}\"\n";

fn object(kind: &str, name: &str, namespace: &str) -> String {
    let mut text = format!("apiVersion: v1\nkind: {kind}\nmetadata:\n  name: {name}\n");
    if !namespace.is_empty() {
        text.push_str(&format!("  namespace: {namespace}\n"));
    }
    text
}

#[test]
fn every_flag_reaches_its_field() {
    let addon = made(
        "core/Fluentd.x",
        &[
            "--channel=c",
            "--cluster-name",
            "n",
            "--cluster-region",
            "r",
            "--deps",
            "a/b:v1,c:>=1.0,<2.0",
            "--desc",
            "d",
            "--namespace",
            "ns",
            "--params",
            "a=1,b=x=y",
            "-p",
            "list=1,2,3",
            "--secrets",
            "s1, s2",
            "--selector",
            "app:myaddon",
            "--type",
            "helm",
            "--version",
            "v2",
        ],
    )
    .expect("an addon");
    assert_eq!((addon.name(), addon.namespace()), ("core-fluentd.x", "addon-manager-system"));
    let spec = &addon.spec;
    assert_eq!(
        (&*spec.pkg_name, &*spec.pkg_channel, &*spec.pkg_description, &*spec.pkg_type, &*spec.pkg_version),
        ("core/Fluentd.x", "c", "d", "helm", "v2")
    );
    let pairs: Vec<_> = spec.pkg_deps.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    assert_eq!(pairs, [("a/b", "v1"), ("c", ">=1.0, <2.0")]);
    let parameters = spec.parameters().expect("parameters");
    let parameters: Vec<_> = parameters.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    assert_eq!(
        parameters,
        [
            ("a", "1"),
            ("b", "x=y"),
            ("clusterName", "n"),
            ("clusterRegion", "r"),
            ("list", "1,2,3"),
            ("namespace", "ns")
        ]
    );
    assert_eq!(spec.secrets.iter().map(|secret| &*secret.name).collect::<Vec<_>>(), ["s1", "s2"]);
    assert_eq!(spec.selector.match_labels.as_ref().expect("labels")["app"], "myaddon");
    for step in LifecycleStep::ALL {
        assert_eq!(spec.step(step), None, "nothing was to be installed");
    }
}

#[test]
fn wrong_flags_are_named() {
    for (args, reason) in [
        (&["-t", "rpm"][..], "--type \"rpm\": there are helm, ship"),
        (&["--deps", "a"], "--deps \"a\": write pkgName:pkgVersion"),
        (&["--deps", "a:1,,b:2"], "nothing between two commas"),
        (&["--deps", "a:1,a:2"], "given twice"),
        (&["--deps", "a:1"], "spec.pkgDeps.a: a package cannot depend on itself"),
        (&["--params", "a"], "--params \"a\": write name=value"),
        (&["--params", "a b=c"], "--params \"a b=c\""),
        (&["--secrets", "A"], "--secrets \"A\""),
        (&["--selector", "a"], "--selector \"a\": write key:value"),
        (&["--install", "/nowhere"], "--install /nowhere: "),
    ] {
        let error = error(args);
        assert!(error.contains(reason), "{args:?}: {error}");
    }
    let bare = made("a", &[]).expect_err("too little").to_string();
    assert_eq!(bare, "--namespace and --version must be given");
    for name in ["1a", "a_b", "a/", "a//b", "a-", ".a", "a b", "ä", ""] {
        let error = made(name, &NEEDED).expect_err(name).to_string();
        assert!(error.contains("invalid addon name"), "{name}: {error}");
    }
    let long = made(&"n".repeat(32), &NEEDED).expect_err("long").to_string();
    assert!(long.contains("metadata.name: has 32 characters"), "{long}");
}

#[test]
fn files_become_steps_of_the_native_grammar() {
    let folder = tempfile::tempdir().expect("a folder");
    let prereqs = write(
        folder.path(),
        "prereqs.yaml",
        &format!(
            "# first\n---\n{NAMESPACE}---\n{}",
            object("ServiceAccount", "sa", "\"{{workflow.parameters.namespace}}\"")
        ),
    );
    let install = write(folder.path(), "install.yaml", &object("ConfigMap", "cm", "ns"));
    let addon = with(&["--prereqs", &prereqs, "--install", &install]).expect("an addon");
    let first = workflow(&addon, LifecycleStep::Prereqs);
    assert_eq!(
        (&first["apiVersion"], &first["kind"], &first["spec"]["serviceAccountName"]),
        (&"argoproj.io/v1alpha1".into(), &"Workflow".into(), &"addon-manager-workflow-installer-sa".into())
    );
    let both = format!("{NAMESPACE}---\n{}", object("ServiceAccount", "sa", "\"{{workflow.parameters.namespace}}\""));
    assert_eq!(tasks(&first), [(APPLY.to_owned(), both)]);
    assert_eq!(tasks(&workflow(&addon, LifecycleStep::Install)), [(APPLY.to_owned(), object("ConfigMap", "cm", "ns"))]);
    // What was brought is deleted, last first, and nothing else; a namespace is asked about later.
    let [(command, documents)] = &tasks(&workflow(&addon, LifecycleStep::Delete))[..] else { panic!("one task") };
    assert_eq!(command, DELETE);
    let kinds: Vec<_> = documents.lines().filter_map(|line| line.strip_prefix("kind: ")).collect();
    assert_eq!(kinds, ["ConfigMap", "ServiceAccount"]);
    assert!(documents.contains("namespace: \"{{workflow.parameters.namespace}}\""), "{documents}");
}

#[test]
fn what_names_no_namespace_goes_to_the_addons() {
    let folder = tempfile::tempdir().expect("a folder");
    let role = "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata:\n  name: r\n";
    let text =
        [role, &object("ConfigMap", "a", ""), &object("ConfigMap", "b", "other"), &object("ConfigMap", "c", "ns")];
    let install = write(folder.path(), "i.yml", &text.join("---\n"));
    let addon = with(&["--install", &install]).expect("an addon");
    assert_eq!(
        tasks(&workflow(&addon, LifecycleStep::Install)),
        [(APPLY_IN.to_owned(), text[..2].join("---\n")), (APPLY.to_owned(), text[2..].join("---\n")),]
    );
    let commands: Vec<_> = tasks(&workflow(&addon, LifecycleStep::Delete)).into_iter().map(|task| task.0).collect();
    assert_eq!(commands, [DELETE, DELETE_IN]);
}

#[test]
fn directories_are_read_by_name_with_their_scripts() {
    let folder = tempfile::tempdir().expect("a folder");
    write(folder.path(), "10-a.yaml", &object("ConfigMap", "a", "ns"));
    let source = "import sys\n\nif True:\n    print(\"{{workflow.parameters.clusterName}}\")\n";
    write(folder.path(), "20-Hello World.py", source);
    write(
        folder.path(),
        "30-b.json",
        r#"{"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "b", "namespace": "ns"}},
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"generateName": "p-", "namespace": "ns"}}]}"#,
    );
    write(folder.path(), ".hidden.yaml", "not: read");
    write(folder.path(), "README.md", "not read");
    write(folder.path(), "40-empty.yaml", "# nothing\n");
    std::fs::create_dir(folder.path().join("50-deep.yaml")).expect("a folder");
    let path = folder.path().display().to_string();
    let addon = with(&["--install", &path]).expect("an addon");
    let workflow_value = workflow(&addon, LifecycleStep::Install);
    let found = tasks(&workflow_value);
    assert_eq!(found.len(), 3);
    assert_eq!(found[0], (APPLY.to_owned(), object("ConfigMap", "a", "ns")));
    assert_eq!(found[1], ("[\"python\"]".to_owned(), source.to_owned()));
    assert!(found[2].1.contains("generateName"));
    assert!(addon.spec.lifecycle.install.template.contains("template: script-2-20-hello-world\n"));
    let [(_, documents)] = &tasks(&workflow(&addon, LifecycleStep::Delete))[..] else { panic!("one task") };
    assert_eq!(documents.matches("kind:").count(), 2, "what has no name cannot be deleted by it: {documents}");

    let empty = tempfile::tempdir().expect("a folder");
    let error = error(&["--prereqs", &empty.path().display().to_string()]);
    assert!(error.contains("there is no .yaml"), "{error}");
    let script = write(folder.path(), "only.py", "print(1)");
    let addon = with(&["--prereqs", &script]).expect("an addon");
    assert_eq!(addon.spec.step(LifecycleStep::Delete), None, "nothing is known to delete");
}

#[test]
fn what_is_dear_or_said_twice_is_not_deleted() {
    let folder = tempfile::tempdir().expect("a folder");
    let claim = object("PersistentVolumeClaim", "c", "ns");
    let file = write(folder.path(), "a.yaml", &[NAMESPACE, &claim, &object("Secret", "s", "ns")].join("---\n"));
    let addon = with(&["--prereqs", &file, "--install", &file]).expect("an addon");
    let [(_, documents)] = &tasks(&workflow(&addon, LifecycleStep::Delete))[..] else { panic!("one task") };
    assert_eq!(*documents, "apiVersion: v1\nkind: Secret\nmetadata:\n  name: \"s\"\n  namespace: \"ns\"\n");
    let only = write(folder.path(), "b.yaml", NAMESPACE);
    assert_eq!(with(&["--install", &only]).expect("an addon").spec.step(LifecycleStep::Delete), None);
}

#[test]
fn odd_texts_come_through_whole() {
    let folder = tempfile::tempdir().expect("a folder");
    for (index, text) in [
        "   apiVersion: v1\n   kind: ConfigMap\n   metadata: {name: a, namespace: ns}\n",
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, namespace: ns}\ndata:\n  x: |\n    a\n\n\n    \tb\n  y: \"\\u0007\"\n",
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {{workflow.parameters.clusterName}}\n  namespace: ns\n",
        "%YAML 1.2\n--- # a comment\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, namespace: ns}\n...\n",
    ]
    .iter()
    .enumerate()
    {
        let file = write(folder.path(), &format!("{index}.yaml"), &text.replace('\n', "\r\n"));
        let addon = with(&["--install", &file]).unwrap_or_else(|error| panic!("{text}: {error:#}"));
        let [(_, documents)] = &tasks(&workflow(&addon, LifecycleStep::Install))[..] else { panic!("one task") };
        let plain: String = text.lines().filter(|line| !line.starts_with(['%', '-', '.'])).map(|line| format!("{line}\n")).collect();
        assert_eq!(*documents, plain);
        // And through the YAML that is printed.
        let printed = crate::output::object(&addon, crate::cli::ObjectForm::Yaml).expect("YAML");
        assert_eq!(serde_saphyr::from_str::<Addon>(&printed).expect("an Addon"), addon, "{printed}");
    }
}

#[test]
fn files_that_hold_no_objects_are_named_with_the_line() {
    let folder = tempfile::tempdir().expect("a folder");
    for (text, reason) in [
        ("a: [", "1.yaml: the document at line 1"),
        (
            "apiVersion: v1\nkind: A\nmetadata: {name: a}\n---\nkind: A\n",
            "1.yaml: the document at line 5: has no apiVersion",
        ),
        ("---\n\n---\napiVersion: v1\nkind: A\n", "1.yaml: the document at line 4: has no metadata.name"),
        ("just text", "1.yaml: the document at line 1: not an object"),
    ] {
        let file = write(folder.path(), "1.yaml", text);
        let error = error(&["--install", &file]);
        assert!(error.contains(reason), "{text:?}: {error}");
    }
    let file = write(folder.path(), "x.txt", "a");
    assert!(error(&["--install", &file]).contains("not a .yaml"), "{}", error(&["--install", &file]));
    let file = write(folder.path(), "big.yaml", &"#".repeat((1 << 20) + 1));
    assert!(error(&["--install", &file]).contains("larger than"));
}
