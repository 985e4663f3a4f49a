//! The rows of upstream's own tests of this controller, by their names
//! (k8s.io/cloud-provider:controllers/route/route_controller_test.go v0.36.3). Where we answer otherwise the row says
//! so, and `docs/controllers/node-route-controller.md` says why.

use std::collections::BTreeSet;
use std::sync::Arc;

use ipnet::IpNet;
use quarterdeck_cloud::model::Route;
use quarterdeck_runtime::informer::Change;
use quarterdeck_runtime::view::{Address, Condition, NodeView};

use super::matters;
use super::pass::condition;
use super::plan::{Op, claims, is_within, plan};

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

#[test]
fn is_responsible_for_route() {
    for (cluster, route, expected) in [
        // Within the range.
        ("10.244.0.0/16", "10.244.0.0/24", true),
        ("10.244.0.0/16", "10.244.10.0/24", true),
        ("10.244.0.0/16", "10.244.255.0/24", true),
        ("10.244.0.0/14", "10.244.0.0/24", true),
        ("10.244.0.0/14", "10.247.255.0/24", true),
        ("a00:100::/10", "a00:100::/24", true),
        // Outside of it.
        ("10.244.0.0/16", "10.224.0.0/24", false),
        ("10.244.0.0/16", "10.0.10.0/24", false),
        ("10.244.0.0/16", "10.255.255.0/24", false),
        ("10.244.0.0/14", "10.248.0.0/24", false),
        ("10.244.0.0/14", "10.243.255.0/24", false),
        ("a00:100::/10", "b00:100::/24", false),
        // There one end within the range is enough; a route that goes beyond it is somebody else's here.
        ("10.244.0.0/16", "10.244.0.0/15", false),
    ] {
        let cluster = [net(cluster).trunc()];
        assert_eq!(is_within(&cluster, &net(route).trunc()), expected, "{route} in {cluster:?}");
    }
}

fn node(name: &str, uid: &str, cidrs: &[&str], address: &str) -> Arc<NodeView> {
    Arc::new(NodeView {
        uid: uid.into(),
        pod_cidrs: cidrs.iter().map(|cidr| (*cidr).into()).collect(),
        addresses: [Address { kind: "InternalIP".into(), address: address.into() }].into(),
        ..NodeView::named(name)
    })
}

/// A route as a cloud lists it: name, target, destination, and the target's address; `-` if the cloud tells none.
type Listed = (&'static str, &'static str, &'static str, &'static str);

fn route((name, node, destination, address): &Listed) -> Route {
    Route {
        name: (*name).to_owned(),
        destination: net(destination),
        node: (*node).to_owned(),
        provider_id: String::new(),
        next_hops: address.parse().into_iter().collect(),
        blackhole: node.is_empty(),
    }
}

/// A row: its name, nodes, the routes there are, what leads where afterwards, and the nodes that have all of theirs.
struct Row {
    name: &'static str,
    nodes: Vec<Arc<NodeView>>,
    there: &'static [Listed],
    after: &'static [(&'static str, &'static str)],
    routed: &'static [&'static str],
    /// Changes that are made.
    changes: usize,
}

const ONE: Listed = ("my-k8s-01", "node-1", "10.120.0.0/24", "10.0.1.1");
const TWO: Listed = ("my-k8s-02", "node-2", "10.120.1.0/24", "10.0.2.1");
const DUAL: [Listed; 4] = [
    ("my-k8s-01", "node-3", "10.120.0.0/24", "10.0.3.1"),
    ("my-k8s-02", "node-4", "10.120.1.0/24", "10.0.4.1"),
    ("my-k8s-03", "node-3", "a00:100::/24", "10.0.3.1"),
    ("my-k8s-04", "node-4", "a00:200::/24", "10.0.4.1"),
];
const AFTER: &[(&str, &str)] = &[("10.120.0.0/24", "node-1"), ("10.120.1.0/24", "node-2")];
const DUAL_AFTER: &[(&str, &str)] =
    &[("10.120.0.0/24", "node-3"), ("10.120.1.0/24", "node-4"), ("a00:100::/24", "node-3"), ("a00:200::/24", "node-4")];

fn dual(name: &'static str, there: &'static [Listed], changes: usize) -> Row {
    let nodes = vec![
        node("node-3", "03", &["10.120.0.0/24", "a00:100::/24"], "10.0.3.1"),
        node("node-4", "04", &["10.120.1.0/24", "a00:200::/24"], "10.0.4.1"),
    ];
    Row { name, nodes, there, after: DUAL_AFTER, routed: &["node-3", "node-4"], changes }
}

