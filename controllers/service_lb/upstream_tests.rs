//! Upstream's unit tests as behaviours, row by row under upstream's names: cloud-provider:controllers/service/
//! controller_test.go v0.36.3. Rows in which we differ carry our answer; why stands in
//! `docs/controllers/service-lb-controller.md`. What needs a server or a cloud is in `tests/it/cloud/service*.rs`.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Service;
use quarterdeck_cloud::CloudError;
use quarterdeck_cloud::model::{Backend, ClusterId, Handle, Ingress, IngressPoint};
use quarterdeck_runtime::client::PatchPrecondition;
use quarterdeck_runtime::object::ObjectKey;
use quarterdeck_runtime::view::NodeView;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::memory::{Known, Made, Memory};
use super::node::{backends, matters};
use super::plan::{Aim, Snapshot, Step, aim, step};
use super::record::{FINALIZER, Record};
use super::wish::{digest, owner, wish};
use super::{status, sync, watch};

const EXCLUDE: &str = "node.kubernetes.io/exclude-from-external-load-balancers";
const GOING: &str = "ToBeDeletedByClusterAutoscaler";

/// A Service of this type, with these fields besides; maps are merged.
#[expect(clippy::needless_pass_by_value, reason = "json! makes values")]
fn service(kind: &str, more: Value) -> Service {
    let mut whole = json!({
        "metadata": { "namespace": "default", "name": "svc", "uid": "uid", "resourceVersion": "7" },
        "spec": { "type": kind, "ports": [{ "protocol": "TCP", "port": 80, "nodePort": 30080 }] },
    });
    merge(&mut whole, &more);
    serde_json::from_value(whole).unwrap()
}

fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            from.iter().for_each(|(key, value)| merge(into.entry(key).or_insert(Value::Null), value));
        }
        (into, from) => *into = from.clone(),
    }
}

fn balanced(more: Value) -> Service {
    service("LoadBalancer", more)
}

fn shows(address: &str) -> Value {
    json!({ "status": { "loadBalancer": { "ingress": [{ "ip": address, "ipMode": "VIP" }] } } })
}

fn with_finalizer() -> Value {
    json!({ "metadata": { "finalizers": [FINALIZER] } })
}

fn both(one: Value, other: &Value) -> Value {
    let mut all = one;
    merge(&mut all, other);
    all
}

fn going() -> Value {
    json!({ "metadata": { "deletionTimestamp": "2026-01-01T00:00:00Z" } })
}

/// The provider that looks after a Service; upstream knows one, without a class.
fn ours(service: &Service) -> Option<&'static str> {
    let class = service.spec.as_ref().and_then(|spec| spec.load_balancer_class.as_ref());
    class.is_none().then_some("p")
}

/// What upstream makes of a Service.
#[derive(Debug, PartialEq)]
enum Op {
    /// `deleteLoadBalancer` that does nothing.
    Nothing,
    Ensure,
    Delete,
}

fn op(service: &Service) -> Op {
    match aim(service, ours(service)) {
        Aim::Ignore => Op::Nothing,
        Aim::Keep { .. } => Op::Ensure,
        Aim::Remove { .. } => Op::Delete,
    }
}

fn digest_of(service: &Service) -> String {
    digest(&wish(service, &ClusterId("c".into())).spec)
}

/// A node as upstream's `makeNode` makes it, with these fields besides.
#[expect(clippy::needless_pass_by_value, reason = "json! makes values")]
fn node(more: Value) -> Arc<NodeView> {
    let mut whole = json!({
        "metadata": { "name": "node", "uid": "u", "resourceVersion": "1" },
        "spec": { "providerID": "providerID" },
        "status": { "conditions": [{ "type": "Ready", "status": "True" }] },
    });
    merge(&mut whole, &more);
    Arc::new(serde_json::from_value(whole).unwrap())
}

fn named(name: &str) -> Value {
    json!({ "metadata": { "name": name } })
}

fn label(key: &str, value: &str) -> Value {
    json!({ "metadata": { "labels": { key: value } } })
}

fn taint(key: &str) -> Value {
    json!({ "spec": { "taints": [{ "key": key, "effect": "NoSchedule" }] } })
}

