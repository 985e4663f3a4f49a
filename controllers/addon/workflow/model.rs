//! A template as a typed tree, references as they are written.

use std::collections::BTreeMap;

use serde_json::Value;

/// A text and the field it stands in.
pub(super) type Text = (String, String);

/// A whole template.
#[derive(Clone, Debug, Default)]
pub(super) struct Workflow {
    pub(super) entrypoint: Option<Text>,
    pub(super) on_exit: Option<Text>,
    pub(super) account: Option<Text>,
    pub(super) deadline: Option<Text>,
    /// `spec.arguments.parameters`: name, value, path.
    pub(super) parameters: Vec<(String, String, String)>,
    pub(super) artifacts: Vec<Argument>,
    pub(super) templates: BTreeMap<String, Template>,
    /// Pod fields of every Pod step.
    pub(super) pod: PodFields,
    /// How many steps may run at once, in all of it.
    pub(super) parallelism: Option<u32>,
}

/// Fields of a Pod that are taken as they are, texts substituted.
#[derive(Clone, Debug, Default)]
pub(super) struct PodFields {
    /// Each field, its path, and its value.
    pub(super) fields: Vec<(&'static str, String, Value)>,
    pub(super) volumes: Vec<(String, Value)>,
    pub(super) labels: Vec<(String, String, String)>,
    pub(super) annotations: Vec<(String, String, String)>,
}

#[derive(Clone, Debug)]
pub(super) struct Template {
    pub(super) path: String,
    /// Parameters: name, default, path.
    pub(super) inputs: Vec<(String, Option<String>, String)>,
    pub(super) artifacts: Vec<InputArtifact>,
    pub(super) outputs: Vec<Output>,
    pub(super) retry: Option<RetryText>,
    pub(super) deadline: Option<Text>,
    pub(super) account: Option<Text>,
    pub(super) pod: PodFields,
    /// How many of its steps may run at once.
    pub(super) parallelism: Option<u32>,
    pub(super) body: Body,
}

#[derive(Clone, Debug)]
pub(super) struct InputArtifact {
    pub(super) name: String,
    pub(super) path: Option<Text>,
    /// A raw artifact that the template brings itself.
    pub(super) raw: Option<Text>,
    pub(super) mode: Option<Text>,
    pub(super) optional: bool,
    pub(super) at: String,
}

#[derive(Clone, Debug)]
pub(super) struct Output {
    pub(super) name: String,
    pub(super) path: String,
    pub(super) from: OutputFrom,
}

#[derive(Clone, Debug)]
pub(super) enum OutputFrom {
    /// `valueFrom.parameter` or `value`: text in the template's own scope.
    Text(String),
    /// `valueFrom.path`: a file of a container.
    File(String),
}

#[derive(Clone, Debug)]
pub(super) struct RetryText {
    pub(super) limit: Option<Text>,
    pub(super) duration: Option<Text>,
    pub(super) factor: Option<Text>,
    pub(super) max: Option<Text>,
}

#[derive(Clone, Debug)]
pub(super) enum Body {
    Steps(Vec<Vec<Call>>),
    Dag(Vec<(Call, Vec<String>)>),
    Resource(Resource),
    Container(Box<Container>),
}

#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) path: String,
    pub(super) name: String,
    pub(super) template: String,
    /// Name, value, path.
    pub(super) parameters: Vec<(String, String, String)>,
    pub(super) artifacts: Vec<Argument>,
    pub(super) when: Option<Text>,
    pub(super) continue_on_failure: bool,
}

/// An artifact that a call hands over.
#[derive(Clone, Debug)]
pub(super) struct Argument {
    pub(super) name: String,
    pub(super) path: String,
    pub(super) from: ArtifactFrom,
}

#[derive(Clone, Debug)]
pub(super) enum ArtifactFrom {
    /// `raw.data`.
    Raw(Text),
    /// `from: {{inputs.artifacts.NAME}}`.
    Input(String),
}

#[derive(Clone, Debug)]
pub(super) struct Resource {
    pub(super) path: String,
    pub(super) action: Text,
    pub(super) manifest: Text,
    pub(super) merge_strategy: Option<Text>,
}

#[derive(Clone, Debug)]
pub(super) struct Container {
    pub(super) path: String,
    pub(super) image: Text,
    pub(super) command: Vec<Text>,
    pub(super) args: Vec<Text>,
    /// A script's source.
    pub(super) source: Option<Text>,
    /// Other fields, as they are in a Pod, with their paths.
    pub(super) fields: Vec<(&'static str, String, Value)>,
}
