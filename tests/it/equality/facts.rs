//! What Endpoints and EndpointSlices say, one line a fact, so that two servers can be compared: names of
//! slices, order, times, versions and uids aside.
//!
//! How endpoints are packed into slices is aside, too. Both controllers leave endpoints where they are
//! and fill slices that change anyway, so the packing depends on how many changes each reconcile sees
//! at once, which differs from run to run of either. What a service's slices of one family and port
//! set hold together does not. That no slice holds too much, and no endpoint stands twice, is checked.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

/// Annotation with a time.
const TRIGGER_TIME: &str = "endpoints.kubernetes.io/last-change-trigger-time";

/// The objects of a namespace.
pub(super) struct Objects {
    pub(super) services: Vec<Value>,
    pub(super) pods: Vec<Value>,
    pub(super) endpoints: Vec<Value>,
    pub(super) slices: Vec<Value>,
}

/// The facts, each with how often it stands there.
pub(super) type Facts = BTreeMap<String, usize>;

/// What the objects say.
pub(super) fn facts(objects: &Objects, max_endpoints: usize) -> Facts {
    let mut facts = Facts::new();
    let known = Known::of(objects);
    for endpoints in &objects.endpoints {
        endpoints_facts(&known, endpoints, &mut facts);
    }
    let mut groups = Groups::default();
    for slice in &objects.slices {
        // The slices of a service that is gone are the garbage collector's.
        if !known.orphaned(slice) {
            slice_facts(&known, slice, max_endpoints, &mut groups, &mut facts);
        }
    }
    let Groups { filled, mut empty } = groups;
    // The Go controller keeps the placeholder of a service that had no endpoints as long as some pod
    // offers none of the service's ports, though other slices are filled meanwhile; we do not.
    empty.retain(|owner, _| !filled.keys().any(|(other, _)| other == owner));
    // Of how many slices a group consists is packing.
    facts.extend(filled.into_values().flatten().chain(empty.into_values().flatten()).map(|group| (group, 1)));
    facts
}

/// Names of the slices whose service is gone.
pub(super) fn orphans(objects: &Objects) -> Vec<&str> {
    let known = Known::of(objects);
    let orphans = objects.slices.iter().filter(|slice| known.orphaned(slice));
    orphans.map(|slice| text(&slice["metadata"]["name"])).collect()
}

/// What slices say besides their endpoints, by what they are the slices of: service, manager, family.
#[derive(Default)]
struct Groups {
    /// Of slices with endpoints; also by ports.
    filled: BTreeMap<(String, String), BTreeSet<String>>,
    /// Of those without.
    empty: BTreeMap<String, BTreeSet<String>>,
}

/// The lines by which two servers differ, those of each side marked; none if they say the same.
pub(super) fn difference(marks: [&str; 2], sides: [&Facts; 2]) -> Vec<String> {
    let mut lines = BTreeSet::new();
    for (at, facts) in sides.iter().enumerate() {
        for (fact, count) in *facts {
            let other = sides[1 - at].get(fact).copied().unwrap_or(0);
            if *count > other {
                // By fact first, so that what belongs together stands together.
                lines.insert((fact.clone(), marks[at], count - other));
            }
        }
    }
    let times = |count| if count == 1 { String::new() } else { format!(" ({count} times)") };
    lines.into_iter().map(|(fact, mark, count)| format!("{mark} {fact}{}", times(count))).collect()
}

/// The uids of the objects there are.
struct Known<'a>(BTreeSet<&'a str>);

impl<'a> Known<'a> {
    fn of(objects: &'a Objects) -> Self {
        let all = objects.services.iter().chain(&objects.pods).chain(&objects.endpoints);
        Self(all.filter_map(|object| object["metadata"]["uid"].as_str()).collect())
    }

    /// Whether an object belongs to a service that is gone.
    fn orphaned(&self, object: &Value) -> bool {
        let owner = &object["metadata"]["ownerReferences"][0];
        owner["kind"] == "Service" && !owner["uid"].as_str().is_some_and(|uid| self.0.contains(uid))
    }

    /// A reference, with whether its uid is that of an object there is, instead of the uid.
    fn reference(&self, reference: &Value) -> String {
        let Some(members) = reference.as_object() else { return "none".to_owned() };
        let mut members: Map<String, Value> = members.clone();
        members.remove("resourceVersion");
        let uid = match members.remove("uid") {
            None => "without uid",
            Some(uid) if uid.as_str().is_some_and(|uid| self.0.contains(uid)) => "that is there",
            Some(_) => "that is gone",
        };
        format!("{} {uid}", Value::Object(members))
    }
}

