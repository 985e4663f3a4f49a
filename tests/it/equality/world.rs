//! A world of services, pods and nodes, and the random steps it takes. Each step is a few requests, the
//! same for every server.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde_json::{Value, json};

use super::random::Random;
use super::shapes::{self, NODES, SERVICES, ZONES};

const NODE_PATH: &str = "/api/v1/nodes";
/// Most pods at a time.
const PODS: usize = 18;

/// One request.
#[derive(Clone, Debug)]
pub(super) struct Step {
    /// Such as `POST`.
    pub(super) method: &'static str,
    /// Path and query.
    pub(super) path: String,
    /// Sent as JSON; a merge patch for `PATCH`.
    pub(super) body: Value,
    /// Whether the object may be gone already.
    pub(super) may_be_gone: bool,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.method, self.path, self.body)
    }
}

impl Step {
    fn new(method: &'static str, path: String, body: Value) -> Self {
        Self { method, path, body, may_be_gone: false }
    }

    fn create(path: &str, body: Value) -> Self {
        Self::new("POST", path.to_owned(), body)
    }

    fn patch(path: String, body: Value) -> Self {
        Self::new("PATCH", path, body)
    }

    fn delete(path: String) -> Self {
        Self::new("DELETE", path, json!({}))
    }
}

struct Service {
    /// None of a service whose Endpoints are made by hand.
    selector: Option<Value>,
    external: bool,
    headless: bool,
    policy: &'static str,
    families: Value,
    /// Whether there is an Endpoints object, if nobody but people make it.
    by_hand: bool,
}

struct Pod {
    number: usize,
    node: Option<String>,
    phase: &'static str,
    ready: bool,
    addresses: Value,
    deleting: bool,
    finalizer: bool,
}

/// What a round of steps is, besides its requests.
pub(super) struct Round {
    /// The requests, in order.
    pub(super) steps: Vec<Step>,
    /// Whether nodes went or have other zones: that alone rewrites no slice, here as upstream.
    pub(super) nodes_changed: bool,
}

/// The objects there are.
pub(super) struct World {
    random: Random,
    namespace: String,
    services: BTreeMap<&'static str, Service>,
    pods: BTreeMap<String, Pod>,
    nodes: BTreeSet<&'static str>,
    incarnations: usize,
    /// Services that are left alone for the rest of the round: what a controller has seen of them
    /// when the next step comes would decide.
    resting: BTreeSet<&'static str>,
    nodes_changed: bool,
}

impl World {
    /// An empty world in a namespace.
    pub(super) fn new(seed: u64, namespace: &str) -> Self {
        Self {
            random: Random::new(seed),
            namespace: namespace.to_owned(),
            services: BTreeMap::new(),
            pods: BTreeMap::new(),
            nodes: BTreeSet::new(),
            incarnations: 0,
            resting: BTreeSet::new(),
            nodes_changed: false,
        }
    }

    fn path(&self, kind: &str) -> String {
        format!("/api/v1/namespaces/{}/{kind}", self.namespace)
    }

    fn service_path(&self, name: &str) -> String {
        format!("{}/{name}", self.path("services"))
    }

    fn pod_path(&self, name: &str) -> String {
        format!("{}/{name}", self.path("pods"))
    }

    /// Paths of the services there are.
    pub(super) fn service_paths(&self) -> Vec<String> {
        self.services.keys().map(|name| self.service_path(name)).collect()
    }

    fn round(&mut self, steps: Vec<Step>) -> Round {
        self.resting.clear();
        Round { steps, nodes_changed: std::mem::take(&mut self.nodes_changed) }
    }

    /// The first steps: nodes, and some services and pods.
    pub(super) fn begin(&mut self) -> Round {
        let mut steps = Vec::new();
        for name in &NODES[..3] {
            steps.extend(self.create_node(name));
        }
        for _ in 0..4 {
            steps.extend(self.create_service());
        }
        for _ in 0..10 {
            steps.extend(self.create_pod());
        }
        self.round(steps)
    }

