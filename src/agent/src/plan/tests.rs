//! Plans, end to end: the text that a gateway and a node would load.

use serde_json::json;

use super::*;
use crate::desired::Versioned;
use crate::host::{HostAddress, Link, Mac};
use crate::nft;

pub(super) fn settings(name: &str) -> Settings {
    Settings {
        name: name.to_owned(),
        links: Vec::new(),
        bgp: false,
        cluster_check: ClusterCheck::Http(10256, "/healthz".to_owned()),
        mask: "0x0ff00000".parse().unwrap(),
        tables: 9900,
        routes: true,
        route_table: 254,
    }
}

fn host(addresses: &[&str]) -> Host {
    let link = |name: &str, loopback| Link { name: name.to_owned(), up: true, loopback, mac: None };
    let mut host = Host::default();
    host.links = BTreeMap::from([(1, link("lo", true)), (2, link("eth0", false))]);
    host.neighbours = BTreeMap::from([("10.0.0.1".parse().unwrap(), Mac([2, 0, 0, 0, 0, 1]))]);
    for network in addresses {
        host.add_address(HostAddress { network: network.parse().unwrap(), link: 2, ours: false });
    }
    host
}

/// A load balancer with two gateways and two nodes; `change` is merged into its spec.
fn balancer(change: &serde_json::Value) -> Versioned<quarterdeck_api::cloud::metal::LoadBalancerSpec> {
    let mut spec = json!({
        "epoch": 7,
        "addresses": [{ "address": "192.0.2.10", "gateway": "gw1" }],
        "gateways": [{ "name": "gw1", "addresses": ["10.0.0.1"] }, { "name": "gw2", "addresses": ["10.0.0.2"] }],
        "ports": [{ "protocol": "TCP", "port": 80, "nodePort": 30080 }],
        "backends": [{ "name": "n1", "addresses": ["10.0.0.11"] }, { "name": "n2", "addresses": ["10.0.0.12"] }],
    });
    for (key, value) in change.as_object().unwrap() {
        spec[key] = value.clone();
    }
    Versioned { generation: 3, spec: serde_json::from_value(spec).unwrap() }
}

fn desired(balancers: &[(&str, serde_json::Value)]) -> Desired {
    let balancers = balancers.iter().map(|(name, change)| ((*name).to_owned(), balancer(change)));
    Desired { balancers: balancers.collect(), ..Desired::default() }
}

const GATEWAY: &[&str] = &["10.0.0.1/24", "192.0.2.1/24"];

fn on_gateway(desired: &Desired, health: &[(&str, bool)]) -> Plan {
    let health = health
        .iter()
        .map(|(address, healthy)| {
            (Check { address: address.parse().unwrap(), path: Some("/healthz".to_owned()) }, *healthy)
        })
        .collect();
    plan(desired, &health, &host(GATEWAY), &settings("gw1"), &mut Memory::default())
}

