//! Tests of the choice of addresses.

use quarterdeck_api::cloud::pool::{AddressReservationSpec, Holder};

use super::*;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn port(number: u16) -> HeldPort {
    HeldPort { protocol: "TCP".into(), port: number }
}

/// A reservation: address, pool, key, and holders with their ports.
type Reserved<'a> = (&'a str, &'a str, &'a str, &'a [(&'a str, u16)]);

fn reservation((address, pool, key, holders): &Reserved<'_>) -> (IpAddr, Arc<AddressReservation>) {
    let holder = |(uid, number): &(&str, u16)| Holder {
        namespace: "a".into(),
        name: (*uid).into(),
        uid: (*uid).into(),
        ports: vec![port(*number)],
    };
    let spec = AddressReservationSpec {
        address: (*address).into(),
        pool: (*pool).into(),
        provider: "p".into(),
        sharing_key: (*key).into(),
        holders: holders.iter().map(holder).collect(),
    };
    (ip(address), Arc::new(AddressReservation { spec, ..Default::default() }))
}

fn pool(name: &str, ranges: &[&str]) -> PoolView {
    let ranges = ranges.iter().map(|range| range.parse().unwrap()).collect();
    PoolView { name: name.into(), ranges, serves: true, auto: true }
}

/// What a Service asks for, with defaults.
struct Wanted {
    needed: bool,
    families: Vec<bool>,
    requested: Vec<IpAddr>,
    pool: Option<&'static str>,
    key: Option<&'static str>,
    prefer: bool,
    port: u16,
    shown: Vec<IpAddr>,
    acquired: Vec<IpAddr>,
}

impl Default for Wanted {
    fn default() -> Self {
        Self {
            needed: true,
            families: vec![false],
            requested: Vec::new(),
            pool: None,
            key: None,
            prefer: false,
            port: 80,
            shown: Vec::new(),
            acquired: Vec::new(),
        }
    }
}

impl Wanted {
    fn ask<'a>(&'a self, ports: &'a [HeldPort]) -> Ask<'a> {
        Ask {
            uid: "me",
            provider: "p",
            needed: self.needed,
            families: &self.families,
            requested: &self.requested,
            pool: self.pool,
            sharing_key: self.key,
            one_family_will_do: self.prefer,
            ports,
            shown: &self.shown,
            acquired: &self.acquired,
        }
    }
}

