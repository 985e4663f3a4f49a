//! Random parts of services, pods and Endpoints.

use serde_json::{Map, Value, json};

use super::random::Random;

/// Zones of nodes.
pub(super) const ZONES: [&str; 3] = ["zone-a", "zone-b", "zone-c"];
/// Names of services.
pub(super) const SERVICES: [&str; 7] = ["s0", "s1", "s2", "s3", "s4", "s5", "s6"];
/// Names of nodes. The first one never goes.
pub(super) const NODES: [&str; 4] = ["n0", "n1", "n2", "n3"];

/// Labels of a pod.
pub(super) fn pod_labels(random: &mut Random) -> Value {
    json!({ "app": random.pick(&["a", "b"]), "tier": random.pick(&["x", "y"]) })
}

/// A selector that names each label, or takes it out: it can stand in a merge patch.
pub(super) fn selector(random: &mut Random) -> Value {
    match random.below(5) {
        0 => json!({ "app": "a", "tier": null }),
        1 => json!({ "app": "b", "tier": null }),
        2 => json!({ "app": null, "tier": "x" }),
        3 => json!({ "app": "a", "tier": "y" }),
        _ => json!({ "app": "b", "tier": "x" }),
    }
}

/// Ports of a service: numbers and names, of all protocols.
pub(super) fn service_ports(random: &mut Random) -> Value {
    if random.chance(25) {
        // A single port needs no name.
        return json!([{ "port": 80, "targetPort": "http" }]);
    }
    let all = [
        json!({ "name": "web", "port": 80, "targetPort": "http" }),
        json!({ "name": "alt", "port": 81, "targetPort": 8081 }),
        json!({ "name": "same", "port": 8083 }),
        json!({ "name": "dns", "port": 53, "targetPort": "dns", "protocol": "UDP" }),
        json!({ "name": "dns-tcp", "port": 53, "targetPort": "dns", "protocol": "TCP" }),
        json!({ "name": "signal", "port": 90, "protocol": "SCTP" }),
        json!({ "name": "grpc", "port": 82, "targetPort": "grpc", "appProtocol": "kubernetes.io/h2c" }),
    ];
    let mut ports: Vec<Value> = all.iter().filter(|_| random.chance(40)).cloned().collect();
    if ports.is_empty() {
        ports.push(random.pick(&all).clone());
    }
    Value::Array(ports)
}

/// Labels of a service, each with a value or taken out.
pub(super) fn service_labels(random: &mut Random) -> Value {
    let mut labels = Map::new();
    for name in ["team", "color", "example.org/stage"] {
        let value = random.pick(&[json!("one"), json!("two"), Value::Null]).clone();
        labels.insert(name.to_owned(), value);
    }
    Value::Object(labels)
}

/// `spec.trafficDistribution`, none among them.
pub(super) fn distribution(random: &mut Random) -> Value {
    random.pick(&[json!("PreferSameZone"), json!("PreferSameNode"), json!("PreferClose"), Value::Null]).clone()
}

/// `spec.ipFamilyPolicy` and `spec.ipFamilies`.
pub(super) fn families(random: &mut Random) -> (&'static str, Value) {
    match random.below(4) {
        0 | 1 => ("SingleStack", json!(["IPv4"])),
        2 => ("SingleStack", json!(["IPv6"])),
        _ if random.chance(50) => ("RequireDualStack", json!(["IPv4", "IPv6"])),
        _ => ("RequireDualStack", json!(["IPv6", "IPv4"])),
    }
}

