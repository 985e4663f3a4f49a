//! Tables for planning and packing.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::ServicePort;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointHints, EndpointSlice, ForNode, ForZone};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use quarterdeck_runtime::view::{PodPhase, PortView, Protocol};

use super::fixtures::{World, node, pods, port};
use super::plan::Op;
use super::slice::{HEADLESS, MANAGED_BY, MANAGER, SERVICE_NAME, TRIGGER_TIME};

fn conditions(endpoint: &Endpoint) -> [bool; 3] {
    let conditions = endpoint.conditions.as_ref().unwrap();
    [conditions.ready, conditions.serving, conditions.terminating].map(Option::unwrap)
}

fn hint(endpoint: &Endpoint) -> (Vec<&str>, Vec<&str>) {
    let hints = endpoint.hints.as_ref();
    let zones = hints.and_then(|hints| hints.for_zones.as_deref()).unwrap_or_default();
    let nodes = hints.and_then(|hints| hints.for_nodes.as_deref()).unwrap_or_default();
    (zones.iter().map(|zone| &*zone.name).collect(), nodes.iter().map(|node| &*node.name).collect())
}

#[test]
fn a_slice_is_complete() {
    let mut world = World::new(pods([1]));
    world.trigger = Some(1_700_000_000);
    assert_eq!(world.sync(), (1, 0, 0));
    let slice = &world.slices[0];
    let name = slice.metadata.name.as_deref().unwrap();
    assert!(name.starts_with("svc-") && name.len() == 12, "{name}");
    assert_eq!(slice.metadata.generate_name, None);
    let labels = [("team", "a"), (SERVICE_NAME, "svc"), (MANAGED_BY, MANAGER)];
    let labels: BTreeMap<String, String> = labels.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
    assert_eq!(slice.metadata.labels.as_ref(), Some(&labels));
    let owner = &slice.metadata.owner_references.as_ref().unwrap()[0];
    assert_eq!((&*owner.api_version, &*owner.kind, &*owner.name, &*owner.uid), ("v1", "Service", "svc", "uid-svc"));
    assert_eq!((owner.controller, owner.block_owner_deletion), (Some(true), Some(true)));
    assert_eq!(slice.metadata.annotations.as_ref().unwrap()[TRIGGER_TIME], "2023-11-14T22:13:20Z");
    assert_eq!(slice.address_type, "IPv4");
    let port = &slice.ports.as_ref().unwrap()[0];
    assert_eq!((port.name.as_deref(), port.port, port.protocol.as_deref()), (Some("http"), Some(8080), Some("TCP")));

    let endpoint = world.endpoint(1);
    assert_eq!(endpoint.addresses, ["10.0.0.1"]);
    assert_eq!(conditions(endpoint), [true, true, false]);
    assert_eq!((endpoint.node_name.as_deref(), endpoint.zone.as_deref()), (Some("n1"), Some("a")));
    assert_eq!((&endpoint.hostname, &endpoint.hints), (&None, &None));
    let target = endpoint.target_ref.as_ref().unwrap();
    let target = [&target.kind, &target.namespace, &target.name, &target.uid].map(Option::as_deref);
    assert_eq!(target, [Some("Pod"), Some("ns"), Some("p00001"), Some("uid-p00001")]);
    assert!(world.plan().is_empty());
}

#[test]
fn the_trigger_time_goes_with_each_write() {
    let mut world = World::new(pods([1]));
    world.trigger = Some(1_700_000_000);
    world.sync();
    world.trigger = None;
    assert!(world.plan().is_empty(), "an unchanged slice keeps its annotation");
    world.edit(1, |pod| pod.ready = false);
    assert_eq!(world.sync(), (0, 1, 0));
    assert_eq!(world.slices[0].metadata.annotations.as_ref().unwrap().get(TRIGGER_TIME), None);
}

#[test]
fn conditions_follow_readiness_deletion_and_publication() {
    // pod ready, deleting, publishNotReadyAddresses → ready, serving, terminating
    let cases = [
        (true, false, false, [true, true, false]),
        (false, false, false, [false, false, false]),
        (true, true, false, [false, true, true]),
        (false, true, false, [false, false, true]),
        (false, false, true, [true, false, false]),
        (true, true, true, [true, true, true]),
        (false, true, true, [true, false, true]),
    ];
    for (ready, deleting, publish, expected) in cases {
        let mut world = World::new(pods([1]));
        world.spec().publish_not_ready_addresses = Some(publish);
        world.edit(1, |pod| (pod.ready, pod.deleting) = (ready, deleting));
        world.sync();
        assert_eq!(conditions(world.endpoint(1)), expected, "{ready} {deleting} {publish}");
    }
}

