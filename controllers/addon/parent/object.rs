//! A parent that is an Addon object.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use quarterdeck_api::addon::{self as api, AddonSpec, AddonStatus, Health, Phase, Source, StatusLifecycle, names};
use serde_json::{Value, json};

use super::{
    ADDON_ANNOTATION, BackTo, Content, Form, Held, LONGEST, LifecycleState, Mirror, Parent, RELEASE_ANNOTATION, State,
    TOLD, Writing,
};
use crate::addon::applyset::{self, ID_LABEL, KINDS_ANNOTATION, NAMESPACES_ANNOTATION, TOOLING, TOOLING_ANNOTATION};
use crate::addon::ident::Ident;
use crate::addon::revision::{Revisions, public};
use crate::addon::source::channel::SOURCE as CHANNEL;
use crate::addon::source::{Addon, AddonId, OBJECTS};

/// What is kept in `status.progress` besides what the runner keeps.
const INSTALLED: &str = "installed";
const STEPS: &str = "steps";
const HELD_BY_BRAKE: &str = "heldByBrake";
const UNHEALTHY: &str = "unhealthy";
const DRIFTED: &str = "drifted";
const REVISIONS: &str = "revisions";

pub(super) fn read(addon: &Arc<api::Addon>) -> Option<Parent> {
    if addon.is_mirror() || !applyset::is_ours(addon.annotation(TOOLING_ANNOTATION)) {
        return None;
    }
    let id = AddonId { source: OBJECTS, name: format!("{}/{}", addon.namespace(), addon.name()).into() };
    let content = content(addon);
    let intact = metadata(&id, addon, &content).is_none();
    Some(Parent {
        source: OBJECTS.to_owned(),
        addon: id.name,
        uid: addon.metadata.uid.clone().unwrap_or_default(),
        resource_version: addon.metadata.resource_version.clone().unwrap_or_default(),
        released: addon.annotation(RELEASE_ANNOTATION).map(str::to_owned),
        back: BackTo::of(addon),
        content,
        intact,
        form: Form::Object(Arc::clone(addon)),
    })
}

