//! What has to hold of whatever somebody hands in: manifests, ranges of versions, templates, and values of parameters.
//! Each function panics where it does not. `hack/fuzz` looks for inputs that break them; the tests run them
//! over the corpus and what is made of it.

use quarterdeck_api::version::{Constraint, Range, Requirement, Version};
use quarterdeck_controllers::addon::manifest::{self, Format, Labels};
use quarterdeck_controllers::addon::workflow::program::KnownNodes;
use quarterdeck_controllers::addon::workflow::{
    self, Action, AddonFacts, Context, Program, compile, parameters as parameters_of,
};
use serde_json::Value;

/// What is asked of an input.
pub type Target = fn(&[u8]);

/// The targets by name.
pub const TARGETS: [(&str, Target); 4] =
    [("manifests", manifests), ("ranges", ranges), ("templates", templates), ("parameters", parameters)];

/// A file of manifests stays within its limits, reads the same twice, and says why it is not whole.
pub fn manifests(bytes: &[u8]) {
    let limits =
        manifest::Limits { file_bytes: 1 << 16, nodes: 2000, text_bytes: 1 << 16, objects: 20, ..Default::default() };
    for format in [Format::Yaml, Format::Json] {
        for labels in [Labels::Choose, Labels::Ignored] {
            let read = manifest::decode_with(bytes, format, &limits, labels);
            assert_eq!(read, manifest::decode_with(bytes, format, &limits, labels), "read twice");
            assert!(read.objects.len() <= limits.objects, "{} objects", read.objects.len());
            for object in &read.objects {
                assert!(!object.ident.name.is_empty() && !object.ident.kind.kind.is_empty(), "{:?}", object.ident);
                assert_eq!(object.body.tree()["metadata"]["name"], *object.ident.name, "the name in the body");
            }
            assert!(read.problems.iter().all(|problem| !problem.to_string().is_empty()), "a problem without words");
        }
    }
}