fn single(name: &'static str, there: &'static [Listed], changes: usize) -> Row {
    let nodes = vec![
        node("node-1", "01", &["10.120.0.0/24"], "10.0.1.1"),
        node("node-2", "02", &["10.120.1.0/24"], "10.0.2.1"),
    ];
    Row { name, nodes, there, after: AFTER, routed: &["node-1", "node-2"], changes }
}

fn rows() -> Vec<Row> {
    vec![
        // There a cloud says whether its routes carry addresses, and such routes are made anew. Here what a cloud does
        // not tell is no difference.
        dual(
            "routes have no TargetNodeAddresses at the beginning",
            &[
                ("my-k8s-01", "node-3", "10.120.0.0/24", "-"),
                ("my-k8s-02", "node-4", "10.120.1.0/24", "-"),
                ("my-k8s-03", "node-3", "a00:100::/24", "-"),
                ("my-k8s-04", "node-4", "a00:200::/24", "-"),
            ],
            0,
        ),
        dual(
            "routes' TargetNodeAddresses changed",
            &[
                ("my-k8s-01", "node-3", "10.120.0.0/24", "10.0.13.1"),
                ("my-k8s-02", "node-4", "10.120.1.0/24", "10.0.14.1"),
                ("my-k8s-03", "node-3", "a00:100::/24", "10.0.13.1"),
                ("my-k8s-04", "node-4", "a00:200::/24", "10.0.14.1"),
            ],
            4,
        ),
        dual("multicidr 2 nodes and no routes", &[], 4),
        dual("multicidr 2 nodes and all routes created", &DUAL, 0),
        dual(
            "multicidr 2 nodes and few wrong routes",
            &[
                ("my-k8s-01", "node-3", "10.120.1.0/24", "10.0.3.1"),
                ("my-k8s-02", "node-4", "10.120.0.0/24", "10.0.4.1"),
                ("my-k8s-03", "node-3", "a00:200::/24", "10.0.3.1"),
                ("my-k8s-04", "node-4", "a00:100::/24", "10.0.4.1"),
            ],
            4,
        ),
        dual("multicidr 2 nodes and some routes created", &[DUAL[0], DUAL[3]], 2),
        dual(
            "multicidr 2 nodes and too many routes",
            &[
                DUAL[0],
                DUAL[1],
                ("my-k8s-001", "node-x", "10.120.2.0/24", "10.0.5.1"),
                DUAL[2],
                DUAL[3],
                ("my-k8s-0002", "node-y", "a00:300::/24", "10.0.6.1"),
            ],
            2,
        ),
        single("single cidr 2 nodes and routes created", &[ONE, TWO], 0),
        single(
            "single cidr node ips changed so routes should be updated",
            &[
                ("my-k8s-01", "node-1", "10.120.0.0/24", "10.0.1.2"),
                ("my-k8s-02", "node-2", "10.120.1.0/24", "10.0.2.2"),
            ],
            2,
        ),
        single("single cidr 2 nodes and one route created", &[ONE], 1),
        single("single cidr 2 nodes and no routes", &[], 2),
        single(
            "single cidr 2 nodes and too many routes",
            &[
                ONE,
                TWO,
                ("my-k8s-03", "node-3", "10.120.2.0/24", "10.0.3.1"),
                ("my-k8s-04", "node-4", "10.120.3.0/24", "10.0.4.1"),
            ],
            2,
        ),
        single(
            "single cidr 2 nodes and 2 routes with 1 incorrect",
            &[ONE, ("my-k8s-03", "node-3", "10.120.2.0/24", "10.0.2.1")],
            2,
        ),
        Row {
            nodes: vec![node("node-1", "01", &["10.120.0.0/24"], "10.0.1.1"), node("node-2", "02", &[], "10.0.5.1")],
            after: &[("10.120.0.0/24", "node-1")],
            routed: &["node-1"],
            ..single("single cidr 2 nodes and one node without cidr assigned", &[], 1)
        },
        single(
            "single cidr 2 nodes and an extra blackhole route in our range",
            &[ONE, TWO, ("my-k8s-03", "", "10.120.2.0/24", "10.0.100.1")],
            1,
        ),
        Row {
            after: &[("10.1.2.0/24", ""), ("10.120.0.0/24", "node-1"), ("10.120.1.0/24", "node-2")],
            ..single(
                "single cidr 2 nodes and an extra blackhole route not in our range",
                &[ONE, TWO, ("my-k8s-03", "", "10.1.2.0/24", "10.0.100.1")],
                0,
            )
        },
        // There the whole pass fails. The API server lets no node say one network twice; here it would be one.
        Row {
            nodes: vec![node("node-4", "04", &["10.120.1.0/24", "10.120.1.0/24"], "10.0.4.1")],
            after: &[("10.120.1.0/24", "node-4")],
            routed: &["node-4"],
            ..single("duplicate pod cidr", &[], 1)
        },
    ]
}

