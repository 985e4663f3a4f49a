//! Carrying steps out. Each function may be called again at any time, by this process or the next
//! one: it finds what was done and goes on from there.
//!
//! The `Api` that is given acts as the step's service account already. `apply` and `create` are the
//! engine's own work: they are kept, not run.

mod argo;
mod delete;
mod patch;
mod pod;

use std::collections::BTreeMap;
use std::time::Duration;

use quarterdeck_runtime::client::{Api, ApiError, Class};
use quarterdeck_runtime::object::{Kind, ObjectKey};

use super::pod::Attempt;
use super::program::{Action, ObjectRef};
use super::progress::Outcome;
use crate::addon::kinds::Kinds;

pub use argo::{
    again as argo_again, forget_others as argo_forget_others, key as argo_key, made as argo_made, run as argo,
    watched as argo_watched, workflow_kind,
};
pub use pod::{remove, stop};

/// When a step that is under way is looked at again.
const SOON: Duration = Duration::from_secs(1);
/// When a step that waits for something slow is looked at again.
const LATER: Duration = Duration::from_secs(5);

/// What became of a step so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Observed {
    /// The attempt is over ([`Progress::end`](super::Progress::end)).
    Ended(Outcome),
    /// It is not over ([`Progress::note`](super::Progress::note)); call again.
    UnderWay {
        /// What it waits for, empty if it just runs.
        message: String,
        /// What it did so far.
        marks: BTreeMap<String, String>,
        /// When to look again, if nothing is seen before.
        look_again: Duration,
    },
}

impl Observed {
    fn failed(message: impl Into<String>) -> Self {
        Self::Ended(Outcome::Failed { message: message.into() })
    }

    fn under_way(message: impl Into<String>, look_again: Duration) -> Self {
        Self::UnderWay { message: message.into(), marks: BTreeMap::new(), look_again }
    }
}

/// Carries a step out, or goes on with it; `marks` is what it did so far
/// ([`Progress::marks`](super::Progress::marks)). None for steps that are the engine's own.
///
/// # Errors
/// What a retry of the same attempt may mend, and the end of our tenure: nothing is to be noted then.
pub async fn step(
    api: &Api,
    kinds: &Kinds,
    attempt: &Attempt<'_>,
    marks: BTreeMap<String, String>,
) -> Result<Option<Observed>, ApiError> {
    match &attempt.node.action {
        Action::Apply(_) | Action::Create(_) | Action::Pending(_) => Ok(None),
        Action::Delete(deletion) => delete::run(api, kinds, deletion, marks).await.map(Some),
        Action::Patch(patch) => patch::run(api, kinds, patch).await.map(Some),
        Action::Pod(step) => pod::run(api, attempt, step).await.map(Some),
    }
}

/// An error that ends the attempt; what may pass by itself, or is not the step's fault, is handed on.
fn fault(error: ApiError) -> Result<String, ApiError> {
    let refused = match error.code() {
        Some(401 | 408 | 409 | 429) | None => matches!(error, ApiError::Invalid { .. } | ApiError::Decode { .. }),
        Some(code) => (400..500).contains(&code),
    };
    if refused && !error.is_conflict() && error.class() != Class::NotLeader {
        Ok(error.to_string())
    } else {
        Err(error)
    }
}

/// The resource that an object is read and written by, and its key; none if the server serves none.
async fn resolve(
    api: &Api,
    kinds: &Kinds,
    object: &ObjectRef,
    namespace: &str,
) -> Result<Option<(Kind, ObjectKey)>, ApiError> {
    let ident = &object.ident;
    let kind = match kinds.find(api, &ident.kind, &object.version).await? {
        Some(kind) => Some(kind),
        // An old manifest may name a version that is gone; the object is there all the same.
        None => kinds.find_any(api, &ident.kind).await?,
    };
    Ok(kind.map(|kind| {
        let key = match (kind.namespaced, ident.namespace.is_empty()) {
            (false, _) => ObjectKey::cluster(&*ident.name),
            (true, true) => ObjectKey::new(namespace, &*ident.name),
            (true, false) => ident.key(),
        };
        (kind, key)
    }))
}
