//! Tests of what tells operations and load balancers apart.

use quarterdeck_cloud::model::{Backend, ClusterId};
use serde_json::json;

use super::*;
use crate::service_lb::memory::Known;

fn balancer(handle: &str, age: Option<u64>) -> OwnedLoadBalancer {
    let owner = Owner { cluster: ClusterId("c".into()), namespace: "a".into(), name: "web".into(), uid: "u".into() };
    let age = age.map(Duration::from_secs);
    OwnedLoadBalancer { owner, handle: Handle(handle.into()), fingerprint: String::new(), age }
}

#[test]
fn of_several_always_the_same_one_is_adopted() {
    let found = [balancer("lb-2", Some(5)), balancer("lb-3", Some(9)), balancer("lb-1", Some(5))];
    let name = |recorded: Option<&str>, found| {
        adopt(recorded.map(|text| Handle(text.into())).as_ref(), found).map(|handle| handle.0.clone())
    };
    assert_eq!(name(Some("lb-2"), &found[..]).as_deref(), Some("lb-2"), "the one that is written down");
    assert_eq!(name(Some("lb-9"), &found[..]).as_deref(), Some("lb-3"), "the oldest");
    let ageless = [balancer("b", None), balancer("a", None)];
    assert_eq!(name(None, &ageless[..]).as_deref(), Some("a"));
    assert_eq!(name(Some("lb-2"), &ageless[..0]), None);
}

/// What goes into the number of an operation.
#[derive(Clone)]
struct Op {
    record: Record,
    digest: &'static str,
    backends: Vec<Backend>,
    done: u64,
    drift: Option<String>,
    epoch: u64,
}

impl Op {
    fn first() -> Self {
        let record = Record { claim: "c".into(), ..Record::new("u", "p") };
        Self { record, digest: "d", backends: Vec::new(), done: 0, drift: None, epoch: 1 }
    }

    fn id(&self) -> Uuid {
        let service = serde_json::from_value(json!({ "metadata": { "name": "web", "uid": "u" } })).unwrap();
        let spec = wish(&service, &ClusterId("c".into())).spec;
        let mut known = Known::new(spec.owner.clone(), "p", self.epoch);
        known.done = self.done;
        known.drift.clone_from(&self.drift);
        let spec = LoadBalancerSpec { backends: self.backends.clone(), ..spec };
        operation(&spec, self.digest, &self.record, &known, self.epoch)
    }
}

#[test]
fn an_operation_has_one_number_in_every_try_and_no_other_has_it() {
    let first = Op::first();
    assert_eq!(first.id(), first.id());
    let after_a_crash = Op { epoch: 2, ..first.clone() };
    assert_eq!(first.id(), after_a_crash.id(), "the next leader tries the same");

    let node = Backend { name: "n".into(), provider_id: String::new(), addresses: Vec::new() };
    let mut all = vec![first.id()];
    for other in [
        Op { digest: "e", ..first.clone() },
        Op { backends: vec![node], ..first.clone() },
        Op { record: Record { revision: 1, ..first.record.clone() }, ..first.clone() },
        Op { record: Record { claim: "c2".into(), ..first.record.clone() }, ..first.clone() },
        Op { done: 1, ..first.clone() },
        Op { done: 2, ..first.clone() },
        Op { drift: Some("gone".into()), ..first.clone() },
        Op { drift: Some("gone".into()), epoch: 2, ..first.clone() },
    ] {
        assert!(!all.contains(&other.id()));
        all.push(other.id());
    }
}
