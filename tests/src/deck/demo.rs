//! A small workload without a kubelet: nodes and pods whose status is written by hand, and services.

use anyhow::Result;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

/// Who owns the fields that this writes.
const MANAGER: &str = "demo";

/// A workload in one namespace, which must exist and have a `default` service account.
pub struct Demo {
    client: kube::Client,
    namespace: String,
}

impl Demo {
    /// A workload in `namespace`.
    #[must_use]
    pub fn new(client: kube::Client, namespace: &str) -> Self {
        Self { client, namespace: namespace.to_owned() }
    }

    /// Makes a node in a zone.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn node(&self, name: &str, zone: &str) -> Result<()> {
        self.make_node(name, zone, json!({})).await
    }

    /// Makes a node that kwok keeps alive.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn kwok_node(&self, name: &str, zone: &str) -> Result<()> {
        self.make_node(name, zone, json!({ "kwok.x-k8s.io/node": "fake" })).await
    }

    /// Makes the node of a cloud's machine, as a kubelet does that leaves the rest to the cloud.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn cloud_node(&self, name: &str, pod_cidr: &str) -> Result<()> {
        let node = json!({
            "apiVersion": "v1", "kind": "Node", "metadata": { "name": name },
            "spec": {
                "podCIDR": pod_cidr, "podCIDRs": [pod_cidr],
                "taints": [{
                    "key": "node.cloudprovider.kubernetes.io/uninitialized", "value": "true", "effect": "NoSchedule",
                }],
            },
        });
        let api: Api<Node> = Api::all(self.client.clone());
        // Made once: the cloud's controllers take the taint away.
        if api.get_opt(name).await?.is_none() {
            api.create(&PostParams::default(), &serde_json::from_value(node)?).await?;
        }
        Ok(())
    }

    async fn make_node(&self, name: &str, zone: &str, annotations: Value) -> Result<()> {
        let node = json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {
                "name": name, "annotations": annotations, "labels": { "topology.kubernetes.io/zone": zone },
            },
        });
        let api: Api<Node> = Api::all(self.client.clone());
        api.patch(name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(node)).await?;
        Ok(())
    }

    /// Makes a service that selects `app=<name>` and sends port 80 to 8080.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn service(&self, name: &str) -> Result<()> {
        let service = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": { "name": name },
            "spec": { "selector": { "app": name }, "ports": [{ "port": 80, "targetPort": 8080 }] },
        });
        let api: Api<Service> = Api::namespaced(self.client.clone(), &self.namespace);
        api.patch(name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(service)).await?;
        Ok(())
    }

    /// Makes a Deployment of pods of the service of the same name, for the Go manager, a scheduler and kwok to bring to life.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn deployment(&self, name: &str, replicas: u32) -> Result<()> {
        let labels = json!({ "app": name });
        let deployment = json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": name },
            "spec": {
                "replicas": replicas, "selector": { "matchLabels": labels },
                "template": {
                    "metadata": { "labels": labels }, "spec": { "containers": [{ "name": "main", "image": "none" }] },
                },
            },
        });
        let api: Api<Deployment> = Api::namespaced(self.client.clone(), &self.namespace);
        api.patch(name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(deployment)).await?;
        Ok(())
    }

    /// Makes a pod of a service on a node, and reports it running with this address.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn pod(&self, name: &str, service: &str, node: &str, address: &str) -> Result<()> {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name, "labels": { "app": service } },
            "spec": { "nodeName": node, "containers": [{ "name": "main", "image": "none" }] },
        });
        self.pods().patch(name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(pod)).await?;
        self.report(name, json!({ "phase": "Running", "podIP": address, "podIPs": [{ "ip": address }] })).await?;
        self.ready(name, true).await
    }

    /// Reports a pod ready, or not.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn ready(&self, pod: &str, ready: bool) -> Result<()> {
        let status = if ready { "True" } else { "False" };
        self.report(pod, json!({ "conditions": [{ "type": "Ready", "status": status }] })).await
    }

    /// The addresses in a service's slices, each with whether it is ready; sorted.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn endpoints(&self, service: &str) -> Result<Vec<(String, bool)>> {
        let api: Api<EndpointSlice> = Api::namespaced(self.client.clone(), &self.namespace);
        let slices = api.list(&ListParams::default().labels(&format!("kubernetes.io/service-name={service}"))).await?;
        let mut all: Vec<(String, bool)> = Vec::new();
        for endpoint in slices.items.into_iter().flat_map(|slice| slice.endpoints.unwrap_or_default()) {
            let ready = endpoint.conditions.and_then(|conditions| conditions.ready).unwrap_or(false);
            all.extend(endpoint.addresses.into_iter().map(|address| (address, ready)));
        }
        all.sort();
        Ok(all)
    }

    fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    async fn report(&self, pod: &str, status: Value) -> Result<()> {
        let patch = Patch::Strategic(json!({ "status": status }));
        self.pods().patch_status(pod, &PatchParams::default(), &patch).await?;
        Ok(())
    }
}
