//! A file in place of a cluster: a list of `MetalLoadBalancer` and `MetalRoute`, in YAML or JSON.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::Deserialize;
use serde_json::Value;
use tokio::sync::mpsc;

use super::Told;
use crate::desired::{ObjectId, ObjectKind, Snapshot};

/// How often the file is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);

#[derive(Deserialize)]
struct List {
    #[serde(default)]
    items: Vec<Value>,
}

/// Reads the file.
///
/// # Errors
/// When it cannot be read or is not a list: then nothing is known, and all stays as it is.
pub fn read(path: &Path) -> Result<Snapshot, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    parse(&text).map_err(|error| format!("{}: {error}", path.display()))
}

fn parse(text: &str) -> Result<Snapshot, String> {
    // JSON is YAML too, and is read much faster as what it is.
    let list: List = if text.trim_start().starts_with('{') {
        serde_json::from_str(text).map_err(|error| error.to_string())?
    } else {
        serde_saphyr::from_str(text).map_err(|error| error.to_string())?
    };
    let mut snapshot = Snapshot::default();
    for (place, item) in list.items.iter().enumerate() {
        let string = |pointer| item.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let name = string("/metadata/name");
        if name.is_empty() {
            return Err(format!("items[{place}]: metadata.name is missing"));
        }
        let generation = item.pointer("/metadata/generation").and_then(Value::as_i64).unwrap_or(0);
        let spec = item.get("spec").unwrap_or(&Value::Null);
        let kind = match string("/kind") {
            "MetalLoadBalancer" => ObjectKind::Balancer,
            "MetalRoute" => ObjectKind::Route,
            other => return Err(format!("items[{place}]: kind {other:?} is neither MetalLoadBalancer nor MetalRoute")),
        };
        super::add(&mut snapshot, ObjectId { kind, name: name.to_owned() }, super::read(kind, generation, spec));
    }
    Ok(snapshot)
}

/// Follows the file: tells each state it has, and each error.
pub async fn follow(path: PathBuf, tell: mpsc::Sender<Told>) {
    let mut stamp_before: Option<(SystemTime, u64)> = None;
    let mut before = None;
    loop {
        let stamp = std::fs::metadata(&path).and_then(|meta| Ok((meta.modified()?, meta.len()))).ok();
        if stamp.is_none() || stamp != stamp_before {
            stamp_before = stamp;
            let now = Some(read(&path));
            if now != before {
                before.clone_from(&now);
                let told = now.map(|now| now.map_or_else(Told::Nothing, Told::File));
                if let Some(told) = told
                    && tell.send(told).await.is_err()
                {
                    return;
                }
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_object_harms_no_other() {
        let text = "
items:
- kind: MetalLoadBalancer
  metadata: {name: a}
  spec: {epoch: 3, addresses: [{address: 192.0.2.1, gateway: gw1}]}
- kind: MetalLoadBalancer
  metadata: {name: b}
  spec: {addresses: [{address: nonsense}]}
- kind: MetalRoute
  metadata: {name: n1, generation: 2}
  spec: {destinations: [10.1.0.0/24], nextHops: [10.0.0.11]}
";
        let snapshot = parse(text).unwrap();
        assert_eq!(snapshot.desired.balancers["a"].spec.epoch, 3);
        assert_eq!(snapshot.desired.routes["n1"].generation, 2);
        assert!(
            snapshot.broken[&ObjectId::balancer("b")].starts_with("spec: invalid IP address"),
            "{:?}",
            snapshot.broken
        );
    }

    #[test]
    fn a_file_that_is_none_says_nothing() {
        for (text, expected) in [
            ("items: [{kind: MetalRoute}]", "items[0]: metadata.name is missing"),
            ("items: [{kind: Pod, metadata: {name: a}}]", "items[0]: kind \"Pod\" is neither"),
            ("items: 7", ""),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.starts_with(expected), "{error}");
        }
    }
}
