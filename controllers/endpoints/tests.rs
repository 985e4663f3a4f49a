use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset, Endpoints, Service};
use proptest::prelude::*;
use quarterdeck_runtime::informer::Change;
use quarterdeck_runtime::object::ObjectKey;
use quarterdeck_runtime::view::{PodPhase, PodView, PortView, Protocol};
use serde_json::{Value, json};

use super::canonical::{CAPACITY, repack, same_subsets, truncate};
use super::plan::{HEADLESS, MANAGED_BY, OVER_CAPACITY, Op, Snapshot, TRIGGER_TIME, plan, subsets_of};
use super::relevance::{alike, service_changed, shown};
use super::trigger::observe;

fn service(spec: Value) -> Service {
    let mut spec = spec;
    let defaults = json!({"selector": {"app": "a"}, "clusterIP": "10.0.0.1", "ipFamilies": ["IPv4"]});
    for (key, value) in defaults.as_object().expect("an object") {
        spec.as_object_mut().expect("an object").entry(key).or_insert_with(|| value.clone());
    }
    serde_json::from_value(json!({
        "metadata": {"namespace": "ns", "name": "svc", "uid": "svc-uid", "labels": {"team": "x"},
                     "creationTimestamp": "2024-01-01T00:00:00Z"},
        "spec": spec,
    }))
    .expect("a service")
}

fn http() -> Service {
    service(json!({"ports": [{"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP"}]}))
}

fn pod(name: &str, ip: &str) -> PodView {
    PodView {
        key: ObjectKey::new("ns", name),
        uid: format!("uid-{name}").into(),
        resource_version: "1".into(),
        labels: [("app", "a")].into_iter().collect(),
        deleting: false,
        node: Some("node".into()),
        hostname: None,
        subdomain: None,
        ports: Box::default(),
        phase: PodPhase::Running,
        ready: true,
        ready_changed: Some(1_000),
        created: 0,
        ips: ip.split(',').filter(|ip| !ip.is_empty()).map(|ip| ip.parse().expect("an address")).collect(),
    }
}

fn with(pod: PodView, change: impl FnOnce(&mut PodView)) -> PodView {
    let mut pod = pod;
    change(&mut pod);
    pod
}

fn named(name: &str, port: u16, protocol: Protocol) -> PortView {
    PortView { name: name.into(), port, protocol }
}

fn subsets(service: &Service, pods: &[PodView]) -> Vec<EndpointSubset> {
    let pods: Vec<_> = pods.iter().cloned().map(Arc::new).collect();
    subsets_of(service, &pods)
}

/// `ready|not ready|ports` of each subset.
fn brief(subsets: &[EndpointSubset]) -> Vec<String> {
    let ips =
        |list: &Option<Vec<EndpointAddress>>| list.iter().flatten().map(|a| a.ip.clone()).collect::<Vec<_>>().join(",");
    let ports = |list: &Option<Vec<EndpointPort>>| {
        list.iter()
            .flatten()
            .map(|p| format!("{}:{}", p.name.as_deref().unwrap_or_default(), p.port))
            .collect::<Vec<_>>()
            .join(",")
    };
    subsets
        .iter()
        .map(|s| format!("{}|{}|{}", ips(&s.addresses), ips(&s.not_ready_addresses), ports(&s.ports)))
        .collect()
}