#[test]
fn reconcile() {
    let cluster = [net("10.120.0.0/16"), net("ace:cab:deca::/8").trunc()];
    for row in rows() {
        let there: Vec<Route> = row.there.iter().map(route).collect();
        let plan =
            plan(&row.nodes, |_| true, &there, &claims(&row.nodes, &there, &cluster), &cluster, &BTreeSet::new());
        let mut after = there.clone();
        let mut gap = false;
        for op in plan.changes.values().flatten() {
            match op {
                Op::Create(new) => {
                    // A route that was there before is replaced, never taken away first.
                    gap |= there.iter().any(|old| old.destination == new.destination);
                    after.push(new.clone());
                }
                Op::Replace { old, new } => {
                    let place = after.iter().position(|route| route == old).expect("it is there");
                    after[place] = new.clone();
                }
                Op::Delete(old) => after.retain(|route| route != old),
            }
        }
        let leads: BTreeSet<(String, String)> =
            after.iter().map(|route| (route.destination.to_string(), route.node.clone())).collect();
        let expected: BTreeSet<(String, String)> =
            row.after.iter().map(|(to, node)| ((*to).to_owned(), (*node).to_owned())).collect();
        assert_eq!(leads, expected, "{}", row.name);
        assert_eq!(after.len(), row.after.len(), "{}: a route is there twice", row.name);
        assert_eq!(plan.changes.values().flatten().count(), row.changes, "{}: {:?}", row.name, plan.changes);
        assert!(!gap, "{}: {:?}", row.name, plan.changes);
        let routed = plan.nodes.iter().filter(|(_, needed)| needed.is_some()).map(|(node, _)| node.key.name());
        assert_eq!(routed.collect::<Vec<_>>(), row.routed, "{}", row.name);
    }
}

#[test]
fn handle_node_update() {
    let before = node("node-1", "01", &["10.120.0.0/24"], "10.0.1.1");
    for (row, after, looked_at) in [
        ("internal IP updated", node("node-1", "01", &["10.120.0.0/24"], "10.0.1.2"), true),
        ("pod CIDR updated", node("node-1", "01", &["10.121.0.0/24"], "10.0.1.1"), true),
        ("node object not updated", Arc::clone(&before), false),
        (
            "unrelated node update",
            Arc::new(NodeView { resource_version: "2".into(), ready: true, ..(*before).clone() }),
            false,
        ),
    ] {
        assert_eq!(matters(&Change::Updated { old: &before, new: &after }), looked_at, "{row}");
    }
}

/// The last row is upstream's TestUpdateNetworkingConditionWithCalicoScenario, too.
#[test]
fn update_networking_condition() {
    let said = |status: &str, reason: &str| Some(Condition { status: status.into(), reason: reason.into() });
    for (row, said, routed, written) in [
        ("No existing condition, routes created - should update", None, true, Some("RouteCreated")),
        ("No existing condition, routes not created - should update", None, false, Some("NoRouteCreated")),
        (
            "Existing condition with same status and reason (RouteCreated) - should not update",
            said("False", "RouteCreated"),
            true,
            None,
        ),
        (
            "Existing condition with Status=False but different reason - should update when routes created",
            said("False", "ExternalCNI"),
            true,
            Some("RouteCreated"),
        ),
        (
            "Existing condition with Status=True and different reason - should update when routes not created",
            said("True", "SomeOtherReason"),
            false,
            Some("NoRouteCreated"),
        ),
        (
            "Existing condition with Status=False, transitioning to routes not created - should update",
            said("False", "RouteCreated"),
            false,
            Some("NoRouteCreated"),
        ),
        (
            "Existing condition with Status=True and NoRouteCreated reason - should not update",
            said("True", "NoRouteCreated"),
            false,
            None,
        ),
        (
            "Existing condition with same status but different reason (CalicoIsUp) - should update",
            said("False", "CalicoIsUp"),
            true,
            Some("RouteCreated"),
        ),
    ] {
        let told = condition(said.as_ref(), routed);
        assert_eq!(told.map(|[_, reason, _]| reason), written, "{row}");
        if let Some([status, _, message]) = told {
            let created = ["False", "RouteController created a route"];
            let missing = ["True", "RouteController failed to create a route"];
            assert_eq!([status, message], if routed { created } else { missing }, "{row}");
        }
    }
}
