//! Tests of the whole stack against a small server on this machine.

mod events;
mod reads;
pub(crate) mod server;
mod writes;

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use quarterdeck_election::{BootClock, Clock, Epoch, EpochToken, Gate, GateKeeper, Timing};
use serde_json::json;

use super::{Api, ClientOptions, Clients, Identity};
use server::Server;

/// A lease of 3 s: a write gets 375 ms, and at most 750 ms.
fn timing() -> Timing {
    Timing::new(Duration::from_secs(3), Duration::from_secs(2), Duration::from_millis(500)).unwrap()
}

fn token(transitions: i32) -> EpochToken {
    EpochToken { lease_uid: "lease-uid".into(), transitions }
}

/// A gate that stands open for long, with its keeper.
fn open_gate(fenced: bool) -> (Gate, GateKeeper) {
    let (gate, keeper) = Gate::new(timing(), Arc::new(BootClock));
    keeper.open(Epoch::new("quarterdeck", token(7)), BootClock.now() + Duration::from_secs(3600), fenced);
    (gate, keeper)
}

async fn clients(server: &Server, gate: Gate) -> Clients {
    let config = kube::Config::new(server.url().parse().unwrap());
    let options = ClientOptions { qps: 0.0, ..ClientOptions::default() };
    Clients::connect(config, options, gate, &prometheus::Registry::new()).await.unwrap()
}

/// A controller's calls, with a gate that stands open and writes that carry the fence's header.
pub(crate) async fn leading(server: &Server) -> (Api, GateKeeper) {
    let (gate, keeper) = open_gate(true);
    (clients(server, gate).await.api(&Identity::system("endpoint-controller")), keeper)
}

pub(crate) fn config_map(name: &str) -> ConfigMap {
    ConfigMap {
        metadata: ObjectMeta { name: Some(name.into()), namespace: Some("a".into()), ..Default::default() },
        ..Default::default()
    }
}

pub(crate) fn versioned(name: &str, version: &str) -> ConfigMap {
    let mut object = config_map(name);
    object.metadata.resource_version = Some(version.into());
    object
}

pub(crate) fn stored(version: &str) -> serde_json::Value {
    json!({"kind": "PartialObjectMetadata", "metadata": {"uid": "u1", "resourceVersion": version, "generation": 3}})
}
