//! Running a container in a Pod: made once under a name that tells its attempt, then watched by name.

use k8s_openapi::api::core::v1::{Pod, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use quarterdeck_runtime::client::{Api, ApiError, DeletePrecondition, Propagation};
use quarterdeck_runtime::object::{Kind, ObjectKey};

use super::{LATER, Observed, SOON, fault};
use crate::addon::workflow::pod::{self as form, Attempt, CONTAINER, Seen};
use crate::addon::workflow::program::PodStep;

/// How much of a log is read for a message, and for a result.
const LOG_LINES: u32 = 20;
const LOG_BYTES: u32 = 2048;
const RESULT_LINES: u32 = 1000;
const RESULT_BYTES: u32 = 4096;

pub(super) async fn run(api: &Api, attempt: &Attempt<'_>, step: &PodStep) -> Result<Observed, ApiError> {
    match observed(api, attempt, step).await {
        Ok(observed) => Ok(observed),
        Err(error) => fault(error).map(Observed::failed),
    }
}

fn key(attempt: &Attempt<'_>) -> ObjectKey {
    ObjectKey::new(attempt.addon.namespace.as_str(), form::name(attempt))
}

async fn observed(api: &Api, attempt: &Attempt<'_>, step: &PodStep) -> Result<Observed, ApiError> {
    let key = key(attempt);
    let Some(pod) = api.get::<Pod>(&Kind::of::<Pod>(), &key).await? else {
        return begun(api, attempt, step, &key).await;
    };
    if !is_ours(&pod.metadata, attempt) {
        return Ok(Observed::failed(format!("Pod {key} belongs to something else")));
    }
    let seen = form::seen(&pod, step);
    let log = match &seen {
        Seen::UnderWay { message } => {
            let look_again = if message.is_empty() { SOON } else { LATER };
            return Ok(Observed::under_way(message, look_again));
        }
        Seen::Succeeded { .. } if step.capture_result => {
            Some(api.pod_log(&key, CONTAINER, RESULT_LINES, RESULT_BYTES).await?)
        }
        Seen::Succeeded { .. } => None,
        Seen::Failed { .. } => match api.pod_log(&key, CONTAINER, LOG_LINES, LOG_BYTES).await {
            Ok(log) => Some(log),
            // A log that cannot be read, because the container never ran, hides no failure.
            Err(error) => fault(error).map(|_| None)?,
        },
    };
    match form::outcome(&seen, step, log.as_deref()) {
        Some(outcome) => Ok(Observed::Ended(outcome)),
        None => Ok(Observed::under_way("", SOON)),
    }
}

/// Makes what an attempt needs; what is there already was made by us before.
async fn begun(api: &Api, attempt: &Attempt<'_>, step: &PodStep, key: &ObjectKey) -> Result<Observed, ApiError> {
    let (pod, secret) = match (form::pod(attempt, step), form::secret(attempt, step)) {
        (Ok(pod), Ok(secret)) => (pod, secret),
        (Err(reason), _) | (_, Err(reason)) => return Ok(Observed::failed(reason)),
    };
    if let Some(secret) = secret {
        match api.create(&secret).await {
            Ok(_) => {}
            Err(error) if error.is_already_exists() => {
                let live = api.get_metadata(&Kind::of::<Secret>(), key).await?;
                if live.is_some_and(|live| !is_ours(&live, attempt)) {
                    return Ok(Observed::failed(format!("Secret {key} belongs to something else")));
                }
            }
            Err(error) => return Err(error),
        }
    }
    match api.create(&pod).await {
        Ok(_) => {}
        Err(error) if error.is_already_exists() => {}
        Err(error) => return Err(error),
    }
    Ok(Observed::under_way("", SOON))
}

/// Whether the Addon itself owns an object: one of the same name before it had another uid.
fn is_ours(live: &ObjectMeta, attempt: &Attempt<'_>) -> bool {
    live.owner_references.iter().flatten().any(|owner| owner.uid == attempt.addon.uid)
}

/// Ends what an attempt that was given up left running. A Pod that has ended stays, for its log.
pub async fn stop(api: &Api, attempt: &Attempt<'_>) -> Result<(), ApiError> {
    let kind = Kind::of::<Pod>();
    let key = key(attempt);
    let Some(pod) = api.get::<Pod>(&kind, &key).await? else { return Ok(()) };
    let has_ended = !matches!(form::seen(&pod, &PodStep::default()), Seen::UnderWay { .. });
    if has_ended || !is_ours(&pod.metadata, attempt) {
        return Ok(());
    }
    delete(api, &kind, &key, &pod.metadata).await
}

/// Removes the Pod and the Secret of an attempt whose outcome has been recorded.
pub async fn remove(api: &Api, attempt: &Attempt<'_>) -> Result<(), ApiError> {
    let key = key(attempt);
    for kind in [Kind::of::<Pod>(), Kind::of::<Secret>()] {
        if let Some(live) = api.get_metadata(&kind, &key).await?
            && is_ours(&live, attempt)
        {
            delete(api, &kind, &key, &live).await?;
        }
    }
    Ok(())
}

async fn delete(api: &Api, kind: &Kind, key: &ObjectKey, live: &ObjectMeta) -> Result<(), ApiError> {
    if live.deletion_timestamp.is_some() {
        return Ok(());
    }
    let precondition = DeletePrecondition { uid: live.uid.clone().unwrap_or_default(), resource_version: None };
    match api.delete(kind, key, &precondition, Propagation::Background).await {
        // Gone, or another object by now.
        Err(error) if error.is_not_found() || error.is_conflict() => Ok(()),
        ended => ended,
    }
}
