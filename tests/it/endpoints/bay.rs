//! A namespace whose Endpoints and slices one replica keeps.

use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use http::Request;
use quarterdeck_it::{ControlPlane, Deck, eventually};
use serde_json::{Value, json};

/// Time that anything gets on a loaded machine.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
const NAMESPACE: &str = "bay";
const ARGS: [&str; 4] = [
    "--controllers=endpoints-controller,endpointslice-controller,endpointslice-mirroring-controller",
    "--leader-elect-lease-duration=4s",
    "--leader-elect-renew-deadline=3s",
    "--leader-elect-retry-period=500ms",
];

/// A server, a replica, and objects in one namespace.
pub(super) struct Bay {
    // Dropped first: a replica without a server fills its log.
    pub(super) deck: Deck,
    _control_plane: ControlPlane,
    client: kube::Client,
}

impl Bay {
    /// An empty namespace on a server of its own.
    pub(super) async fn open() -> Result<Self> {
        let control_plane = ControlPlane::start().await?;
        control_plane.namespace(NAMESPACE).await?;
        let deck = Deck::builder(&control_plane).replicas(1).args(ARGS).start().await?;
        let client = control_plane.admin().await?;
        Ok(Self { deck, _control_plane: control_plane, client })
    }

    /// Sends a request; the body of a `PATCH` is a merge patch.
    pub(super) async fn send(&self, method: &str, path: &str, body: &Value) -> Result<Value> {
        let kind = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        let request = Request::builder().method(method).uri(path).header("content-type", kind);
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        let answer = self.client.request(request.body(body)?).await;
        answer.with_context(|| format!("{method} {path}"))
    }

    /// Path of a kind, or an object of it, in the namespace.
    pub(super) fn path(path: &str) -> String {
        let (kind, _) = path.split_once('/').unwrap_or((path, ""));
        let group = if kind == "endpointslices" { "/apis/discovery.k8s.io/v1" } else { "/api/v1" };
        format!("{group}/namespaces/{NAMESPACE}/{path}")
    }

    /// Creates an object of the namespace.
    pub(super) async fn create(&self, kind: &str, object: Value) -> Result<Value> {
        self.send("POST", &Self::path(kind), &object).await
    }

    /// Changes an object of the namespace.
    pub(super) async fn patch(&self, path: &str, patch: Value) -> Result<Value> {
        self.send("PATCH", &Self::path(path), &patch).await
    }

    /// Deletes an object of the namespace at once.
    pub(super) async fn delete(&self, path: &str) -> Result<()> {
        self.send("DELETE", &Self::path(path), &json!({ "gracePeriodSeconds": 0 })).await.map(drop)
    }

    /// Makes a ready node in a zone, with a processor.
    pub(super) async fn node(&self, name: &str, zone: &str) -> Result<()> {
        let node = json!({ "metadata": { "name": name, "labels": { "topology.kubernetes.io/zone": zone } } });
        self.send("POST", "/api/v1/nodes", &node).await?;
        let status = json!({ "status": {
            "allocatable": { "cpu": "1" }, "conditions": [{ "type": "Ready", "status": "True" }],
        }});
        self.send("PATCH", &format!("/api/v1/nodes/{name}/status"), &status).await.map(drop)
    }

    /// Gives a node's zone another name.
    pub(super) async fn move_node(&self, name: &str, zone: &str) -> Result<()> {
        let patch = json!({ "metadata": { "labels": { "topology.kubernetes.io/zone": zone } } });
        self.send("PATCH", &format!("/api/v1/nodes/{name}"), &patch).await.map(drop)
    }

    /// Makes a service with this selector, and with more in its spec.
    pub(super) async fn service(&self, name: &str, selector: Value, more: Value) -> Result<()> {
        let mut spec = json!({ "selector": selector, "ports": [{ "port": 80, "targetPort": 8080 }] });
        if let (Some(spec), Value::Object(more)) = (spec.as_object_mut(), more) {
            spec.extend(more);
        }
        self.create("services", json!({ "metadata": { "name": name }, "spec": spec })).await.map(drop)
    }

    /// Makes a ready pod.
    pub(super) async fn pod(&self, name: &str, labels: Value, node: &str, ip: &str) -> Result<()> {
        let spec = json!({ "nodeName": node, "containers": [{ "name": "main", "image": "none" }] });
        self.create("pods", json!({ "metadata": { "name": name, "labels": labels }, "spec": spec })).await?;
        let status = json!({ "status": { "phase": "Running", "podIP": ip, "podIPs": [{ "ip": ip }] } });
        self.patch(&format!("pods/{name}/status"), status).await?;
        self.ready(name, true).await
    }

