//! The harness itself: what the other tests stand on.

mod audit;
mod binaries;
mod command;
mod process;
mod proxy;
mod restart;
mod users;

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::ObjectMeta;

/// Time that anything gets on a loaded machine.
const LONG: Duration = Duration::from_secs(60);

/// A ConfigMap with one entry.
fn config_map(name: &str, value: &str) -> ConfigMap {
    ConfigMap {
        metadata: ObjectMeta { name: Some(name.to_owned()), ..Default::default() },
        data: Some(BTreeMap::from([("value".to_owned(), value.to_owned())])),
        ..Default::default()
    }
}

/// HTTP code of the server's refusal; panics on any other outcome.
#[track_caller]
fn refusal<T>(answer: kube::Result<T>) -> u16 {
    match answer {
        Err(kube::Error::Api(status)) => status.code,
        Err(other) => panic!("no answer of the server: {other}"),
        Ok(_) => panic!("not refused"),
    }
}
