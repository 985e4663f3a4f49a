//! A control plane, a made-up cloud, and the objects of the figures.

use std::time::Duration;

use anyhow::{Context, Result};
use quarterdeck_it::{CloudSim, ControlPlane, Deck};
use serde_json::{Value, json};

use crate::api::Http;
use crate::contestant::LONG;

/// Namespace of all Services.
pub(super) const NAMESPACE: &str = "cloud";
/// Taint of a node that its cloud has not been asked about.
pub(super) const UNINITIALISED: &str = "node.cloudprovider.kubernetes.io/uninitialized";
/// Flags that take our client's limits away, where they are not what is measured.
pub(super) const UNLIMITED: [&str; 2] = ["--kube-api-qps=5000", "--kube-api-burst=10000"];

/// A control plane and a made-up cloud.
pub(super) struct Place {
    pub(super) control_plane: ControlPlane,
    pub(super) http: Http,
    pub(super) cloud: CloudSim,
}

impl Place {
    /// Starts both; the cloud with these flags.
    pub(super) async fn open(cloud: &[&str]) -> Result<Self> {
        let control_plane = ControlPlane::start().await?;
        let http = Http::new(&control_plane).await?;
        control_plane.namespace(NAMESPACE).await?;
        let cloud = CloudSim::builder().args(cloud.iter().copied()).start().await?;
        Ok(Self { control_plane, http, cloud })
    }

    /// Starts replicas that use the cloud, and waits until they are ready and one leads.
    pub(super) async fn deck(&self, controllers: &str, replicas: usize, flags: &[&str]) -> Result<Deck> {
        // The rights, and the kinds, that these controllers need.
        let installed = [self.cloud.flag(), format!("--controllers={controllers}")];
        let args = installed.iter().cloned().chain(flags.iter().map(|&flag| flag.to_owned()));
        let deck =
            Deck::builder(&self.control_plane).replicas(replicas).args(args).install_args(installed.clone()).start();
        let deck = deck.await?;
        deck.ready(LONG).await?;
        deck.leader(LONG).await?;
        Ok(deck)
    }
}

/// Ends the only replica of a deck in an orderly way.
pub(super) async fn stop(deck: &Deck) -> Result<()> {
    deck.replica(0).process().stop(Duration::from_secs(30)).await.map(drop)
}

/// Path of all Services.
pub(super) fn services() -> String {
    format!("/api/v1/namespaces/{NAMESPACE}/services")
}

/// A Service of a type.
pub(super) fn service(name: &str, kind: &str) -> Value {
    json!({
        "metadata": { "name": name },
        "spec": { "type": kind, "selector": { "app": name }, "ports": [{ "port": 80 }] },
    })
}

/// A node as a kubelet registers it: its cloud has not been asked.
pub(super) fn new_node(name: &str) -> Value {
    json!({
        "metadata": { "name": name },
        "spec": { "taints": [{ "key": UNINITIALISED, "value": "true", "effect": "NoSchedule" }] },
    })
}

/// Whether a node still waits for its cloud.
pub(super) fn is_tainted(node: &Value) -> bool {
    let taints = node["spec"]["taints"].as_array();
    taints.is_some_and(|taints| taints.iter().any(|taint| taint["key"] == UNINITIALISED))
}

/// Whether a Service shows an address.
pub(super) fn has_address(service: &Value) -> bool {
    address(service).is_some()
}

/// The address that a Service shows.
pub(super) fn address(service: &Value) -> Option<&str> {
    service["status"]["loadBalancer"]["ingress"][0]["ip"].as_str()
}

/// The name of an object; empty if it has none.
pub(super) fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

/// A number of things that are few enough to be one.
pub(super) fn count(number: usize) -> Result<f64> {
    Ok(f64::from(u32::try_from(number).context("few enough to count")?))
}