fn endpoints_facts(known: &Known<'_>, endpoints: &Value, facts: &mut Facts) {
    let name = text(&endpoints["metadata"]["name"]);
    *facts.entry(format!("endpoints {name} {}", metadata(known, endpoints))).or_default() += 1;
    for subset in array(&endpoints["subsets"]) {
        let ports = ports(subset);
        for state in ["addresses", "notReadyAddresses"] {
            for address in array(&subset[state]) {
                let target = known.reference(&address["targetRef"]);
                let fact = format!(
                    "endpoints {name} {ports} {state} {} hostname={} node={} target={target}",
                    text(&address["ip"]),
                    address["hostname"],
                    address["nodeName"],
                );
                *facts.entry(fact).or_default() += 1;
            }
        }
    }
}

fn slice_facts(known: &Known<'_>, slice: &Value, max_endpoints: usize, groups: &mut Groups, facts: &mut Facts) {
    let labels = &slice["metadata"]["labels"];
    let service = text(&labels["kubernetes.io/service-name"]);
    let manager = text(&labels["endpointslice.kubernetes.io/managed-by"]);
    let owner = format!("slice of {service} by {manager} {}", text(&slice["addressType"]));
    let ports = ports(slice);
    let about = format!("{owner} {ports}");
    let endpoints = array(&slice["endpoints"]);
    let holds = match endpoints.len() {
        0 => "empty",
        // Mirrored slices hold what a subset holds.
        many if many > max_endpoints && manager.starts_with("endpointslice-") => "too much",
        _ => "filled",
    };
    let group = format!("{about} {holds} {}", metadata(known, slice));
    if endpoints.is_empty() {
        groups.empty.entry(owner).or_default().insert(group);
    } else {
        groups.filled.entry((owner, ports)).or_default().insert(group);
    }
    for endpoint in endpoints {
        let mut addresses: Vec<&str> = array(&endpoint["addresses"]).iter().map(text).collect();
        addresses.sort_unstable();
        let fact = format!(
            "{about} {addresses:?} {} hostname={} node={} zone={} hints={} target={}",
            endpoint["conditions"],
            endpoint["hostname"],
            endpoint["nodeName"],
            endpoint["zone"],
            endpoint["hints"],
            known.reference(&endpoint["targetRef"]),
        );
        *facts.entry(fact).or_default() += 1;
    }
}

fn metadata(known: &Known<'_>, object: &Value) -> String {
    let meta = &object["metadata"];
    let mut annotations = meta["annotations"].as_object().cloned().unwrap_or_default();
    annotations.remove(TRIGGER_TIME);
    let owners: Vec<String> = array(&meta["ownerReferences"]).iter().map(|owner| known.reference(owner)).collect();
    let labels = meta["labels"].as_object().cloned().unwrap_or_default();
    format!("labels={} annotations={} owners={owners:?}", Value::Object(labels), Value::Object(annotations))
}

/// Ports, sorted; a nameless one may have an empty name or none.
fn ports(holder: &Value) -> String {
    let mut ports: Vec<String> = array(&holder["ports"])
        .iter()
        .map(|port| {
            let (name, number, protocol) = (text(&port["name"]), &port["port"], text(&port["protocol"]));
            format!("{name}:{number}/{protocol}/{}", text(&port["appProtocol"]))
        })
        .collect();
    ports.sort_unstable();
    format!("{ports:?}")
}

fn array(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn slice(ready: bool, uid: &str) -> Value {
        json!({
            "metadata": {
                "name": uid, "uid": uid, "ownerReferences": [{ "kind": "Service", "name": "s", "uid": uid }],
                "labels": { "kubernetes.io/service-name": "s" },
            },
            "addressType": "IPv4",
            "endpoints": [{ "addresses": ["10.0.0.1"], "conditions": { "ready": ready } }],
        })
    }

    fn objects(uid: &str, slices: Vec<Value>) -> Objects {
        let service = json!({ "metadata": { "name": "s", "uid": uid } });
        Objects { services: vec![service], pods: Vec::new(), endpoints: Vec::new(), slices }
    }

    #[test]
    fn content_counts_and_uids_and_orphans_do_not() {
        let one = facts(&objects("1", vec![slice(true, "1")]), 100);
        let same = facts(&objects("2", vec![slice(true, "2"), slice(true, "1")]), 100);
        let other = facts(&objects("1", vec![slice(false, "1")]), 100);
        let twice = facts(&objects("1", vec![slice(true, "1"), slice(true, "1")]), 100);
        assert_eq!(one.len(), 2, "{one:?}");
        assert!(difference(["a", "b"], [&one, &same]).is_empty());
        let lines = difference(["a", "b"], [&one, &other]);
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(lines[0].starts_with("b ") && lines[0].contains("\"ready\":false"), "{lines:?}");
        assert_eq!(difference(["a", "b"], [&one, &twice]).len(), 1);
    }
}
