//! Tables for topology mode Auto.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::fixtures::{World, node, pods};
use super::topology::{Shares, ZoneCounts};

/// A service in mode Auto over nodes `na`, `nb`, `nc` in zones of that letter with these CPUs, and
/// pods on them in these numbers.
fn world(cpus: &[u64], numbers: &[u16]) -> World {
    let names = ["na", "nb", "nc"];
    let mut world = World::new(pods(0..numbers.iter().sum()));
    world.nodes.clear();
    for (name, cpu) in names.iter().zip(cpus) {
        let mut node = node(name, &name[1..]);
        node.allocatable_cpu_milli = cpu * 1000;
        world.nodes.push(node);
    }
    let mut homes = names.iter().zip(numbers).flat_map(|(name, count)| (0..*count).map(move |_| *name));
    for pod in &mut world.pods {
        Arc::make_mut(pod).node = homes.next().map(Into::into);
    }
    let mode = ("service.kubernetes.io/topology-mode".to_owned(), "Auto".to_owned());
    world.service.metadata.annotations = Some(BTreeMap::from([mode]));
    world
}

/// How many endpoints are hinted to each zone.
fn hinted(world: &World) -> Vec<(String, usize)> {
    let mut counts = BTreeMap::<String, usize>::new();
    for zone in world.endpoints().iter().filter_map(|e| e.hints.as_ref()?.for_zones.as_ref()).flatten() {
        *counts.entry(zone.name.clone()).or_default() += 1;
    }
    counts.into_iter().collect()
}

fn outcome(world: &World) -> Result<ZoneCounts, String> {
    world.plan().families.remove(0).topology.expect("mode is Auto")
}

#[test]
fn zones_get_endpoints_by_their_cpus() {
    // CPUs, pods by zone → hints by zone
    type Case = (&'static [u64], &'static [u16], &'static [(&'static str, usize)]);
    let cases: [Case; 6] = [
        (&[4, 4], &[3, 3], &[("a", 3), ("b", 3)]),
        (&[4, 4], &[6, 0], &[("a", 3), ("b", 3)]), // a zone without pods is served by another
        (&[8, 4], &[3, 3], &[("a", 4), ("b", 2)]),
        (&[4, 4, 4], &[3, 3, 3], &[("a", 3), ("b", 3), ("c", 3)]),
        (&[4, 4, 4], &[9, 0, 0], &[("a", 3), ("b", 3), ("c", 3)]),
        (&[4, 4], &[5, 6], &[("a", 5), ("b", 6)]),
    ];
    for (cpus, numbers, expected) in cases {
        let mut world = world(cpus, numbers);
        world.sync();
        let expected: Vec<_> = expected.iter().map(|(zone, count)| ((*zone).to_owned(), *count)).collect();
        assert_eq!(hinted(&world), expected, "{cpus:?} {numbers:?}");
        assert_eq!(outcome(&world), Ok(expected.into_iter().collect()), "{cpus:?} {numbers:?}");
        assert!(world.plan().is_empty(), "{cpus:?} {numbers:?}");
    }
}

#[test]
fn hints_go_when_zones_cannot_be_served() {
    type Break = fn(&mut World);
    let breaks: [(&str, Break); 8] = [
        ("fewer ready endpoints", |world| world.pods.truncate(1)),
        ("cannot be spread", |world| world.pods.truncate(3)),
        ("at least two zones", |world| world.nodes[1].ready = false),
        ("at least two zones", |world| world.nodes[1].labels = [("x", "y")].into_iter().collect()),
        ("at least two zones", |world| world.nodes[1].allocatable_cpu_milli = 0),
        ("at least two zones", |world| {
            let labels = [("topology.kubernetes.io/zone", "b"), ("node-role.kubernetes.io/control-plane", "")];
            world.nodes[1].labels = labels.into_iter().collect();
        }),
        ("at least two zones", |world| world.nodes[1] = node("nb", "a")),
        ("no zone", |world| {
            let mut excluded = node("nx", "");
            excluded.labels = [("node-role.kubernetes.io/master", "")].into_iter().collect();
            world.nodes.push(excluded);
            world.edit(0, |pod| pod.node = Some("nx".into()));
        }),
    ];
    for (reason, break_it) in breaks {
        let mut world = world(&[4, 4], &[4, 4]);
        world.sync();
        assert_eq!(hinted(&world).len(), 2);
        break_it(&mut world);
        let why = outcome(&world).unwrap_err();
        assert!(why.contains(reason), "{why:?} should say {reason:?}");
        world.sync();
        assert_eq!(hinted(&world), [], "{reason}");
        assert!(world.plan().is_empty(), "{reason}");
    }
}

#[test]
fn the_annotation_beats_the_field_and_the_old_one_the_new() {
    let mut world = world(&[4, 4], &[6, 0]);
    world.spec().traffic_distribution = Some("PreferClose".to_owned());
    world.sync();
    assert_eq!(hinted(&world), [("a".to_owned(), 3), ("b".to_owned(), 3)]);
    let annotations = world.service.metadata.annotations.as_mut().unwrap();
    annotations.insert("service.kubernetes.io/topology-aware-hints".to_owned(), "Disabled".to_owned());
    world.sync();
    assert_eq!(hinted(&world), [("a".to_owned(), 6)], "the field counts when the annotation does not");
    world.spec().traffic_distribution = None;
    assert_eq!(world.sync(), (0, 1, 0));
    assert_eq!(hinted(&world), []);
}

#[test]
fn a_slice_that_stays_keeps_its_hints() {
    let mut world = world(&[4, 4], &[200, 100]);
    world.sync();
    assert_eq!(world.sizes(), [100, 100, 100]);
    let last = world.pods.len() - 1;
    Arc::make_mut(&mut world.pods[last]).ready = false;
    assert_eq!(world.sync(), (0, 1, 0), "only the slice of the pod that changed");
    assert!(world.plan().is_empty());
}

#[test]
fn hints_that_starve_a_zone_are_redone() {
    let mut world = world(&[4, 4], &[3, 3]);
    world.sync();
    world.tamper(0, |slice| {
        for endpoint in slice.endpoints.as_mut().unwrap() {
            endpoint.hints.as_mut().unwrap().for_zones.as_mut().unwrap()[0].name = "a".to_owned();
        }
    });
    assert_eq!(world.sync(), (0, 1, 0));
    assert_eq!(hinted(&world), [("a".to_owned(), 3), ("b".to_owned(), 3)]);
}

#[test]
fn overload_is_measured_against_the_share() {
    let shares = Shares::of(&[node("n1", "a"), node("n2", "b")]).unwrap();
    let counts = |a, b| ZoneCounts::from([("a".to_owned(), a), ("b".to_owned(), b)]);
    assert!(!shares.overload(&counts(5, 5)));
    assert!(!shares.overload(&counts(5, 7)), "5 of 12 for half the CPUs is within a fifth");
    assert!(shares.overload(&counts(4, 8)));
    assert!(shares.overload(&ZoneCounts::from([("a".to_owned(), 5)])), "a zone without endpoints");
    assert!(!shares.overload(&ZoneCounts::new()));
}