    /// So many random steps.
    pub(super) fn go_on(&mut self, count: usize) -> Round {
        let mut steps = Vec::new();
        for _ in 0..count {
            let more = match self.random.below(100) {
                0..12 => self.create_pod(),
                12..30 => self.flip(),
                30..38 => self.delete_pod(),
                38..46 => self.end_pod(),
                46..51 => self.finish_pod(),
                51..58 => self.relabel_pod(),
                58..63 => self.move_address(),
                63..66 => self.bind_pod(),
                66..72 => self.create_service(),
                72..76 => self.delete_service(),
                76..86 => self.alter_service(),
                86..90 => self.thaw(),
                90..95 => self.edit_endpoints(),
                _ => self.alter_nodes(),
            };
            steps.extend(more);
        }
        self.round(steps)
    }

    /// Steps after which some services' Endpoints or slices stay as they are, because they are nobody's
    /// business any more. They come alone, when both sides have done all there was to do: otherwise it
    /// would depend on the moment what stays, with either controller.
    pub(super) fn freeze(&mut self) -> Round {
        let live = self.services.iter().filter(|(_, service)| service.selector.is_some() && !service.external);
        let mut live: Vec<&'static str> = live.map(|(name, _)| *name).collect();
        let mut steps = Vec::new();
        if let Some(name) = self.random.pick_some(live.clone()) {
            live.retain(|other| *other != name);
            steps.push(Step::patch(self.service_path(name), json!({ "spec": { "selector": null } })));
            let service = self.service(name);
            service.selector = None;
            service.by_hand = true;
        }
        if let Some(name) = self.random.pick_some(live) {
            let spec = json!({
                "type": "ExternalName", "externalName": "elsewhere.example.org",
                "clusterIP": null, "clusterIPs": null, "ipFamilies": null, "ipFamilyPolicy": null,
            });
            steps.push(Step::patch(self.service_path(name), json!({ "spec": spec })));
            self.service(name).external = true;
        }
        self.round(steps)
    }

    /// Objects whose slices prove that all caches have seen all that came before: a service and a pod
    /// on a node of its own, and a hand-made Endpoints object. `number` is never used twice.
    pub(super) fn marker(&self, number: usize) -> Vec<Step> {
        let name = format!("marker-{number}");
        let label = json!({ "marker": name });
        let node = json!({ "metadata": { "name": name, "labels": { "topology.kubernetes.io/zone": name } } });
        let pod = json!({
            "metadata": { "name": name, "labels": label },
            "spec": { "nodeName": name, "containers": [{ "name": "main", "image": "none" }] },
        });
        let address = json!([{ "ip": format!("10.4.{}.{}", number / 250, number % 250 + 1) }]);
        let service = json!({ "metadata": { "name": name }, "spec": { "selector": label, "ports": [{ "port": 80 }] } });
        let mirrored = format!("mirrored-{name}");
        let by_hand = json!({ "metadata": { "name": mirrored }, "spec": { "ports": [{ "port": 80 }] } });
        let endpoints = json!({
            "metadata": { "name": mirrored },
            "subsets": [{ "addresses": [{ "ip": "10.4.255.1" }], "ports": [{ "port": 80 }] }],
        });
        vec![
            Step::create(NODE_PATH, node),
            Step::create(&self.path("services"), by_hand),
            Step::create(&self.path("endpoints"), endpoints),
            Step::create(&self.path("pods"), pod),
            Step::patch(format!("{}/status", self.pod_path(&name)), shapes::status("Running", &address, true)),
            Step::create(&self.path("services"), service),
        ]
    }

    /// Takes away what would keep controllers busy: nodes, and the services that would miss them.
    pub(super) fn end(&mut self) -> Vec<Step> {
        let services = self.service_paths();
        self.services.clear();
        let nodes = std::mem::take(&mut self.nodes).into_iter().map(|name| format!("{NODE_PATH}/{name}"));
        services.into_iter().chain(nodes).map(Step::delete).collect()
    }

    fn service(&mut self, name: &str) -> &mut Service {
        self.services.get_mut(name).expect("picked among those there are")
    }

    fn pod(&mut self, name: &str) -> &mut Pod {
        self.pods.get_mut(name).expect("picked among those there are")
    }

