//! What a template comes to: steps in order.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::canonical;
use crate::addon::ident::Ident;
use crate::addon::manifest::{Desired, Place};

/// A compiled template.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Program {
    /// The service account that the template names, or else the phase's `role`; in the Addon's own
    /// namespace.
    pub account: Option<String>,
    /// `spec.activeDeadlineSeconds`: how long one round of the program may take.
    pub deadline: Option<Duration>,
    /// How many steps may run at once: the smallest `parallelism` of the workflow and its templates.
    pub parallelism: Option<u32>,
    /// Steps, each after those it depends on.
    pub nodes: Vec<Node>,
    /// Steps of `onExit`, which run once all others have ended.
    pub exit: Vec<Node>,
}

impl Program {
    /// The steps, those of `onExit` last.
    pub fn all(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().chain(&self.exit)
    }
}

/// One step.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Path of calls, unique in its program: `entry/prereq-resources`.
    pub name: String,
    /// Field of the template that it comes from: `spec.templates[1]`.
    pub origin: String,
    /// Steps that must have ended before, as indexes into the same list; each is smaller than its own.
    pub after: Vec<usize>,
    /// Whether it is run at all.
    pub when: When,
    /// How often and when it is tried again at once, before the program as a whole has failed.
    pub retry: Retry,
    /// How long one attempt may take.
    pub deadline: Option<Duration>,
    /// The service account that its own template names; else the program's.
    pub account: Option<String>,
    /// Whether the program goes on when it fails.
    pub continue_on_failure: bool,
    /// What it does.
    pub action: Action,
    /// [`Node::content`], reckoned once: manifests may be large.
    pub(super) content: Option<Arc<str>>,
}

impl Node {
    /// Names what the step does after substitution: another content is another step. None while it
    /// is not known.
    #[must_use]
    pub fn content(&self) -> Option<&str> {
        self.content.as_deref()
    }

    /// The same step with its content reckoned.
    pub(super) fn sealed(mut self) -> Self {
        self.content = self.reckoned().map(Into::into);
        self
    }

    fn reckoned(&self) -> Option<String> {
        let objects = |kind: &str, objects: &Objects| {
            let bodies: Vec<Value> = objects.objects.iter().map(|object| object.body.tree()).collect();
            json!({"do": kind, "namespace": objects.namespace, "objects": bodies})
        };
        let content = match &self.action {
            Action::Pending(_) => return None,
            Action::Apply(all) => objects("apply", all),
            Action::Create(all) => objects("create", all),
            Action::Delete(deletion) => {
                let idents: Vec<String> = deletion.objects.iter().map(|object| object.ident.to_string()).collect();
                json!({"do": "delete", "namespace": deletion.namespace, "objects": idents})
            }
            Action::Patch(patch) => {
                json!({"do": "patch", "namespace": patch.namespace, "object": patch.object.ident.to_string(),
                    "strategy": format!("{:?}", patch.strategy), "patch": patch.body})
            }
            Action::Pod(step) => json!({"do": "pod", "step": **step}),
        };
        Some(canonical::hash(&json!({"account": self.account, "content": content})))
    }
}

/// Whether a step is run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum When {
    /// It is.
    Run,
    /// Its condition does not hold.
    Skip,
    /// Its condition rests on something that is not known yet: what.
    Unknown(String),
}

/// `retryStrategy`, of the template itself or of the one that calls it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retry {
    /// Attempts after the first; none means no limit where a strategy is given at all.
    pub limit: Option<u32>,
    /// Wait before the second attempt.
    pub backoff: Duration,
    /// By how much each wait is longer than the one before; 0 and 1 mean that it is not.
    pub factor: u32,
    /// The longest time from the first attempt to the last.
    pub max: Option<Duration>,
    /// Whether a strategy is given.
    pub given: bool,
}

/// What a step does.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Keeps these objects as they are written.
    Apply(Objects),
    /// Sees to it that these objects exist.
    Create(Objects),
    /// Deletes objects, once a revision.
    Delete(Deletion),
    /// Changes fields of one object, once a revision.
    Patch(Patch),
    /// Runs a container to its end, once a revision.
    Pod(Box<PodStep>),
    /// Not known yet, or it never will be: why.
    Pending(String),
}

/// Objects of a step.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Objects {
    /// The objects, with upstream's four labels; a place counts within the text that `origin` names.
    pub objects: Vec<Desired>,
    /// Namespace of those that name none and live in one.
    pub namespace: String,
    /// Field that their text stands in.
    pub origin: String,
}

/// One object, by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectRef {
    /// Which; its namespace may be empty.
    pub ident: Ident,
    /// API version it is named in, without the group.
    pub version: String,
    /// Where it stands.
    pub place: Place,
}

/// What becomes of the dependents of deleted objects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cascade {
    /// They go after it.
    #[default]
    Background,
    /// They go first.
    Foreground,
    /// They stay.
    Orphan,
}

/// Objects to delete. One that is not there counts as deleted: whether a first attempt did it cannot
/// be told after a restart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Deletion {
    /// The objects, in the order written.
    pub objects: Vec<ObjectRef>,
    /// Namespace of those that name none and live in one.
    pub namespace: String,
    /// What becomes of dependents.
    pub cascade: Cascade,
    /// Whether the step ends only when they are gone.
    pub wait: bool,
}

/// How a patch is merged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// Lists are merged by the keys that a built-in kind declares.
    Strategic,
    /// RFC 7386: lists are replaced.
    Merge,
}

/// Fields to change in one object.
#[derive(Clone, Debug, PartialEq)]
pub struct Patch {
    /// The object.
    pub object: ObjectRef,
    /// Its namespace if it names none and lives in one.
    pub namespace: String,
    /// How the patch is merged.
    pub strategy: Strategy,
    /// The patch; null fields mean removal.
    pub body: Value,
}

/// A container that runs to its end in a Pod of its own.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct PodStep {
    /// The container's fields as in a Pod; it has no name yet.
    pub container: Map<String, Value>,
    /// Files that it finds: input artifacts and the source of a script.
    pub files: Vec<PodFile>,
    /// Other fields of the Pod's spec.
    pub spec: Map<String, Value>,
    /// Volumes that the container mounts.
    pub volumes: Vec<Value>,
    /// Labels that the template asks for.
    pub labels: BTreeMap<String, String>,
    /// Annotations that the template asks for.
    pub annotations: BTreeMap<String, String>,
    /// An output parameter and the file it is read from.
    pub output: Option<(String, String)>,
    /// Whether another step asks for what it writes on its standard output.
    pub capture_result: bool,
}

/// A file given to a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PodFile {
    /// Absolute path.
    pub path: String,
    /// What it holds.
    pub content: String,
    /// Permission bits, if the template says.
    pub mode: Option<i32>,
}

/// How a step ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ended {
    /// It did what it was to do.
    Succeeded,
    /// It did not, and the program went on.
    Failed,
    /// Its condition did not hold.
    Skipped,
}

impl Ended {
    /// As `{{steps.NAME.status}}` has it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Succeeded => "Succeeded",
            Self::Failed => "Failed",
            Self::Skipped => "Skipped",
        }
    }
}

/// What other steps may read of one that has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// How it ended.
    pub ended: Ended,
    /// Output parameters by name.
    pub parameters: BTreeMap<String, String>,
    /// What it wrote on its standard output.
    pub result: Option<String>,
}

/// Steps that have ended, by [`Node::name`].
pub type KnownNodes = BTreeMap<String, Known>;
