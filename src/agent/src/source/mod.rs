//! Where the agent learns what is wanted.

pub mod cluster;
pub mod file;

use quarterdeck_api::cloud::metal::{LoadBalancerSpec, RouteSpec};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::desired::{Snapshot, Versioned};

/// An object before anybody understood it.
struct Raw<'a> {
    name: &'a str,
    generation: i64,
    spec: &'a Value,
}

fn balancer(snapshot: &mut Snapshot, raw: &Raw<'_>) {
    match decode::<LoadBalancerSpec>(raw) {
        Ok(spec) => drop(snapshot.desired.balancers.insert(raw.name.to_owned(), spec)),
        Err(error) => drop(snapshot.broken.insert(format!("balancer/{}", raw.name), error)),
    }
}

fn route(snapshot: &mut Snapshot, raw: &Raw<'_>) {
    match decode::<RouteSpec>(raw) {
        Ok(spec) => drop(snapshot.desired.routes.insert(raw.name.to_owned(), spec)),
        Err(error) => drop(snapshot.broken.insert(format!("route/{}", raw.name), error)),
    }
}

fn decode<T: DeserializeOwned>(raw: &Raw<'_>) -> Result<Versioned<T>, String> {
    let spec = T::deserialize(raw.spec).map_err(|error| format!("spec: {error}"))?;
    Ok(Versioned { generation: raw.generation, spec })
}