    fn create_node(&mut self, name: &'static str) -> Vec<Step> {
        self.nodes.insert(name);
        let zone = *self.random.pick(&ZONES);
        // Some nodes are in no zone.
        let labels = if self.random.chance(85) { json!({ "topology.kubernetes.io/zone": zone }) } else { json!({}) };
        vec![Step::create(NODE_PATH, json!({ "metadata": { "name": name, "labels": labels } }))]
    }

    fn alter_nodes(&mut self) -> Vec<Step> {
        let missing: Vec<&'static str> = NODES.into_iter().filter(|name| !self.nodes.contains(name)).collect();
        if let Some(name) = self.random.pick_some(missing)
            && self.random.chance(50)
        {
            return self.create_node(name);
        }
        let Some(name) = self.random.pick_some(self.nodes.iter().copied()) else { return Vec::new() };
        self.nodes_changed = true;
        let path = format!("{NODE_PATH}/{name}");
        if name != NODES[0] && self.random.chance(30) {
            self.nodes.remove(name);
            return vec![Step::delete(path)];
        }
        let zone = self.random.pick(&[json!(ZONES[0]), json!(ZONES[1]), json!(ZONES[2]), Value::Null]).clone();
        vec![Step::patch(path, json!({ "metadata": { "labels": { "topology.kubernetes.io/zone": zone } } }))]
    }

    fn create_pod(&mut self) -> Vec<Step> {
        let taken: BTreeSet<usize> = self.pods.values().map(|pod| pod.number).collect();
        let Some(number) = self.random.pick_some((0..PODS).filter(|number| !taken.contains(number))) else {
            return Vec::new();
        };
        let name = format!("p{number}");
        // Now and then on a node that is not there, or not yet on any.
        let node = if self.random.chance(90) {
            self.random.pick_some(self.nodes.iter().copied())
        } else {
            self.random.chance(50).then(|| *self.random.pick(&NODES))
        };
        let finalizer = self.random.chance(20);
        // Without a node it has no address: the Go controller would write an empty node name into
        // Endpoints, which the server refuses.
        let addresses = if node.is_some() { self.addresses(number) } else { json!([]) };
        let pod = Pod {
            number,
            node: node.map(str::to_owned),
            phase: "Running",
            ready: node.is_some() && self.random.chance(70),
            addresses,
            deleting: false,
            finalizer,
        };
        let mut metadata = json!({ "name": name, "labels": shapes::pod_labels(&mut self.random) });
        if finalizer {
            metadata["finalizers"] = json!(["example.org/hold"]);
        }
        let spec = shapes::pod_spec(&mut self.random, node);
        let steps = vec![
            Step::create(&self.path("pods"), json!({ "metadata": metadata, "spec": spec })),
            self.report(&name, &pod),
        ];
        self.pods.insert(name, pod);
        steps
    }

    fn report(&self, name: &str, pod: &Pod) -> Step {
        let status = shapes::status(pod.phase, &pod.addresses, pod.ready);
        Step::patch(format!("{}/status", self.pod_path(name)), status)
    }

    fn change_pod(&mut self, change: impl FnOnce(&mut Pod, &mut Random)) -> Vec<Step> {
        let Some(name) = self.random.pick_some(self.pods.keys().cloned()) else { return Vec::new() };
        let mut pod = self.pods.remove(&name).expect("picked among those there are");
        change(&mut pod, &mut self.random);
        let step = self.report(&name, &pod);
        self.pods.insert(name, pod);
        vec![step]
    }

    fn flip(&mut self) -> Vec<Step> {
        self.change_pod(|pod, _| pod.ready = !pod.ready)
    }

    fn finish_pod(&mut self) -> Vec<Step> {
        self.change_pod(|pod, random| pod.phase = *random.pick(&["Succeeded", "Failed"]))
    }

    fn move_address(&mut self) -> Vec<Step> {
        let placed = self.pods.iter().filter(|(_, pod)| pod.node.is_some());
        let Some(name) = self.random.pick_some(placed.map(|(name, _)| name.clone())) else { return Vec::new() };
        vec![self.readdress(&name)]
    }

    fn addresses(&mut self, number: usize) -> Value {
        self.incarnations += 1;
        shapes::addresses(&mut self.random, number, self.incarnations % 250 + 1)
    }