#[test]
fn pods_without_address_or_future_are_left_out() {
    for phase in [PodPhase::Pending, PodPhase::Running, PodPhase::Unknown] {
        let mut world = World::new(pods([1]));
        world.edit(1, |pod| pod.phase = phase);
        world.sync();
        assert_eq!(world.sizes(), [1], "{phase:?}");
    }
    for phase in [PodPhase::Succeeded, PodPhase::Failed] {
        let mut world = World::new(pods([1]));
        world.edit(1, |pod| pod.phase = phase);
        world.sync();
        assert_eq!(world.sizes(), [0], "{phase:?}");
    }
    let mut world = World::new(pods([1, 2]));
    world.edit(1, |pod| pod.ips = [].into());
    world.edit(2, |pod| pod.ips = ["fd00::2".parse().unwrap()].into());
    world.sync();
    assert_eq!(world.sizes(), [0], "no address of the family");
}

#[test]
fn a_missing_node_holds_a_pod_back_unless_not_ready_addresses_are_published() {
    let mut world = World::new(pods([1, 2, 3]));
    world.edit(2, |pod| pod.node = Some("gone".into()));
    world.edit(3, |pod| pod.node = None);
    let plan = world.plan();
    let missing: Vec<_> = plan.missing.iter().map(|missing| (&*missing.pod, missing.node.as_deref())).collect();
    assert_eq!(missing, [("p00002", Some("gone")), ("p00003", None)]);
    world.sync();
    assert_eq!(world.sizes(), [1], "the other pods do not wait");

    world.spec().publish_not_ready_addresses = Some(true);
    assert!(world.plan().missing.is_empty());
    world.sync();
    assert_eq!(world.sizes(), [3]);
    assert_eq!(world.endpoint(2).node_name.as_deref(), Some("gone"));
    assert_eq!(world.endpoint(2).zone, None);
}

#[test]
fn a_hostname_needs_the_subdomain_of_the_service() {
    let mut world = World::new(pods([1, 2]));
    for (number, subdomain) in [(1, "svc"), (2, "other")] {
        world.edit(number, |pod| (pod.hostname, pod.subdomain) = (Some("db".into()), Some(subdomain.into())));
    }
    world.sync();
    assert_eq!(world.endpoint(1).hostname.as_deref(), Some("db"));
    assert_eq!(world.endpoint(2).hostname, None);
}

#[test]
fn families_have_slices_of_their_own_and_lose_them() {
    let mut world = World::new(pods([1]));
    world.spec().ip_families = Some(vec!["IPv4".to_owned(), "IPv6".to_owned()]);
    assert_eq!(world.sync(), (2, 0, 0));
    let types: Vec<_> = world.slices.iter().map(|slice| &*slice.address_type).collect();
    assert_eq!(types, ["IPv4", "IPv6"]);
    assert_eq!(world.endpoints()[1].addresses, ["fd00::1"]);
    world.spec().ip_families = Some(vec!["IPv6".to_owned()]);
    assert_eq!(world.sync(), (0, 0, 1));
    assert_eq!(world.slices[0].address_type, "IPv6");
}

#[test]
fn a_headless_service_is_marked_and_may_have_no_ports() {
    let mut world = World::new(pods([1]));
    world.spec().cluster_ip = Some("None".to_owned());
    world.spec().ports = None;
    world.sync();
    assert_eq!(world.slices[0].metadata.labels.as_ref().unwrap()[HEADLESS], "");
    assert_eq!(world.slices[0].ports.as_deref().unwrap_or_default(), []);
    assert_eq!(world.sizes(), [1]);
    world.tamper(0, |slice| slice.ports = None);
    assert!(world.plan().is_empty(), "no ports and null ports are the same");
}

#[test]
fn reserved_labels_of_the_service_are_not_mirrored() {
    let mut world = World::new(pods([1]));
    let labels = world.service.metadata.labels.get_or_insert_default();
    for name in [HEADLESS, SERVICE_NAME, MANAGED_BY] {
        labels.insert(name.to_owned(), "mine".to_owned());
    }
    world.sync();
    let labels = world.slices[0].metadata.labels.as_ref().unwrap();
    assert_eq!((&*labels[SERVICE_NAME], &*labels[MANAGED_BY], labels.get(HEADLESS)), ("svc", MANAGER, None));
}