fn conditions(all: &[(&str, &str)]) -> Value {
    let all: Vec<Value> = all.iter().map(|(kind, status)| json!({ "type": kind, "status": status })).collect();
    json!({ "status": { "conditions": all } })
}

fn ready(status: &str) -> Value {
    conditions(&[("Ready", status)])
}

fn provider_id(id: &str) -> Value {
    json!({ "spec": { "providerID": id } })
}

fn excluded() -> Value {
    label(EXCLUDE, "")
}

/// What is known of a load balancer that has these nodes.
fn made_with(service: &Service, backends: Vec<Backend>) -> Known {
    let mut spec = wish(service, &ClusterId("c".into())).spec;
    let mut known = Known::new(spec.owner.clone(), "p", 1);
    let digest = digest(&spec);
    spec.backends = backends;
    let (handle, fingerprint) = (Handle("lb".into()), String::new());
    let (ingress, at) = (Vec::new(), Instant::now());
    known.made = Some(Made { digest, spec: Arc::new(spec), exact: true, handle, fingerprint, ingress, at });
    known
}

fn next(service: &Service, known: &Known, now: &[Backend]) -> Step {
    let record = Record { handle: Some(Handle("lb".into())), ..Record::default() };
    let digest = digest_of(service);
    let now =
        Snapshot { known, record: Some(&record), claimed: true, digest: &digest, backends: now, now: Instant::now() };
    step(&now)
}

#[test]
fn test_sync_load_balancer_if_needed() {
    let port = |protocol: &str| json!({ "spec": { "ports": [{ "protocol": protocol, "port": 80 }] } });
    let class = json!({ "spec": { "loadBalancerClass": "custom-loadbalancer" } });
    let shown = both(with_finalizer(), &shows("8.8.8.8"));
    // Row, Service, operation, whether the status is emptied, whether finalizers change.
    let rows = [
        ("service doesn't want LB", service("ClusterIP", json!({})), Op::Nothing, false, false),
        ("udp service that wants LB", balanced(port("UDP")), Op::Ensure, false, true),
        ("tcp service that wants LB", balanced(json!({})), Op::Ensure, false, true),
        ("sctp service that wants LB", balanced(port("SCTP")), Op::Ensure, false, true),
        ("service specifies loadBalancerClass", balanced(class), Op::Nothing, false, false),
        ("service with finalizer that no longer wants LB", service("ClusterIP", shown.clone()), Op::Delete, true, true),
        ("service that needs cleanup", balanced(both(shown, &going())), Op::Delete, true, true),
        ("service with finalizer that wants LB", balanced(with_finalizer()), Op::Ensure, false, false),
    ];
    for (row, service, expected, empties, finalizes) in rows {
        let found = op(&service);
        assert_eq!(found, expected, "{row}");
        assert_eq!(found == Op::Delete && status::withdraw(&service).is_some(), empties, "{row}: status");
        let record = Record::new("uid", "p");
        let patch = match found {
            Op::Ensure => status::claim(&service, &record),
            Op::Delete => status::release(&service),
            Op::Nothing => None,
        };
        let finalizers = patch.map(|patch| patch.patch["metadata"]["finalizers"].clone());
        let before = json!(service.metadata.finalizers.clone().unwrap_or_default());
        assert_eq!(finalizers.is_some_and(|after| after != before), finalizes, "{row}: finalizer");
    }
}

#[test]
fn test_update_nodes_in_external_load_balancer() {
    // Row, types of the Services, how many are told of nodes. A Service that is nil cannot be in the index.
    let rows: [(&str, &[&str], usize); 6] = [
        ("No services present: no calls should be made.", &[], 0),
        ("Services do not have external load balancers: no calls should be made.", &["ClusterIP", "NodePort"], 0),
        ("Services does have an external load balancer: one call should be made.", &["LoadBalancer"], 1),
        ("Three services have an external load balancer: three calls.", &["LoadBalancer"; 3], 3),
        (
            "Two services have an external load balancer and two don't: two calls.",
            &["NodePort", "LoadBalancer", "LoadBalancer", "ClusterIP"],
            2,
        ),
        ("Four services have external load balancer with only 2 workers", &["LoadBalancer"; 4], 4),
    ];
    let nodes = backends(&["node1", "node2", "node3"].map(|name| node(named(name))));
    for (row, kinds, expected) in rows {
        let services = kinds.iter().map(|kind| service(kind, json!({}))).filter(watch::concerns);
        let told =
            services.filter(|service| next(service, &made_with(service, Vec::new()), &nodes) == Step::UpdateBackends);
        assert_eq!(told.count(), expected, "{row}");
    }
}

