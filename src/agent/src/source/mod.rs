//! Where the agent learns what is wanted.

pub mod cluster;
pub mod file;

use std::sync::Arc;

use quarterdeck_api::cloud::metal::{LoadBalancerSpec, RouteSpec};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::Instant;

use crate::desired::{Now, ObjectId, ObjectKind, Snapshot, Versioned};

/// Tells how the cluster is followed: `None` at a moment at which it is not, else a number that stays the same as long as each
/// deletion is heard of when it happens.
pub type Followed = Arc<dyn Fn() -> Option<u64> + Send + Sync>;

/// What a source tells.
#[derive(Clone)]
pub enum Told {
    /// A complete state, whose author is believed also if it lacks much that was there: the operator's own file.
    File(Snapshot),
    /// A complete state as the cluster has it, and how to tell later whether it was followed without a break since.
    Cluster(Snapshot, Followed),
    /// Objects that changed, and since when that is known.
    Changes(Vec<(ObjectId, Now)>, Instant),
    /// Why nothing is known.
    Nothing(String),
}

/// Understands an object, whose generation and spec these are.
fn read(kind: ObjectKind, generation: i64, spec: &Value) -> Now {
    let now = match kind {
        ObjectKind::Balancer => decode::<LoadBalancerSpec>(generation, spec).map(Now::Balancer),
        ObjectKind::Route => decode::<RouteSpec>(generation, spec).map(Now::Route),
    };
    now.unwrap_or_else(Now::Broken)
}

/// Adds an object to a complete state.
fn add(snapshot: &mut Snapshot, id: ObjectId, now: Now) {
    match now {
        Now::Balancer(spec) => drop(snapshot.desired.balancers.insert(id.name, spec)),
        Now::Route(spec) => drop(snapshot.desired.routes.insert(id.name, spec)),
        Now::Broken(error) => drop(snapshot.broken.insert(id, error)),
        Now::Gone | Now::Missing => {}
    }
}

fn decode<T: DeserializeOwned>(generation: i64, spec: &Value) -> Result<Versioned<T>, String> {
    let spec = T::deserialize(spec).map_err(|error| format!("spec: {error}"))?;
    Ok(Versioned { generation, spec })
}
