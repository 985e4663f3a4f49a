//! Applies and removes the manifests with the operator's own rights.

use std::collections::BTreeMap;
use std::fmt;

use kube::Client;
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams, PostParams, Preconditions};
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::Value;

use super::{Manifest, PART_OF, crd};

/// Field manager of what `install` brings.
const MANAGER: &str = "quarterdeck-install";

/// An object that could not be brought or removed.
#[derive(Debug, thiserror::Error)]
#[error("{object}: {source}")]
pub struct InstallError {
    /// Kind and name of the object.
    pub object: String,
    /// The server's answer.
    pub source: Box<kube::Error>,
}

/// What was done, or would be done, to one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It was not there.
    Created(String),
    /// It was there and differed.
    Configured(String),
    /// It was there as it should be.
    Unchanged(String),
    /// It was removed.
    Deleted(String),
    /// It was not there, or is not ours.
    Absent(String),
    /// It is there and stays: its objects would be deleted with it.
    Kept(String),
}

/// Prints a line as kubectl does: `clusterrole/quarterdeck:manager created`.
impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (object, what) = match self {
            Self::Created(object) => (object, "created"),
            Self::Configured(object) => (object, "configured"),
            Self::Unchanged(object) => (object, "unchanged"),
            Self::Deleted(object) => (object, "deleted"),
            Self::Absent(object) => (object, "not found"),
            Self::Kept(object) => (object, "kept (all its objects would be deleted with it)"),
        };
        write!(f, "{object} {what}")
    }
}

/// Applies the manifests in order; repeating it changes nothing.
///
/// # Errors
/// At the first object that the server refuses.
pub async fn install(client: &Client, manifests: &[Manifest], dry_run: bool) -> Result<Vec<Change>, InstallError> {
    let mut changes = Vec::new();
    for object in manifests.iter().flat_map(|manifest| &manifest.objects) {
        let (api, name, label) = api_of(client, object);
        let failed = |source: kube::Error| InstallError { object: label.clone(), source: Box::new(source) };
        let before = api.get_opt(&name).await.map_err(failed)?;
        let after = match &before {
            Some(live) if object["kind"] == crd::KIND => replace(&api, &name, live, object, dry_run).await,
            _ => {
                let params = PatchParams { dry_run, ..PatchParams::apply(MANAGER).force() };
                api.patch(&name, &params, &Patch::Apply(object)).await
            }
        };
        let after = match after {
            Ok(after) => after,
            // In a dry run the namespace that comes with it was not made.
            Err(kube::Error::Api(status)) if dry_run && status.is_not_found() && brings(manifests, object) => {
                changes.push(Change::Created(label));
                continue;
            }
            Err(error) => return Err(failed(error)),
        };
        changes.push(match before {
            None => Change::Created(label),
            Some(before) if says(&before) == says(&after) => Change::Unchanged(label),
            Some(_) => Change::Configured(label),
        });
    }
    Ok(changes)
}

/// What an object says, without what the server and its controllers note on it: one of them may write the status of a
/// policy between our two looks.
fn says(object: &DynamicObject) -> (Value, [BTreeMap<String, String>; 2]) {
    let mut data = object.data.clone();
    if let Some(fields) = data.as_object_mut() {
        fields.remove("status");
    }
    let metadata = &object.metadata;
    (data, [&metadata.labels, &metadata.annotations].map(|map| map.clone().unwrap_or_default()))
}

/// Puts our definition in the place of one that is there.
async fn replace(
    api: &Api<DynamicObject>,
    name: &str,
    live: &DynamicObject,
    wanted: &Value,
    dry_run: bool,
) -> Result<DynamicObject, kube::Error> {
    let live = serde_json::to_value(live).map_err(kube::Error::SerdeError)?;
    let object = serde_json::from_value(crd::replacement(&live, wanted)).map_err(kube::Error::SerdeError)?;
    let params = PostParams { dry_run, field_manager: Some(MANAGER.to_owned()) };
    api.replace(name, &params, &object).await
}

