//! Finding pods of a service and services of a pod without scanning a namespace.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;

use crate::informer::{Index, Lister};
use crate::object::Cached;

/// Name of the index of objects by (namespace, label, value).
pub const BY_LABEL: &str = "label";
/// Name of the index of services by (namespace, first pair of the selector).
pub const BY_SELECTOR: &str = "selector";

/// Index of any kind by each of its label pairs.
#[must_use]
pub fn by_label<K: Cached>() -> Index<K> {
    todo!()
}

/// Index of services by the first pair of their selector.
#[must_use]
pub fn by_selector() -> Index<Service> {
    todo!()
}

/// The objects of a namespace whose labels hold all pairs of `selector`; walks the smallest of the
/// pairs' sets. An empty selector selects nothing, as in a Service.
#[must_use]
pub fn selected<K: Cached>(
    _objects: &Lister<K>,
    _namespace: &str,
    _selector: &BTreeMap<String, String>,
) -> Vec<Arc<K>> {
    todo!()
}

/// The services of an object's namespace whose selector matches its labels.
#[must_use]
pub fn selecting<K: Cached>(_services: &Lister<Service>, _object: &K) -> Vec<Arc<Service>> {
    todo!()
}
