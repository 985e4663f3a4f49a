use std::collections::BTreeSet;
use std::sync::Arc;

use ipnet::IpNet;
use quarterdeck_cloud::model::Route;
use quarterdeck_runtime::view::{Address, NodeView};

use super::plan::{Op, Plan, Wrong, claims, plan};

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn cluster() -> Vec<IpNet> {
    vec![net("10.0.0.0/8"), net("fd00::/48")]
}

/// A node at 192.168.0.<number>.
fn node(number: u8, cidrs: &[&str]) -> Arc<NodeView> {
    let addresses = [format!("192.168.0.{number}"), format!("fd99::{number}")];
    let address = |address: &String| Address { kind: "InternalIP".into(), address: address.as_str().into() };
    Arc::new(NodeView {
        uid: format!("uid-{number}").into(),
        created: i64::from(number),
        provider_id: Some(format!("sim://{number}").into()),
        pod_cidrs: cidrs.iter().map(|cidr| (*cidr).into()).collect(),
        addresses: addresses.iter().map(address).collect(),
        ..NodeView::named(&format!("n{number}"))
    })
}

/// The route of [`node`]'s first network, as a cloud lists it.
fn route(number: u8, cidr: &str) -> Route {
    Route {
        name: format!("r-{number}-{cidr}"),
        destination: net(cidr),
        node: format!("n{number}"),
        provider_id: format!("sim://{number}"),
        next_hops: vec![format!("192.168.0.{number}").parse().unwrap()],
        blackhole: false,
    }
}

fn planned(nodes: &[Arc<NodeView>], routes: &[Route]) -> Plan {
    plan(nodes, |_| true, routes, &claims(nodes, routes, &cluster()), &cluster(), &BTreeSet::new())
}

/// `create cidr node`, `replace cidr node -> node`, `delete cidr name` of each change, in order.
fn ops(plan: &Plan) -> Vec<String> {
    let word = |op: &Op| match op {
        Op::Create(route) => format!("create {} {}", route.destination, route.node),
        Op::Replace { old, new } => format!("replace {} {} -> {}", old.destination, old.node, new.node),
        Op::Delete(route) => format!("delete {} {}", route.destination, route.name),
    };
    plan.changes.values().flatten().map(word).collect()
}

/// `name` of nodes whose routes are there, `name+` of those that wait for changes, `name!` of those that cannot have
/// them.
fn nodes(plan: &Plan) -> Vec<String> {
    let word = |(node, needed): &(Arc<NodeView>, Option<_>)| {
        let needed: &Option<std::collections::BTreeSet<IpNet>> = needed;
        let mark = match needed {
            None => "!",
            Some(needed) if needed.is_empty() => "",
            Some(_) => "+",
        };
        format!("{}{mark}", node.key.name())
    };
    plan.nodes.iter().map(word).collect()
}

#[test]
fn missing_routes_are_made_and_good_ones_left() {
    let two = [node(1, &["10.0.1.0/24"]), node(2, &["10.0.2.0/24"]), node(3, &[])];
    let plan = planned(&two, &[route(1, "10.0.1.0/24")]);
    assert_eq!(ops(&plan), ["create 10.0.2.0/24 n2"]);
    assert_eq!(nodes(&plan), ["n1", "n2+"], "a node without a network is left alone");
    let Op::Create(made) = &plan.changes[&net("10.0.2.0/24")][0] else { panic!("{plan:?}") };
    assert_eq!((&*made.name, &*made.provider_id), ("uid-2", "sim://2"));
    assert_eq!(made.next_hops.len(), 2, "the cloud chooses the one of its family");
}

#[test]
fn each_network_of_a_dual_stack_node_has_a_route() {
    let dual = [node(1, &["10.0.1.0/24", "fd00:0:0:1::/64"])];
    let plan = planned(&dual, &[]);
    assert_eq!(ops(&plan), ["create 10.0.1.0/24 n1", "create fd00:0:0:1::/64 n1"]);
    let names = plan.changes.values().flatten().map(|op| match op {
        Op::Create(route) => route.name.clone(),
        other => panic!("{other:?}"),
    });
    assert_eq!(names.collect::<Vec<_>>(), ["uid-1", "uid-1-1"], "hints are unique");
    let plan = planned(&dual, &[route(1, "10.0.1.0/24")]);
    assert_eq!((ops(&plan), nodes(&plan)), (vec!["create fd00:0:0:1::/64 n1".to_owned()], vec!["n1+".to_owned()]));
}