#[test]
fn test_node_changes_for_stable_node_set_enabled() {
    let one = || node(named("node1"));
    let two = |more: Value| node(both(named("node2"), &more));
    let three = || node(named("node3"));
    let plain = || two(json!({}));
    let all = || vec![one(), plain(), three()];
    // Row, nodes before and after, and which are told; none: nothing is told.
    type Row<'a> = (&'a str, Vec<Arc<NodeView>>, Vec<Arc<NodeView>>, Option<&'a [&'a str]>);
    let without: Option<&[&str]> = Some(&["node1", "node3"]);
    let rows: [Row<'_>; 9] = [
        ("No node changes", all(), all(), None),
        ("1 new node gets added", vec![one(), plain()], all(), Some(&["node1", "node2", "node3"])),
        ("1 node goes NotReady", all(), vec![one(), two(ready("False")), three()], None),
        ("1 node gets Tainted", all(), vec![one(), two(taint(GOING)), three()], without),
        ("1 node goes Ready", vec![one(), two(ready("False")), three()], all(), None),
        ("1 node get excluded", all(), vec![one(), two(excluded()), three()], without),
        ("1 old node gets deleted", all(), vec![one(), plain()], Some(&["node1", "node2"])),
        ("1 node marked for deletion", all(), vec![one(), two(going()), three()], without),
        ("1 spurious node update", all(), vec![one(), two(taint("Other")), three()], None),
    ];
    let local = || balanced(json!({ "spec": { "externalTrafficPolicy": "Local" } }));
    for service in [local(), balanced(json!({}))] {
        for (row, before, after, expected) in &rows {
            let (known, now) = (made_with(&service, backends(before)), backends(after));
            let names: Vec<&str> = now.iter().map(|backend| backend.name.as_str()).collect();
            match expected {
                None => assert_eq!(next(&service, &known, &now), Step::Nothing, "{row}"),
                Some(expected) => {
                    assert_eq!(next(&service, &known, &now), Step::UpdateBackends, "{row}");
                    assert_eq!(names, *expected, "{row}");
                }
            }
        }
        // "1 new node gets added - with retries": after an unclear failure the cloud is asked first; upstream tells
        // nodes again as if nothing had been.
        let mut known = made_with(&service, backends(&[one(), plain()]));
        known.uncertain = true;
        assert_eq!(next(&service, &known, &backends(&all())), Step::FindAndEnsure);
    }
}

#[test]
fn test_node_changes_in_external_load_balancer() {
    let nodes = |count: usize| (1..=count).map(|n| node(named(&format!("node{n}")))).collect::<Vec<_>>();
    let service = balanced(json!({}));
    // Rows with a node lister that fails have no counterpart: the cache of nodes can be read once it was filled.
    for (row, count) in [("only 1 node", 1), ("2 nodes", 2), ("4 nodes", 4)] {
        let now = backends(&nodes(count));
        assert_eq!(now.len(), count, "{row}");
        assert_eq!(next(&service, &made_with(&service, Vec::new()), &now), Step::UpdateBackends, "{row}");
    }
}

#[test]
fn test_nodes_not_equal() {
    let plain = |name: &str| node(both(named(name), &provider_id("")));
    let with = |name: &str, id: &str| node(both(named(name), &provider_id(id)));
    let (one, two) = (with("node1", "cumulus/1"), with("node2", "cumulus/2"));
    let rows = [
        ("Nodes with updated providerID", [plain("node1"), plain("node2")], [one.clone(), two], true),
        ("Nodes unchanged", [one.clone(), plain("node2")], [one.clone(), plain("node2")], false),
        ("Change node with empty providerID", [one.clone(), plain("node2")], [one.clone(), plain("node3")], true),
    ];
    let service = balanced(json!({}));
    for (row, before, after, told) in rows {
        let found = next(&service, &made_with(&service, backends(&before)), &backends(&after));
        assert_eq!(found, if told { Step::UpdateBackends } else { Step::Nothing }, "{row}");
    }
}

