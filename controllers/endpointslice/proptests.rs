//! Whatever happens to pods, the slices end up holding exactly the wanted endpoints.

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use proptest::prelude::*;
use quarterdeck_runtime::view::{PodPhase, PodView, PortView, Protocol};

use super::family::Family;
use super::fixtures::{World, node, numbered, port};

/// Something that happens between two reconciles.
#[derive(Clone, Debug)]
enum Event {
    /// A pod comes up, or changes, with these attributes.
    Set { number: u16, ready: bool, deleting: bool, alive: bool, zone: usize, port: u16 },
    /// A pod goes.
    Gone(u16),
    /// Nothing: only a reconcile.
    Reconcile,
}

fn event() -> impl Strategy<Value = Event> {
    let set = (0..40u16, any::<bool>(), any::<bool>(), prop::bool::weighted(0.9), 0..3usize, prop::bool::weighted(0.9))
        .prop_map(|(number, ready, deleting, alive, zone, usual)| Event::Set {
            number,
            ready,
            deleting,
            alive,
            zone,
            port: if usual { 8080 } else { 9090 },
        });
    prop_oneof![6 => set, 3 => (0..40u16).prop_map(Event::Gone), 2 => Just(Event::Reconcile)]
}

const MODES: [Option<&str>; 4] = [None, Some("PreferSameZone"), Some("PreferSameNode"), Some("Auto")];

fn world(max: usize, dual: bool, mode: Option<&str>) -> World {
    let mut world = World::new(Vec::new());
    world.max = max;
    world.nodes = vec![node("n0", "a"), node("n1", "b"), node("n2", "c")];
    world.spec().ports = Some(vec![port("http", IntOrString::String("http".to_owned()))]);
    if dual {
        world.spec().ip_families = Some(vec!["IPv4".to_owned(), "IPv6".to_owned()]);
    }
    if mode == Some("Auto") {
        let annotation = ("service.kubernetes.io/topology-mode".to_owned(), "Auto".to_owned());
        world.service.metadata.annotations = Some([annotation].into());
    } else {
        world.spec().traffic_distribution = mode.map(str::to_owned);
    }
    world
}

fn happen(world: &mut World, event: &Event) {
    match event {
        Event::Set { number, ready, deleting, alive, zone, port } => {
            let pod = PodView {
                ready: *ready,
                deleting: *deleting,
                phase: if *alive { PodPhase::Running } else { PodPhase::Failed },
                node: Some(format!("n{zone}").into()),
                ports: [PortView { name: "http".into(), port: *port, protocol: Protocol::Tcp }].into(),
                ..numbered(*number)
            };
            world.pods.retain(|other| other.key != pod.key);
            world.pods.push(Arc::new(pod));
        }
        Event::Gone(number) => world.pods.retain(|pod| pod.key != numbered(*number).key),
        Event::Reconcile => {
            world.sync();
        }
    }
}

/// All facts of an endpoint but hints, with its port and family.
type Facts = (String, i32, Vec<String>, Option<bool>, Option<bool>, Option<bool>, Option<String>);

fn wanted(world: &World) -> BTreeSet<Facts> {
    let families = super::Family::of_service(&world.service);
    let alive = world.pods.iter().filter(|pod| pod.phase == PodPhase::Running);
    alive
        .flat_map(|pod| Family::ALL.into_iter().filter(|family| families.has(*family)).map(move |family| (pod, family)))
        .map(|(pod, family)| {
            let ips = pod.ips.iter().filter(|ip| family.holds(**ip)).map(ToString::to_string).collect();
            let zone =
                pod.node.as_deref().map(|node| ["a", "b", "c"][usize::from(node.as_bytes()[1] - b'0')].to_owned());
            let ready = pod.ready && !pod.deleting;
            let name = pod.key.name().to_owned();
            (name, i32::from(pod.ports[0].port), ips, Some(ready), Some(pod.ready), Some(pod.deleting), zone)
        })
        .collect()
}

fn stored(world: &World) -> Vec<Facts> {
    let mut facts = Vec::new();
    for slice in &world.slices {
        for endpoint in slice.endpoints.iter().flatten() {
            let is = endpoint.conditions.clone().unwrap_or_default();
            let name = endpoint.target_ref.as_ref().and_then(|target| target.name.clone()).unwrap_or_default();
            let port = slice.ports.as_ref().and_then(|ports| ports[0].port).unwrap_or_default();
            let addresses = endpoint.addresses.clone();
            facts.push((name, port, addresses, is.ready, is.serving, is.terminating, endpoint.zone.clone()));
        }
    }
    facts.sort();
    facts
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn any_history_ends_in_the_wanted_endpoints(
        events in prop::collection::vec(event(), 1..120),
        max in 1..12usize,
        dual in any::<bool>(),
        mode in prop::sample::select(&MODES[..]),
    ) {
        let mut world = world(max, dual, mode);
        for event in &events {
            happen(&mut world, event);
        }
        world.sync();
        prop_assert_eq!(stored(&world), wanted(&world).into_iter().collect::<Vec<_>>(), "exactly, and each once");
        prop_assert!(world.sizes().iter().all(|size| *size <= max), "sizes {:?}", world.sizes());
        let plan = world.plan();
        prop_assert!(plan.is_empty(), "a second plan is not empty: {:?}", plan);
        for (family, count) in plan.families.iter().map(|family| (family.family, family.slices)) {
            let slices = world.slices.iter().filter(|slice| slice.address_type == family.address_type());
            prop_assert_eq!(slices.count(), count, "the plan counts the slices");
        }
    }

    #[test]
    fn a_flip_is_one_write_a_family(
        count in 1..60u16,
        max in 1..12usize,
        dual in any::<bool>(),
        near in any::<bool>(),
        flips in prop::collection::vec(0..60u16, 1..20),
    ) {
        let mut world = world(max, dual, near.then_some("PreferSameNode"));
        world.pods = super::fixtures::pods(0..count);
        world.sync();
        for number in flips.into_iter().map(|number| number % count) {
            world.edit(number, |pod| pod.ready = !pod.ready);
            prop_assert_eq!(world.sync(), (0, 1 + usize::from(dual), 0));
        }
    }
}