fn text(plan: &Plan) -> String {
    let text = nft::full(&plan.ruleset);
    // Marks and elements of slots are many and say nothing to a reader.
    let lines = text.lines().map(|line| match line.split_once(" comment ") {
        Some((rule, _)) => rule.to_owned(),
        None => line.to_owned(),
    });
    lines.filter(|line| !line.contains("element inet quarterdeck pool")).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_gateway_leads_an_address_to_the_nodes() {
    let plan = on_gateway(&desired(&[("a", json!({}))]), &[]);
    let expected = "\
add table inet quarterdeck
delete table inet quarterdeck
add table inet quarterdeck
add set inet quarterdeck addresses4 { type ipv4_addr; }
add set inet quarterdeck addresses6 { type ipv6_addr; }
add map inet quarterdeck pool4-32-1 { typeof numgen inc mod 2 : ip daddr; }
add map inet quarterdeck ports4 { type ipv4_addr . inet_proto . inet_service : inet_service; }
add map inet quarterdeck ports6 { type ipv6_addr . inet_proto . inet_service : inet_service; }
add map inet quarterdeck services4 { type ipv4_addr . inet_proto . inet_service : verdict; }
add map inet quarterdeck services6 { type ipv6_addr . inet_proto . inet_service : verdict; }
add chain inet quarterdeck input { type filter hook input priority -10; policy accept; }
add chain inet quarterdeck prerouting { type nat hook prerouting priority -110; policy accept; }
add chain inet quarterdeck to-pool4-32-1
add element inet quarterdeck addresses4 { 192.0.2.10 }
add element inet quarterdeck ports4 { 192.0.2.10 . tcp . 80 : 30080 }
add element inet quarterdeck services4 { 192.0.2.10 . tcp . 80 : goto to-pool4-32-1 }
add rule inet quarterdeck input ip daddr @addresses4 icmp type echo-request accept
add rule inet quarterdeck input ip daddr @addresses4 ct state invalid drop
add rule inet quarterdeck input ip daddr @addresses4 ct state new meta l4proto tcp reject with tcp reset
add rule inet quarterdeck input ip daddr @addresses4 ct state new meta l4proto != tcp reject with icmpx port-unreachable
add rule inet quarterdeck input ip6 daddr @addresses6 icmpv6 type { echo-request, nd-neighbor-solicit, nd-neighbor-advert } accept
add rule inet quarterdeck input ip6 daddr @addresses6 ct state invalid drop
add rule inet quarterdeck input ip6 daddr @addresses6 ct state new meta l4proto tcp reject with tcp reset
add rule inet quarterdeck input ip6 daddr @addresses6 ct state new meta l4proto != tcp reject with icmpx port-unreachable
add rule inet quarterdeck prerouting ip daddr . meta l4proto . th dport vmap @services4
add rule inet quarterdeck prerouting ip6 daddr . meta l4proto . th dport vmap @services6
add rule inet quarterdeck to-pool4-32-1 meta l4proto tcp dnat ip to jhash ip saddr . ip daddr . tcp sport . tcp dport mod 32 seed 0x5eed map @pool4-32-1 : ip daddr . meta l4proto . th dport map @ports4
add rule inet quarterdeck to-pool4-32-1 meta l4proto udp dnat ip to jhash ip saddr . ip daddr . udp sport . udp dport mod 32 seed 0x5eed map @pool4-32-1 : ip daddr . meta l4proto . th dport map @ports4
add rule inet quarterdeck to-pool4-32-1 meta l4proto sctp dnat ip to jhash ip saddr . ip daddr . sctp sport . sctp dport mod 32 seed 0x5eed map @pool4-32-1 : ip daddr . meta l4proto . th dport map @ports4";
    // Spares are like the pool that is used, and empty.
    let is_spare = |line: &&str| (2..=5).any(|n| line.contains(&format!("pool4-32-{n}")));
    let whole = text(&plan);
    assert_eq!(whole.lines().filter(|line| !is_spare(line)).collect::<Vec<_>>().join("\n"), expected);
    assert!(plan.ruleset.sets["pool4-32-5"].elements.is_empty());
    let pool = &plan.ruleset.sets["pool4-32-1"].elements;
    assert_eq!(pool.len(), 32);
    assert_eq!(pool.values().filter(|address| *address == "10.0.0.11").count(), 16);
    let announced: Vec<_> =
        plan.addresses.iter().map(|(address, planned)| (address.to_string(), planned.link)).collect();
    assert_eq!(announced, [("192.0.2.10".to_owned(), Some(2))]);
    assert_eq!((plan.balancers[0].healthy, plan.balancers[0].backends, plan.balancers[0].generation), (2, 2, 3));
}

#[test]
fn one_failed_node_changes_one_map_however_many_load_balancers_there_are() {
    let many: Vec<(String, serde_json::Value)> = (0..50)
        .map(|n| {
            let address = json!([{ "address": format!("192.0.2.{}", 100 + n), "gateway": "gw1" }]);
            (format!("lb{n}"), json!({ "addresses": address }))
        })
        .collect();
    let many: Vec<(&str, serde_json::Value)> =
        many.iter().map(|(name, change)| (name.as_str(), change.clone())).collect();
    let before = on_gateway(&desired(&many), &[]);
    let after = on_gateway(&desired(&many), &[("10.0.0.11:10256", false)]);
    let change = nft::update(&nft::Observed::from(&before.ruleset), &after.ruleset);
    let lines: Vec<&str> = change.lines().collect();
    assert_eq!(lines.len(), 2, "{change}");
    assert!(lines.iter().all(|line| line.contains("element inet quarterdeck pool4-32-1")), "{change}");
    assert_eq!(after.balancers[0].healthy, 1);
}

#[test]
fn with_no_node_well_cluster_uses_all_and_local_none() {
    let ill = [("10.0.0.11:10256", false), ("10.0.0.12:10256", false)];
    let plan = on_gateway(&desired(&[("a", json!({}))]), &ill);
    assert_eq!(plan.balancers[0].healthy, 2);
    let local = json!({ "externalTraffic": "Local", "healthCheckNodePort": 32000 });
    let plan = on_gateway(&desired(&[("a", local.clone())]), &[]);
    assert!(plan.ruleset.sets["services4"].elements.is_empty(), "nobody said yet that it has endpoints");
    assert!(plan.addresses.contains_key(&"192.0.2.10".parse().unwrap()), "the address stays");
    let plan = on_gateway(&desired(&[("a", local)]), &[("10.0.0.12:32000", true)]);
    assert_eq!(plan.balancers[0].healthy, 1);
    let pool = &plan.ruleset.sets["pool4-32-1"].elements;
    assert!(pool.values().all(|address| address == "10.0.0.12"));
}

#[test]
fn source_ranges_are_a_set_and_an_empty_family_lets_nobody_in() {
    let ranges = json!({ "sourceRanges": ["198.51.100.7/24", "198.51.101.0/24", "203.0.113.5/32"] });
    let plan = on_gateway(&desired(&[("a", ranges)]), &[]);
    let set: Vec<&String> = plan.ruleset.sets["sources4-a"].elements.keys().collect();
    assert_eq!(set, ["198.51.100.0/23", "203.0.113.5"]);
    assert!(text(&plan).contains("lb-a-tcp-80-4 ip saddr != @sources4-a drop\n"));
    let plan = on_gateway(&desired(&[("a", json!({ "sourceRanges": ["2001:db8::/32"] }))]), &[]);
    assert!(text(&plan).contains("lb-a-tcp-80-4 drop\n"));
    let plan = on_gateway(&desired(&[("a", json!({ "sourceRanges": ["10.0.0.0/8", "0.0.0.0/0"] }))]), &[]);
    assert!(!text(&plan).contains("sources4"));
}

#[test]
fn affinity_remembers_clients_by_backend() {
    let plan = on_gateway(&desired(&[("a", json!({ "affinitySeconds": 60 }))]), &[]);
    let text = text(&plan);
    let id = format!("{:012x}", crate::slots::hash(b"10.0.0.11") & 0xffff_ffff_ffff);
    for expected in [
        format!("clients-lb-a-tcp-80-4-{id} {{ type ipv4_addr; flags dynamic, timeout; timeout 60s; size 65536; }}"),
        format!("lb-a-tcp-80-4 ip saddr @clients-lb-a-tcp-80-4-{id} goto to-lb-a-tcp-80-4-{id}"),
        format!("to-lb-a-tcp-80-4-{id} update @clients-lb-a-tcp-80-4-{id} {{ ip saddr }}"),
        format!("to-lb-a-tcp-80-4-{id} meta l4proto tcp dnat ip to 10.0.0.11:30080"),
    ] {
        assert!(text.contains(&expected), "{expected} is not in {text}");
    }
}

#[test]
fn the_later_decision_has_the_port_and_the_loser_is_told() {
    let plan = on_gateway(&desired(&[("a", json!({})), ("b", json!({ "epoch": 8 }))]), &[]);
    let elements: Vec<&String> = plan.ruleset.sets["services4"].elements.values().collect();
    assert_eq!(elements, ["goto to-pool4-32-1"]);
    assert!(plan.contested && plan.ways.contains_key("lb-b-tcp-80-4") && !plan.ways.contains_key("lb-a-tcp-80-4"));
    assert_eq!(plan.balancers[0].error, "192.0.2.10, port 80/tcp, belongs to b already");
    assert_eq!(plan.balancers[1].error, "");
    // Of those that share an address, the first by name is told of.
    assert_eq!(plan.addresses.values().next().unwrap().balancer, "a");
    // One that is in the cluster no more has what nobody else wants.
    let mut desired = desired(&[("a", json!({})), ("b", json!({ "epoch": 8 }))]);
    desired.held.insert(crate::desired::ObjectId::balancer("b"));
    let plan = on_gateway(&desired, &[]);
    assert_eq!(plan.balancers[1].error, "192.0.2.10, port 80/tcp, belongs to a already");
}

#[test]
fn a_gateway_that_announces_nothing_is_ready_to() {
    let desired = desired(&[("a", json!({}))]);
    let host = host(&["10.0.0.2/24", "192.0.2.2/24"]);
    let plan = plan(&desired, &BTreeMap::new(), &host, &settings("gw2"), &mut Memory::default());
    assert!(plan.addresses.is_empty());
    assert_eq!(plan.ruleset.sets["services4"].elements.len(), 1);
}

#[test]
fn a_node_replies_through_the_gateway_that_it_was_called_by() {
    let desired = desired(&[("a", json!({}))]);
    let mut memory = Memory::default();
    let plan = plan(&desired, &BTreeMap::new(), &host(&["10.0.0.11/24"]), &settings("n1"), &mut memory);
    let text = text(&plan);
    for expected in [
        "add element inet quarterdeck nodeports { tcp . 30080 }",
        "from-gateway ether saddr 02:00:00:00:00:01 ct mark set ct mark and 0xf00fffff or 0x00100000",
        "to-gateway ct mark and 0x0ff00000 == 0x00200000 meta mark set meta mark and 0xf00fffff or 0x00200000",
        "mark-out ct direction reply ct mark and 0x0ff00000 != 0 goto to-gateway",
    ] {
        assert!(text.contains(expected), "{expected} is not in {text}");
    }
    assert!(!plan.gateway && plan.addresses.is_empty());
    let route =
        |via: &str, table| KernelRoute { destination: "0.0.0.0/0".parse().unwrap(), via: via.parse().unwrap(), table };
    assert_eq!(plan.routes, [route("10.0.0.1", 9901), route("10.0.0.2", 9902)].into());
    let marks: Vec<(u32, u32)> = plan.rules.iter().map(|rule| (rule.mark, rule.table)).collect();
    assert_eq!(marks, [(0x0010_0000, 9901), (0x0020_0000, 9902)]);
    // The second gateway's link-layer address is not known yet; the first one's is remembered.
    assert_eq!(plan.unresolved, ["10.0.0.2".parse().unwrap()].into());
    let mut forgetful = host(&["10.0.0.11/24"]);
    forgetful.neighbours.clear();
    let again = super::plan(&desired, &BTreeMap::new(), &forgetful, &settings("n1"), &mut memory);
    assert_eq!(again.ruleset, plan.ruleset);
}

#[test]
fn a_node_that_is_no_backend_any_more_still_replies_the_right_way() {
    let others = json!({ "backends": [{ "name": "n2", "addresses": ["10.0.0.12"] }] });
    let plan_of = |change: &serde_json::Value, name: &str, address: &str, memory: &mut Memory| {
        let desired = desired(&[("a", change.clone())]);
        plan(&desired, &BTreeMap::new(), &host(&[address]), &settings(name), memory)
    };
    let plan = plan_of(&others, "n1", "10.0.0.11/24", &mut Memory::default());
    assert!(plan.ruleset.chains.contains_key("from-gateway"));
    // A gateway needs it only if it was a backend.
    let mut memory = Memory::default();
    let plan = plan_of(&others, "gw1", "10.0.0.1/24", &mut memory);
    assert!(!plan.ruleset.chains.contains_key("from-gateway"));
    let own = json!({ "backends": [{ "name": "gw1", "addresses": ["10.0.0.1"] }] });
    plan_of(&own, "gw1", "10.0.0.1/24", &mut memory);
    let plan = plan_of(&others, "gw1", "10.0.0.1/24", &mut memory);
    assert!(plan.ruleset.chains.contains_key("from-gateway"));
}

#[test]
fn a_gateway_that_is_a_node_leaves_its_own_share_to_kube_proxy() {
    let nodes = json!({ "backends": [
        { "name": "gw1", "addresses": ["10.0.0.1"] }, { "name": "n2", "addresses": ["10.0.0.12"] },
    ] });
    let plan = on_gateway(&desired(&[("a", nodes)]), &[]);
    let pool = &plan.ruleset.sets["pool4-32-1"].elements;
    assert_eq!(pool.len(), 16, "half of the slots lead nowhere");
    assert!(pool.values().all(|address| address == "10.0.0.12"));
}

#[test]
fn routes_lead_to_other_nodes_and_the_later_claim_counts() {
    let route = |epoch: u64, destination: &str, hop: &str| Versioned {
        generation: 1,
        spec: serde_json::from_value(json!({ "epoch": epoch, "destinations": [destination], "nextHops": [hop] }))
            .unwrap(),
    };
    let mut desired = Desired::default();
    desired.routes.insert("n1".to_owned(), route(1, "10.1.1.0/24", "10.0.0.11"));
    desired.routes.insert("n2".to_owned(), route(1, "10.1.2.0/24", "10.0.0.12"));
    desired.routes.insert("n3".to_owned(), route(2, "10.1.2.0/24", "10.0.0.13"));
    desired.routes.insert("n4".to_owned(), route(2, "fd00:1::/64", "10.0.0.14"));
    let plan = plan(&desired, &BTreeMap::new(), &host(&["10.0.0.11/24"]), &settings("n1"), &mut Memory::default());
    let routes: Vec<String> =
        plan.routes.iter().map(|route| format!("{} via {}", route.destination, route.via)).collect();
    assert_eq!(routes, ["10.1.2.0/24 via 10.0.0.13"]);
    let errors: Vec<&str> = plan.node_routes.iter().map(|report| report.error.as_str()).collect();
    assert_eq!(errors, ["", "10.1.2.0/24 belongs to n3 already", "", "fd00:1::/64 has no next hop of its family"]);
    assert_eq!(plan.ruleset, crate::nft::Ruleset::default(), "no table is needed for routes");
}
