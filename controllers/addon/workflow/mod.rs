//! The native runner of an Addon's lifecycle templates: a published grammar of Argo's `Workflow`,
//! read without Argo and without kubectl.
//!
//! Everything but [`execute`] is pure. A template's text becomes a [`Program`]: nodes in an order in
//! which each comes after what it depends on. Values get into it on parsed trees, word by word, so
//! that none can change the structure of what it stands in (`substitute`). [`Progress`] remembers
//! what ran, so that a restart repeats nothing, and [`next()`] says what is to run now. What a step
//! needs from the outputs of another stays [`Action::Pending`] until the template is compiled again
//! with them.
//!
//! | module | what it holds |
//! |---|---|
//! | `parameters` | the global parameters of an Addon |
//! | `token`, `scalar`, `substitute` | `{{…}}`, and putting values in its place |
//! | `read`, `template`, `model` | a template's text as a typed tree; whatever is not known is refused |
//! | `condition` | `when` |
//! | `command` | kubectl's command line, as far as it is done natively |
//! | `scope`, `compile`, `leaf`, `objects`, `program` | from a template to a program |
//! | `progress`, `next` | what ran, and what is to run |
//! | `pod` | the Pod of a container or script step, and what became of it |
//! | `argo`, `revision` | the Workflow object made for Argo, and the hash that names a revision |
//! | `runner` | native or Argo |
//! | `execute` | carrying steps out |
//!
//! The grammar is described for people in `docs/addon-template-grammar.md`.

pub mod argo;
mod canonical;
mod command;
pub mod compile;
mod condition;
pub mod execute;
mod leaf;
mod model;
pub mod next;
mod objects;
pub mod parameters;
pub mod pod;
pub mod program;
pub mod progress;
mod read;
pub mod revision;
pub mod runner;
mod scalar;
mod scope;
mod substitute;
mod template;
mod token;

use std::fmt;

pub use compile::{Context, compile};
pub use next::{Next, Phase, next};
pub use parameters::{AddonFacts, Parameters, parameters};
pub use program::{Action, Node, Program};
pub use progress::{Outcome, Progress};

/// Something in a template that is not run natively, or not at all.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Refusal {
    /// The field, such as `spec.templates[1].container.args[0]`.
    pub field_path: String,
    /// What is wrong with it.
    pub reason: String,
    /// Whether the template or a value is at fault.
    pub cause: Cause,
}

/// What a refusal is due to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// The template is not in the grammar: another runner may do it.
    Grammar,
    /// A value is missing, or would change what it is put into: no runner may do it.
    Value,
}

impl Refusal {
    /// A refusal of a field.
    pub fn new(field_path: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { field_path: field_path.into(), reason: reason.into(), cause: Cause::Grammar }
    }

    /// A refusal of a value.
    pub fn value(field_path: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { cause: Cause::Value, ..Self::new(field_path, reason) }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.field_path.is_empty() {
            f.write_str(&self.reason)
        } else {
            write!(f, "{}: {}", self.field_path, self.reason)
        }
    }
}

/// Bounds on a template. Whoever writes an Addon is trusted with what its account may do, not with
/// this process' memory.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Longest template, bytes.
    pub template_bytes: usize,
    /// Deepest nesting of calls.
    pub calls_deep: usize,
    /// Most nodes of a program, those of `onExit` included.
    pub nodes: usize,
    /// Most refusals reported at once.
    pub refusals: usize,
    /// Most bytes of the files that a Pod step is given: they travel in one Secret.
    pub pod_file_bytes: usize,
    /// Longest condition, bytes.
    pub condition_bytes: usize,
    /// Most bytes of manifests, files and scripts of all steps together, those of repeated calls included.
    pub text_bytes: usize,
    /// Longest value of an input, bytes.
    pub value_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            template_bytes: 1 << 20,
            calls_deep: 16,
            nodes: 500,
            refusals: 20,
            pod_file_bytes: 900 << 10,
            condition_bytes: 4096,
            text_bytes: 8 << 20,
            value_bytes: 64 << 10,
        }
    }
}