/// cloud-provider deletes a route and then makes the other one (defect 10).
#[test]
fn routes_that_lead_elsewhere_are_replaced_in_one_step() {
    let nodes_now = [node(1, &["10.0.1.0/24"])];
    let good = route(1, "10.0.1.0/24");
    type Change = fn(&mut Route);
    let changes: [(&str, Change); 4] = [
        ("to another node", |route| route.node = "n9".to_owned()),
        ("to a former instance of that name", |route| route.provider_id = "sim://old".to_owned()),
        ("to a former address", |route| route.next_hops = vec!["192.168.0.99".parse().unwrap()]),
        ("nowhere", |route| route.blackhole = true),
    ];
    for (case, change) in changes {
        let mut bad = good.clone();
        change(&mut bad);
        let plan = planned(&nodes_now, std::slice::from_ref(&bad));
        let expected = format!("replace 10.0.1.0/24 {} -> n1", bad.node);
        assert_eq!((ops(&plan), nodes(&plan)), (vec![expected], vec!["n1+".to_owned()]), "{case}");
        let plan = planned(&nodes_now, &[good.clone(), bad]);
        assert_eq!(ops(&plan), ["delete 10.0.1.0/24 r-1-10.0.1.0/24"], "{case}, beside a good one");
    }
    let silent = Route { provider_id: String::new(), next_hops: Vec::new(), ..good };
    assert!(planned(&nodes_now, &[silent]).changes.is_empty(), "what the cloud does not tell is no difference");
}

#[test]
fn only_routes_within_the_cluster_that_nobody_owns_are_deleted() {
    let present = [node(1, &["10.0.1.0/24"])];
    let keeps = |cidr| {
        let plan = planned(&present, &[route(1, "10.0.1.0/24"), route(7, cidr)]);
        assert_eq!(nodes(&plan), ["n1"]);
        ops(&plan).is_empty()
    };
    assert!(!keeps("10.0.7.0/24") && !keeps("fd00:0:0:7::/64"));
    assert!(keeps("172.16.0.0/24") && keeps("0.0.0.0/0"), "outside");
    assert!(keeps("8.0.0.0/6"), "partly outside");
    let hole = Route { blackhole: true, node: String::new(), ..route(7, "10.0.7.0/24") };
    assert_eq!(ops(&planned(&present, &[route(1, "10.0.1.0/24"), hole])), ["delete 10.0.7.0/24 r-7-10.0.7.0/24"]);
    let outside = Route { blackhole: true, ..route(7, "172.16.0.0/24") };
    assert!(ops(&planned(&present, &[route(1, "10.0.1.0/24"), outside])).is_empty());
    let none = planned(&[], &[route(1, "10.0.1.0/24")]);
    assert!(none.changes.is_empty(), "a cluster without nodes is no proof");
    let gone = BTreeSet::from(["n1".to_owned()]);
    let routes = [route(1, "10.0.1.0/24"), route(2, "10.0.2.0/24"), route(1, "172.16.0.0/24")];
    let last = plan(&[], |_| true, &routes, &claims(&[], &routes, &cluster()), &cluster(), &gone);
    assert_eq!(
        ops(&last),
        ["delete 10.0.1.0/24 r-1-10.0.1.0/24"],
        "of those that are proven to be gone, within the range"
    );
}

#[test]
fn a_node_that_lost_its_network_has_none_and_says_so() {
    let plan = planned(&[node(1, &[]), node(2, &[])], &[route(1, "10.0.1.0/24")]);
    assert_eq!(
        (ops(&plan), nodes(&plan)),
        (vec!["delete 10.0.1.0/24 r-1-10.0.1.0/24".to_owned()], vec!["n1!".to_owned()])
    );
}

