//! Carries out the update of one addon: CA, objects, prune, marks on nodes, and last the note of what is
//! installed, so that what failed is tried again.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Node};
use kube::Api;
use kube::api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams, Preconditions};
use kube::core::ApiResource;
use kube::discovery::{Scope, oneshot};
use quarterdeck_api::channel::{DEFAULT_NAMESPACE, NEEDS_UPDATE, PruneKind, annotation};
use quarterdeck_controllers::addon::applyset::PART_OF_LABEL;
use quarterdeck_controllers::addon::candidates::may_go;
use quarterdeck_controllers::addon::edited::{self, Edits};
use quarterdeck_controllers::addon::fields::Overrides;
use quarterdeck_controllers::addon::ident::{GroupKind, Ident};
use quarterdeck_controllers::addon::parent::{self, SOURCE_LABEL};
use quarterdeck_controllers::addon::plan::{MANAGER, rank};
use quarterdeck_controllers::addon::source::channel::SOURCE;
use serde_json::{Value, json};

use super::read::Update;
use super::{everything, pki};
use crate::kinds::Kinds;
use crate::server::{Server, explain};

/// Kinds whose objects take others with them.
const PROTECTED: [&str; 4] = ["Namespace", "CustomResourceDefinition", "PersistentVolume", "PersistentVolumeClaim"];
/// How long a new definition may take to be served.
const SERVED: Duration = Duration::from_secs(30);

pub(super) async fn run(server: &Server, update: &Update) -> anyhow::Result<()> {
    if update.required.install_pki {
        pki::make(server, &update.entry.name).await?;
    }
    if !update.applies() {
        return Ok(());
    }
    apply(server, update).await?;
    for kind in update.entry.prune.iter().flat_map(|prune| &prune.kinds) {
        prune(server, kind, &update.objects).await.with_context(|| format!("pruning {}", kind.kind))?;
    }
    if let Some(which) = update.required.mark_nodes {
        let api: Api<Node> = Api::all(server.client.clone());
        for node in api.list(&everything()).await.map_err(|error| explain(error, "nodes"))?.items {
            let name = node.metadata.name.clone().unwrap_or_default();
            if which.concerns(&node.metadata.labels.unwrap_or_default()) {
                let mark = Patch::Merge(json!({"metadata": {"annotations": {NEEDS_UPDATE: ""}}}));
                let marked = api.patch(&name, &params(), &mark).await;
                marked.map_err(|error| explain(error, &format!("node {name}")))?;
            }
        }
    }
    note(server, update).await
}

fn params() -> PatchParams {
    PatchParams { field_manager: Some(crate::server::MANAGER.to_owned()), ..PatchParams::default() }
}

/// Notes on the namespace what is installed.
async fn note(server: &Server, update: &Update) -> anyhow::Result<()> {
    let namespace = &update.entry.namespace;
    let api: Api<Namespace> = Api::all(server.client.clone());
    let patch = json!({"metadata": {"annotations": {annotation(&update.entry.name): update.offer.note.print()}}});
    let noted = api.patch(namespace, &params(), &Patch::Merge(&patch)).await;
    noted.map_err(|error| explain(error, &format!("namespace {namespace}")))?;
    Ok(())
}

/// Applies the objects, namespaces and definitions first; one object's error does not stop the others.
async fn apply(server: &Server, update: &Update) -> anyhow::Result<()> {
    let mut objects: Vec<(Ident, &Value)> = update.objects.iter().map(|object| (ident(object), object)).collect();
    objects.sort_by_key(|(ident, _)| rank(ident));
    let noted = noted(server, update).await?;
    let mut kinds = Kinds::default();
    let mut errors = Vec::new();
    for (ident, object) in objects {
        if let Err(error) = apply_one(server, &mut kinds, &ident, object, &noted).await {
            errors.push(format!("{ident}: {error:#}"));
        }
    }
    ensure!(errors.is_empty(), "{}", errors.join("\n       "));
    Ok(())
}

