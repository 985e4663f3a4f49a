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

/// Key of a pair in both indexes. No part of it can hold a zero byte.
struct PairKey {
    text: String,
    prefix: usize,
}

impl PairKey {
    fn in_namespace(namespace: &str) -> Self {
        let mut text = String::with_capacity(namespace.len() + 64);
        text.push_str(namespace);
        text.push('\0');
        Self { prefix: text.len(), text }
    }

    fn of(&mut self, label: &str, value: &str) -> &str {
        self.text.truncate(self.prefix);
        self.text.push_str(label);
        self.text.push('\0');
        self.text.push_str(value);
        &self.text
    }
}

/// Index of any kind by each of its label pairs.
#[must_use]
pub fn by_label<K: Cached>() -> Index<K> {
    Index {
        name: BY_LABEL,
        keys: |object, visit| {
            let mut pair = PairKey::in_namespace(object.key().namespace());
            object.each_label(&mut |label, value| visit(pair.of(label, value)));
        },
    }
}

/// Index of services by the first pair of their selector.
#[must_use]
pub fn by_selector() -> Index<Service> {
    Index {
        name: BY_SELECTOR,
        keys: |service, visit| {
            let first = selector_of(service).and_then(BTreeMap::first_key_value);
            if let Some((label, value)) = first {
                let namespace = service.metadata.namespace.as_deref().unwrap_or_default();
                visit(PairKey::in_namespace(namespace).of(label, value));
            }
        },
    }
}

fn selector_of(service: &Service) -> Option<&BTreeMap<String, String>> {
    service.spec.as_ref()?.selector.as_ref()
}

/// Whether an object's labels hold all pairs of a selector; an empty selector selects nothing, as
/// in a Service.
#[must_use]
pub fn matches<K: Cached>(selector: &BTreeMap<String, String>, object: &K) -> bool {
    let mut found = 0;
    object.each_label(&mut |label, value| {
        if selector.get(label).is_some_and(|wanted| wanted == value) {
            found += 1;
        }
    });
    found > 0 && found == selector.len()
}

/// The objects of a namespace whose labels hold all pairs of `selector`; walks the smallest of the
/// pairs' sets. An empty selector selects nothing, as in a Service.
#[must_use]
pub fn selected<K: Cached>(objects: &Lister<K>, namespace: &str, selector: &BTreeMap<String, String>) -> Vec<Arc<K>> {
    let mut pair = PairKey::in_namespace(namespace);
    let smallest = selector.iter().min_by_key(|(label, value)| objects.indexed_len(BY_LABEL, pair.of(label, value)));
    let Some((label, value)) = smallest else { return Vec::new() };
    let mut found = objects.indexed(BY_LABEL, pair.of(label, value));
    if selector.len() > 1 {
        found.retain(|object| matches(selector, &**object));
    }
    found
}

/// The services of an object's namespace whose selector matches its labels.
#[must_use]
pub fn selecting<K: Cached>(services: &Lister<Service>, object: &K) -> Vec<Arc<Service>> {
    let mut pair = PairKey::in_namespace(object.key().namespace());
    let mut found = Vec::new();
    object.each_label(&mut |label, value| {
        for service in services.indexed(BY_SELECTOR, pair.of(label, value)) {
            if selector_of(&service).is_some_and(|selector| matches(selector, object)) {
                found.push(service);
            }
        }
    });
    found
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::informer::testing::Feed;
    use crate::object::ObjectKey;
    use crate::view::PodView;

    type Pairs = BTreeMap<String, String>;

    fn pairs() -> impl Strategy<Value = Pairs> {
        prop::collection::btree_map("[abc]", "[xy]", 0..4)
    }

    fn pod(namespace: &str, name: &str, labels: &Pairs) -> PodView {
        let metadata = serde_json::json!({"namespace": namespace, "name": name, "labels": labels});
        serde_json::from_value(serde_json::json!({ "metadata": metadata })).unwrap()
    }

    fn service(namespace: &str, name: &str, selector: &Pairs) -> Service {
        let metadata = serde_json::json!({"namespace": namespace, "name": name});
        let spec = serde_json::json!({ "selector": selector });
        serde_json::from_value(serde_json::json!({ "metadata": metadata, "spec": spec })).unwrap()
    }

    fn keys<K: Cached>(objects: &[Arc<K>]) -> BTreeSet<ObjectKey> {
        objects.iter().map(|object| object.key()).collect()
    }

    proptest! {
        #[test]
        fn both_directions_equal_a_scan(
            pods in prop::collection::vec(("[mn]", pairs()), 0..30),
            selectors in prop::collection::vec(("[mn]", pairs()), 0..10),
        ) {
            let pods: Vec<_> = pods.iter().enumerate().map(|(n, (ns, labels))| pod(ns, &n.to_string(), labels)).collect();
            let selectors: Vec<_> =
                selectors.iter().enumerate().map(|(n, (ns, selector))| service(ns, &n.to_string(), selector)).collect();
            let pod_feed = Feed::with(pods.clone());
            pod_feed.lister().add_index(by_label());
            let service_feed = Feed::with(selectors.clone());
            service_feed.lister().add_index(by_selector());

            for service in &selectors {
                let selector = selector_of(service).unwrap();
                let namespace = service.metadata.namespace.as_deref().unwrap();
                let by_index = selected(pod_feed.lister(), namespace, selector);
                let by_scan: BTreeSet<_> = pods
                    .iter()
                    .filter(|pod| pod.key.namespace() == namespace && !selector.is_empty())
                    .filter(|pod| selector.iter().all(|(label, value)| pod.labels.get(label) == Some(value)))
                    .map(|pod| pod.key.clone())
                    .collect();
                prop_assert_eq!(by_index.len(), by_scan.len());
                prop_assert_eq!(keys(&by_index), by_scan);
            }
            for pod in &pods {
                let by_index = selecting(service_feed.lister(), pod);
                let by_scan: BTreeSet<_> = selectors
                    .iter()
                    .filter(|service| service.metadata.namespace.as_deref() == Some(pod.key.namespace()))
                    .filter(|service| matches(selector_of(service).unwrap(), pod))
                    .map(Cached::key)
                    .collect();
                prop_assert_eq!(by_index.len(), by_scan.len());
                prop_assert_eq!(keys(&by_index), by_scan);
            }
        }
    }

    #[test]
    fn an_empty_selector_selects_nothing() {
        let feed = Feed::with(vec![pod("n", "p", &Pairs::new())]);
        feed.lister().add_index(by_label());
        assert!(selected(feed.lister(), "n", &Pairs::new()).is_empty());
    }
}