/// Whether the namespace of an object is among what is installed.
fn brings(manifests: &[Manifest], object: &Value) -> bool {
    let name = &object["metadata"]["namespace"];
    let all = manifests.iter().flat_map(|manifest| &manifest.objects);
    name.is_string() && all.into_iter().any(|other| other["kind"] == "Namespace" && other["metadata"]["name"] == *name)
}

/// Removes what [`install`] brought, last first, so that the fence's policy goes before its
/// binding (a binding that is away for a moment can leave a dead informer in the server,
/// kubernetes#130887). Objects without our label are left alone, and so are custom resource
/// definitions: every object of theirs would be deleted with them.
///
/// # Errors
/// At the first object that the server does not let go.
pub async fn uninstall(client: &Client, manifests: &[Manifest], dry_run: bool) -> Result<Vec<Change>, InstallError> {
    let mut changes = Vec::new();
    // The fence lists its policy first and is applied in that order, so it is the one manifest that
    // is not reversed.
    for manifest in manifests.iter().rev() {
        let objects: Vec<&Value> = if manifest.name == "fence" {
            manifest.objects.iter().collect()
        } else {
            manifest.objects.iter().rev().collect()
        };
        for object in objects {
            changes.push(remove(client, object, dry_run).await?);
        }
    }
    Ok(changes)
}

async fn remove(client: &Client, object: &Value, dry_run: bool) -> Result<Change, InstallError> {
    let (api, name, label) = api_of(client, object);
    if object["kind"] == crd::KIND {
        return Ok(Change::Kept(label));
    }
    let failed = |source: kube::Error| InstallError { object: label.clone(), source: Box::new(source) };
    let live = api.get_opt(&name).await.map_err(failed)?;
    let ours = |live: &DynamicObject| {
        live.metadata.labels.as_ref().and_then(|labels| labels.get(PART_OF.0)).is_some_and(|value| value == PART_OF.1)
    };
    // A namespace that is being deleted is gone as soon as what is in it is.
    let going = |live: &DynamicObject| live.metadata.deletion_timestamp.is_some();
    let Some(live) = live.filter(|live| ours(live) && !going(live)) else { return Ok(Change::Absent(label)) };
    let params = DeleteParams {
        dry_run,
        preconditions: Some(Preconditions { uid: live.metadata.uid, resource_version: None }),
        ..DeleteParams::default()
    };
    match api.delete(&name, &params).await {
        Ok(_) => Ok(Change::Deleted(label)),
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(Change::Absent(label)),
        Err(error) => Err(failed(error)),
    }
}

/// The handle, name and printed form of a manifest's object.
fn api_of(client: &Client, object: &Value) -> (Api<DynamicObject>, String, String) {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (group, version) = match object["apiVersion"].as_str().unwrap_or_default().split_once('/') {
        Some((group, version)) => (group.to_owned(), version.to_owned()),
        None => (String::new(), text(&object["apiVersion"])),
    };
    let kind = text(&object["kind"]);
    let name = text(&object["metadata"]["name"]);
    let label = format!("{}/{name}", kind.to_lowercase());
    let resource = ApiResource::from_gvk(&GroupVersionKind { group, version, kind });
    let api = match object["metadata"]["namespace"].as_str() {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    };
    (api, name, label)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_noted_on_an_object_changes_nothing_of_what_it_says() {
        let object = |value: Value| serde_json::from_value::<DynamicObject>(value).expect("an object");
        let policy = |version: &str, spec: &str, label: &str| {
            object(json!({
                "apiVersion": "v1", "kind": "Policy",
                "metadata": { "name": "fence", "resourceVersion": version, "labels": { "part": label } },
                "spec": spec, "status": { "observed": version },
            }))
        };
        let before = policy("1", "same", "ours");
        assert_eq!(says(&before), says(&policy("2", "same", "ours")));
        assert_ne!(says(&before), says(&policy("2", "other", "ours")));
        assert_ne!(says(&before), says(&policy("2", "same", "theirs")));
    }
}
