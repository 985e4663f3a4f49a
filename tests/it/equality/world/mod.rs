//! A world of services, pods and nodes, and the random steps it takes. Each step is a few requests, the
//! same for every server.

mod pods;
mod services;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde_json::{Value, json};

use super::random::Random;
use super::shapes::{self, NODES, ZONES};

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
}