#[test]
fn test_process_service_create_or_update() {
    let at = |address: &str| balanced(json!({ "spec": { "loadBalancerIP": address } }));
    assert_eq!(op(&balanced(json!({}))), Op::Ensure, "If updating a valid service");
    let requested = wish(&at("192.168.1.11"), &ClusterId("c".into())).requested;
    assert_eq!(requested, Ok(vec!["192.168.1.11".parse().unwrap()]), "If Updating Loadbalancer IP");
    assert!(watch::differs(&at("192.168.1.1"), &at("192.168.1.11")), "If Updating Loadbalancer IP");
}

/// What upstream meets with errors of the server is met with preconditions: the status is written whatever else
/// changed, finalizers only to the version that was read. A Service that is gone needs nothing (`Balancer::write`).
#[test]
fn test_process_service_create_or_update_k8s_error() {
    let service = balanced(json!({}));
    let record = Record::new("uid", "p");
    let status = status::made(&service, &record, Some(&[ingress("8.8.8.8")])).unwrap();
    assert_eq!(status.precondition, PatchPrecondition::Uid("uid".into()), "conflict error: cannot be");
    let claim = status::claim(&service, &record).unwrap();
    assert!(matches!(claim.precondition, PatchPrecondition::ResourceVersion { .. }), "conflict error");
}

#[test]
fn test_sync_service() {
    // "if an invalid service name is synced" has no counterpart: keys are not text.
    assert_eq!(op(&balanced(json!({}))), Op::Ensure, "if valid service");
}

/// The rows with a cloud are in `tests/it/cloud/service.rs`: `delete_is_always_called`.
#[test]
fn test_process_service_deletion() {
    let memory = Memory::default();
    let key = ObjectKey::new("default", "external-balancer");
    assert!(memory.get(&key).is_none(), "If a non-existent service is deleted: nothing is known, nothing is done");
    let owner = owner(&balanced(json!({})), &ClusterId("c".into()));
    memory.begin(&key, &owner, "p", 1);
    assert!(memory.get(&key).is_some(), "If cloudprovided failed to delete the service: it is known still");
    memory.forget(&key);
    assert!(memory.get(&key).is_none(), "If delete was successful");
}

#[test]
fn test_needs_cleanup() {
    let untyped = json!({ "spec": { "type": null } });
    let rows = [
        ("service without finalizer", balanced(untyped.clone()), false),
        ("service with finalizer without timestamp without LB", service("NodePort", with_finalizer()), true),
        ("service with finalizer without timestamp with LB", balanced(with_finalizer()), false),
        ("service with finalizer with timestamp", balanced(both(both(with_finalizer(), &going()), &untyped)), true),
        ("1: ignored as same with case 0", balanced(json!({})), false),
        ("2: ignored as same with case 0", service("NodePort", going()), false),
        ("3: ignored as same with case 0", balanced(going()), false),
        ("7: ignored as same with case 6", balanced(both(with_finalizer(), &going())), true),
    ];
    for (row, service, expected) in rows {
        assert_eq!(op(&service) == Op::Delete, expected, "{row}");
    }
}