#[test]
fn a_wrong_network_is_told_and_holds_up_nobody() {
    let all = [node(1, &["10.0.1.0/24"]), node(2, &["x"]), node(3, &["172.16.3.0/24"]), node(4, &["10.0.1.0/24"])];
    let routes = [route(2, "10.0.2.0/24")];
    let found = claims(&all, &routes, &cluster());
    let wrong: Vec<_> = found.wrong.iter().map(|(node, wrong)| (node.key.name(), wrong.clone())).collect();
    let expected = [
        ("n2", Wrong::Unreadable("x".to_owned())),
        ("n3", Wrong::Outside(net("172.16.3.0/24"))),
        ("n4", Wrong::Taken { cidr: net("10.0.1.0/24"), holder: "n1".to_owned() }),
    ];
    assert_eq!(wrong, expected);
    let plan = planned(&all, &routes);
    assert_eq!(ops(&plan), ["create 10.0.1.0/24 n1"], "the route of a node whose network cannot be read stays");
    assert_eq!(nodes(&plan), ["n1+", "n2!", "n3!", "n4!"]);
    let plan = planned(&all, &[route(4, "10.0.1.0/24")]);
    assert_eq!(
        (ops(&plan), nodes(&plan)),
        (vec![], ["n1!", "n2!", "n3!", "n4"].map(str::to_owned).into()),
        "who has it keeps it"
    );
}

#[test]
fn nodes_of_other_clouds_are_theirs() {
    let all = [node(1, &["10.0.1.0/24"]), node(2, &["10.0.2.0/24"])];
    let routes = [route(9, "10.0.2.0/24")];
    let only_first = |node: &NodeView| node.key.name() == "n1";
    let plan = plan(&all, only_first, &routes, &claims(&all, &routes, &cluster()), &cluster(), &BTreeSet::new());
    assert_eq!((ops(&plan), nodes(&plan)), (vec!["create 10.0.1.0/24 n1".to_owned()], vec!["n1+".to_owned()]));
}

#[test]
fn networks_that_overlap_are_told_and_who_has_a_route_keeps_it() {
    let found = |all: &[Arc<NodeView>], routes: &[Route]| {
        let found = claims(all, routes, &cluster());
        found.wrong.iter().map(|(node, wrong)| format!("{}: {wrong}", node.key.name())).collect::<Vec<_>>()
    };
    let wide = [node(1, &["10.0.0.0/16"]), node(2, &["10.0.2.0/24"]), node(3, &["10.1.3.0/24"])];
    assert_eq!(found(&wide, &[]), ["n2: spec.podCIDRs: 10.0.2.0/24 overlaps 10.0.0.0/16 of node n1"]);
    let plan = planned(&wide, &[]);
    assert_eq!(ops(&plan), ["create 10.0.0.0/16 n1", "create 10.1.3.0/24 n3"]);
    assert_eq!(nodes(&plan), ["n1+", "n2!", "n3+"]);
    // The newer one has the route already: it stays.
    let there = [route(2, "10.0.2.0/24")];
    assert_eq!(found(&wide, &there), ["n1: spec.podCIDRs: 10.0.0.0/16 overlaps 10.0.2.0/24 of node n2"]);
    assert_eq!(ops(&planned(&wide, &there)), ["create 10.1.3.0/24 n3"]);
    let deep = [node(3, &["10.0.0.0/16"]), node(1, &["10.0.2.0/24"]), node(2, &["10.0.2.128/25"])];
    let told = found(&deep, &[]);
    assert_eq!(told.len(), 2, "the oldest keeps its own: {told:?}");
    assert!(told.iter().all(|text| text.contains("overlaps 10.0.2.0/24 of node n1")), "{told:?}");
}

#[test]
fn a_family_that_the_cluster_has_no_range_of_is_named() {
    let all = [node(1, &["10.0.1.0/24", "fd00:0:0:1::/64"])];
    let only_v4 = [net("10.0.0.0/8")];
    let found = claims(&all, &[], &only_v4);
    let [(_, wrong)] = &found.wrong[..] else { panic!("{found:?}") };
    assert_eq!(*wrong, Wrong::Family(net("fd00:0:0:1::/64")));
    assert!(wrong.to_string().contains("is IPv6, and --cluster-cidr has no such range"), "{wrong}");
    let plan = plan(&all, |_| true, &[], &found, &only_v4, &BTreeSet::new());
    assert_eq!(ops(&plan), ["create 10.0.1.0/24 n1"], "the other network has its route");
}