async fn apply_one(
    server: &Server,
    kinds: &mut Kinds,
    ident: &Ident,
    object: &Value,
    noted: &Edits,
) -> anyhow::Result<()> {
    let api_version = object["apiVersion"].as_str().unwrap_or_default();
    let version = api_version.rsplit('/').next().unwrap_or_default();
    let deadline = tokio::time::Instant::now() + SERVED;
    let (resource, namespaced) = loop {
        if let Some(found) = kinds.find(server, &ident.kind, version).await? {
            break found;
        }
        // Only a definition that has just been made is worth waiting for.
        ensure!(
            kinds.defined.contains(&ident.kind) && tokio::time::Instant::now() < deadline,
            "the server does not know this kind"
        );
        tokio::time::sleep(Duration::from_millis(250)).await;
        kinds.forget(&ident.kind);
    };
    ensure!(!namespaced || !ident.namespace.is_empty(), "it names no namespace");
    let api = api(server, &resource, if namespaced { &ident.namespace } else { "" });
    let live = api.get_opt(&ident.name).await.map_err(|error| explain(error, "reading it"))?;
    let mut body = object.clone();
    if let Some(live) = &live {
        keep_edited(&mut body, ident, &serde_json::to_value(live)?, noted);
    }
    let params = PatchParams { force: true, ..PatchParams::apply(MANAGER) };
    api.patch(&ident.name, &params, &Patch::Apply(&body)).await.map_err(|error| explain(error, "applying it"))?;
    if &*ident.kind.kind == "CustomResourceDefinition" {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let kind = GroupKind::new(text(&body["spec"]["group"]), text(&body["spec"]["names"]["kind"]));
        kinds.forget(&kind);
        kinds.defined.insert(kind);
    }
    Ok(())
}

/// Leaves out the keys of a ConfigMap or Secret that a person edited: those stay as they are. Keys that the
/// controller noted as edited before are its own by now, and are applied as they are found.
fn keep_edited(body: &mut Value, ident: &Ident, live: &Value, noted: &Edits) {
    edited::as_kept(body);
    if !edited::holds_settings(&ident.kind) || edited::takes_new(live) {
        return;
    }
    if let Some(noted) = noted.get(ident) {
        *body = edited::keep(std::mem::take(body), live, noted);
    }
    for key in edited::edits(live, &Overrides::default()) {
        let Some((field, key)) = key.split_once('.') else { continue };
        if let Some(values) = body.get_mut(field).and_then(Value::as_object_mut) {
            values.remove(key);
        }
    }
}

/// What the controller noted as edited of this addon's objects.
async fn noted(server: &Server, update: &Update) -> anyhow::Result<Edits> {
    let entry = &update.entry;
    let name = match &*entry.namespace {
        DEFAULT_NAMESPACE => entry.name.clone(),
        namespace => format!("{namespace}/{}", entry.name),
    };
    let parents = ListParams::default().labels(&format!("{SOURCE_LABEL}={SOURCE}"));
    let parents = server.api::<ConfigMap>(Some(parent::NAMESPACE)).list(&parents).await;
    let parents = parents.map_err(|error| explain(error, "the parents of channels' addons"))?.items;
    let mut found = parents.iter().filter_map(parent::read).filter(|parent| *parent.addon == *name);
    Ok(found.next().map(|parent| parent.content.edited).unwrap_or_default())
}