#[test]
fn changed_labels_rewrite_each_slice_once() {
    let mut world = World::new(pods(0..150));
    world.sync();
    world.service.metadata.labels = Some(BTreeMap::from([("team".to_owned(), "b".to_owned())]));
    assert_eq!(world.sync(), (0, 2, 0));
    assert!(world.slices.iter().all(|slice| slice.metadata.labels.as_ref().unwrap()["team"] == "b"));
    assert!(world.plan().is_empty());
}

#[test]
fn named_ports_make_a_slice_for_each_set() {
    let mut world = World::new(pods([1, 2, 3, 4]));
    world.spec().ports = Some(vec![port("http", IntOrString::String("http".to_owned()))]);
    let named =
        |name: &str, port, protocol| -> Box<[PortView]> { [PortView { name: name.into(), port, protocol }].into() };
    world.edit(2, |pod| pod.ports = named("http", 9090, Protocol::Tcp));
    world.edit(3, |pod| pod.ports = named("http", 8080, Protocol::Udp));
    world.edit(4, |pod| pod.ports = named("other", 8080, Protocol::Tcp));
    world.sync();
    let mut found: Vec<_> = world
        .slices
        .iter()
        .map(|slice| {
            (slice.ports.iter().flatten().map(|p| p.port.unwrap()).collect::<Vec<_>>(), super::slice::len(slice))
        })
        .collect();
    found.sort();
    assert_eq!(found, [(vec![], 2), (vec![8080], 1), (vec![9090], 1)]);
    assert!(world.plan().is_empty());
}

#[test]
fn ports_are_a_set_and_their_attributes_count() {
    let two = || vec![port("http", IntOrString::Int(8080)), port("grpc", IntOrString::Int(9090))];
    let mut world = World::new(pods([1]));
    world.spec().ports = Some(two());
    world.sync();
    world.spec().ports = Some(two().into_iter().rev().collect());
    assert!(world.plan().is_empty(), "order does not count");
    let mut changed = two();
    changed[0] = ServicePort { app_protocol: Some("h2c".to_owned()), ..changed[0].clone() };
    world.spec().ports = Some(changed);
    assert_eq!(world.sync(), (0, 1, 0), "the old slice becomes the new one");
    assert_eq!(world.slices[0].ports.as_ref().unwrap()[0].app_protocol.as_deref(), Some("h2c"));
}

#[test]
fn a_service_without_endpoints_has_a_placeholder() {
    let mut world = World::new(Vec::new());
    assert_eq!(world.sync(), (1, 0, 0));
    assert_eq!(world.slices[0].ports.as_deref(), Some(&[][..]));
    assert!(world.plan().is_empty());
    world.pods = pods([1]);
    assert_eq!(world.sync(), (0, 1, 0), "the placeholder becomes the first slice");
    assert_eq!(world.slices[0].ports.as_ref().unwrap().len(), 1);
    world.pods.clear();
    assert_eq!(world.sync(), (0, 1, 0), "and the last slice the placeholder");
    assert_eq!(world.sizes(), [0]);
    assert!(world.plan().is_empty());
}

#[test]
fn surplus_placeholders_go() {
    let mut world = World::new(Vec::new());
    world.sync();
    let mut other = EndpointSlice::clone(&world.slices[0]);
    other.metadata.name = Some("svc-other".to_owned());
    world.slices.push(Arc::new(other));
    assert_eq!(world.sync(), (0, 0, 1));
    assert!(world.plan().is_empty());
}

/// Packing: (sizes before, pods that go, number of pods that come) → (writes, sizes after).
#[test]
fn packing_writes_as_few_slices_as_it_can() {
    type Case = (&'static [u16], std::ops::Range<u16>, u16, (usize, usize, usize), &'static [usize]);
    let cases: [Case; 12] = [
        (&[], 0..0, 250, (3, 0, 0), &[100, 100, 50]),
        (&[100, 100, 50], 0..0, 0, (0, 0, 0), &[100, 100, 50]),
        (&[100, 100, 50], 0..0, 10, (0, 1, 0), &[100, 100, 60]),
        (&[100, 60, 50], 0..0, 40, (0, 1, 0), &[100, 100, 50]), // the best fit
        (&[100, 60, 50], 0..0, 45, (0, 1, 0), &[100, 95, 60]),  // the only fit
        (&[60, 60], 0..0, 50, (1, 0, 0), &[60, 60, 50]),        // no fit: new slice
        (&[60, 60], 0..0, 120, (1, 1, 0), &[100, 80, 60]),      // one new, the rest fits
        (&[100, 60], 0..10, 10, (0, 1, 0), &[100, 60]),         // fills the slice that changes anyway
        (&[100, 60], 0..10, 20, (0, 2, 0), &[100, 70]),         // and the rest goes where it fits
        (&[60, 100], 59..61, 1, (0, 2, 0), &[100, 59]),         // of two that change, the fuller one
        (&[100, 60], 0..100, 0, (0, 0, 1), &[60]),
        (&[100, 60], 0..100, 60, (0, 1, 0), &[60, 60]), // the emptied slice takes the new ones
    ];
    for (before, go, come, writes, after) in cases {
        let mut world = World::new(Vec::new());
        // Each slice is filled while it is the only one with room.
        let mut next = 0;
        let mut stored = Vec::new();
        for size in before {
            let mut one = World::new(pods(next..next + size));
            one.sync();
            one.tamper(0, |slice| slice.metadata.name = Some(format!("svc-{next}")));
            stored.extend(one.slices);
            next += size;
        }
        world.slices = stored;
        world.pods = pods((0..next).filter(|number| !go.contains(number)).chain(next..next + come));
        assert_eq!(world.sync(), writes, "writes: {before:?} - {go:?} + {come}");
        assert_eq!(world.sizes(), after, "sizes: {before:?} - {go:?} + {come}");
        assert!(world.plan().is_empty());
    }
}

