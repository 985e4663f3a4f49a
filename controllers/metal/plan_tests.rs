use proptest::prelude::*;

use super::*;

fn gateway(name: &str) -> Gateway {
    Gateway {
        name: name.into(),
        addresses: vec!["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()],
        life: Life::Alive,
        ready: Some(true),
        shutdown: false,
        failing: BTreeSet::new(),
        working: BTreeSet::new(),
    }
}

fn balancer(name: &str, addresses: &[(&str, Option<&str>)]) -> Balancer {
    let announced = |(address, gateway): &(&str, Option<&str>)| metal::AnnouncedAddress {
        address: address.parse().unwrap(),
        gateway: gateway.map(str::to_owned),
    };
    Balancer { name: name.into(), addresses: addresses.iter().map(announced).collect(), gateways: Vec::new() }
}

/// The snapshot as it is once everything was written.
fn applied(snapshot: &Snapshot) -> Snapshot {
    let mut next = snapshot.clone();
    for change in plan(snapshot) {
        let own = next.balancers.iter_mut().find(|own| own.name == change.balancer).expect("it is there");
        own.addresses = change.addresses;
        own.gateways = change.gateways;
    }
    next
}

fn holders(snapshot: &Snapshot) -> BTreeMap<IpAddr, BTreeSet<String>> {
    let mut all: BTreeMap<IpAddr, BTreeSet<String>> = BTreeMap::new();
    for own in snapshot.balancers.iter().flat_map(|balancer| &balancer.addresses) {
        all.entry(own.address).or_default().extend(own.gateway.clone());
    }
    all
}

#[test]
fn an_address_moves_when_its_gateway_fails_and_not_back() {
    let mut snapshot = Snapshot {
        gateways: vec![gateway("a"), gateway("b")],
        balancers: vec![balancer("x", &[("192.0.2.1", Some("a"))]), balancer("y", &[("192.0.2.2", Some("b"))])],
    };
    let changes = plan(&snapshot);
    assert!(changes.iter().all(|change| change.moves.is_empty()), "only the gateways are new: {changes:?}");
    snapshot = applied(&snapshot);
    assert_eq!(plan(&snapshot), []);

    snapshot.gateways[0].life = Life::Unsure;
    assert_eq!(plan(&snapshot), [], "nothing is known of it");
    snapshot.gateways[0].life = Life::Silent;
    let [change] = &plan(&snapshot)[..] else { panic!("one change") };
    let expected = Move {
        address: "192.0.2.1".parse().unwrap(),
        from: "a".into(),
        to: "b".into(),
        why: "its agent's Lease has expired",
    };
    assert_eq!((&*change.balancer, &change.moves[..]), ("x", &[expected][..]));
    snapshot = applied(&snapshot);
    snapshot.gateways[0].life = Life::Alive;
    assert_eq!(plan(&snapshot), [], "it stays where it is");
}

#[test]
fn every_way_to_fail_moves_an_address_and_nobody_to_take_it_keeps_it() {
    let fail: [fn(&mut Gateway); 7] = [
        |own| own.life = Life::Left,
        |own| own.life = Life::Silent,
        |own| own.life = Life::Missing,
        |own| own.ready = Some(false),
        |own| own.shutdown = true,
        |own| own.addresses.retain(IpAddr::is_ipv6),
        |own| own.name = "renamed".into(),
    ];
    for (at, fail) in fail.iter().enumerate() {
        let mut failed = gateway("a");
        fail(&mut failed);
        let balancers = vec![balancer("x", &[("192.0.2.1", Some("a"))])];
        let snapshot = Snapshot { gateways: vec![failed.clone(), gateway("b")], balancers: balancers.clone() };
        let taken = &plan(&snapshot)[0];
        assert_eq!(taken.moves.len(), 1, "way {at}");
        assert_eq!(taken.addresses[0].gateway.as_deref(), Some("b"), "way {at}");
        if failed.name != "a" {
            continue;
        }
        // A gateway of which nothing is known takes nothing over.
        let strangers = [Gateway { life: Life::Unsure, ..gateway("b") }, Gateway { ready: None, ..gateway("b") }];
        for stranger in strangers {
            let snapshot = Snapshot { gateways: vec![failed.clone(), stranger], balancers: balancers.clone() };
            assert_eq!(applied(&snapshot).balancers[0].addresses, balancers[0].addresses, "way {at}");
        }
    }
}

/// An inventory that lists no gateway, by mistake or not: nobody can take the addresses, and so they are served on.
#[test]
fn who_keeps_an_address_stays_among_the_gateways() {
    let both = vec![gateway("a"), gateway("b")];
    let balancers = vec![balancer("x", &[("192.0.2.1", Some("a"))]), balancer("y", &[("192.0.2.2", Some("b"))])];
    let before = applied(&Snapshot { gateways: both.clone(), balancers });
    let mut snapshot = Snapshot { gateways: Vec::new(), ..before.clone() };
    snapshot = applied(&snapshot);
    assert_eq!(holders(&snapshot), holders(&before));
    for (balancer, holder) in snapshot.balancers.iter().zip(["a", "b"]) {
        let names: Vec<&str> = balancer.gateways.iter().map(|own| &*own.name).collect();
        assert_eq!(names, [holder]);
    }
    assert_eq!(plan(&snapshot), []);
    snapshot.gateways = both;
    assert_eq!(applied(&snapshot).balancers, before.balancers, "listed again, all is as it was");
}

#[test]
fn what_is_withdrawn_is_left_alone() {
    let snapshot = Snapshot { gateways: vec![gateway("a")], balancers: vec![balancer("x", &[])] };
    assert_eq!(plan(&snapshot), []);
}

#[test]
fn what_one_agent_cannot_program_goes_to_one_that_has_it() {
    let mut failing = gateway("a");
    failing.failing.insert("x".into());
    let mut other = gateway("b");
    let balancers = vec![balancer("x", &[("192.0.2.1", Some("a"))])];
    let snapshot =
        |other: &Gateway| Snapshot { gateways: vec![failing.clone(), other.clone()], balancers: balancers.clone() };
    assert!(plan(&snapshot(&other))[0].moves.is_empty(), "nobody says that it has it");
    other.working.insert("x".into());
    assert_eq!(plan(&snapshot(&other))[0].moves[0].to, "b");
    other.failing.insert("x".into());
    assert!(plan(&snapshot(&other))[0].moves.is_empty(), "nobody can");
}

#[test]
fn new_addresses_are_spread() {
    let addresses: Vec<String> = (1..=30).map(|at| format!("192.0.2.{at}")).collect();
    let balancers = addresses.iter().map(|address| balancer(address, &[(address, None)])).collect();
    let snapshot = Snapshot { gateways: vec![gateway("a"), gateway("b"), gateway("c")], balancers };
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for holder in holders(&applied(&snapshot)).into_values().flatten() {
        *counts.entry(holder).or_default() += 1;
    }
    assert_eq!(counts.into_values().collect::<Vec<_>>(), [10, 10, 10]);
}

fn any_gateway(name: String) -> impl Strategy<Value = Gateway> {
    let life = prop_oneof![
        5 => Just(Life::Alive), 1 => Just(Life::Unsure), 1 => Just(Life::Left), 2 => Just(Life::Silent), 1 => Just(Life::Missing)
    ];
    let ready = prop_oneof![4 => Just(Some(true)), 1 => Just(Some(false)), 1 => Just(None)];
    let lists = || prop::collection::btree_set("[x-z][0-3]", 0..3);
    (life, ready, prop::bool::weighted(0.1), lists(), lists()).prop_map(
        move |(life, ready, shutdown, failing, working)| Gateway {
            life,
            ready,
            shutdown,
            failing,
            working,
            ..gateway(&name)
        },
    )
}

fn any_snapshot() -> impl Strategy<Value = Snapshot> {
    let gateways = ["a", "b", "c", "d"].map(|name| any_gateway(name.to_owned()));
    let address = prop_oneof![
        (1_u8..12).prop_map(|last| format!("192.0.2.{last}")),
        (1_u8..4).prop_map(|last| format!("2001:db8::{last}"))
    ];
    let holder = prop::option::of(prop_oneof![Just("a"), Just("b"), Just("c"), Just("d"), Just("gone")]);
    let addresses = prop::collection::btree_map(address, holder, 1..3);
    let balancers = prop::collection::btree_map("[x-z][0-3]", addresses, 0..10);
    (gateways, 0..=4_usize, balancers).prop_map(|(gateways, count, balancers)| Snapshot {
        gateways: gateways.into_iter().take(count).collect(),
        balancers: balancers
            .into_iter()
            .map(|(name, addresses)| {
                let addresses: Vec<(&str, Option<&str>)> =
                    addresses.iter().map(|(address, holder)| (&**address, *holder)).collect();
                balancer(&name, &addresses)
            })
            .collect(),
    })
}

/// A gateway that can take anything that it did not fail before.
fn is_good(gateway: &Gateway) -> bool {
    gateway.life == Life::Alive && gateway.ready == Some(true) && !gateway.shutdown
}

/// A gateway that is certain not to work at all.
fn is_bad(snapshot: &Snapshot, name: &str) -> bool {
    let own = snapshot.gateways.iter().find(|own| own.name == name);
    own.is_none_or(|own| own.life.is_over() || own.shutdown || own.ready == Some(false))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn each_address_has_one_gateway_that_works_if_one_does(snapshot in any_snapshot()) {
        let next = applied(&snapshot);
        let before = holders(&snapshot);
        for (address, after) in holders(&next) {
            prop_assert!(after.len() <= 1, "{address} is on {after:?}");
            for own in next.balancers.iter().flat_map(|balancer| &balancer.addresses).filter(|own| own.address == address) {
                prop_assert_eq!(own.gateway.iter().cloned().collect::<BTreeSet<_>>(), after.clone());
            }
            let sharing: Vec<&str> = next.balancers.iter()
                .filter(|balancer| balancer.addresses.iter().any(|own| own.address == address))
                .map(|balancer| &*balancer.name).collect();
            let could = snapshot.gateways.iter()
                .any(|own| is_good(own) && !sharing.iter().any(|name| own.failing.contains(*name)));
            match after.first() {
                Some(holder) => prop_assert!(!could || !is_bad(&snapshot, holder), "{address} stays on {holder}"),
                None => prop_assert!(!could && before[&address].is_empty(), "{address} is nowhere"),
            }
        }
    }

    #[test]
    fn nothing_moves_without_need(snapshot in any_snapshot()) {
        let first: BTreeMap<IpAddr, String> = {
            let mut sorted = snapshot.balancers.clone();
            sorted.sort_by(|a, b| b.name.cmp(&a.name));
            sorted.iter().flat_map(|own| &own.addresses)
                .filter_map(|own| Some((own.address, own.gateway.clone()?))).collect()
        };
        let next = holders(&applied(&snapshot));
        for (address, holder) in first {
            let sharing = |own: &&Gateway| snapshot.balancers.iter()
                .any(|balancer| balancer.addresses.iter().any(|at| at.address == address) && own.failing.contains(&balancer.name));
            let failed = snapshot.gateways.iter().filter(|own| own.name == holder).any(|own| sharing(&own));
            if !is_bad(&snapshot, &holder) && !failed {
                prop_assert!(next[&address].contains(&holder), "{address} left {holder}");
            }
        }
        for change in plan(&snapshot) {
            for moved in &change.moves {
                let to = snapshot.gateways.iter().find(|own| own.name == moved.to);
                let reunited = moved.why.starts_with("another load balancer");
                prop_assert!(reunited || to.is_some_and(is_good), "{moved:?}");
            }
        }
        prop_assert_eq!(plan(&applied(&snapshot)), []);
    }

    #[test]
    fn the_order_of_lists_decides_nothing(snapshot in any_snapshot(), seed in any::<u64>()) {
        let mut other = snapshot.clone();
        other.balancers.reverse();
        other.gateways.reverse();
        if !other.balancers.is_empty() {
            let by = usize::try_from(seed % 7).unwrap() % other.balancers.len();
            other.balancers.rotate_left(by);
        }
        prop_assert_eq!(holders(&applied(&snapshot)), holders(&applied(&other)));
    }
}
