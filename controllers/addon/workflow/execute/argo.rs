//! Having Argo run a template: the Workflow object is made once and watched by name.

use quarterdeck_runtime::client::{Api, ApiError, ApplyOptions, ApplyTo, DeletePrecondition, ListQuery, Propagation};
use quarterdeck_runtime::object::{Kind, ObjectKey};
use serde_json::Value;

use super::{LATER, Observed, SOON, fault};
use crate::addon::plan::MANAGER;
use crate::addon::workflow::argo::{GROUP, State, VERSION, Watched, state};
use crate::addon::workflow::progress::Outcome;
use crate::addon::workflow::revision::short;
use crate::addon::workflow::{AddonFacts, objects};

/// The kind of Argo's Workflows.
#[must_use]
pub fn workflow_kind() -> Kind {
    Kind::new(GROUP, VERSION, "Workflow", "workflows", true)
}

/// Makes the Workflow if it is not there, and says how it stands. A Workflow that failed stays
/// failed: Argo runs none twice; [`again`] makes way for another try.
///
/// # Errors
/// What a retry may mend, and the end of our tenure.
pub async fn run(api: &Api, workflow: &Value) -> Result<Observed, ApiError> {
    made(api, workflow).await.map(|(observed, _)| observed)
}

/// As [`run`], and whether it was this call that made the Workflow.
///
/// # Errors
/// What a retry may mend, and the end of our tenure.
pub async fn made(api: &Api, workflow: &Value) -> Result<(Observed, bool), ApiError> {
    let mut made = false;
    match observed(api, workflow, &mut made).await {
        Ok(observed) => Ok((observed, made)),
        Err(error) => fault(error).map(|message| (Observed::failed(message), false)),
    }
}

/// How a Workflow stands that a cache shows; `None` where the server has to be asked.
#[must_use]
pub fn watched(shown: &Watched, workflow: &Value) -> Option<Observed> {
    let uid = workflow["metadata"]["ownerReferences"][0]["uid"].as_str()?;
    if shown.metadata.deleting || !shown.metadata.owners.iter().any(|owner| **owner == *uid) {
        return None;
    }
    Some(match &shown.content {
        State::UnderWay { message } => Observed::under_way(message.clone(), LATER),
        State::Succeeded => Observed::Ended(Outcome::done()),
        State::Failed { message } => Observed::failed(message.clone()),
    })
}

async fn observed(api: &Api, workflow: &Value, made: &mut bool) -> Result<Observed, ApiError> {
    let (kind, key) = (workflow_kind(), key(workflow));
    let Some(live) = api.get::<Value>(&kind, &key).await? else {
        let options = ApplyOptions { manager: MANAGER, force: false, dry_run: false };
        return match api.apply(&kind, &key, workflow, &ApplyTo::Absent, &options).await {
            Ok(_) => {
                *made = true;
                Ok(Observed::under_way("", SOON))
            }
            // It was made meanwhile.
            Err(error) if error.is_conflict() || error.is_already_exists() => Ok(Observed::under_way("", SOON)),
            Err(error) => Err(error),
        };
    };
    if !is_ours(&live, workflow) {
        // Of an Addon of the same name that is gone: the garbage collector takes it away.
        return Ok(Observed::under_way(format!("waiting until {kind} {key} of another owner is gone"), LATER));
    }
    Ok(match state(&live) {
        State::UnderWay { message } => Observed::under_way(message, LATER),
        State::Succeeded => Observed::Ended(Outcome::done()),
        State::Failed { message } => Observed::failed(message),
    })
}

/// Removes a Workflow of ours that has failed, so that [`run`] makes it anew; returns the uid of what was
/// removed.
///
/// # Errors
/// When the server cannot be asked, or refuses.
pub async fn again(api: &Api, workflow: &Value) -> Result<Option<String>, ApiError> {
    let (kind, key) = (workflow_kind(), key(workflow));
    let Some(live) = api.get::<Value>(&kind, &key).await? else { return Ok(None) };
    let failed = matches!(state(&live), State::Failed { .. });
    if !failed || !is_ours(&live, workflow) || live.pointer("/metadata/deletionTimestamp").is_some() {
        return Ok(None);
    }
    let text = |pointer: &str| live.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
    let precondition = DeletePrecondition {
        uid: text("/metadata/uid").unwrap_or_default(),
        // That it has failed is what the decision rests on.
        resource_version: text("/metadata/resourceVersion"),
    };
    match api.delete(&kind, &key, &precondition, Propagation::Background).await {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(Some(precondition.uid)),
    }
}

/// Removes the Workflows that an Addon owns and that do not belong to a revision, as upstream does when
/// an Addon changes: a revision that comes back must not find what its first time left.
///
/// # Errors
/// When the server cannot be asked, or refuses.
pub async fn forget_others(api: &Api, addon: &AddonFacts, revision: &str) -> Result<(), ApiError> {
    let kind = workflow_kind();
    let labels = format!("{}={}", objects::NAME_LABEL, objects::label_value(&addon.name));
    let query = ListQuery { labels: Some(labels), metadata_only: true, ..ListQuery::default() };
    let page = match api.list::<Value>(&kind, Some(&addon.namespace), &query).await {
        Ok(page) => page,
        // A cluster without Argo has none.
        Err(error) if error.is_not_found() => return Ok(()),
        Err(error) => return Err(error),
    };
    let kept = format!("-{}-wf", short(revision));
    for live in page.items {
        let text = |field: &str| live["metadata"][field].as_str().unwrap_or_default().to_owned();
        let owners = live.pointer("/metadata/ownerReferences").and_then(Value::as_array);
        let ours = owners.into_iter().flatten().any(|owner| owner["uid"] == *addon.uid);
        if !ours || text("name").ends_with(&kept) || live.pointer("/metadata/deletionTimestamp").is_some() {
            continue;
        }
        let key = ObjectKey::new(&*addon.namespace, text("name"));
        let precondition = DeletePrecondition { uid: text("uid"), resource_version: None };
        match api.delete(&kind, &key, &precondition, Propagation::Background).await {
            Err(error) if !error.is_not_found() && !error.is_conflict() => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Namespace and name of a Workflow.
#[must_use]
pub fn key(workflow: &Value) -> ObjectKey {
    let text = |pointer: &str| workflow.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    ObjectKey::new(text("/metadata/namespace"), text("/metadata/name"))
}

/// Whether the same Addon owns both: one of the same name before it had another uid.
fn is_ours(live: &Value, workflow: &Value) -> bool {
    let uid = &workflow["metadata"]["ownerReferences"][0]["uid"];
    let owners = live.pointer("/metadata/ownerReferences").and_then(Value::as_array);
    uid.is_string() && owners.into_iter().flatten().any(|owner| owner["uid"] == *uid)
}