#[test]
fn pods_are_taken_or_left_by_their_state() {
    let publish = service(json!({"ports": [{"port": 80, "targetPort": 8080}], "publishNotReadyAddresses": true}));
    let plain = service(json!({"ports": [{"port": 80, "targetPort": 8080}]}));
    let base = || pod("p", "10.1.0.1");
    let cases: Vec<(&str, PodView, &str, &str)> = vec![
        ("running, ready", base(), "10.1.0.1||:8080", "10.1.0.1||:8080"),
        ("not ready", with(base(), |p| p.ready = false), "|10.1.0.1|:8080", "10.1.0.1||:8080"),
        ("pending", with(base(), |p| p.phase = PodPhase::Pending), "10.1.0.1||:8080", "10.1.0.1||:8080"),
        ("succeeded", with(base(), |p| p.phase = PodPhase::Succeeded), "", ""),
        ("failed", with(base(), |p| p.phase = PodPhase::Failed), "", ""),
        ("no address", pod("p", ""), "", ""),
        ("deleting", with(base(), |p| p.deleting = true), "", "10.1.0.1||:8080"),
        ("other family", pod("p", "fd00::1"), "", ""),
        ("both families", pod("p", "fd00::1,10.1.0.9"), "10.1.0.9||:8080", "10.1.0.9||:8080"),
    ];
    for (case, pod, expected, published) in cases {
        let one = |text: &str| if text.is_empty() { vec![] } else { vec![text.to_owned()] };
        assert_eq!(brief(&subsets(&plain, std::slice::from_ref(&pod))), one(expected), "{case}");
        assert_eq!(brief(&subsets(&publish, &[pod])), one(published), "{case}, publishing");
    }
}

#[test]
fn the_family_follows_the_service_then_its_cluster_ip_then_the_pod() {
    let both = pod("p", "fd00::1,10.1.0.1");
    let port = json!([{"port": 80, "targetPort": 80}]);
    let cases = [
        (json!({"ports": port, "ipFamilies": ["IPv6", "IPv4"]}), "fd00::1"),
        (json!({"ports": port, "ipFamilies": ["IPv4", "IPv6"]}), "10.1.0.1"),
        (json!({"ports": port, "ipFamilies": [], "clusterIP": "fd00:1::1"}), "fd00::1"),
        (json!({"ports": port, "ipFamilies": [], "clusterIP": "10.0.0.1"}), "10.1.0.1"),
        (json!({"ports": port, "ipFamilies": [], "clusterIP": "None"}), "fd00::1"),
    ];
    for (spec, ip) in cases {
        let service = service(spec.clone());
        assert_eq!(brief(&subsets(&service, std::slice::from_ref(&both))), [format!("{ip}||:80")], "{spec}");
    }
}

#[test]
fn named_ports_are_resolved_per_pod_and_group_the_subsets() {
    let service = service(json!({"ports": [
        {"name": "web", "port": 80, "targetPort": "http", "protocol": "TCP"},
        {"name": "dns", "port": 53, "targetPort": "dns", "protocol": "UDP"},
    ]}));
    let pods = [
        with(pod("a", "10.1.0.1"), |p| p.ports = [named("http", 8080, Protocol::Tcp)].into()),
        with(pod("b", "10.1.0.2"), |p| p.ports = [named("http", 9090, Protocol::Tcp)].into()),
        // The name is there, the protocol is another one.
        with(pod("c", "10.1.0.3"), |p| {
            p.ports = [named("http", 8080, Protocol::Udp), named("dns", 5353, Protocol::Udp)].into();
        }),
        with(pod("d", "10.1.0.4"), |p| {
            p.ports = [named("http", 8080, Protocol::Tcp), named("http", 1, Protocol::Tcp)].into();
        }),
        pod("e", "10.1.0.5"),
    ];
    assert_eq!(
        brief(&subsets(&service, &pods)),
        ["10.1.0.3||dns:5353", "10.1.0.1,10.1.0.4||web:8080", "10.1.0.2||web:9090"]
    );
}

#[test]
fn ports_with_the_same_addresses_share_a_subset() {
    let service = service(json!({"ports": [
        {"name": "b", "port": 81, "targetPort": 81}, {"name": "a", "port": 80, "targetPort": 80},
    ]}));
    let pods = [pod("y", "10.1.0.10"), with(pod("x", "10.1.0.9"), |p| p.ready = false), pod("z", "10.1.0.1")];
    assert_eq!(brief(&subsets(&service, &pods)), ["10.1.0.1,10.1.0.10|10.1.0.9|a:80,b:81"]);
}

