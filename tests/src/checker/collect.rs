//! From audit logs and a recorder's watch to a history.

use std::collections::{BTreeMap, HashMap, HashSet};

use anyhow::{Context, Result};

use super::history::{History, Tenure, Verb, Write};
use crate::audit::{Event, Stage};
use crate::deck::GROUP;

/// A change of an object, as a watch tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Landed {
    /// Revision of the change.
    pub version: u64,
    /// `metadata.uid` of the object.
    pub uid: String,
    /// Kind, namespace and name.
    pub object: String,
    /// Whether it is gone.
    pub deleted: bool,
}

/// The history of the Lease `lease`, from what the kube-apiservers logged (bodies of Leases included) and what a recorder saw
/// of the objects that the replicas write. Replicas are known by their group; other writers are left out.
///
/// A write whose answer was an error may have landed all the same: such changes are found in the recorder's list, and
/// attributed where only one replica can have made them.
///
/// # Errors
/// When a successful write lacks what makes it part of a history.
pub fn history(events: &[Event], recorded: &[Landed], lease: &str) -> Result<History> {
    let mut writes: Vec<_> = events
        .iter()
        .filter(|event| event.stage == Stage::ResponseComplete && event.is_write() && !event.is_dry_run())
        .filter(|event| replica(event).is_some())
        .collect();
    writes.sort_by_key(|event| event.stage_timestamp);
    let mut history = History::default();
    let mut tenures = BTreeMap::new();
    let is_lease = |event: &Event| event.resource() == "leases.coordination.k8s.io";
    for event in writes.iter().filter(|event| is_lease(event) && event.name() == lease && event.succeeded()) {
        let (version, tenure) = tenure(event).with_context(|| format!("a write of the lease: {event:?}"))?;
        if let Some(tenure) = tenure {
            tenures.insert(version, tenure);
        }
    }
    for tenure in tenures.into_values() {
        if history.tenures.iter().all(|known| known.token != tenure.token) {
            history.tenures.push(tenure);
        }
    }
    let deletions: HashMap<_, _> =
        recorded.iter().filter(|landed| landed.deleted).map(|landed| (landed.uid.as_str(), landed.version)).collect();
    for event in writes.iter().filter(|event| !is_lease(event) && event.succeeded()) {
        let mut write = write(event, 0).with_context(|| format!("a write: {event:?}"))?;
        write.version = match write.verb {
            // The answer holds the object before it went.
            Verb::Delete => *deletions.get(write.uid.as_str()).with_context(|| format!("not recorded: {event:?}"))?,
            _ => event.response_version().with_context(|| format!("no version: {event:?}"))?,
        };
        history.writes.push(write);
    }
    let known: HashSet<_> = history.writes.iter().map(|write| write.version).collect();
    for landed in recorded.iter().filter(|landed| !known.contains(&landed.version)) {
        match unanswered(&writes, landed) {
            Some(write) => history.writes.push(write),
            None => history.orphans.push(landed.clone()),
        }
    }
    history.writes.sort_by_key(|write| write.version);
    // A write that changes nothing is answered with the version of an earlier one.
    history.writes.dedup_by_key(|write| write.version);
    Ok(history)
}

/// The write that was answered with an error and landed all the same, if it can only have been one replica's.
fn unanswered(writes: &[&Event], landed: &Landed) -> Option<Write> {
    let failed = |event: &&&Event| event.code() == 0 || event.code() >= 500;
    let mut candidates = writes.iter().filter(failed).filter(|event| object(event) == landed.object);
    let first = candidates.next()?;
    if candidates.any(|event| replica(event) != replica(first)) {
        return None;
    }
    let mut write = write(first, landed.version)?;
    write.uid.clone_from(&landed.uid);
    Some(write)
}

fn replica(event: &Event) -> Option<&str> {
    event.user.groups.iter().find(|group| group.starts_with(GROUP)).map(String::as_str)
}

/// The version of a Lease's write, and the tenure it shows if the Lease is held.
fn tenure(event: &Event) -> Option<(u64, Option<Tenure>)> {
    let lease = event.response_object.as_ref()?;
    let version = event.response_version()?;
    let holder = lease["spec"]["holderIdentity"].as_str().unwrap_or_default();
    let uid = lease["metadata"]["uid"].as_str()?;
    let transitions = lease["spec"]["leaseTransitions"].as_i64().unwrap_or_default();
    let tenure = Tenure { token: format!("{uid}/{transitions}"), began: version, replica: replica(event)?.to_owned() };
    Some((version, (!holder.is_empty()).then_some(tenure)))
}

fn write(event: &Event, version: u64) -> Option<Write> {
    let extra = event.impersonated_user.as_ref().map(|user| &user.extra);
    let token = extra.and_then(|extra| extra.iter().find(|(key, _)| key.starts_with("quarterdeck.dev/epoch-")));
    let body = event.response_object.as_ref();
    let uid = |pointer: &str| body.and_then(|body| body.pointer(pointer)).and_then(|uid| uid.as_str());
    Some(Write {
        version,
        replica: replica(event)?.to_owned(),
        token: token.and_then(|(_, values)| values.first().cloned()),
        own_name: event.impersonated_user.is_none(),
        object: object(event),
        uid: uid("/metadata/uid").or_else(|| uid("/details/uid")).unwrap_or_default().to_owned(),
        verb: match event.verb.as_str() {
            "create" => Verb::Create,
            "update" | "patch" => Verb::Update,
            _ => Verb::Delete,
        },
    })
}

fn object(event: &Event) -> String {
    format!("{} {}/{}", event.resource(), event.namespace(), event.name())
}