    /// Reports a pod ready, or not.
    pub(super) async fn ready(&self, pod: &str, ready: bool) -> Result<()> {
        let ready = if ready { "True" } else { "False" };
        let status = json!({ "status": { "conditions": [{ "type": "Ready", "status": ready }] } });
        self.patch(&format!("pods/{pod}/status"), status).await.map(drop)
    }

    /// The slices of a service.
    pub(super) async fn slices(&self, service: &str) -> Result<Vec<Value>> {
        let path = format!("{}?labelSelector=kubernetes.io/service-name={service}", Self::path("endpointslices"));
        let mut list = self.send("GET", &path, &Value::Null).await?;
        Ok(list["items"].as_array_mut().map(std::mem::take).unwrap_or_default())
    }

    /// The one slice of a service.
    pub(super) async fn slice(&self, service: &str) -> Result<Value> {
        let mut slices = self.slices(service).await?;
        ensure!(slices.len() == 1, "{} slices of {service}", slices.len());
        Ok(slices.swap_remove(0))
    }

    /// Path of the one slice of a service.
    pub(super) async fn slice_path(&self, service: &str) -> Result<String> {
        let slice = self.slice(service).await?;
        let name = slice["metadata"]["name"].as_str().context("a slice without a name")?;
        Ok(format!("endpointslices/{name}"))
    }

    /// The Endpoints of a service.
    pub(super) async fn endpoints(&self, service: &str) -> Result<Value> {
        self.send("GET", &Self::path(&format!("endpoints/{service}")), &Value::Null).await
    }

    /// Waits until an object of the namespace is gone.
    pub(super) async fn gone(&self, path: &str) -> Result<()> {
        eventually(&format!("{path} is gone"), PATIENCE, async || {
            let answer = self.send("GET", &Self::path(path), &Value::Null).await;
            let error = answer.err().with_context(|| format!("{path} is there"))?;
            match error.downcast_ref::<kube::Error>() {
                Some(kube::Error::Api(status)) if status.code == 404 => Ok(()),
                _ => Err(error),
            }
        })
        .await
    }

    /// Waits until the slices of a service show just these addresses, each with whether it is ready.
    pub(super) async fn slices_show(&self, service: &str, wanted: &[(&str, bool)]) -> Result<()> {
        eventually(&format!("the slices of {service} show {wanted:?}"), PATIENCE, async || {
            let shown = shown(&self.slices(service).await?);
            let shown: Vec<(&str, bool)> = shown.iter().map(|(ip, ready)| (ip.as_str(), *ready)).collect();
            ensure!(shown == wanted, "{shown:?}");
            Ok(())
        })
        .await
    }

    /// Waits until slices and Endpoints of a service show just these addresses.
    pub(super) async fn shows(&self, service: &str, wanted: &[(&str, bool)]) -> Result<()> {
        self.slices_show(service, wanted).await?;
        eventually(&format!("the Endpoints of {service} show {wanted:?}"), PATIENCE, async || {
            let endpoints = self.endpoints(service).await?;
            let mut shown = Vec::new();
            for subset in array(&endpoints["subsets"]) {
                for (state, ready) in [("addresses", true), ("notReadyAddresses", false)] {
                    shown.extend(array(&subset[state]).iter().map(|address| (text(&address["ip"]), ready)));
                }
            }
            shown.sort_unstable();
            ensure!(shown == wanted, "{shown:?}");
            Ok(())
        })
        .await
    }

    /// Waits until each endpoint of a service has these zone and hints, by address.
    pub(super) async fn near(&self, service: &str, wanted: &[(&str, &str, Value)]) -> Result<()> {
        eventually(&format!("zones and hints of {service}"), PATIENCE, async || {
            let slices = self.slices(service).await?;
            let endpoints: Vec<&Value> = slices.iter().flat_map(|slice| array(&slice["endpoints"])).collect();
            for (ip, zone, hints) in wanted {
                let endpoint = endpoints.iter().find(|endpoint| endpoint["addresses"][0] == *ip);
                let endpoint = endpoint.ok_or_else(|| anyhow!("no {ip}"))?;
                ensure!(endpoint["zone"] == *zone && endpoint["hints"] == *hints, "{endpoint}");
            }
            Ok(())
        })
        .await
    }
}

/// Addresses in slices, each with whether it is ready; sorted.
pub(super) fn shown(slices: &[Value]) -> Vec<(String, bool)> {
    let mut shown = Vec::new();
    for endpoint in slices.iter().flat_map(|slice| array(&slice["endpoints"])) {
        let ready = endpoint["conditions"]["ready"] == true;
        shown.extend(array(&endpoint["addresses"]).iter().map(|ip| (text(ip).to_owned(), ready)));
    }
    shown.sort_unstable();
    shown
}

/// The items of an array; none of anything else.
pub(super) fn array(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// A text; empty for anything else.
pub(super) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
