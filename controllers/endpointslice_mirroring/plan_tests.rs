//! Tables for planning mirrors.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset, Endpoints, ObjectReference};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use proptest::prelude::*;

use super::{MANAGED_BY, MANAGER, Op, Plan, SERVICE_NAME, Snapshot, plan};

fn address(ip: &str) -> EndpointAddress {
    EndpointAddress { ip: ip.to_owned(), ..EndpointAddress::default() }
}

fn addresses(ips: &[&str]) -> Option<Vec<EndpointAddress>> {
    Some(ips.iter().map(|ip| address(ip)).collect())
}

fn port(number: i32) -> EndpointPort {
    EndpointPort { name: Some(format!("p{number}")), port: number, ..EndpointPort::default() }
}

fn subset(ready: &[&str], not_ready: &[&str], ports: &[i32]) -> EndpointSubset {
    EndpointSubset {
        addresses: addresses(ready),
        not_ready_addresses: addresses(not_ready),
        ports: Some(ports.iter().map(|number| port(*number)).collect()),
    }
}

/// Address type, ports, and addresses with readiness of a slice.
type Content = (String, Vec<i32>, Vec<(String, bool)>);

/// [`Content`] as a table says it.
type Text<'a> = (&'a str, &'a [i32], &'a [(&'a str, bool)]);

/// An Endpoints object, and a server that stores slices.
struct World {
    endpoints: Endpoints,
    slices: Vec<Arc<EndpointSlice>>,
    max: usize,
    version: u64,
}

impl World {
    fn new(subsets: Vec<EndpointSubset>) -> Self {
        let text = |text: &str| Some(text.to_owned());
        let map = |pairs: &[(&str, &str)]| {
            Some(pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect::<BTreeMap<_, _>>())
        };
        let metadata = ObjectMeta {
            namespace: text("ns"),
            name: text("svc"),
            uid: text("uid-1"),
            labels: map(&[("team", "a")]),
            annotations: map(&[
                ("note", "x"),
                ("endpoints.kubernetes.io/last-change-trigger-time", "now"),
                ("kubectl.kubernetes.io/last-applied-configuration", "{}"),
            ]),
            ..ObjectMeta::default()
        };
        let endpoints = Endpoints { metadata, subsets: Some(subsets) };
        Self { endpoints, slices: Vec::new(), max: 1000, version: 1 }
    }

    fn plan(&self) -> Plan {
        plan(&Snapshot {
            endpoints: &self.endpoints,
            slices: &self.slices,
            name_taken: &|name| self.slices.iter().any(|slice| slice.metadata.name.as_deref() == Some(name)),
            max_endpoints: self.max,
        })
    }

    /// Stores what the plan says. Returns how many slices were created, updated and deleted.
    fn sync(&mut self) -> (usize, usize, usize) {
        let mut counts = (0, 0, 0);
        for op in self.plan().ops {
            self.version += 1;
            let version = Some(self.version.to_string());
            match op {
                Op::Create(mut slice) => {
                    counts.0 += 1;
                    assert!(self.slices.iter().all(|other| other.metadata.name != slice.metadata.name));
                    slice.metadata.resource_version = version;
                    self.slices.push(Arc::new(slice));
                }
                Op::Update(mut slice) => {
                    counts.1 += 1;
                    let stored = self.slices.iter_mut().find(|s| s.metadata.name == slice.metadata.name).unwrap();
                    assert_eq!(stored.metadata.resource_version, slice.metadata.resource_version);
                    assert_eq!(stored.address_type, slice.address_type);
                    slice.metadata.resource_version = version;
                    *stored = Arc::new(slice);
                }
                Op::Delete(slice) => {
                    counts.2 += 1;
                    self.slices.retain(|other| !Arc::ptr_eq(other, &slice));
                }
            }
        }
        assert!(self.plan().ops.is_empty(), "a second plan is empty");
        counts
    }

    /// Address type, ports, and addresses with readiness of each slice, sorted.
    fn content(&self) -> Vec<Content> {
        let mut content: Vec<_> = self.slices.iter().map(|slice| content(slice)).collect();
        content.sort();
        content
    }
}

fn content(slice: &EndpointSlice) -> Content {
    let mut ports: Vec<i32> = slice.ports.iter().flatten().map(|port| port.port.unwrap()).collect();
    ports.sort_unstable();
    let endpoints = slice.endpoints.iter().flatten();
    let mut endpoints: Vec<_> = endpoints
        .map(|endpoint| (endpoint.addresses[0].clone(), endpoint.conditions.as_ref().unwrap().ready.unwrap()))
        .collect();
    endpoints.sort();
    (slice.address_type.clone(), ports, endpoints)
}

fn expected(slices: &[Text<'_>]) -> Vec<Content> {
    let text = |(ip, ready): &(&str, bool)| ((*ip).to_owned(), *ready);
    slices
        .iter()
        .map(|(kind, ports, ips)| ((*kind).to_owned(), ports.to_vec(), ips.iter().map(text).collect()))
        .collect()
}

#[test]
fn a_mirrored_slice_is_complete() {
    let mut world = World::new(vec![EndpointSubset {
        addresses: Some(vec![EndpointAddress {
            ip: "10.0.0.1".to_owned(),
            hostname: Some("db".to_owned()),
            node_name: Some("n1".to_owned()),
            target_ref: Some(ObjectReference { name: Some("pod".to_owned()), ..ObjectReference::default() }),
        }]),
        ports: Some(vec![EndpointPort { port: 80, app_protocol: Some("h2c".to_owned()), ..EndpointPort::default() }]),
        ..EndpointSubset::default()
    }]);
    assert_eq!(world.sync(), (1, 0, 0));
    let slice = &world.slices[0];
    assert!(slice.metadata.name.as_deref().unwrap().starts_with("svc-"));
    let labels = slice.metadata.labels.as_ref().unwrap();
    assert_eq!((&*labels["team"], &*labels[SERVICE_NAME], &*labels[MANAGED_BY]), ("a", "svc", MANAGER));
    assert_eq!(slice.metadata.annotations.as_ref().unwrap().keys().collect::<Vec<_>>(), ["note"]);
    let owner = &slice.metadata.owner_references.as_ref().unwrap()[0];
    assert_eq!((&*owner.kind, &*owner.uid, owner.controller), ("Endpoints", "uid-1", Some(true)));
    let port = &slice.ports.as_ref().unwrap()[0];
    let texts = [&port.name, &port.protocol, &port.app_protocol].map(Option::as_deref);
    assert_eq!((texts, port.port), ([Some(""), Some("TCP"), Some("h2c")], Some(80)));
    let endpoint = &slice.endpoints.as_ref().unwrap()[0];
    assert_eq!((endpoint.hostname.as_deref(), endpoint.node_name.as_deref()), (Some("db"), Some("n1")));
    assert_eq!(endpoint.target_ref.as_ref().unwrap().name.as_deref(), Some("pod"));
    let conditions = endpoint.conditions.as_ref().unwrap();
    assert_eq!((conditions.ready, conditions.serving, conditions.terminating), (Some(true), None, None));
}

#[test]
fn subsets_become_slices() {
    type Case<'a> = (&'a str, Vec<EndpointSubset>, &'a [Text<'a>]);
    let without_ports = |ready: &[&str]| EndpointSubset { ports: None, ..subset(ready, &[], &[]) };
    let cases: [Case<'_>; 9] = [
        ("none", vec![], &[]),
        ("no addresses", vec![subset(&[], &[], &[80])], &[]),
        (
            "both states",
            vec![subset(&["10.0.0.1"], &["10.0.0.2"], &[80])],
            &[("IPv4", &[80], &[("10.0.0.1", true), ("10.0.0.2", false)])],
        ),
        (
            "both families",
            vec![subset(&["10.0.0.1", "fd00::1"], &[], &[80])],
            &[("IPv4", &[80], &[("10.0.0.1", true)]), ("IPv6", &[80], &[("fd00::1", true)])],
        ),
        (
            "same ports",
            vec![subset(&["10.0.0.1"], &[], &[80]), subset(&["10.0.0.2"], &[], &[80])],
            &[("IPv4", &[80], &[("10.0.0.1", true), ("10.0.0.2", true)])],
        ),
        (
            "same addresses",
            vec![subset(&["10.0.0.1"], &[], &[80]), subset(&["10.0.0.1"], &[], &[81])],
            &[("IPv4", &[80, 81], &[("10.0.0.1", true)])],
        ),
        (
            "overlap",
            vec![subset(&["10.0.0.1", "10.0.0.2"], &[], &[80]), subset(&["10.0.0.1"], &[], &[81])],
            &[("IPv4", &[80], &[("10.0.0.1", true), ("10.0.0.2", true)]), ("IPv4", &[81], &[("10.0.0.1", true)])],
        ),
        (
            "not ready wins",
            vec![subset(&["10.0.0.1"], &[], &[80]), subset(&[], &["10.0.0.1"], &[80])],
            &[("IPv4", &[80], &[("10.0.0.1", false)])],
        ),
        ("no ports", vec![without_ports(&["10.0.0.1"])], &[("IPv4", &[], &[("10.0.0.1", true)])]),
    ];
    for (what, subsets, slices) in cases {
        let mut world = World::new(subsets);
        world.sync();
        assert_eq!(world.content(), expected(slices), "{what}");
    }
}

#[test]
fn invalid_and_surplus_addresses_are_counted() {
    let mut world = World::new(vec![subset(&["host", "10.0.0.2", "10.0.0.1"], &["10.0.0.3", "10.0.0.4"], &[80])]);
    world.max = 3;
    let plan = world.plan();
    assert_eq!((plan.invalid, plan.skipped, plan.added), (1, 2, 3));
    world.sync();
    let kept = [("10.0.0.1", true), ("10.0.0.2", true), ("10.0.0.3", false)];
    assert_eq!(world.content(), expected(&[("IPv4", &[80], &kept)]), "ready ones first");
}

#[test]
fn changes_are_written_to_the_same_slice() {
    let mut world = World::new(vec![subset(&["10.0.0.1", "10.0.0.2"], &[], &[80])]);
    world.sync();
    world.endpoints.subsets = Some(vec![subset(&["10.0.0.1", "10.0.0.3"], &["10.0.0.2"], &[80])]);
    let plan = world.plan();
    assert_eq!((plan.added, plan.updated, plan.removed), (1, 1, 0));
    assert_eq!(world.sync(), (0, 1, 0));
    world.endpoints.subsets = Some(vec![subset(&["10.0.0.1"], &[], &[81])]);
    assert_eq!(world.sync(), (0, 1, 0), "the slice of the old ports takes the new ones");
    world.endpoints.subsets = Some(vec![subset(&["fd00::1"], &[], &[81])]);
    assert_eq!(world.sync(), (1, 0, 1), "the address type cannot change");
    world.endpoints.subsets = None;
    assert_eq!(world.sync(), (0, 0, 1), "there are no placeholders");
}

#[test]
fn metadata_is_mirrored_and_foreign_edits_are_reverted() {
    type Edit = fn(&mut EndpointSlice);
    let edits: [(&str, Edit); 6] = [
        ("label", |s| drop(s.metadata.labels.as_mut().unwrap().remove("team"))),
        ("annotation", |s| drop(s.metadata.annotations.as_mut().unwrap().insert("x".to_owned(), "y".to_owned()))),
        ("owner", |s| s.metadata.owner_references = None),
        ("address", |s| s.endpoints.as_mut().unwrap()[0].addresses[0] = "1.1.1.1".to_owned()),
        ("condition", |s| s.endpoints.as_mut().unwrap()[0].conditions.as_mut().unwrap().serving = Some(true)),
        ("zone", |s| s.endpoints.as_mut().unwrap()[0].zone = Some("a".to_owned())),
    ];
    for (what, edit) in edits {
        let mut world = World::new(vec![subset(&["10.0.0.1", "10.0.0.2"], &[], &[80])]);
        world.sync();
        edit(Arc::make_mut(&mut world.slices[0]));
        assert_eq!(world.sync(), (0, 1, 0), "{what}");
    }
    let mut world = World::new(vec![subset(&["10.0.0.1"], &[], &[80])]);
    world.sync();
    world.endpoints.metadata.uid = Some("uid-2".to_owned());
    assert_eq!(world.sync(), (0, 1, 0), "a new object of the same name owns the slice");
    assert_eq!(world.slices[0].metadata.owner_references.as_ref().unwrap()[0].uid, "uid-2");
    world.endpoints.metadata.labels = None;
    world.endpoints.metadata.annotations = None;
    assert_eq!(world.sync(), (0, 1, 0));
}

#[test]
fn the_version_of_a_target_does_not_count() {
    let target = |version: &str| ObjectReference {
        name: Some("pod".to_owned()),
        resource_version: Some(version.to_owned()),
        ..ObjectReference::default()
    };
    let subset = |version| EndpointSubset {
        addresses: Some(vec![EndpointAddress { target_ref: Some(target(version)), ..address("10.0.0.1") }]),
        ..subset(&[], &[], &[80])
    };
    let mut world = World::new(vec![subset("1")]);
    world.sync();
    world.endpoints.subsets = Some(vec![subset("2")]);
    assert_eq!(world.sync(), (0, 0, 0));
}

#[test]
fn nothing_is_created_for_an_object_that_is_being_deleted() {
    let mut world = World::new(vec![subset(&["10.0.0.1"], &[], &[80])]);
    world.endpoints.metadata.deletion_timestamp = Some(Time(jiff::Timestamp::UNIX_EPOCH));
    assert_eq!(world.sync(), (0, 0, 0));
}

proptest! {
    /// Whatever subsets follow each other, each pair of port and address is mirrored once.
    #[test]
    fn any_history_ends_in_the_wanted_endpoints(
        history in prop::collection::vec(
            prop::collection::vec(
                (prop::collection::vec((1..7u8, any::<bool>(), any::<bool>()), 0..6), prop::collection::btree_set(80..83i32, 0..3)),
                0..4,
            ),
            1..8,
        ),
    ) {
        let mut world = World::new(Vec::new());
        for subsets in history {
            let text = |(number, six, _): &(u8, bool, bool)| {
                if *six { format!("fd00::{number}") } else { format!("10.0.0.{number}") }
            };
            let mut wanted = BTreeMap::<(Option<i32>, String), bool>::new();
            let mut made = Vec::new();
            for (addresses, ports) in &subsets {
                let of = |ready| -> Vec<_> { addresses.iter().filter(|a| a.2 == ready).map(text).collect() };
                let (ready, not_ready) = (of(true), of(false));
                let slots = if ports.is_empty() { vec![None] } else { ports.iter().copied().map(Some).collect() };
                for (address, port) in addresses.iter().flat_map(|a| slots.iter().map(move |port| (a, *port))) {
                    *wanted.entry((port, text(address))).or_insert(true) &= address.2;
                }
                let as_str = |texts: &[String]| texts.iter().map(|t| address(t)).collect::<Vec<_>>();
                made.push(EndpointSubset {
                    addresses: Some(as_str(&ready)),
                    not_ready_addresses: Some(as_str(&not_ready)),
                    ports: Some(ports.iter().map(|number| port(*number)).collect()),
                });
            }
            world.endpoints.subsets = Some(made);
            world.sync();
            let mut found = BTreeMap::new();
            for (_, ports, endpoints) in world.content() {
                let slots = if ports.is_empty() { vec![None] } else { ports.into_iter().map(Some).collect() };
                for (port, (ip, ready)) in slots.into_iter().flat_map(|port| endpoints.iter().map(move |e| (port, e.clone()))) {
                    prop_assert!(found.insert((port, ip), ready).is_none(), "mirrored twice");
                }
            }
            // Addresses without ports are said along with ports that the same addresses serve.
            wanted.retain(|(port, _), _| port.is_some());
            found.retain(|(port, _), _| port.is_some());
            prop_assert_eq!(found, wanted);
        }
    }
}