    fn readdress(&mut self, name: &str) -> Step {
        let number = self.pod(name).number;
        self.pod(name).addresses = self.addresses(number);
        self.report(name, &self.pods[name])
    }

    fn relabel_pod(&mut self) -> Vec<Step> {
        let Some(name) = self.random.pick_some(self.pods.keys().cloned()) else { return Vec::new() };
        let labels = shapes::pod_labels(&mut self.random);
        vec![Step::patch(self.pod_path(&name), json!({ "metadata": { "labels": labels } }))]
    }

    fn bind_pod(&mut self) -> Vec<Step> {
        let free = self.pods.iter().filter(|(_, pod)| pod.node.is_none() && !pod.deleting);
        let Some(name) = self.random.pick_some(free.map(|(name, _)| name.clone())) else { return Vec::new() };
        let node = *self.random.pick(&NODES);
        self.pod(&name).node = Some(node.to_owned());
        let binding = json!({ "metadata": { "name": name }, "target": { "kind": "Node", "name": node } });
        vec![Step::create(&format!("{}/binding", self.pod_path(&name)), binding), self.readdress(&name)]
    }

    fn delete_pod(&mut self) -> Vec<Step> {
        let alive = self.pods.iter().filter(|(_, pod)| !pod.deleting);
        let Some(name) = self.random.pick_some(alive.map(|(name, _)| name.clone())) else { return Vec::new() };
        let pod = self.pod(&name);
        pod.deleting = true;
        // No grace for what does not run on a node, nor any more.
        if !pod.finalizer && (pod.node.is_none() || pod.phase != "Running") {
            self.pods.remove(&name);
        }
        vec![Step::delete(self.pod_path(&name))]
    }

    fn end_pod(&mut self) -> Vec<Step> {
        let ending = self.pods.iter().filter(|(_, pod)| pod.deleting);
        let Some(name) = self.random.pick_some(ending.map(|(name, _)| name.clone())) else { return Vec::new() };
        let pod = self.pods.remove(&name).expect("picked among those there are");
        let path = self.pod_path(&name);
        let mut steps = Vec::new();
        if pod.finalizer {
            steps.push(Step::patch(path.clone(), json!({ "metadata": { "finalizers": null } })));
        }
        let at_once = json!({ "gracePeriodSeconds": 0 });
        steps.push(Step { may_be_gone: true, body: at_once, ..Step::delete(path) });
        steps
    }

    fn create_service(&mut self) -> Vec<Step> {
        let free =
            SERVICES.into_iter().filter(|name| !self.services.contains_key(name) && !self.resting.contains(name));
        let Some(name) = self.random.pick_some(free) else { return Vec::new() };
        let random = &mut self.random;
        let selector = random.chance(80).then(|| shapes::selector(random));
        let (policy, families) = shapes::families(random);
        let headless = random.chance(35);
        let mut spec = json!({
            "selector": selector.as_ref().map(without_nulls),
            "ports": shapes::service_ports(random),
            "publishNotReadyAddresses": random.chance(20),
            "trafficDistribution": shapes::distribution(random),
            "ipFamilyPolicy": policy,
            "ipFamilies": families,
        });
        if headless {
            spec["clusterIP"] = json!("None");
            if random.chance(30) {
                spec["ports"] = json!([]);
            }
        }
        let labels = without_nulls(&shapes::service_labels(random));
        let service = Service { selector, external: false, headless, policy, families, by_hand: false };
        self.services.insert(name, service);
        vec![Step::create(
            &self.path("services"),
            json!({ "metadata": { "name": name, "labels": labels }, "spec": spec }),
        )]
    }

