//! What is said of load balancers: conditions and events. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use quarterdeck_api::cloud::metal::{
    ANNOUNCED, ASSIGNED, AgentStatus, LoadBalancerOwner, LoadBalancerStatus, MetalLoadBalancer,
};

use super::plan::Move;

/// What agents report, by their names.
pub(super) type Reports<'a> = BTreeMap<&'a str, &'a AgentStatus>;

/// The status of a load balancer, if it has to be written: its conditions are not what they were.
pub(super) fn status(stored: &MetalLoadBalancer, reports: &Reports<'_>, now: Timestamp) -> Option<LoadBalancerStatus> {
    let generation = stored.metadata.generation.unwrap_or_default();
    let before = stored.status.as_ref().map(|status| &status.conditions[..]).unwrap_or_default();
    let conditions: Vec<Condition> = [assigned(stored), announced(stored, reports)]
        .into_iter()
        .map(|(kind, verdict)| {
            let old = before.iter().find(|old| old.type_ == kind);
            let status = if verdict.holds { "True" } else { "False" };
            let since = old.filter(|old| old.status == status).map(|old| old.last_transition_time.clone());
            Condition {
                type_: kind.to_owned(),
                status: status.to_owned(),
                reason: verdict.reason.to_owned(),
                message: verdict.message,
                observed_generation: Some(generation),
                last_transition_time: since.unwrap_or(Time(now)),
            }
        })
        .collect();
    let same = |new: &Condition| {
        before.iter().any(|old| {
            (&old.type_, &old.status, &old.reason, &old.message) == (&new.type_, &new.status, &new.reason, &new.message)
        })
    };
    // A new generation alone is no news: backends change often.
    (!conditions.iter().all(same)).then_some(LoadBalancerStatus { observed_generation: generation, conditions })
}

struct Verdict {
    holds: bool,
    reason: &'static str,
    message: String,
}

fn assigned(stored: &MetalLoadBalancer) -> (&'static str, Verdict) {
    let open: Vec<String> =
        stored.spec.addresses.iter().filter(|own| own.gateway.is_none()).map(|own| own.address.to_string()).collect();
    let verdict = if open.is_empty() {
        Verdict { holds: true, reason: "Assigned", message: String::new() }
    } else {
        let message = format!("no gateway is known to work that could take {}", open.join(", "));
        Verdict { holds: false, reason: "NoGateway", message }
    };
    (ASSIGNED, verdict)
}

fn announced(stored: &MetalLoadBalancer, reports: &Reports<'_>) -> (&'static str, Verdict) {
    let mut by = Vec::new();
    let mut missing = Vec::new();
    for own in &stored.spec.addresses {
        let (address, gateway) = (own.address, own.gateway.as_deref());
        match gateway.and_then(|gateway| Some((gateway, how(reports.get(gateway)?, address)?))) {
            Some((gateway, how)) => by.push(format!("{address} by {gateway} ({how})")),
            None => missing.push(match gateway {
                Some(gateway) => format!("{address} by {gateway}"),
                None => address.to_string(),
            }),
        }
    }
    let errors: Vec<String> = reports
        .iter()
        .filter(|(name, _)| stored.spec.gateways.iter().any(|gateway| gateway.name == **name))
        .filter_map(|(name, report)| {
            let own = report.load_balancers.iter().find(|own| own.name == stored.name())?;
            (!own.error.is_empty()).then(|| format!("{name}: {}", own.error))
        })
        .collect();
    let verdict = if !missing.is_empty() && !errors.is_empty() {
        let message = format!("not announced: {}; {}", missing.join(", "), errors.join("; "));
        Verdict { holds: false, reason: "AgentFailed", message }
    } else if !missing.is_empty() {
        Verdict { holds: false, reason: "Waiting", message: format!("not announced: {}", missing.join(", ")) }
    } else {
        let message = by.into_iter().chain(errors).collect::<Vec<_>>().join("; ");
        Verdict { holds: true, reason: "Announced", message }
    };
    (ANNOUNCED, verdict)
}

/// How an agent announces an address.
fn how(report: &AgentStatus, address: IpAddr) -> Option<&str> {
    report.announces.iter().find(|own| own.address == address).map(|own| &*own.by)
}

/// The Service that an event is about.
pub(super) fn service(owner: &LoadBalancerOwner) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Service".to_owned()),
        namespace: Some(owner.namespace.clone()),
        name: Some(owner.name.clone()),
        uid: Some(owner.uid.clone()),
        ..ObjectReference::default()
    }
}

/// The text of a move's event.
pub(super) fn moved(moved: &Move) -> String {
    format!("Moved the address {} from gateway {} to {}: {}", moved.address, moved.from, moved.to, moved.why)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn stored(gateway: Option<&str>) -> MetalLoadBalancer {
        serde_json::from_value(json!({
            "metadata": {"name": "u", "generation": 3},
            "spec": {
                "addresses": [{"address": "192.0.2.1", "gateway": gateway}],
                "gateways": [{"name": "a", "addresses": ["10.0.0.1"]}],
            },
        }))
        .expect("a load balancer")
    }

    fn words(status: &LoadBalancerStatus) -> Vec<(&str, &str, &str, &str)> {
        let all = status.conditions.iter();
        all.map(|one| (&*one.type_, &*one.status, &*one.reason, &*one.message)).collect()
    }

    #[test]
    fn conditions_tell_who_announces_and_what_is_missing() {
        let (then, now) = (Timestamp::UNIX_EPOCH, Timestamp::now());
        let none = Reports::new();
        let status_of = |stored: &MetalLoadBalancer, reports: &Reports<'_>| status(stored, reports, now);
        let first = status_of(&stored(None), &none).expect("it is new");
        assert_eq!(
            words(&first),
            [
                (ASSIGNED, "False", "NoGateway", "no gateway is known to work that could take 192.0.2.1"),
                (ANNOUNCED, "False", "Waiting", "not announced: 192.0.2.1"),
            ]
        );
        let report: AgentStatus = serde_json::from_value(json!({
            "loadBalancers": [{"name": "u", "error": "no such interface"}],
        }))
        .expect("a report");
        let failed = status_of(&stored(Some("a")), &Reports::from([("a", &report)])).expect("it is new");
        assert_eq!(
            words(&failed)[1],
            (ANNOUNCED, "False", "AgentFailed", "not announced: 192.0.2.1 by a; a: no such interface")
        );
        let report: AgentStatus = serde_json::from_value(json!({
            "announces": [{"address": "192.0.2.1", "loadBalancer": "u", "by": "eth0"}],
        }))
        .expect("a report");
        let reports = Reports::from([("a", &report)]);
        let mut stored = stored(Some("a"));
        let mut good = status(&stored, &reports, then).expect("it is new");
        assert_eq!(words(&good)[1], (ANNOUNCED, "True", "Announced", "192.0.2.1 by a (eth0)"));
        stored.status = Some(good.clone());
        stored.metadata.generation = Some(4);
        assert_eq!(status_of(&stored, &reports), None, "nothing is news");
        good.conditions[1].message.clear();
        stored.status = Some(good);
        let told = status_of(&stored, &reports).expect("it is news");
        assert_eq!(told.conditions[1].last_transition_time, Time(then), "it holds for as long as before");
        let moved = status_of(&stored, &none).expect("it is news");
        assert_eq!(moved.conditions[1].last_transition_time, Time(now));
    }
}