#[test]
fn pods_that_share_an_address_both_stand() {
    let pods = [pod("b", "10.1.0.1"), pod("a", "10.1.0.1")];
    let subsets = subsets(&http(), &pods);
    let names: Vec<_> =
        subsets[0].addresses.iter().flatten().filter_map(|a| a.target_ref.as_ref()?.name.as_deref()).collect();
    assert_eq!(names, ["a", "b"]);
}

#[test]
fn services_without_ports_have_endpoints_only_when_headless() {
    let pods = [pod("a", "10.1.0.1")];
    assert_eq!(brief(&subsets(&service(json!({"clusterIP": "None"})), &pods)), ["10.1.0.1||"]);
    assert!(subsets(&service(json!({})), &pods).is_empty());
}

#[test]
fn hostname_needs_the_services_name_as_subdomain() {
    let cases = [(Some("h"), Some("svc"), Some("h")), (Some("h"), Some("other"), None), (None, Some("svc"), None)];
    for (hostname, subdomain, expected) in cases {
        let pod = with(pod("a", "10.1.0.1"), |p| {
            p.hostname = hostname.map(Into::into);
            p.subdomain = subdomain.map(Into::into);
        });
        let subsets = subsets(&http(), &[pod]);
        let address = &subsets[0].addresses.as_ref().expect("one ready address")[0];
        assert_eq!(address.hostname.as_deref(), expected);
        assert_eq!(address.node_name.as_deref(), Some("node"));
        let target = address.target_ref.as_ref().expect("a target");
        assert_eq!(
            (target.kind.as_deref(), target.name.as_deref(), target.namespace.as_deref(), target.uid.as_deref()),
            (Some("Pod"), Some("a"), Some("ns"), Some("uid-a"))
        );
    }
}

fn snapshot(service: Option<Service>, endpoints: Option<Endpoints>, pods: &[PodView]) -> Snapshot {
    Snapshot {
        service: service.map(Arc::new),
        endpoints: endpoints.map(Arc::new),
        pods: pods.iter().cloned().map(Arc::new).collect(),
        trigger: None,
    }
}

fn created(service: &Service, pods: &[PodView]) -> Endpoints {
    let ops = plan(&snapshot(Some(service.clone()), None, pods));
    let [Op::Create(endpoints)] = ops.as_slice() else { panic!("{ops:?}") };
    stored(endpoints)
}

fn stored(endpoints: &Endpoints) -> Endpoints {
    let mut endpoints = endpoints.clone();
    endpoints.metadata.uid = Some("ep-uid".to_owned());
    endpoints.metadata.resource_version = Some("7".to_owned());
    endpoints
}

