//! What the replicas wrote, by the audit logs of all kube-apiservers, which keep the bodies of writes, those of Leases
//! among them.

use anyhow::{Context, Result};
use jiff::Timestamp;

use crate::audit::{Event, Stage};
use crate::checker::{History, Tenure, Verb, Write};
use crate::deck::USER;

/// Start of the key under which a write carries its epoch.
const EPOCH: &str = "quarterdeck.dev/epoch-";

/// A write of a controller that the server admitted, in time.
#[derive(Clone, Debug)]
pub struct Act {
    /// The epoch that it carried.
    pub token: String,
    /// When the request arrived.
    pub received: Timestamp,
    /// When it was answered.
    pub answered: Timestamp,
    /// Kind, namespace and name, for people.
    pub object: String,
}

/// The writes of controllers that carried an epoch and were admitted, oldest first; events, which say what was done, are
/// not among them.
pub fn acts(events: &[Event]) -> Vec<Act> {
    let mut acts: Vec<Act> = landed(events)
        .filter(|event| !event.resource().starts_with("events"))
        .filter_map(|event| {
            Some(Act {
                token: token(event)?,
                received: event.request_received_timestamp,
                answered: event.stage_timestamp,
                object: object(event),
            })
        })
        .collect();
    acts.sort_by_key(|act| act.answered);
    acts
}

/// The first useful write after a moment under another epoch than this one.
pub fn first_useful(events: &[Event], after: Timestamp, old: &str) -> Option<Act> {
    acts(events).into_iter().find(|act| act.token != old && act.answered > after)
}

/// Seconds from the last write of one epoch to the first of another, each as the server answered; none if one of them wrote
/// nothing.
pub fn gap(events: &[Event], old: &str, new: &str) -> Option<f64> {
    let acts = acts(events);
    let last = acts.iter().rev().find(|act| act.token == old)?;
    let first = acts.iter().find(|act| act.token == new)?;
    Some(first.answered.duration_since(last.answered).as_secs_f64())
}

/// The history of a Lease for [`crate::checker::check`]. A deletion's answer has no version: it is taken to have landed
/// right after the newest write that had been answered before it arrived, which is never too late.
///
/// # Errors
/// When the log keeps no bodies of the Lease's writes.
pub fn history(events: &[Event], lease: &str) -> Result<History> {
    let mut history = History::default();
    let is_lease = |event: &&Event| event.resource() == "leases.coordination.k8s.io" && event.name() == lease;
    let mut tenures = Vec::new();
    for event in landed(events).filter(is_lease) {
        tenures.extend(tenure(event).with_context(|| format!("a write of the Lease without what it says: {event:?}"))?);
    }
    tenures.sort_by_key(|tenure| tenure.began);
    for tenure in tenures {
        if history.tenures.iter().all(|known: &Tenure| known.token != tenure.token) {
            history.tenures.push(tenure);
        }
    }
    let known = versions(events);
    for event in landed(events).filter(|event| event.impersonated_user.is_some()) {
        let version = match event.verb.as_str() {
            "delete" | "deletecollection" => newest_before(&known, event.request_received_timestamp),
            // What changes nothing is answered with a version from before, and cannot be late by it.
            _ => event.response_version().unwrap_or_default(),
        };
        history.writes.push(write(event, version));
    }
    history.writes.sort_by_key(|write| write.version);
    Ok(history)
}

/// Answered with success, for good, by one of ours.
fn landed(events: &[Event]) -> impl Iterator<Item = &Event> {
    events.iter().filter(|event| {
        event.stage == Stage::ResponseComplete
            && event.is_write()
            && event.succeeded()
            && !event.is_dry_run()
            && event.user.username == USER
    })
}

/// When which version was known to be there, oldest first.
fn versions(events: &[Event]) -> Vec<(Timestamp, u64)> {
    let mut known: Vec<_> = events
        .iter()
        .filter(|event| event.stage == Stage::ResponseComplete && event.is_write() && event.succeeded())
        .filter_map(|event| Some((event.stage_timestamp, event.response_version()?)))
        .collect();
    known.sort_unstable();
    let mut newest = 0;
    for (_, version) in &mut known {
        newest = newest.max(*version);
        *version = newest;
    }
    known
}

fn newest_before(known: &[(Timestamp, u64)], moment: Timestamp) -> u64 {
    let index = known.partition_point(|(time, _)| *time < moment);
    index.checked_sub(1).map_or(0, |last| known[last].1 + 1)
}

/// The tenure that a write of the Lease shows, if it leaves a holder.
fn tenure(event: &Event) -> Option<Option<Tenure>> {
    let lease = event.response_object.as_ref()?;
    let uid = lease["metadata"]["uid"].as_str()?;
    let holder = lease["spec"]["holderIdentity"].as_str().unwrap_or_default();
    let transitions = lease["spec"]["leaseTransitions"].as_i64().unwrap_or_default();
    let began = event.response_version()?;
    let tenure = Tenure { token: format!("{uid}/{transitions}"), began, replica: holder.to_owned() };
    Some((!holder.is_empty()).then_some(tenure))
}

