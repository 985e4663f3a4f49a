//! What a reference may mean where it stands.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::parameters::Parameters;
use super::program::{Ended, Known, KnownNodes};
use super::substitute::{Found, Lookup};

/// What every part of a template may refer to.
#[derive(Debug)]
pub(super) struct World {
    pub(super) globals: Parameters,
    /// `workflow.name` and the like.
    pub(super) builtins: BTreeMap<&'static str, String>,
}

/// What one call of a template may refer to.
#[derive(Clone, Debug)]
pub(super) struct Scope {
    pub(super) world: Rc<World>,
    pub(super) inputs: BTreeMap<String, Found>,
    /// Steps that have ended before, by name.
    pub(super) siblings: BTreeMap<String, Rc<Sibling>>,
}

/// What may be referred to of a step.
#[derive(Debug)]
pub(super) struct Sibling {
    pub(super) status: Found,
    pub(super) outputs: BTreeMap<String, Found>,
    pub(super) result: Found,
}

impl Scope {
    pub(super) fn new(world: Rc<World>) -> Self {
        Self { world, inputs: BTreeMap::new(), siblings: BTreeMap::new() }
    }
}

impl Lookup for Scope {
    fn lookup(&self, name: &str) -> Result<Found, String> {
        let known = |value: &str| Ok(Found::Known(value.to_owned()));
        if name.starts_with('=') {
            return Err("expressions are not supported".to_owned());
        }
        if let Some(name) = name.strip_prefix("workflow.parameters.") {
            return self.world.globals.get(name).map_or_else(|| Err("there is no such parameter".to_owned()), known);
        }
        if let Some(value) = self.world.builtins.get(name) {
            return known(value);
        }
        if let Some(name) = name.strip_prefix("inputs.parameters.") {
            return self.inputs.get(name).cloned().ok_or_else(|| "the template has no such input".to_owned());
        }
        let step = name.strip_prefix("steps.").or_else(|| name.strip_prefix("tasks."));
        let Some((step, of_step)) = step.and_then(|rest| rest.split_once('.')) else {
            return Err("not in the grammar of templates that run natively".to_owned());
        };
        let Some(sibling) = self.siblings.get(step) else {
            return Err(format!("no step {step} has always ended before"));
        };
        match of_step {
            "status" => Ok(sibling.status.clone()),
            "outputs.result" => Ok(sibling.result.clone()),
            _ => match of_step.strip_prefix("outputs.parameters.") {
                Some(output) => {
                    sibling.outputs.get(output).cloned().ok_or_else(|| format!("step {step} has no such output"))
                }
                None => Err("of a step, status, outputs.result and outputs.parameters.NAME may be read".to_owned()),
            },
        }
    }
}

/// How a call ended whose steps are `nodes`.
pub(super) fn status<'n>(nodes: impl Iterator<Item = &'n str>, known: &KnownNodes) -> Found {
    let mut worst = None;
    for node in nodes {
        let Some(Known { ended, .. }) = known.get(node) else {
            return Found::Unknown(format!("step {node} has not ended"));
        };
        worst = match (worst, *ended) {
            (_, Ended::Failed) | (Some(Ended::Failed), _) => Some(Ended::Failed),
            (_, Ended::Succeeded) | (Some(Ended::Succeeded), _) => Some(Ended::Succeeded),
            (_, Ended::Skipped) => Some(Ended::Skipped),
        };
    }
    Found::Known(worst.unwrap_or(Ended::Skipped).as_str().to_owned())
}

/// Something that a step left behind.
pub(super) fn left_by(node: &str, known: &KnownNodes, what: &str, of: impl Fn(&Known) -> Option<String>) -> Found {
    let Some(facts) = known.get(node) else { return Found::Unknown(format!("step {node} has not ended")) };
    match of(facts) {
        Some(value) => Found::Known(value),
        None => Found::Unknown(format!("step {node} {} and left no {what}", facts.ended.as_str().to_lowercase())),
    }
}