fn content(addon: &api::Addon) -> Content {
    let Some(status) = &addon.status else { return Content::default() };
    let progress = status.progress.clone().unwrap_or_default();
    let texts = |field: &str| -> Vec<String> {
        let all = progress[field].as_array().into_iter().flatten();
        all.filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let member = |text: &String| {
        let (member, uid) = text.split_once(' ').unwrap_or((text, ""));
        Some((Ident::parse(member)?, uid.to_owned()))
    };
    let count = |number: Option<u64>| number.and_then(|number| usize::try_from(number).ok()).unwrap_or_default();
    Content {
        members: status.inventory.iter().filter_map(member).collect(),
        version: progress[INSTALLED].as_str().unwrap_or_default().to_owned(),
        state: status.health.and_then(state_of),
        objects: count(status.objects),
        skipped: 0,
        drift: status.drift.unwrap_or_default(),
        errors: status.errors.clone(),
        unhealthy: texts(UNHEALTHY),
        drifted: texts(DRIFTED),
        held: status.held.as_ref().map(|held| Held {
            plan: held.plan.clone(),
            members: held.members.iter().filter_map(|text| Ident::parse(text)).collect(),
            reason: held.reason.clone(),
            braked: progress[HELD_BY_BRAKE] == true,
        }),
        revisions: Revisions::from_value(&progress[REVISIONS]),
        lifecycle: Some(LifecycleState {
            checksum: status.checksum.clone(),
            generation: status.observed_generation.unwrap_or_default(),
            started: status.starttime,
            version: status.version.clone(),
            prereqs: status.lifecycle.prereqs,
            installed: status.lifecycle.installed,
            reason: status.reason.clone(),
            progress: progress[STEPS].clone(),
        }),
    }
}

/// The metadata to apply, unless they are as they should be.
fn metadata(id: &AddonId, addon: &api::Addon, content: &Content) -> Option<Value> {
    let set = super::set_id(id);
    let annotations = [
        (TOOLING_ANNOTATION, TOOLING.to_owned()),
        (KINDS_ANNOTATION, applyset::kinds(content.members.keys())),
        (NAMESPACES_ANNOTATION, applyset::namespaces(content.members.keys(), addon.namespace())),
    ];
    let deleting = addon.metadata.deletion_timestamp.is_some();
    let finalizers = addon.metadata.finalizers.as_deref().unwrap_or_default();
    // Nobody may add a finalizer to what is being deleted.
    let kept = deleting || finalizers.iter().any(|finalizer| finalizer == names::FINALIZER);
    let same = addon.label(ID_LABEL) == Some(&*set)
        && annotations.iter().all(|(name, value)| addon.annotation(name) == Some(value));
    if same && kept {
        return None;
    }
    let mut metadata = json!({
        "name": addon.name(),
        "namespace": addon.namespace(),
        "labels": {ID_LABEL: set},
        "annotations": annotations.into_iter().collect::<BTreeMap<_, _>>(),
    });
    if !deleting || finalizers.iter().any(|finalizer| finalizer == names::FINALIZER) {
        metadata["finalizers"] = json!([names::FINALIZER]);
    }
    Some(json!({"apiVersion": api::API_VERSION, "kind": api::KIND, "metadata": metadata}))
}

pub(super) fn writing(id: &AddonId, addon: &api::Addon, content: &Content) -> Writing {
    let status = status(id, addon, content, Timestamp::now());
    Writing { apply: metadata(id, addon, content), status: (addon.status.as_ref() != Some(&status)).then_some(status) }
}

/// What has to be written so that a mirror shows `content`.
pub(super) fn mirror(id: &AddonId, addon: Option<&Addon>, content: &Content, shown: Option<&api::Addon>) -> Mirror {
    let package = addon.and_then(|addon| addon.package.as_ref());
    let spec = AddonSpec {
        pkg_name: package.map_or_else(|| id.name.to_string(), |package| package.name.to_string()),
        pkg_version: package
            .map(|package| package.version.to_string())
            .filter(|version| !version.is_empty())
            .or_else(|| addon.map(|addon| addon.version.to_string()))
            .unwrap_or_else(|| content.version.clone()),
        pkg_type: if id.source == CHANNEL { names::CHANNEL_TYPE } else { names::DIRECTORY_TYPE }.to_owned(),
        pkg_description: addon.map(|addon| addon.description.to_string()).unwrap_or_default(),
        params: api::AddonParams { namespace: super::NAMESPACE.to_owned(), ..api::AddonParams::default() },
        ..AddonSpec::default()
    };
    let blank = api::Addon { spec: spec.clone(), ..api::Addon::default() };
    let base = shown.unwrap_or(&blank);
    let same = shown.is_some_and(|shown| {
        shown.spec == spec
            && shown.label(names::MIRROR_LABEL) == Some(id.source)
            && shown.annotation(ADDON_ANNOTATION) == Some(&*id.name)
    });
    let apply = (!same).then(|| {
        json!({
            "apiVersion": api::API_VERSION,
            "kind": api::KIND,
            "metadata": {
                "name": super::name(id),
                "namespace": super::NAMESPACE,
                "labels": {names::MIRROR_LABEL: id.source},
                "annotations": {ADDON_ANNOTATION: &*id.name},
            },
            "spec": spec,
        })
    });
    let applied = addon.is_some_and(|addon| *addon.version == *content.version);
    let content = Content {
        // The inventory stands in the parent.
        members: BTreeMap::new(),
        lifecycle: Some(LifecycleState {
            checksum: content.version.clone(),
            version: if applied { base.spec.pkg_version.clone() } else { String::new() },
            installed: Some(match content.state {
                Some(State::Degraded | State::Blocked) if !applied => Phase::Failed,
                _ if content.revisions.back.as_ref().is_some_and(|back| !back.by_person) => Phase::Failed,
                _ if applied => Phase::Succeeded,
                _ => Phase::Pending,
            }),
            reason: content
                .errors
                .first()
                .cloned()
                .or_else(|| content.revisions.told())
                .or_else(|| content.unhealthy.first().cloned())
                .unwrap_or_default(),
            generation: base.metadata.generation.unwrap_or(1),
            ..LifecycleState::default()
        }),
        ..content.clone()
    };
    let source = if id.source == CHANNEL { Source::Channel } else { Source::Directory };
    let status = AddonStatus { source: Some(source), ..status(id, base, &content, Timestamp::now()) };
    Mirror { apply, status: (base.status.as_ref() != Some(&status)).then_some(status) }
}

/// The merge patch that takes the object's status to `new`; it depends on the version that was read.
pub(super) fn status_patch(addon: &api::Addon, new: &AddonStatus) -> Value {
    let before = serde_json::to_value(&addon.status).expect("a status is JSON");
    let after = serde_json::to_value(new).expect("a status is JSON");
    json!({"status": merge_patch(&before, &after)})
}

/// The merge patch (RFC 7386) from one value to another.
fn merge_patch(before: &Value, after: &Value) -> Value {
    let (Value::Object(before), Value::Object(after)) = (before, after) else { return after.clone() };
    let mut patch = serde_json::Map::new();
    for name in before.keys().filter(|name| !after.contains_key(*name)) {
        patch.insert(name.clone(), Value::Null);
    }
    for (name, value) in after.iter().filter(|(name, value)| before.get(*name) != Some(value)) {
        patch.insert(name.clone(), before.get(name).map_or_else(|| value.clone(), |before| merge_patch(before, value)));
    }
    Value::Object(patch)
}

/// The status that says `content`. Texts are cut: whoever writes an Addon may write anything.
fn status(id: &AddonId, addon: &api::Addon, content: &Content, now: Timestamp) -> AddonStatus {
    let before = addon.status.clone().unwrap_or_default();
    let lifecycle = content.lifecycle.clone().unwrap_or_default();
    let told = |texts: &[String]| -> Vec<String> {
        let mut told: Vec<String> = texts.iter().take(TOLD).map(|text| shortened(text, LONGEST / 2)).collect();
        if texts.len() > TOLD {
            told.push(format!("and {} more", texts.len() - TOLD));
        }
        told
    };
    let mut progress = json!({INSTALLED: content.version});
    if !lifecycle.progress.is_null() {
        // A merge patch stores no null: it would be written again and again.
        progress[STEPS] = lifecycle.progress;
    }
    for (field, texts) in [(UNHEALTHY, &content.unhealthy), (DRIFTED, &content.drifted)] {
        if !texts.is_empty() {
            progress[field] = json!(told(texts));
        }
    }
    if content.revisions != Revisions::default() {
        progress[REVISIONS] = content.revisions.to_value();
    }
    if content.held.as_ref().is_some_and(|held| held.braked) {
        progress[HELD_BY_BRAKE] = true.into();
    }
    let health = content.state.map(health_of);
    let errors = told(&content.errors);
    let reason = shortened(&lifecycle.reason, LONGEST);
    AddonStatus {
        checksum: lifecycle.checksum,
        lifecycle: StatusLifecycle { prereqs: lifecycle.prereqs, installed: lifecycle.installed },
        resources: before.resources.clone(),
        starttime: lifecycle.started,
        observed_generation: Some(lifecycle.generation),
        conditions: conditions(&before.conditions, health, &errors, content, lifecycle.generation, now),
        reason,
        health,
        version: lifecycle.version,
        source: Some(Source::Addon),
        objects: u64::try_from(content.objects).ok(),
        drift: Some(content.drift),
        last_drift: if before.drift.unwrap_or_default() < content.drift { Some(Time(now)) } else { before.last_drift },
        held: content.held.as_ref().map(|held| api::Held {
            plan: held.plan.clone(),
            reason: held.reason.clone(),
            members: held.members.iter().map(ToString::to_string).collect(),
            release: super::release_command(id, &held.plan),
        }),
        inventory: content
            .members
            .iter()
            .map(|(member, uid)| format!("{member} {uid}").trim_end().to_owned())
            .collect(),
        revisions: public(&content.revisions),
        progress: Some(progress),
        errors,
        not_managed: before.not_managed,
    }
}

/// The condition `Ready`, for `kubectl wait`.
fn conditions(
    before: &[Condition],
    health: Option<Health>,
    errors: &[String],
    content: &Content,
    generation: i64,
    now: Timestamp,
) -> Vec<Condition> {
    const READY: &str = "Ready";
    let health = health.unwrap_or(Health::Unknown);
    let status = if matches!(health, Health::Ready | Health::Held) { "True" } else { "False" };
    let old = before.iter().find(|condition| condition.type_ == READY);
    let since = old.filter(|old| old.status == status).map_or(Time(now), |old| old.last_transition_time.clone());
    let message = errors.first().or(content.unhealthy.first()).map(|text| shortened(text, LONGEST));
    let ready = Condition {
        type_: READY.to_owned(),
        status: status.to_owned(),
        reason: health.to_string(),
        message: message.unwrap_or_default(),
        last_transition_time: since,
        observed_generation: Some(generation),
    };
    let others = before.iter().filter(|condition| condition.type_ != READY).cloned();
    others.chain([ready]).collect()
}

fn shortened(text: &str, longest: usize) -> String {
    if text.len() <= longest {
        return text.to_owned();
    }
    let end = (0..=longest).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    format!("{}…", &text[..end])
}

fn health_of(state: State) -> Health {
    match state {
        State::Ready => Health::Ready,
        State::Progressing => Health::Progressing,
        State::Held => Health::Held,
        State::Degraded => Health::Degraded,
        State::Observing => Health::Observing,
        State::Blocked => Health::Blocked,
        State::Paused => Health::Paused,
        State::Deleting => Health::Deleting,
    }
}

fn state_of(health: Health) -> Option<State> {
    State::ALL.into_iter().find(|state| health_of(*state) == health)
}