fn token(event: &Event) -> Option<String> {
    let extra = &event.impersonated_user.as_ref()?.extra;
    let (_, values) = extra.iter().find(|(key, _)| key.starts_with(EPOCH))?;
    values.first().cloned()
}

fn write(event: &Event, version: u64) -> Write {
    let body = event.response_object.as_ref();
    let uid = |pointer: &str| body.and_then(|body| body.pointer(pointer)).and_then(|uid| uid.as_str());
    Write {
        version,
        // Of one without an epoch nobody can say which replica it was; the server that it went to is told.
        replica: format!("the one at server {}", event.server + 1),
        token: token(event),
        own_name: false,
        object: object(event),
        uid: uid("/metadata/uid").or_else(|| uid("/details/uid")).unwrap_or(&event.audit_id).to_owned(),
        verb: match event.verb.as_str() {
            "create" => Verb::Create,
            "update" | "patch" => Verb::Update,
            _ => Verb::Delete,
        },
    }
}

fn object(event: &Event) -> String {
    format!("{} {}/{}", event.resource(), event.namespace(), event.name())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::checker::{Law, Violation, check};

    fn event(second: u32, verb: &str, resource: &str, token: Option<u64>, version: Option<u64>) -> Event {
        let time = format!("2026-01-02T03:04:{second:02}Z");
        let mut event = json!({
            "auditID": format!("{second}"), "stage": "ResponseComplete", "requestURI": "/", "verb": verb,
            "user": { "username": USER }, "responseStatus": { "code": 200 },
            "objectRef": { "resource": resource, "namespace": "kube-system", "name": "quarterdeck" },
            "requestReceivedTimestamp": time, "stageTimestamp": time,
        });
        if resource == "leases" {
            event["objectRef"]["apiGroup"] = "coordination.k8s.io".into();
            let (transitions, holder) = (token.unwrap_or_default(), format!("m{}", token.unwrap_or_default()));
            event["responseObject"] = json!({
                "metadata": { "uid": "u", "resourceVersion": version.unwrap_or_default().to_string() },
                "spec": { "holderIdentity": holder, "leaseTransitions": transitions },
            });
        } else {
            let extra = token.map(|number| json!({ "quarterdeck.dev/epoch-quarterdeck": [format!("u/{number}")] }));
            event["impersonatedUser"] = json!({ "username": "writer", "extra": extra.unwrap_or(json!({})) });
            if let Some(version) = version {
                event["responseObject"] = json!({ "metadata": { "uid": "o", "resourceVersion": version.to_string() } });
            }
        }
        serde_json::from_value(event).unwrap()
    }

    fn late(events: &[Event]) -> usize {
        let found = check(&history(events, "quarterdeck").unwrap(), Law::NothingLate);
        found.iter().filter(|violation| matches!(violation, Violation::Late { .. })).count()
    }

    #[test]
    fn a_write_or_deletion_of_a_past_epoch_is_late_when_the_next_one_had_begun() {
        let begun = [event(1, "create", "leases", Some(1), Some(10)), event(5, "update", "leases", Some(2), Some(20))];
        let with = |more: Event| [begun.to_vec(), vec![more]].concat();
        assert_eq!(late(&with(event(3, "update", "endpoints", Some(1), Some(15)))), 0);
        assert_eq!(late(&with(event(6, "update", "endpoints", Some(1), Some(21)))), 1);
        assert_eq!(late(&with(event(4, "delete", "endpoints", Some(1), None))), 0);
        assert_eq!(late(&with(event(6, "delete", "endpoints", Some(1), None))), 1);
        assert_eq!(late(&with(event(6, "delete", "endpoints", Some(2), None))), 0);
    }

    #[test]
    fn who_writes_without_an_epoch_is_a_stranger() {
        let events = [event(1, "create", "leases", Some(1), Some(10)), event(3, "update", "endpoints", None, Some(15))];
        let found = check(&history(&events, "quarterdeck").unwrap(), Law::NothingLate);
        assert!(matches!(found[..], [Violation::Stranger { .. }]), "{found:?}");
    }

    #[test]
    fn the_first_useful_write_is_of_another_epoch() {
        let events = [
            event(1, "update", "endpoints", Some(1), Some(11)),
            event(3, "update", "endpoints", Some(1), Some(12)),
            event(4, "create", "events", Some(2), Some(13)),
            event(5, "update", "endpoints", Some(2), Some(14)),
        ];
        let start: Timestamp = "2026-01-02T03:04:02Z".parse().unwrap();
        let act = first_useful(&events, start, "u/1").unwrap();
        assert_eq!(act.answered.to_string(), "2026-01-02T03:04:05Z");
        assert_eq!(acts(&events).len(), 3);
        assert_eq!(gap(&events, "u/1", "u/2"), Some(2.0));
        assert_eq!(gap(&events, "u/2", "u/3"), None);
    }
}