#[test]
fn test_needs_update() {
    let plain = || balanced(json!({}));
    let spec = |more: Value| balanced(json!({ "spec": more }));
    let ports = |numbers: [u16; 3]| spec(json!({ "ports": numbers.map(|port| json!({ "port": port })) }));
    let target = |target: Value| {
        spec(json!({ "ports": [{ "protocol": "TCP", "port": 80, "nodePort": 30080, "targetPort": target }] }))
    };
    let protocol = |name: &str| {
        spec(json!({ "ports": [{ "protocol": "TCP", "port": 80, "nodePort": 30080, "appProtocol": name }] }))
    };
    let families = |names: &[&str]| spec(json!({ "ipFamilies": names }));
    let external = |addresses: &[&str]| spec(json!({ "externalIPs": addresses }));
    let uid = |uid: &str| balanced(json!({ "metadata": { "uid": uid } }));
    let clients = |seconds: u32| {
        let config = json!({ "clientIP": { "timeoutSeconds": seconds } });
        spec(json!({ "sessionAffinity": "ClientIP", "sessionAffinityConfig": config }))
    };
    let local = || spec(json!({ "externalTrafficPolicy": "Local" }));
    let port = |number: u16| spec(json!({ "externalTrafficPolicy": "Local", "healthCheckNodePort": number }));
    let annotated = |value: &str| balanced(json!({ "metadata": { "annotations": { "x": value } } }));
    let ranges = |net: &str| spec(json!({ "loadBalancerSourceRanges": [net] }));
    let rows = [
        ("If the Ports are different", ports([8000, 9000, 10_000]), ports([8001, 9001, 10_001]), true),
        // No load balancer is told of spec.externalIPs: nodes serve those by themselves.
        ("If external ip counts are different", external(&["1.1.1.1"]), external(&["2.1.1.1", "2.1.1.2"]), false),
        ("If external ips are different", external(&["1.1.1.1", "1.1.1.2"]), external(&["2.1.1.1", "2.1.1.2"]), false),
        ("If UID is different", uid("UID old"), uid("UID new"), true),
        ("If ExternalTrafficPolicy is different", plain(), local(), true),
        // Without the policy Local the number has no meaning.
        ("If HealthCheckNodePort is different", local(), port(30_123), true),
        // Load balancers lead to node ports; what a target port is, nodes know.
        ("If TargetGroup is different 1", target(json!(20)), target(json!(21)), false),
        ("If TargetGroup is different 2", target(json!(22)), target(json!("dns")), false),
        ("If appProtocol is the same", plain(), plain(), false),
        (
            "If service IPFamilies from single stack to dual stack",
            families(&["IPv4"]),
            families(&["IPv4", "IPv6"]),
            true,
        ),
        (
            "If service IPFamilies from dual stack to single stack",
            families(&["IPv4", "IPv6"]),
            families(&["IPv4"]),
            true,
        ),
        ("If service IPFamilies not change", families(&["IPv4"]), families(&["IPv4"]), false),
        ("If appProtocol is set when previously unset", plain(), protocol("http"), true),
        ("If appProtocol is set to a different value", protocol("http"), protocol("tcp"), true),
        // What upstream compares, and has no row for.
        ("LoadBalancerSourceRanges", ranges("10.0.0.0/8"), ranges("10.0.0.0/9"), true),
        ("SessionAffinity", plain(), spec(json!({ "sessionAffinity": "ClientIP" })), true),
        ("SessionAffinityConfig", clients(60), clients(61), true),
        ("Annotations", annotated("1"), annotated("2"), true),
    ];
    for (row, old, new, expected) in rows {
        assert_eq!(digest_of(&old) != digest_of(&new), expected, "{row}");
        assert!(!expected || watch::differs(&old, &new) || old.metadata.uid != new.metadata.uid, "{row}: is looked at");
    }
    let row = "If the service type is changed from LoadBalancer to ClusterIP";
    assert_eq!(op(&service("ClusterIP", with_finalizer())), Op::Delete, "{row}");
    assert!(watch::differs(&balanced(with_finalizer()), &service("ClusterIP", with_finalizer())), "{row}");
}

/// "`ListKeys`", "`GetbyKeys`" and "allServices" have no counterpart: the cache of Services is the informer's.
#[test]
fn test_service_cache() {
    let memory = Memory::default();
    let key = |name: &str| ObjectKey::new("default", name);
    let owner = owner(&balanced(json!({})), &ClusterId("c".into()));
    memory.begin(&key("addTest"), &owner, "p", 1);
    assert!(memory.get(&key("addTest")).is_some(), "Add");
    memory.forget(&key("addTest"));
    assert!(memory.get(&key("addTest")).is_none(), "Del");
    memory.begin(&key("addTest"), &owner, "p", 1);
    memory.change(&key("addTest"), |known| known.done = 3);
    assert_eq!(memory.begin(&key("addTest"), &owner, "p", 1).done, 3, "Set and Get");
    assert_eq!(memory.begin(&key("addTest"), &owner, "p", 2).done, 0, "of one tenure");
}

#[test]
fn test_add_finalizer() {
    let record = Record::new("uid", "p");
    let carries = json!({ "metadata": { "annotations": { super::record::RECORD: record.text() } } });
    let rows = [
        ("no-op add finalizer", both(with_finalizer(), &carries), false),
        ("add finalizer", carries, true),
        // Beside the finalizer, what is written first says who makes it.
        ("finalizer of upstream", with_finalizer(), true),
    ];
    for (row, more, expected) in rows {
        assert_eq!(status::claim(&balanced(more), &record).is_some(), expected, "{row}");
    }
}