#[test]
fn endpoints_stay_in_place() {
    let mut world = World::new(pods(0..5));
    world.sync();
    world.edit(2, |pod| pod.ready = false);
    assert_eq!(world.sync(), (0, 1, 0));
    let addresses: Vec<_> = world.endpoints().iter().map(|endpoint| endpoint.addresses[0].clone()).collect();
    assert_eq!(addresses, ["10.0.0.0", "10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"]);
    world.edit(1, |pod| pod.ips = ["10.9.9.9".parse().unwrap()].into());
    assert_eq!(world.sync(), (0, 1, 0));
    assert_eq!(world.endpoint(1).addresses, ["10.9.9.9"]);
    assert_eq!(world.sizes(), [5]);
}

#[test]
fn a_new_uid_under_the_same_name_and_address_is_an_update() {
    let mut world = World::new(pods([1]));
    world.sync();
    world.edit(1, |pod| pod.uid = "second".into());
    assert_eq!(world.sync(), (0, 1, 0));
    assert_eq!(world.endpoint(1).target_ref.as_ref().unwrap().uid.as_deref(), Some("second"));
}

#[test]
fn foreign_edits_are_reverted_with_one_write() {
    type Edit = fn(&mut EndpointSlice);
    let edits: [(&str, Edit); 12] = [
        ("address", |s| s.endpoints.as_mut().unwrap()[0].addresses[0] = "1.2.3.4".to_owned()),
        ("condition", |s| s.endpoints.as_mut().unwrap()[0].conditions = None),
        ("zone", |s| s.endpoints.as_mut().unwrap()[0].zone = None),
        ("node", |s| s.endpoints.as_mut().unwrap()[0].node_name = Some("x".to_owned())),
        ("hostname", |s| s.endpoints.as_mut().unwrap()[0].hostname = Some("x".to_owned())),
        ("target", |s| s.endpoints.as_mut().unwrap()[0].target_ref = None),
        ("hint", |s| s.endpoints.as_mut().unwrap()[0].hints = Some(EndpointHints::default())),
        ("removed", |s| drop(s.endpoints.as_mut().unwrap().pop())),
        ("doubled", |s| {
            let first = s.endpoints.as_ref().unwrap()[0].clone();
            s.endpoints.as_mut().unwrap().push(first);
        }),
        ("label", |s| drop(s.metadata.labels.as_mut().unwrap().insert("x".to_owned(), "y".to_owned()))),
        ("label gone", |s| drop(s.metadata.labels.as_mut().unwrap().remove("team"))),
        ("port", |s| s.ports.as_mut().unwrap()[0].port = Some(1)),
    ];
    for (what, edit) in edits {
        let mut world = World::new(pods([1, 2]));
        world.sync();
        let right = EndpointSlice::clone(&world.slices[0]);
        world.tamper(0, edit);
        assert_eq!(world.sync(), (0, 1, 0), "{what}");
        let mut endpoints = world.slices[0].endpoints.clone().unwrap();
        endpoints.sort_by(|a, b| a.addresses.cmp(&b.addresses));
        assert_eq!((Some(endpoints), &world.slices[0].ports), (right.endpoints, &right.ports), "{what}");
        assert_eq!(world.slices[0].metadata.labels, right.metadata.labels, "{what}");
        assert!(world.plan().is_empty(), "{what}");
    }
}