    /// A service that may be worked on in this round.
    fn awake(&mut self, fits: impl Fn(&Service) -> bool) -> Option<&'static str> {
        let awake = self.services.iter().filter(|(name, service)| !self.resting.contains(*name) && fits(service));
        self.random.pick_some(awake.map(|(name, _)| *name).collect::<Vec<_>>())
    }

    fn delete_service(&mut self) -> Vec<Step> {
        let Some(name) = self.awake(|_| true) else { return Vec::new() };
        self.services.remove(name);
        self.resting.insert(name);
        vec![Step::delete(self.service_path(name))]
    }

    fn alter_service(&mut self) -> Vec<Step> {
        let Some(name) = self.awake(|service| !service.external) else { return Vec::new() };
        let random = &mut self.random;
        let service = self.services.get_mut(name).expect("picked among those there are");
        let patch = match random.below(6) {
            0 => json!({ "metadata": { "labels": shapes::service_labels(random) } }),
            1 => json!({ "spec": { "ports": shapes::service_ports(random) } }),
            2 => json!({ "spec": { "publishNotReadyAddresses": random.chance(50) } }),
            3 => json!({ "spec": { "trafficDistribution": shapes::distribution(random) } }),
            4 => {
                // The server takes the second family away, or adds one.
                service.policy = if service.policy == "SingleStack" { "RequireDualStack" } else { "SingleStack" };
                let first = service.families[0].clone();
                let second = if first == "IPv4" { "IPv6" } else { "IPv4" };
                let dual = service.policy == "RequireDualStack";
                service.families = if dual { json!([first, second]) } else { json!([first]) };
                json!({ "spec": { "ipFamilyPolicy": service.policy } })
            }
            _ if service.selector.is_some() => {
                service.selector = Some(shapes::selector(random));
                json!({ "spec": { "selector": service.selector } })
            }
            _ => return Vec::new(),
        };
        vec![Step::patch(self.service_path(name), patch)]
    }

    /// Gives a service a selector, or addresses of its own, back. It rests then: its Endpoints are
    /// written by the controller, which must not meet people who write them.
    fn thaw(&mut self) -> Vec<Step> {
        let Some(name) = self.awake(|service| service.external || service.selector.is_none()) else {
            return Vec::new();
        };
        self.resting.insert(name);
        let path = self.service_path(name);
        let selector = shapes::selector(&mut self.random);
        let service = self.service(name);
        if service.external {
            service.external = false;
            let cluster_ip = if service.headless { json!("None") } else { Value::Null };
            let spec = json!({
                "type": "ClusterIP", "externalName": null, "clusterIP": cluster_ip,
                "ipFamilies": service.families, "ipFamilyPolicy": service.policy,
            });
            return vec![Step::patch(path, json!({ "spec": spec }))];
        }
        service.selector = Some(selector.clone());
        service.by_hand = false;
        vec![Step::patch(path, json!({ "spec": { "selector": selector } }))]
    }

    /// Makes, changes or deletes Endpoints by hand, and what says whether they are mirrored.
    fn edit_endpoints(&mut self) -> Vec<Step> {
        let Some(name) = self.awake(|service| service.selector.is_none()) else { return Vec::new() };
        let path = self.path("endpoints");
        let random = &mut self.random;
        let service = self.services.get_mut(name).expect("picked among those there are");
        // Where slices of both families are to come and others to go, the Go controller takes the wrong
        // ones off its list, and fails for ever.
        let subsets = shapes::subsets(random, !service.by_hand);
        let skip = if random.chance(20) { json!("true") } else { Value::Null };
        let labels =
            json!({ "made-by": random.pick(&["hand", "tool"]), "endpointslice.kubernetes.io/skip-mirror": skip });
        let annotations = json!({ "example.org/note": random.pick(&["one", "two"]) });
        let object = json!({
            "metadata": { "name": name, "labels": labels, "annotations": annotations }, "subsets": subsets,
        });
        // Deleted with its service in the same round, it might not have been seen when the service goes.
        self.resting.insert(name);
        if !service.by_hand {
            service.by_hand = true;
            let mut object = object;
            object["metadata"]["labels"] = without_nulls(&labels);
            return vec![Step::create(&path, object)];
        }
        let path = format!("{path}/{name}");
        if random.chance(20) {
            service.by_hand = false;
            return vec![Step::delete(path)];
        }
        vec![Step::patch(path, object)]
    }
}

/// An object without the members that a merge patch would take out.
fn without_nulls(object: &Value) -> Value {
    let members = object.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null());
    Value::Object(members.map(|(name, value)| (name.clone(), value.clone())).collect())
}