fn run(wanted: &Wanted, pools: &[PoolView], reserved: &[Reserved<'_>], taken: &[&str]) -> Result<Vec<Choice>, String> {
    decide(wanted, pools, reserved, taken).map_err(|complaint| complaint.message)
}

fn reason(wanted: &Wanted, pools: &[PoolView], reserved: &[Reserved<'_>]) -> Reason {
    decide(wanted, pools, reserved, &[]).unwrap_err().reason
}

fn decide(
    wanted: &Wanted,
    pools: &[PoolView],
    reserved: &[Reserved<'_>],
    taken: &[&str],
) -> Result<Vec<Choice>, Complaint> {
    let owned: BTreeMap<IpAddr, Arc<AddressReservation>> = reserved.iter().map(reservation).collect();
    let reserved = owned.iter().map(|(address, reservation)| (*address, reservation)).collect();
    let ports = [port(wanted.port)];
    let ask = wanted.ask(&ports);
    let taken = taken.iter().map(|text| ip(text)).collect();
    choose(&ask, &World { pools, reserved: &reserved, taken: &taken })
}

fn take(address: &str, pool: &str) -> Choice {
    Choice::Take { address: ip(address), pool: pool.into() }
}

#[test]
fn the_first_free_address_is_given() {
    let pools = [pool("one", &["192.0.2.1-192.0.2.3"]), pool("two", &["192.0.2.8/31"])];
    let full: [Reserved<'_>; 3] = [
        ("192.0.2.1", "one", "", &[("x", 80)]),
        ("192.0.2.2", "one", "", &[("y", 80)]),
        ("192.0.2.3", "one", "", &[("z", 80)]),
    ];
    let any = Wanted::default();
    assert_eq!(run(&any, &pools, &[], &[]), Ok(vec![take("192.0.2.1", "one")]));
    assert_eq!(run(&any, &pools, &full[..1], &["192.0.2.2"]), Ok(vec![take("192.0.2.3", "one")]));
    assert_eq!(run(&any, &pools, &full, &[]), Ok(vec![take("192.0.2.8", "two")]));
    let why = run(&any, &pools[..1], &full, &[]).unwrap_err();
    assert_eq!(why, "no IPv4 address is left in pool one");
    let hidden = [PoolView { auto: false, ..pool("one", &["192.0.2.1"]) }];
    assert!(run(&any, &hidden, &[], &[]).unwrap_err().contains("no AddressPool with IPv4"));
    let asked = Wanted { pool: Some("one"), ..Wanted::default() };
    assert_eq!(run(&asked, &hidden, &[], &[]), Ok(vec![take("192.0.2.1", "one")]));
    let foreign = [PoolView { serves: false, ..pool("one", &["192.0.2.1"]) }];
    assert!(run(&asked, &foreign, &[], &[]).unwrap_err().contains("does not serve"));
}

#[test]
fn a_cloud_that_chooses_itself_is_left_to_it() {
    let wanted = Wanted { needed: false, ..Wanted::default() };
    assert_eq!(run(&wanted, &[pool("one", &["192.0.2.1"])], &[], &[]), Ok(vec![]));
    let requested = Wanted { needed: false, requested: vec![ip("198.51.100.1")], ..Wanted::default() };
    assert_eq!(run(&requested, &[], &[], &[]), Ok(vec![take("198.51.100.1", "")]), "reserved all the same");
}

#[test]
fn an_address_in_use_never_moves_by_itself() {
    let mine: [Reserved<'_>; 2] = [("192.0.2.5", "one", "", &[("me", 80)]), ("192.0.2.9", "one", "", &[("me", 80)])];
    let any = Wanted { shown: vec![ip("192.0.2.9")], ..Wanted::default() };
    let have = |address| Ok(vec![Choice::Have { address: ip(address) }]);
    assert_eq!(run(&any, &[pool("one", &["192.0.2.1"])], &mine, &[]), have("192.0.2.9"), "the pool has changed");
    assert_eq!(run(&any, &[], &mine, &[]), have("192.0.2.9"), "the pool is gone");
    let more = Wanted { port: 81, ..Wanted::default() };
    assert_eq!(run(&more, &[], &mine[..1], &[]), Ok(vec![Choice::Rewrite { address: ip("192.0.2.5") }]));
    let elsewhere = Wanted { pool: Some("two"), ..Wanted::default() };
    let pools = [pool("one", &["192.0.2.5"]), pool("two", &["192.0.2.64"])];
    assert_eq!(run(&elsewhere, &pools, &mine, &[]), Ok(vec![take("192.0.2.64", "two")]), "the Service asks for it");
    let acquired = Wanted { acquired: vec![ip("192.0.2.7")], ..Wanted::default() };
    assert_eq!(run(&acquired, &pools, &[], &[]), have("192.0.2.7"));
}

#[test]
fn a_requested_address_has_to_be_free_and_allowed() {
    let wanted = Wanted { requested: vec![ip("192.0.2.3")], ..Wanted::default() };
    let pools = || [PoolView { auto: false, ..pool("one", &["192.0.2.0/29"]) }];
    assert_eq!(run(&wanted, &pools(), &[], &[]), Ok(vec![take("192.0.2.3", "one")]), "asked for, so not automatic");
    let refused = |pools: &[PoolView], reserved: &[Reserved<'_>], taken: &[&str]| {
        run(&wanted, pools, reserved, taken).unwrap_err()
    };
    assert!(refused(&[], &[], &[]).contains("in no AddressPool"));
    assert!(refused(&[PoolView { serves: false, ..pool("one", &["192.0.2.3"]) }], &[], &[]).contains("serves"));
    assert!(refused(&pools(), &[("192.0.2.3", "one", "", &[("x", 80)])], &[]).contains("in use by a/x"));
    assert!(refused(&pools(), &[], &["192.0.2.3"]).contains("being given"));
}

#[test]
fn addresses_are_shared_by_key_where_ports_do_not_collide() {
    let pools = [pool("one", &["192.0.2.1-192.0.2.2"])];
    let shared: [Reserved<'_>; 1] = [("192.0.2.1", "one", "k", &[("x", 80), ("y", 81)])];
    let wants = |key, port| Wanted { key, port, ..Wanted::default() };
    let join = Ok(vec![Choice::Join { address: ip("192.0.2.1") }]);
    let own = Ok(vec![take("192.0.2.2", "one")]);
    assert_eq!(run(&wants(Some("k"), 82), &pools, &shared, &[]), join);
    assert_eq!(run(&wants(Some("k"), 81), &pools, &shared, &[]), own, "the port is taken");
    assert_eq!(run(&wants(Some("j"), 82), &pools, &shared, &[]), own, "another key");
    assert_eq!(run(&wants(None, 82), &pools, &shared, &[]), own, "no key");
    let closed: [Reserved<'_>; 1] = [("192.0.2.1", "one", "", &[("x", 80)])];
    assert_eq!(run(&wants(Some("k"), 82), &pools, &closed, &[]), own, "its holder does not share");

    let asked = |key, port| Wanted { requested: vec![ip("192.0.2.1")], key, port, ..Wanted::default() };
    assert_eq!(run(&asked(Some("k"), 82), &pools, &shared, &[]), join);
    assert!(run(&asked(Some("k"), 80), &pools, &shared, &[]).unwrap_err().contains("port TCP/80"));
    let with_me: [Reserved<'_>; 1] = [("192.0.2.1", "one", "k", &[("x", 80), ("me", 81)])];
    assert!(run(&wants(None, 81), &pools, &with_me, &[]).unwrap_err().contains("do not share"), "the key is gone");
    assert!(run(&wants(Some("k"), 80), &pools, &with_me, &[]).unwrap_err().contains("port TCP/80"));
    assert_eq!(run(&wants(Some("k"), 81), &pools, &with_me, &[]), Ok(vec![Choice::Have { address: ip("192.0.2.1") }]));
}

#[test]
fn each_family_gets_its_address() {
    let pools = [pool("four", &["192.0.2.1"]), pool("six", &["2001:db8::1"])];
    let both = Wanted { families: vec![true, false], ..Wanted::default() };
    assert_eq!(run(&both, &pools, &[], &[]), Ok(vec![take("2001:db8::1", "six"), take("192.0.2.1", "four")]));
    assert!(run(&both, &pools[..1], &[], &[]).unwrap_err().contains("IPv6"));
    let prefer = Wanted { prefer: true, ..both };
    assert_eq!(run(&prefer, &pools[..1], &[], &[]), Ok(vec![take("192.0.2.1", "four")]));
    assert!(run(&prefer, &[], &[], &[]).unwrap_err().contains("IPv6"));
}

#[test]
fn each_refusal_has_its_reason() {
    let pools = || [pool("one", &["192.0.2.1"]), PoolView { serves: false, ..pool("two", &["192.0.2.64"]) }];
    let asks = |address: &str| Wanted { requested: vec![ip(address)], ..Wanted::default() };
    let of_pool = |name| Wanted { pool: Some(name), ..Wanted::default() };
    let shared: [Reserved<'_>; 1] = [("192.0.2.1", "one", "k", &[("x", 80)])];
    let owned: [Reserved<'_>; 1] = [("192.0.2.1", "one", "", &[("x", 80)])];
    let with_me: [Reserved<'_>; 1] = [("192.0.2.1", "one", "k", &[("x", 80), ("me", 81)])];
    let with = |key, port| Wanted { key, port, ..asks("192.0.2.1") };
    let both_named = Wanted { pool: Some("nine"), ..asks("192.0.2.1") };
    let elsewhere = Wanted { pool: Some("two"), ..asks("192.0.2.1") };
    let cases = [
        ("a pool that is not there", of_pool("nine"), &[][..], Reason::NoSuchPool),
        ("an address of a pool that is not there", both_named, &[], Reason::NoSuchPool),
        ("a pool of others", of_pool("two"), &[], Reason::NoPool),
        ("a family without a pool", Wanted { families: vec![true], ..Wanted::default() }, &[], Reason::NoPool),
        ("an address of no pool", asks("198.51.100.1"), &[], Reason::OutsidePool),
        ("an address of a pool of others", asks("192.0.2.64"), &[], Reason::OutsidePool),
        ("an address of another pool", elsewhere, &[], Reason::OutsidePool),
        ("nothing left", Wanted::default(), &owned, Reason::Exhausted),
        ("another one's", asks("192.0.2.1"), &owned, Reason::InUse),
        ("another one's, who shares", asks("192.0.2.1"), &shared, Reason::InUse),
        ("another key", with(Some("j"), 81), &shared, Reason::SharingConflict),
        ("the same port", with(Some("k"), 80), &shared, Reason::SharingConflict),
        ("the key was taken away", with(None, 81), &with_me, Reason::SharingConflict),
    ];
    for (what, wanted, reserved, expected) in cases {
        assert_eq!(reason(&wanted, &pools(), reserved), expected, "{what}");
    }
}

#[test]
fn whoever_asks_for_the_impossible_stays() {
    let owned: Vec<_> = [
        ("192.0.2.5", "one", "", &[("me", 80)][..]),
        ("192.0.2.9", "one", "", &[("me", 80)]),
        ("2001:db8::5", "six", "k", &[("me", 80), ("x", 81)]),
    ]
    .iter()
    .map(reservation)
    .collect();
    let reserved = owned.iter().map(|(address, reservation)| (*address, reservation)).collect();
    let stays = |families: Vec<bool>, key, number| {
        let wanted = Wanted { families, key, pool: Some("nine"), shown: vec![ip("192.0.2.9")], ..Wanted::default() };
        stay(&wanted.ask(&[port(number)]), &reserved).map_err(|complaint| complaint.reason)
    };
    let nine = |rewrite| match rewrite {
        true => Choice::Rewrite { address: ip("192.0.2.9") },
        false => Choice::Have { address: ip("192.0.2.9") },
    };
    assert_eq!(stays(vec![false], None, 80), Ok(vec![nine(false)]), "what is shown");
    assert_eq!(stays(vec![false], None, 443), Ok(vec![nine(true)]), "with other ports");
    let six = Choice::Have { address: ip("2001:db8::5") };
    assert_eq!(stays(vec![false, true], Some("k"), 80), Ok(vec![nine(true), six]), "the key is noted");
    assert_eq!(stays(vec![false, true], Some("k"), 81), Err(Reason::SharingConflict), "not with the others' ports");
    assert_eq!(stays(vec![true], None, 80), Err(Reason::SharingConflict), "not without the key");
}