#[test]
fn test_remove_finalizer() {
    let rows = [("no-op remove finalizer", json!({}), false), ("remove finalizer", with_finalizer(), true)];
    for (row, more, expected) in rows {
        assert_eq!(status::release(&balanced(more)).is_some(), expected, "{row}");
    }
}

fn ingress(address: &str) -> Ingress {
    Ingress { at: IngressPoint::Ip(address.parse().unwrap()), proxy_mode: false }
}

#[test]
fn test_patch_status() {
    let record = Record::new("uid", "p");
    let carries = json!({ "metadata": { "annotations": { super::record::RECORD: record.text() } } });
    let shown = || balanced(both(shows("8.8.8.8"), &carries));
    let empty = || balanced(carries.clone());
    let made = |service: &Service, all: &[Ingress]| status::made(service, &record, Some(all)).is_some();
    assert!(!made(&shown(), &[ingress("8.8.8.8")]), "no-op add status");
    assert!(made(&empty(), &[ingress("8.8.8.8")]), "add status");
    assert!(!made(&empty(), &[]), "no-op clear status");
    assert!(made(&shown(), &[]), "clear status");
    assert!(status::withdraw(&empty()).is_none(), "no-op clear status");
    assert!(status::withdraw(&shown()).is_some(), "clear status");
}

/// Upstream's rows judge by all its predicates, readiness among them, which no load balancer has been judged by since
/// v1.27 (`StableLoadBalancerNodeSet`): where only readiness is missing, ours says yes.
#[test]
fn test_respects_predicates() {
    let bare = || json!({ "spec": { "providerID": null }, "status": { "conditions": [] } });
    let rows = [
        ("1: no condition", bare(), true),
        ("2: ready, providerID", json!({}), true),
        ("3: ready", provider_id(""), true),
        ("4: not ready", ready("False"), true),
        ("5: no label", json!({ "metadata": { "labels": {} } }), true),
        ("6: excluded, empty", excluded(), false),
        ("7: excluded, false", label(EXCLUDE, "false"), true),
        ("8: excluded, true", label(EXCLUDE, "true"), false),
        ("9: excluded, foo", label(EXCLUDE, "foo"), false),
        ("10: going", taint(GOING), false),
    ];
    for (row, more, expected) in rows {
        assert_eq!(backends(&[node(more)]).len() == 1, expected, "{row}");
    }
}

/// Upstream's rows filter by phase, which is no property that counts.
#[test]
fn test_list_with_predicate() {
    let phase = |n: usize| if n.is_multiple_of(2) { "Pending" } else { "Running" };
    let all: Vec<_> = (0..5)
        .map(|n| node(both(named(&format!("node-{n}")), &json!({ "status": { "phase": phase(n) } }))))
        .rev()
        .collect();
    let names: Vec<String> = backends(&all).into_iter().map(|backend| backend.name).collect();
    assert_eq!(names, ["node-0", "node-1", "node-2", "node-3", "node-4"]);
}