#[test]
fn annotations_of_others_stay() {
    let mut world = World::new(pods([1]));
    world.sync();
    world.tamper(0, |slice| {
        slice.metadata.annotations.get_or_insert_default().insert("theirs".to_owned(), "x".to_owned());
    });
    assert!(world.plan().is_empty());
    world.edit(1, |pod| pod.ready = false);
    world.sync();
    assert_eq!(world.slices[0].metadata.annotations.as_ref().unwrap()["theirs"], "x");
}

#[test]
fn slices_of_an_earlier_service_of_the_same_name_are_replaced() {
    let mut world = World::new(pods([1]));
    world.sync();
    world.service.metadata.uid = Some("uid-2".to_owned());
    assert_eq!(world.sync(), (1, 0, 1), "an update would be collected with its old owner");
    assert_eq!(world.slices[0].metadata.owner_references.as_ref().unwrap()[0].uid, "uid-2");
}

#[test]
fn nothing_is_created_for_a_service_that_is_being_deleted() {
    let mut world = World::new(pods(0..150));
    world.sync();
    world.service.metadata.deletion_timestamp = Some(Time(jiff::Timestamp::UNIX_EPOCH));
    world.pods.extend(pods(200..400));
    world.edit(0, |pod| pod.ready = false);
    let ops = world.plan().families.remove(0).ops;
    assert!(!ops.is_empty() && !ops.iter().any(|op| matches!(op, Op::Create(_))), "updates only");
}

#[test]
fn names_are_the_same_each_time_and_skip_those_taken() {
    let mut first = World::new(pods(0..250));
    let mut second = World::new(pods(0..250));
    first.sync();
    second.sync();
    let names = |world: &World| world.slices.iter().map(|s| s.metadata.name.clone().unwrap()).collect::<Vec<_>>();
    assert_eq!(names(&first), names(&second));

    // A slice that someone else took over keeps its name, and ours gets the next one.
    let mut third = World::new(pods([1]));
    third.sync();
    let stolen = Arc::clone(&third.slices[0]);
    assert_eq!(stolen.metadata.name.as_ref(), Some(&names(&first)[0]));
    let mut world = World::new(pods([1]));
    world.slices.push(stolen);
    world.tamper(0, |slice| slice.address_type = "FQDN".to_owned());
    let plan = world.plan();
    let Op::Create(created) = &plan.families[0].ops[0] else { panic!("a create") };
    assert_eq!(created.metadata.name.as_ref(), Some(&names(&first)[1]));
}

#[test]
fn traffic_distribution_hints_ready_endpoints_to_where_they_are() {
    // field → zones and nodes hinted
    let cases: [(Option<&str>, &[&str], &[&str]); 6] = [
        (None, &[], &[]),
        (Some("PreferClose"), &["a"], &[]),
        (Some("PreferSameZone"), &["a"], &[]),
        (Some("PreferSameNode"), &["a"], &["n1"]),
        (Some("Unknown"), &[], &[]),
        (None, &[], &[]),
    ];
    let mut world = World::new(pods([1, 2, 3]));
    world.nodes.push(node("n2", ""));
    world.edit(2, |pod| pod.ready = false);
    world.edit(3, |pod| pod.node = Some("n2".into()));
    world.sync();
    for (distribution, zones, nodes) in cases {
        world.spec().traffic_distribution = distribution.map(str::to_owned);
        assert!(world.sync().1 <= 1);
        assert_eq!(hint(world.endpoint(1)), (zones.to_vec(), nodes.to_vec()), "{distribution:?}");
        assert_eq!(world.endpoint(2).hints, None, "{distribution:?}: not ready");
        let without_zone = if nodes.is_empty() { vec![] } else { vec!["n2"] };
        assert_eq!(hint(world.endpoint(3)), (vec![], without_zone), "{distribution:?}: node without zone");
        assert!(world.plan().is_empty(), "{distribution:?}");
    }
}

#[test]
fn a_flip_under_traffic_distribution_is_one_write() {
    let mut world = World::new(pods(0..250));
    world.spec().traffic_distribution = Some("PreferSameNode".to_owned());
    world.sync();
    for ready in [false, true] {
        world.edit(7, |pod| pod.ready = ready);
        assert_eq!(world.sync(), (0, 1, 0));
        assert_eq!(hint(world.endpoint(7)).0.len(), usize::from(ready));
    }
    let wrong = EndpointHints {
        for_zones: Some(vec![ForZone { name: "b".to_owned() }]),
        for_nodes: Some(vec![ForNode { name: "n1".to_owned() }]),
    };
    world.tamper(1, |slice| slice.endpoints.as_mut().unwrap()[0].hints = Some(wrong));
    assert_eq!(world.sync(), (0, 1, 0), "a wrong hint is put right");
}