/// `spec` of a pod, whose named ports differ from pod to pod.
pub(super) fn pod_spec(random: &mut Random, node: Option<&str>) -> Value {
    let mut main = Vec::new();
    if random.chance(80) {
        main.push(json!({ "name": "http", "containerPort": random.pick(&[8080, 8090]) }));
    }
    if random.chance(60) {
        main.push(json!({ "name": "dns", "containerPort": 5353, "protocol": "UDP" }));
    }
    let mut containers = vec![json!({ "name": "main", "image": "none", "ports": main })];
    if random.chance(50) {
        let ports = json!([{ "name": "dns", "containerPort": 5354 }, { "name": "http", "containerPort": 9999 }]);
        containers.push(json!({ "name": "side", "image": "none", "ports": ports }));
    }
    let mut init = Vec::new();
    if random.chance(40) {
        // One that ends before the others start: its ports are nobody's.
        init.push(json!({ "name": "once", "image": "none", "ports": [{ "name": "grpc", "containerPort": 1 }] }));
    }
    if random.chance(50) {
        let ports = json!([{ "name": "grpc", "containerPort": 8082 }]);
        init.push(json!({ "name": "stays", "image": "none", "restartPolicy": "Always", "ports": ports }));
    }
    let mut spec = json!({ "containers": containers, "initContainers": init, "terminationGracePeriodSeconds": 3600 });
    if let Some(node) = node {
        spec["nodeName"] = json!(node);
    }
    if random.chance(40) {
        spec["hostname"] = json!(format!("host-{}", random.below(100)));
        spec["subdomain"] = json!(random.pick(&SERVICES));
    }
    spec
}

/// Addresses of a pod: of one family, of both, some of a host's that pods share, or none yet.
pub(super) fn addresses(random: &mut Random, pod: usize, incarnation: usize) -> Value {
    let v4 = json!({ "ip": format!("10.1.{pod}.{incarnation}") });
    let v6 = json!({ "ip": format!("fd00::{pod:x}:{incarnation:x}") });
    match random.below(10) {
        0..4 => json!([v4]),
        4..7 => json!([v4, v6]),
        7 => json!([v6, v4]),
        8 => json!([{ "ip": "10.9.0.1" }]),
        _ if random.chance(50) => json!([v6]),
        _ => json!([]),
    }
}

/// A pod's status, as a merge patch.
pub(super) fn status(phase: &str, addresses: &Value, ready: bool) -> Value {
    let ready = if ready { "True" } else { "False" };
    json!({ "status": {
        "phase": phase,
        "podIP": addresses[0]["ip"],
        "podIPs": addresses,
        "conditions": [{ "type": "Ready", "status": ready }],
    }})
}

/// Subsets as people write them: not in canonical form, with addresses that are ready on one port and
/// not on another; of both families only if `mixed`.
pub(super) fn subsets(random: &mut Random, mixed: bool) -> Value {
    let v4 = random.chance(60);
    let mut subsets = Vec::new();
    for _ in 0..random.below(4) {
        let mut ports = Vec::new();
        for (name, port) in [("web", 80), ("alt", 81), ("dns", 53)] {
            if random.chance(50) {
                let protocol = if name == "dns" { "UDP" } else { "TCP" };
                ports.push(json!({ "name": name, "port": port, "protocol": protocol }));
            }
        }
        let mut subset = json!({ "ports": ports });
        for state in ["addresses", "notReadyAddresses"] {
            let mut addresses = Vec::new();
            for host in 1..5 {
                if random.chance(40) {
                    let v4 = if mixed { random.chance(60) } else { v4 };
                    let ip = if v4 { format!("10.3.0.{host}") } else { format!("fd00:3::{host}") };
                    let mut address = json!({ "ip": ip });
                    if random.chance(30) {
                        address["nodeName"] = json!(random.pick(&NODES));
                    }
                    if random.chance(30) {
                        address["hostname"] = json!(format!("host-{host}"));
                    }
                    addresses.push(address);
                }
            }
            if !addresses.is_empty() {
                subset[state] = Value::Array(addresses);
            }
        }
        if subset.get("addresses").is_some() || subset.get("notReadyAddresses").is_some() {
            subsets.push(subset);
        }
    }
    Value::Array(subsets)
}
