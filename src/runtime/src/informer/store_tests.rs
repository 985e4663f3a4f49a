use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::ConfigMap;
use proptest::prelude::*;

use super::*;

fn config_map(key: &ObjectKey, labels: &[String]) -> Arc<ConfigMap> {
    let mut object = ConfigMap::default();
    object.metadata.namespace = Some(key.namespace().to_owned());
    object.metadata.name = Some(key.name().to_owned());
    object.metadata.labels = Some(labels.iter().map(|label| (label.clone(), String::new())).collect());
    Arc::new(object)
}

fn by_label() -> Index<ConfigMap> {
    Index { name: "label", keys: |object, visit| object.each_label(&mut |key, _| visit(key)) }
}

#[derive(Clone, Debug)]
enum Op {
    Put(u8, u8, BTreeSet<u8>),
    Remove(u8, u8),
    Shrink,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (0..3_u8, 0..12_u8, prop::collection::btree_set(0..5_u8, 0..4)).prop_map(|(a, b, c)| Op::Put(a, b, c)),
        4 => (0..3_u8, 0..12_u8).prop_map(|(a, b)| Op::Remove(a, b)),
        1 => Just(Op::Shrink),
    ]
}

proptest! {
    #[test]
    fn equals_a_plain_map(ops in prop::collection::vec(op(), 0..200), late in any::<bool>()) {
        let mut store = Store::new(true);
        if !late {
            store.add_index(by_label());
        }
        let mut model: BTreeMap<ObjectKey, (Arc<ConfigMap>, Vec<String>)> = BTreeMap::new();
        for op in ops {
            match op {
                Op::Put(namespace, name, labels) => {
                    let key = ObjectKey::new(namespace.to_string(), name.to_string());
                    let labels: Vec<_> = labels.iter().map(ToString::to_string).collect();
                    let object = config_map(&key, &labels);
                    let old = store.put(key.clone(), Arc::clone(&object), 10);
                    prop_assert_eq!(old, model.insert(key, (object, labels)).map(|(old, _)| old));
                }
                Op::Remove(namespace, name) => {
                    let key = ObjectKey::new(namespace.to_string(), name.to_string());
                    prop_assert_eq!(store.remove(&key), model.remove(&key).map(|(old, _)| old));
                }
                Op::Shrink => store.shrink(),
            }
        }
        if late {
            store.add_index(by_label());
        }
        prop_assert_eq!(store.len(), model.len());
        prop_assert_eq!(store.bytes, 10 * model.len() as u64);
        for (key, (object, _)) in &model {
            prop_assert!(Arc::ptr_eq(store.get(key).unwrap(), object));
        }
        let keys = |objects: Vec<Arc<ConfigMap>>| objects.iter().map(|object| object.key()).collect::<BTreeSet<_>>();
        prop_assert_eq!(keys(store.all()), model.keys().cloned().collect());
        for label in (0..5_u8).map(|label| label.to_string()) {
            let expected: BTreeSet<_> =
                model.iter().filter(|(_, (_, labels))| labels.contains(&label)).map(|(key, _)| key.clone()).collect();
            prop_assert_eq!(store.indexed_len("label", &label), Some(expected.len()));
            prop_assert_eq!(keys(store.indexed("label", &label).unwrap()), expected);
        }
        for namespace in (0..3_u8).map(|namespace| namespace.to_string()) {
            let expected: BTreeSet<_> = model.keys().filter(|key| key.namespace() == namespace).cloned().collect();
            prop_assert_eq!(keys(store.indexed(super::super::BY_NAMESPACE, &namespace).unwrap()), expected);
        }
        prop_assert!(store.indexed("other", "").is_none());
    }
}

#[test]
fn a_list_tells_what_it_did_not_contain() {
    let mut store = Store::new(true);
    let keys: Vec<_> = ["a", "b", "c"].map(|name| ObjectKey::new("n", name)).into();
    for key in &keys {
        store.put(key.clone(), config_map(key, &[]), 0);
    }
    store.begin_list();
    store.put(keys[0].clone(), config_map(&keys[0], &[]), 0);
    store.mark_listed(&keys[1]);
    assert_eq!(store.unlisted(), [keys[2].clone()]);
}