/// Name, node before, node after, whether Services are looked at.
type NodeRow = (&'static str, Value, Value, bool);

fn judge(rows: Vec<NodeRow>) {
    for (row, old, new, expected) in rows {
        assert_eq!(matters(&node(old), &node(new)), expected, "{row}");
    }
}

#[test]
fn test_should_sync_updated_node_individual_predicates() {
    let none = || json!({});
    let pressure = |ready: &str, other: &str| conditions(&[("Ready", ready), ("DiskPressure", other)]);
    let unset = || conditions(&[]);
    judge(vec![
        ("nothing changed", none(), none(), false),
        ("excluded F->T", none(), excluded(), true),
        ("excluded changed T->F", excluded(), none(), true),
        ("excluded changed T->T", excluded(), excluded(), false),
        ("other taint F->T", none(), taint("other"), false),
        ("other taint T->F", taint("other"), none(), false),
        ("other label changed F->T", none(), label("other", ""), false),
        ("other label changed T->F", label("other", ""), none(), false),
        ("readiness changed F->F", ready("False"), ready("False"), false),
        ("readiness changed F->unset", ready("False"), unset(), false),
        ("readiness changed unset->F", unset(), ready("False"), false),
        ("readiness changed unset->unset", unset(), unset(), false),
        ("ready F, other condition changed F->T", pressure("False", "False"), pressure("False", "True"), false),
        ("ready F, other condition changed T->F", pressure("False", "True"), pressure("False", "False"), false),
        ("ready T, other condition changed F->T", pressure("True", "False"), pressure("True", "True"), false),
        ("ready T, other condition changed T->F", pressure("True", "True"), pressure("True", "False"), false),
        ("deletionTimestamp F -> T", none(), going(), false),
        ("providerID set F -> T", provider_id(""), none(), true),
        ("providerID set F -> T (2)", provider_id(""), none(), true),
        ("providerID set T-> F", none(), provider_id(""), true),
        ("providerID change", none(), provider_id("providerID-2"), true),
    ]);
}

#[test]
fn test_should_sync_updated_node_compounded_predicates() {
    let none = || json!({});
    let tainted = |more: Value| both(taint(GOING), &more);
    let kept_out = |more: Value| both(excluded(), &more);
    let unready = |more: Value| both(ready("False"), &more);
    let unset = |more: Value| both(provider_id(""), &more);
    let other = || provider_id("providerID-2");
    judge(vec![
        ("tainted T, excluded F->T", tainted(none()), tainted(excluded()), true),
        ("tainted T, excluded T->F", tainted(excluded()), tainted(none()), true),
        ("tainted T, providerID set F->T", tainted(provider_id("")), tainted(none()), true),
        ("tainted T, providerID set T->F", tainted(none()), tainted(provider_id("")), true),
        ("tainted T, providerID change", tainted(none()), tainted(other()), true),
        ("tainted T, ready F->T", tainted(ready("False")), tainted(none()), false),
        ("tainted T, ready T->F", tainted(none()), tainted(ready("False")), false),
        ("excluded T, tainted F->T", kept_out(none()), kept_out(taint(GOING)), false),
        ("excluded T, tainted T->F", kept_out(taint(GOING)), kept_out(none()), false),
        ("excluded T, ready F->T", kept_out(ready("False")), kept_out(none()), false),
        ("excluded T, ready T->F", kept_out(none()), kept_out(ready("False")), false),
        ("excluded T, providerID set F->T", kept_out(provider_id("")), kept_out(none()), true),
        ("excluded T, providerID set T->F", kept_out(none()), kept_out(provider_id("")), true),
        ("excluded T, providerID change", kept_out(none()), kept_out(other()), true),
        ("ready F, tainted F->T", unready(none()), unready(taint(GOING)), false),
        ("ready F, tainted T->F", unready(taint(GOING)), unready(none()), false),
        ("ready F, excluded F->T", unready(none()), unready(excluded()), true),
        ("ready F, excluded T->F", unready(excluded()), unready(none()), true),
        ("ready F, providerID set F->T", unready(provider_id("")), unready(none()), true),
        ("ready F, providerID set T->F", unready(none()), unready(provider_id("")), true),
        ("ready F, providerID change", unready(none()), unready(other()), true),
        ("providerID unset, excluded F->T", unset(none()), unset(excluded()), true),
        ("providerID unset, excluded T->F", unset(excluded()), unset(none()), true),
        ("providerID unset, ready T->F", unset(none()), unset(ready("True")), false),
        ("providerID unset, ready F->T", unset(none()), unset(ready("False")), false),
        ("providerID unset, tainted T->F", unset(taint(GOING)), unset(none()), false),
        ("providerID unset, tainted F->T", unset(none()), unset(taint(GOING)), false),
    ]);
}

#[test]
fn test_service_queue_delay() {
    let wait = |error: CloudError| error.retry_after().map(sync::later);
    let asked = CloudError::RetryAfter { after: Duration::from_secs(42), message: "LB create in progress".into() };
    assert_eq!(wait(asked), Some(Duration::from_secs(42)), "retry error");
    let plain = CloudError::Other("something went wrong".into());
    assert_eq!(wait(plain), None, "regular error: the queue's backoff");
    let for_ever = CloudError::RetryAfter { after: Duration::from_secs(86_400), message: String::new() };
    assert_eq!(wait(for_ever), Some(Duration::from_secs(300)), "no longer than the longest backoff");
}