fn replaced(service: &Service, endpoints: &Endpoints, pods: &[PodView]) -> Option<Endpoints> {
    match plan(&snapshot(Some(service.clone()), Some(endpoints.clone()), pods)).as_slice() {
        [] => None,
        [Op::Replace(next)] => Some((**next).clone()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn endpoints_are_created_with_the_services_labels_and_our_mark() {
    let endpoints = created(&http(), &[pod("a", "10.1.0.1")]);
    assert_eq!(endpoints.metadata.name.as_deref(), Some("svc"));
    assert_eq!(endpoints.metadata.namespace.as_deref(), Some("ns"));
    let expected: BTreeMap<_, _> =
        [("team", "x"), (MANAGED_BY, "endpoint-controller")].map(|(k, v)| (k.to_owned(), v.to_owned())).into();
    assert_eq!(endpoints.metadata.labels, Some(expected));
    let headless = created(&service(json!({"clusterIP": "None"})), &[]);
    assert_eq!(headless.metadata.labels.expect("labels").get(HEADLESS).map(String::as_str), Some(""));
    assert_eq!(headless.subsets, None);
}

#[test]
fn what_is_current_is_left_alone() {
    let pods = [pod("a", "10.1.0.1"), with(pod("b", "10.1.0.2"), |p| p.ready = false)];
    let endpoints = created(&http(), &pods);
    assert_eq!(replaced(&http(), &endpoints, &pods), None);

    let mut versions = endpoints.clone();
    for address in versions.subsets.iter_mut().flatten().flat_map(|s| s.addresses.iter_mut().flatten()) {
        address.target_ref.as_mut().expect("a target").resource_version = Some("99".to_owned());
    }
    assert_eq!(replaced(&http(), &versions, &pods), None, "the version of a target is no difference");

    let mut annotated = endpoints;
    annotated.metadata.annotations = Some([("mine".to_owned(), "x".to_owned())].into());
    assert_eq!(replaced(&http(), &annotated, &pods), None, "annotations of others are no difference");
}

#[test]
fn another_managers_order_is_no_difference() {
    let two = service(json!({"ports": [
        {"name": "a", "port": 1, "targetPort": "x"}, {"name": "b", "port": 2, "targetPort": 2},
        {"name": "c", "port": 3, "targetPort": 3},
    ]}));
    let pods = [
        with(pod("a", "10.1.0.1"), |p| p.ports = [named("x", 9, Protocol::Tcp)].into()),
        pod("b", "10.1.0.2"),
        pod("c", "10.1.0.3"),
    ];
    let mut endpoints = created(&two, &pods);
    for subset in endpoints.subsets.iter_mut().flatten() {
        subset.addresses.iter_mut().for_each(|list| list.reverse());
        subset.ports.iter_mut().for_each(|list| list.reverse());
    }
    endpoints.subsets.iter_mut().for_each(|list| list.reverse());
    assert_eq!(brief(endpoints.subsets.as_deref().expect("subsets")).len(), 2);
    assert_eq!(replaced(&two, &endpoints, &pods), None);
}

#[test]
fn differences_are_written_over_the_object_that_was_read() {
    let pods = [pod("a", "10.1.0.1")];
    let base = created(&http(), &pods);
    let edit = |change: fn(&mut Endpoints)| {
        let mut endpoints = base.clone();
        endpoints.metadata.annotations = Some([("mine".to_owned(), "x".to_owned())].into());
        change(&mut endpoints);
        endpoints
    };
    let cases: Vec<(&str, Endpoints)> = vec![
        ("a label gone", edit(|e| drop(e.metadata.labels.as_mut().and_then(|l| l.remove("team"))))),
        ("our mark gone", edit(|e| drop(e.metadata.labels.as_mut().and_then(|l| l.remove(MANAGED_BY))))),
        (
            "a label too many",
            edit(|e| {
                e.metadata.labels.get_or_insert_default().insert("extra".to_owned(), String::new());
            }),
        ),
        (
            "a headless mark too many",
            edit(|e| {
                e.metadata.labels.get_or_insert_default().insert(HEADLESS.to_owned(), String::new());
            }),
        ),
        (
            "a capacity mark too many",
            edit(|e| {
                e.metadata.annotations.get_or_insert_default().insert(OVER_CAPACITY.to_owned(), "truncated".to_owned());
            }),
        ),
        (
            "another address",
            edit(|e| {
                e.subsets.as_mut().expect("subsets")[0].addresses.as_mut().expect("ready")[0].ip =
                    "10.9.9.9".to_owned();
            }),
        ),
        ("no subsets", edit(|e| e.subsets = None)),
    ];
    for (case, endpoints) in cases {
        let next = replaced(&http(), &endpoints, &pods).unwrap_or_else(|| panic!("{case}"));
        assert_eq!(next.subsets, base.subsets, "{case}");
        assert_eq!(next.metadata.labels, base.metadata.labels, "{case}");
        assert_eq!(next.metadata.resource_version.as_deref(), Some("7"), "{case}");
        let annotations = next.metadata.annotations.expect("annotations");
        assert_eq!(annotations.get("mine").map(String::as_str), Some("x"), "{case}");
        assert!(!annotations.contains_key(OVER_CAPACITY), "{case}");
    }
}

#[test]
fn the_trigger_time_is_written_with_a_change_and_cleared_without() {
    let mut first = snapshot(Some(http()), None, &[pod("a", "10.1.0.1")]);
    first.trigger = Some(1_704_067_200);
    let ops = plan(&first);
    let [Op::Create(endpoints)] = ops.as_slice() else { panic!("{ops:?}") };
    let annotations = endpoints.metadata.annotations.clone().expect("annotations");
    assert_eq!(annotations[TRIGGER_TIME], "2024-01-01T00:00:00Z");

    let mut second = snapshot(Some(http()), Some(stored(endpoints)), &[pod("a", "10.1.0.1")]);
    second.trigger = Some(1_704_067_300);
    assert!(plan(&second).is_empty(), "a time alone is no reason to write");

    let next = replaced(&http(), &stored(endpoints), &[]).expect("a write");
    assert_eq!(next.metadata.annotations, Some(BTreeMap::new()));
}

#[test]
fn orphans_are_deleted_unless_they_are_a_lock_or_on_their_way() {
    let base = stored(&Endpoints::default());
    let delete = Op::Delete { uid: "ep-uid".to_owned(), resource_version: "7".to_owned() };
    assert_eq!(plan(&snapshot(None, Some(base.clone()), &[])), [delete]);
    assert!(plan(&snapshot(None, None, &[])).is_empty());

    let mut lock = base.clone();
    lock.metadata.annotations = Some([("control-plane.alpha.kubernetes.io/leader".to_owned(), "{}".to_owned())].into());
    assert!(plan(&snapshot(None, Some(lock), &[])).is_empty());

    let mut leaving = base;
    leaving.metadata.deletion_timestamp = http().metadata.creation_timestamp;
    assert!(plan(&snapshot(None, Some(leaving), &[])).is_empty());
}

#[test]
fn services_without_selector_or_with_external_name_are_not_touched() {
    let manual = stored(&Endpoints::default());
    for spec in [json!({"selector": {}}), json!({"type": "ExternalName"}), json!({"selector": null})] {
        let service = service(spec.clone());
        assert!(plan(&snapshot(Some(service.clone()), None, &[])).is_empty(), "{spec}");
        assert!(plan(&snapshot(Some(service), Some(manual.clone()), &[])).is_empty(), "{spec}");
    }
}

fn many(ready: usize, not_ready: usize, port: i32) -> EndpointSubset {
    let list = |from: usize, count: usize| {
        let address = |i: usize| EndpointAddress {
            ip: format!("10.{port}.{}.{}", i / 256, i % 256),
            ..EndpointAddress::default()
        };
        Some((from..from + count).map(address).collect::<Vec<_>>()).filter(|l| !l.is_empty())
    };
    EndpointSubset {
        addresses: list(0, ready),
        not_ready_addresses: list(ready, not_ready),
        ports: Some(vec![EndpointPort { port, ..EndpointPort::default() }]),
    }
}

/// (ready, not ready) of a subset.
type Counts = (usize, usize);

#[test]
fn over_capacity_is_cut_in_proportion_ready_ones_first() {
    let cases: &[(&[Counts], bool, &[Counts])] = &[
        (&[(600, 400)], false, &[(600, 400)]),
        (&[(1001, 0)], true, &[(1000, 0)]),
        (&[(600, 600)], true, &[(600, 400)]),
        (&[(500, 300), (400, 100)], true, &[(500, 75), (400, 25)]),
        (&[(800, 5), (800, 5)], true, &[(500, 0), (500, 0)]),
        // The shares are rounded up, and the last one takes what is left.
        (&[(667, 0), (667, 0), (667, 0)], true, &[(334, 0), (334, 0), (332, 0)]),
        // A subset with nothing left goes: the server refuses an empty one.
        (&[(1200, 0), (0, 5)], true, &[(1000, 0)]),
    ];
    for (before, cut, after) in cases {
        let mut subsets: Vec<_> = before.iter().zip(1..).map(|((ready, not), port)| many(*ready, *not, port)).collect();
        assert_eq!(truncate(&mut subsets), *cut, "{before:?}");
        let len = |l: &Option<Vec<EndpointAddress>>| l.as_ref().map_or(0, Vec::len);
        let counts: Vec<_> = subsets.iter().map(|s| (len(&s.addresses), len(&s.not_ready_addresses))).collect();
        assert_eq!(counts, *after, "{before:?}");
    }
}

#[test]
fn a_truncated_service_is_written_once() {
    let pods: Vec<_> =
        (0..CAPACITY + 5).map(|i| pod(&format!("p{i}"), &format!("10.1.{}.{}", i / 256, i % 256))).collect();
    let endpoints = created(&http(), &pods);
    let annotations = endpoints.metadata.annotations.as_ref().expect("annotations");
    assert_eq!(annotations[OVER_CAPACITY], "truncated");
    assert_eq!(replaced(&http(), &endpoints, &pods), None);
    let fewer = replaced(&http(), &endpoints, &pods[..10]).expect("a write");
    assert_eq!(fewer.metadata.annotations, Some(BTreeMap::new()));
}

#[test]
fn only_what_endpoints_show_of_a_pod_matters() {
    let base = pod("a", "10.1.0.1");
    let newer = |change: fn(&mut PodView)| {
        with(base.clone(), |p| {
            p.resource_version = "2".into();
            change(p);
        })
    };
    let cases: [(&str, PodView, bool); 10] = [
        ("status", newer(|_| {}), false),
        ("readiness", newer(|p| p.ready = false), true),
        ("time of readiness", newer(|p| p.ready_changed = Some(5)), false),
        ("deletion", newer(|p| p.deleting = true), true),
        ("address", newer(|p| p.ips = ["10.1.0.2".parse().expect("an address")].into()), true),
        ("end", newer(|p| p.phase = PodPhase::Failed), true),
        ("phase alone", newer(|p| p.phase = PodPhase::Pending), false),
        ("hostname of another service", newer(|p| p.hostname = Some("h".into())), false),
        (
            "hostname and subdomain",
            newer(|p| {
                p.hostname = Some("h".into());
                p.subdomain = Some("svc".into());
            }),
            true,
        ),
        ("successor of the same name", newer(|p| p.uid = "other".into()), true),
    ];
    for (case, pod, matters) in cases {
        assert_eq!(shown(&http(), &base) != shown(&http(), &pod), matters, "{case}");
        assert!(!matters || !alike(&base, &pod), "{case}");
    }
    assert!(alike(&base, &with(base.clone(), |p| p.ready = false)), "same version");
    let labelled = newer(|p| p.labels = [("app", "b")].into_iter().collect());
    assert!(!alike(&base, &labelled));
    let out = |p: PodView| with(p, |p| p.ips = Box::default());
    assert!(alike(&out(base), &out(labelled)), "pods without an address are nobody's endpoints");
}

#[test]
fn only_spec_and_labels_of_a_service_matter() {
    let old = Arc::new(http());
    let changed = |change: fn(&mut Service)| {
        let mut new = http();
        change(&mut new);
        let new = Arc::new(new);
        service_changed(&Change::Updated { old: &old, new: &new })
    };
    assert!(!changed(|_| {}));
    assert!(!changed(|s| s.status = Some(Default::default())));
    assert!(!changed(|s| s.metadata.annotations = Some([("a".to_owned(), "b".to_owned())].into())));
    assert!(changed(|s| s.metadata.labels = None));
    assert!(changed(|s| s.metadata.uid = Some("other".to_owned())));
    assert!(changed(|s| s.spec.as_mut().expect("a spec").publish_not_ready_addresses = Some(true)));
}

#[test]
fn the_trigger_is_the_oldest_change_not_yet_shown() {
    const CREATED: i64 = 1_704_067_200;
    let at = |name: &str, time: i64| Arc::new(with(pod(name, "10.1.0.1"), |p| p.ready_changed = Some(time)));
    let service = http();
    let (seen, first) = observe(None, &service, &[at("a", CREATED + 5)], None);
    assert_eq!(first, Some(CREATED), "a new service: its creation");

    let (seen, again) = observe(Some(&seen), &service, &[at("a", CREATED + 5)], None);
    assert_eq!(again, None, "nothing new");

    let pods = [at("a", CREATED + 30), at("b", CREATED + 20), at("c", CREATED + 40)];
    let (seen, oldest) = observe(Some(&seen), &service, &pods, None);
    assert_eq!(oldest, Some(CREATED + 20));
    assert_eq!(observe(Some(&seen), &service, &pods[..1], None).1, None, "a pod that went has no time");

    let mut known = Endpoints::default();
    assert_eq!(observe(None, &service, &pods, Some(&known)).1, None, "a new process, no time written");
    known.metadata.annotations = Some([(TRIGGER_TIME.to_owned(), "2024-01-01T00:00:25Z".to_owned())].into());
    assert_eq!(observe(None, &service, &pods, Some(&known)).1, Some(CREATED + 30));
}

prop_compose! {
    fn any_subset()(
        addresses in prop::collection::vec((0u8..6, 0u8..2, any::<bool>()), 1..6),
        ports in prop::collection::vec(1i32..4, 0..3),
    ) -> EndpointSubset {
        let list = |wanted: bool| {
            let list: Vec<_> = addresses.iter().filter(|(_, _, ready)| *ready == wanted).map(|(ip, uid, _)| {
                serde_json::from_value(json!({"ip": format!("10.0.0.{ip}"), "targetRef": {"uid": format!("u{uid}")}}))
                    .expect("an address")
            }).collect();
            Some(list).filter(|l: &Vec<_>| !l.is_empty())
        };
        EndpointSubset {
            addresses: list(true),
            not_ready_addresses: list(false),
            ports: Some(ports.iter().map(|port| EndpointPort { port: *port, ..Default::default() }).collect()),
        }
    }
}

/// Every (port, ip, uid) with whether it is ready everywhere: what subsets say, without their form.
fn meaning(subsets: &[EndpointSubset]) -> BTreeMap<(i32, String, String), bool> {
    let mut facts = BTreeMap::new();
    for subset in subsets {
        let ports: Vec<i32> = subset.ports.iter().flatten().map(|p| p.port).collect();
        let ports = if ports.is_empty() { vec![-1] } else { ports };
        let lists = [(&subset.addresses, true), (&subset.not_ready_addresses, false)];
        for (port, (list, ready)) in ports.iter().flat_map(|p| lists.map(|l| (*p, l))) {
            for address in list.iter().flatten() {
                let uid = address.target_ref.as_ref().and_then(|t| t.uid.clone()).unwrap_or_default();
                facts.entry((port, address.ip.clone(), uid)).and_modify(|was| *was &= ready).or_insert(ready);
            }
        }
    }
    facts
}

proptest! {
    #[test]
    fn packing_keeps_the_meaning_and_gives_one_form(
        subsets in prop::collection::vec(any_subset(), 0..5).prop_filter("portless and ported addresses merge", |all| {
            all.iter().all(|s| s.ports.iter().flatten().next().is_some())
        }),
        seed in any::<prop::sample::Index>(),
    ) {
        let packed = repack(&subsets);
        prop_assert_eq!(meaning(&packed), meaning(&subsets));
        prop_assert!(same_subsets(&repack(&packed), &packed));
        let mut rotated = subsets.clone();
        if !rotated.is_empty() {
            let by = seed.index(rotated.len());
            rotated.rotate_left(by);
        }
        prop_assert!(same_subsets(&repack(&rotated), &packed));
    }
}