/// Removes what the entry's rule finds and the manifest does not name.
async fn prune(server: &Server, kind: &PruneKind, objects: &[Value]) -> anyhow::Result<()> {
    let group =
        oneshot::group(&server.client, &kind.group).await.map_err(|error| explain(error, "the kinds of the server"))?;
    // A kind that is not served has no objects.
    let Some((resource, capabilities)) = group.recommended_kind(&kind.kind) else { return Ok(()) };
    let of_kind = objects.iter().map(ident).filter(|ident| ident.kind.is(&kind.group, &kind.kind));
    let named: BTreeSet<(String, String)> =
        of_kind.map(|ident| (ident.namespace.to_string(), ident.name.to_string())).collect();
    let mut live: Vec<DynamicObject> = Vec::new();
    for list in kind.lists() {
        let mut wanted = ListParams::default().labels(list.label_selector);
        if !list.field_selector.is_empty() {
            wanted = wanted.fields(list.field_selector);
        }
        let namespace = list.namespace.filter(|_| capabilities.scope == Scope::Namespaced).unwrap_or_default();
        live.extend(api(server, &resource, namespace).list(&wanted).await.map_err(|error| explain(error, "listing"))?);
    }
    // As the controller has it: only what kOps or quarterdeck applied, nothing that an inventory has, and
    // nothing that takes other things with it.
    if PROTECTED.contains(&&*kind.kind) {
        if !live.is_empty() {
            eprintln!("warning: prune: {} are not deleted by this command", resource.plural);
        }
        return Ok(());
    }
    live.retain(|object| {
        let in_set = object.metadata.labels.as_ref().is_some_and(|labels| labels.contains_key(PART_OF_LABEL));
        !in_set && serde_json::to_value(object).is_ok_and(|live| may_go(&live, false).is_ok())
    });
    let key = |object: &DynamicObject| -> (String, String) {
        (object.metadata.namespace.clone().unwrap_or_default(), object.metadata.name.clone().unwrap_or_default())
    };
    let keyed: Vec<((String, String), DynamicObject)> = live.into_iter().map(|object| (key(&object), object)).collect();
    for ((namespace, name), object) in kind.superfluous(keyed, |(key, _)| (&key.0, &key.1), &named) {
        let delete = DeleteParams {
            preconditions: Some(Preconditions { uid: object.metadata.uid, resource_version: None }),
            ..DeleteParams::background()
        };
        match api(server, &resource, &namespace).delete(&name, &delete).await {
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            deleted => {
                deleted.map_err(|error| explain(error, &format!("{namespace}/{name}")))?;
            }
        }
    }
    Ok(())
}

/// Objects of a resource in a namespace, or, if that is empty, everywhere.
fn api(server: &Server, resource: &ApiResource, namespace: &str) -> Api<DynamicObject> {
    if namespace.is_empty() {
        Api::all_with(server.client.clone(), resource)
    } else {
        Api::namespaced_with(server.client.clone(), namespace, resource)
    }
}

/// Which object it is.
fn ident(object: &Value) -> Ident {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let api_version = text(&object["apiVersion"]);
    let group = api_version.split_once('/').map_or("", |(group, _)| group);
    let metadata = &object["metadata"];
    Ident::new(GroupKind::new(group, text(&object["kind"])), text(&metadata["namespace"]), text(&metadata["name"]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owned(manager: &str, field: &str, key: &str) -> Value {
        json!({"manager": manager, "operation": "Update", "fieldsV1": {field: {"f:".to_owned() + key: {}}}})
    }

    #[test]
    fn keys_that_people_edited_stay_theirs() {
        let live = json!({"data": {"noted": "mine"}, "metadata": {"managedFields": [
            owned("kubectl-edit", "f:data", "edited"),
            owned("kubectl-client-side-apply", "f:data", "installed"),
            owned("some-controller", "f:data", "made"),
        ]}});
        let after = |kind: &str, live: &Value| {
            let mut body = json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": "x", "namespace": "a"}});
            body["data"] = json!({"edited": "1", "installed": "1", "made": "1", "new": "1", "noted": "1"});
            let ident = ident(&body);
            let noted = edited::from_lines([format!("{kind}/a/x data.noted")].iter().map(String::as_str));
            keep_edited(&mut body, &ident, live, &noted);
            body["data"].clone()
        };
        let kept = json!({"installed": "1", "made": "1", "new": "1", "noted": "mine"});
        assert_eq!(after("ConfigMap", &live), kept);
        assert_eq!(after("Secret", &live), kept);
        assert_eq!(after("Service", &live)["edited"], "1", "only ConfigMaps and Secrets hold settings");
        let mut asks = live.clone();
        asks["metadata"]["annotations"] = json!({edited::TAKE_NEW_ANNOTATION: "true"});
        assert_eq!(
            (&after("ConfigMap", &asks)["edited"], &after("ConfigMap", &asks)["noted"]),
            (&json!("1"), &json!("1"))
        );
    }
}