/// A range, constraint or requirement means something for each version, or is refused with a reason.
pub fn ranges(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let (text, version) = text.split_once('\n').unwrap_or((text, "1.30.0"));
    let version = Version::parse(version).or_else(|_| Version::parse_loose(version));
    let version = version.unwrap_or_else(|_| Version::parse("1.30.0").expect("a version"));
    match Range::parse(text) {
        Ok(range) => assert_eq!(range.contains(&version), range.clone().contains(&version)),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    match Constraint::parse(text) {
        Ok(constraint) => drop(constraint.contains(&version)),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    if let Ok(requirement) = Requirement::parse(text) {
        assert!(requirement.is_satisfied_by(&version.to_string()) || !version.to_string().is_empty());
    }
    // Comparing is total.
    if let Ok(other) = Version::parse_loose(text) {
        assert_eq!(version.precedence(&other), other.precedence(&version).reverse(), "{version} and {other}");
    }
}

/// A template is compiled or refused; never both, never neither.
pub fn templates(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match compiled(text, "x") {
        Ok(program) => {
            for (place, node) in program.nodes.iter().enumerate() {
                assert!(node.after.iter().all(|before| *before < place), "{} comes before what it rests on", node.name);
            }
        }
        Err(refusals) => {
            assert!(!refusals.is_empty(), "refused without a reason");
            assert!(refusals.iter().all(|refusal| !refusal.to_string().is_empty()));
        }
    }
}

/// A value fills its place and nothing more, whatever it holds: no key, list item, document, word or step is added.
pub fn parameters(bytes: &[u8]) {
    let Ok(value) = std::str::from_utf8(bytes) else { return };
    for template in [IN_YAML, IN_TEXT] {
        let neutral = compiled(template, "x").expect("the template is in the grammar");
        if let Ok(program) = compiled(template, value) {
            assert!(fits(&shape(&program), &shape(&neutral)), "{value:?} changes the structure: {program:?}");
        }
    }
    if compiled(IN_SHELL, value).is_ok() {
        let plain = |c: char| c.is_ascii_alphanumeric() || "._:/@=+,-".contains(c);
        assert!(value.chars().all(plain), "{value:?} came into a shell's text");
    }
}

fn compiled(template: &str, value: &str) -> Result<Program, Vec<workflow::Refusal>> {
    let addon = AddonFacts {
        name: "a".into(),
        namespace: "n".into(),
        uid: "u".into(),
        pkg_name: "p".into(),
        pkg_version: "1.0.0".into(),
        target_namespace: "t".into(),
        data: [("v".to_owned(), value.to_owned())].into(),
        ..AddonFacts::default()
    };
    let context = Context {
        addon: &addon,
        workflow_name: "a-install-0-wf",
        role: None,
        known: &KnownNodes::new(),
        status: None,
        limits: workflow::Limits::default(),
    };
    compile(template, &parameters_of(&addon)?, &context)
}

/// Steps, and the trees in them.
fn shape(program: &Program) -> Value {
    let bodies = |objects: &workflow::program::Objects| objects.objects.iter().map(|one| one.body.tree()).collect();
    let steps = program.all().map(|node| match &node.action {
        Action::Apply(objects) => Value::Array(bodies(objects)),
        Action::Create(objects) => Value::Array(bodies(objects)),
        Action::Pod(step) => serde_json::to_value(&**step).expect("a step is JSON"),
        other => Value::String(format!("{other:?}")),
    });
    steps.collect()
}

/// Whether a tree has the other's structure. A null takes its key away.
fn fits(tree: &Value, neutral: &Value) -> bool {
    match (tree, neutral) {
        (Value::Object(tree), Value::Object(neutral)) => {
            tree.iter().all(|(key, value)| neutral.get(key).is_some_and(|like| fits(value, like)))
        }
        (Value::Array(tree), Value::Array(neutral)) => {
            tree.len() == neutral.len() && tree.iter().zip(neutral).all(|(value, like)| fits(value, like))
        }
        (Value::Object(_) | Value::Array(_), _) | (_, Value::Object(_) | Value::Array(_)) => false,
        _ => true,
    }
}

const IN_YAML: &str = r#"
apiVersion: argoproj.io/v1alpha1
kind: Workflow
spec:
  entrypoint: entry
  serviceAccountName: s
  templates:
  - name: entry
    resource:
      action: apply
      manifest: |
        apiVersion: v1
        kind: ConfigMap
        metadata:
          name: fixed
          labels: {one: "{{workflow.parameters.v}}", two: 'a{{workflow.parameters.v}}'}
        data:
          plain: {{workflow.parameters.v}}
          quoted: "{{workflow.parameters.v}}"
          single: '{{workflow.parameters.v}}'
          beside: x{{workflow.parameters.v}}y
          flow: [{{workflow.parameters.v}}, "{{workflow.parameters.v}}"]
          block: |
            first
            {{workflow.parameters.v}}
          folded: >-
            {{workflow.parameters.v}}
            last
        ---
        apiVersion: v1
        kind: ConfigMap
        metadata: {name: second}
"#;

const IN_TEXT: &str = r#"
apiVersion: argoproj.io/v1alpha1
kind: Workflow
spec:
  entrypoint: entry
  serviceAccountName: s
  templates:
  - name: entry
    container:
      image: "registry.example.com/work:1"
      command: [work]
      args: ["--flag={{workflow.parameters.v}}", "{{workflow.parameters.v}}"]
      env: [{name: V, value: "{{workflow.parameters.v}}"}]
"#;

const IN_SHELL: &str = r#"
apiVersion: argoproj.io/v1alpha1
kind: Workflow
spec:
  entrypoint: entry
  serviceAccountName: s
  templates:
  - name: entry
    container:
      image: "registry.example.com/work:1"
      command: [sh, -c]
      args: ["work '{{workflow.parameters.v}}'"]
"#;
