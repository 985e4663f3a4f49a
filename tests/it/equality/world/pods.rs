//! What happens to pods.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::super::random::Random;
use super::super::shapes::{self, NODES};
use super::{PODS, Pod, Step, World};

impl World {
    pub(super) fn create_pod(&mut self) -> Vec<Step> {
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

    pub(super) fn flip(&mut self) -> Vec<Step> {
        self.change_pod(|pod, _| pod.ready = !pod.ready)
    }

    pub(super) fn finish_pod(&mut self) -> Vec<Step> {
        self.change_pod(|pod, random| pod.phase = *random.pick(&["Succeeded", "Failed"]))
    }

    pub(super) fn move_address(&mut self) -> Vec<Step> {
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

    pub(super) fn relabel_pod(&mut self) -> Vec<Step> {
        let Some(name) = self.random.pick_some(self.pods.keys().cloned()) else { return Vec::new() };
        let labels = shapes::pod_labels(&mut self.random);
        vec![Step::patch(self.pod_path(&name), json!({ "metadata": { "labels": labels } }))]
    }

    pub(super) fn bind_pod(&mut self) -> Vec<Step> {
        let free = self.pods.iter().filter(|(_, pod)| pod.node.is_none() && !pod.deleting);
        let Some(name) = self.random.pick_some(free.map(|(name, _)| name.clone())) else { return Vec::new() };
        let node = *self.random.pick(&NODES);
        self.pod(&name).node = Some(node.to_owned());
        let binding = json!({ "metadata": { "name": name }, "target": { "kind": "Node", "name": node } });
        vec![Step::create(&format!("{}/binding", self.pod_path(&name)), binding), self.readdress(&name)]
    }

    pub(super) fn delete_pod(&mut self) -> Vec<Step> {
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

    pub(super) fn end_pod(&mut self) -> Vec<Step> {
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
}
