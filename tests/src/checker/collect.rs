//! From audit logs and a recorder's watch to a history.

use std::collections::{BTreeMap, HashMap, HashSet};

use anyhow::{Context, Result};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

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
    /// `endpoints` or `subsets`.
    pub content: Value,
}

/// The history of the Lease `lease` up to the revision `until`, from what the kube-apiservers logged (bodies of Leases
/// included) and what a recorder saw of the objects that the replicas write; both must be complete up to there. Replicas are known by their group; other writers are left out.
///
/// A write whose answer was an error may have landed all the same: such changes are found in the recorder's list, and
/// attributed to the write that asked for just this change of just that version.
///
/// # Errors
/// When a successful write lacks what makes it part of a history.
pub fn history(events: &[Event], recorded: &[Landed], until: u64, lease: &str) -> Result<History> {
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
            // The answer does not say when. What the recorder has not seen came later than all this.
            Verb::Delete => match deletions.get(write.uid.as_str()) {
                Some(version) => *version,
                None => continue,
            },
            _ => event.response_version().with_context(|| format!("no version: {event:?}"))?,
        };
        history.writes.push(write);
    }
    let known: HashSet<_> = history.writes.iter().map(|write| write.version).collect();
    let clock = Clock::of(events);
    let mut present = HashMap::new();
    for landed in recorded.iter().filter(|landed| landed.version <= until) {
        let before = present.insert(landed.uid.as_str(), landed.version);
        if known.contains(&landed.version) {
            continue;
        }
        match unanswered(&writes, landed, before, &clock) {
            Some(write) => history.writes.push(write),
            None => history.orphans.push(landed.clone()),
        }
    }
    history.writes.sort_by_key(|write| write.version);
    let mut history = history.until(until);
    // A write that changes nothing is answered with the version of an earlier one.
    history.writes.dedup_by_key(|write| write.version);
    Ok(history)
}

/// The write that was answered with an error and landed all the same: it asked for this content, on top of the version that
/// there was before (or none, where preconditions are off), and was under way at the time. Of several, the last one that was
/// sent.
fn unanswered(writes: &[&Event], landed: &Landed, before: Option<u64>, clock: &Clock) -> Option<Write> {
    let fits = |event: &&&Event| {
        let Some(body) = &event.request_object else { return false };
        let base = body["metadata"]["resourceVersion"].as_str().and_then(|version| version.parse().ok());
        let verb = match event.verb.as_str() {
            "create" => before.is_none(),
            "delete" => landed.deleted,
            _ => base.is_none_or(|base: u64| Some(base) == before) && !landed.deleted,
        };
        let content = if landed.object.starts_with("endpoints ") { &body["subsets"] } else { &body["endpoints"] };
        let same = landed.deleted || base.is_some() || without_nulls(content) == without_nulls(&landed.content);
        let failed = event.code() == 0 || event.code() >= 500;
        failed && object(event) == landed.object && verb && same && clock.allows(event, landed.version)
    };
    let event = writes.iter().filter(fits).max_by_key(|event| event.request_received_timestamp)?;
    let mut write = write(event, landed.version)?;
    write.uid.clone_from(&landed.uid);
    Some(write)
}

/// When revisions came to be, as far as the writes whose versions are known tell.
struct Clock {
    /// The latest moment at which a write of this version or an earlier one arrived.
    after: BTreeMap<u64, Timestamp>,
    /// The earliest moment at which a write of this version or a later one was answered.
    before: BTreeMap<u64, Timestamp>,
}

/// A server may carry a write out for a little while after it has given up on it.
const AFTERMATH: SignedDuration = SignedDuration::from_secs(1);

impl Clock {
    fn of(events: &[Event]) -> Self {
        let (mut after, mut before) = (BTreeMap::new(), BTreeMap::new());
        let known = events.iter().filter(|event| event.is_write() && event.succeeded() && !event.is_dry_run());
        for event in known {
            // Others may be answered with a version from before: a delete, and a write without effect.
            let moves = event.verb == "create" || event.resource().starts_with("leases");
            if let Some(version) = event.response_version().filter(|_| moves) {
                after.insert(version, event.request_received_timestamp);
                before.insert(version, event.stage_timestamp);
            }
        }
        let mut latest = Timestamp::MIN;
        for time in after.values_mut() {
            latest = latest.max(*time);
            *time = latest;
        }
        let mut earliest = Timestamp::MAX;
        for time in before.values_mut().rev() {
            earliest = earliest.min(*time);
            *time = earliest;
        }
        Self { after, before }
    }

    /// Can this request have made this version?
    fn allows(&self, event: &Event, version: u64) -> bool {
        let begun = self.after.range(..version).next_back().map_or(Timestamp::MIN, |(_, time)| *time);
        let done = self.before.range(version..).next().map_or(Timestamp::MAX, |(_, time)| *time);
        event.request_received_timestamp <= done
            && event.stage_timestamp.saturating_add(AFTERMATH).is_ok_and(|end| end >= begun)
    }
}

/// Absent, null and empty are the same to the server.
fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(fields) => fields
            .iter()
            .map(|(name, value)| (name.clone(), without_nulls(value)))
            .filter(|(_, value)| !value.is_null())
            .collect(),
        Value::Array(items) if items.is_empty() => Value::Null,
        Value::Array(items) => items.iter().map(without_nulls).collect(),
        other => other.clone(),
    }
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
