//! Finds out which change led to a write, for the annotation from which proxies compute how long
//! the network took to be programmed.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use parking_lot::Mutex;
use quarterdeck_runtime::object::ObjectKey;
use quarterdeck_runtime::view::PodView;

/// What was seen of each service's pods when it was last reconciled. A pod counts with the time
/// its readiness last changed, a service with its creation
/// (k8s.io/endpointslice:util/trigger_time_tracker.go v0.36.3).
#[derive(Default)]
pub(super) struct TriggerTimes {
    hasher: RandomState,
    seen: Mutex<HashMap<ObjectKey, Seen>>,
}

struct Seen {
    /// Creation of the service.
    service: Option<i64>,
    /// Hash of each pod's name with its time, sorted: a twentieth of the names' memory.
    pods: Box<[(u64, i64)]>,
}

impl TriggerTimes {
    /// The earliest change since the last call for the same service; on the first call the
    /// service's creation. Seconds since 1970.
    pub(super) fn next(&self, key: &ObjectKey, service: &Service, pods: &[Arc<PodView>]) -> Option<i64> {
        let created = service.metadata.creation_timestamp.as_ref().map(|time| time.0.as_second());
        let mut now: Box<[(u64, i64)]> =
            pods.iter().filter_map(|pod| Some((self.hasher.hash_one(pod.key.name()), pod.ready_changed?))).collect();
        now.sort_unstable();
        let Some(before) = self.seen.lock().insert(key.clone(), Seen { service: created, pods: now.clone() }) else {
            return created;
        };
        let mut old = before.pods.iter().peekable();
        let later = now.iter().filter(|(pod, time)| {
            while old.next_if(|(other, _)| other < pod).is_some() {}
            old.peek().is_none_or(|(other, seen)| other != pod || seen < time)
        });
        later.map(|(_, time)| *time).chain(created.filter(|_| created > before.service)).min()
    }

    /// Forgets a service that is gone.
    pub(super) fn forget(&self, key: &ObjectKey) {
        self.seen.lock().remove(key);
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};

    use super::super::fixtures::pod;
    use super::*;

    #[test]
    fn the_earliest_new_change_is_the_trigger() {
        let times = TriggerTimes::default();
        let key = ObjectKey::new("ns", "svc");
        let service = Service {
            metadata: ObjectMeta {
                creation_timestamp: Some(Time(jiff::Timestamp::from_second(100).unwrap())),
                ..ObjectMeta::default()
            },
            ..Service::default()
        };
        let at = |name: &str, time| Arc::new(PodView { ready_changed: time, ..pod(name) });

        let mut pods = vec![at("a", Some(110)), at("b", Some(120))];
        assert_eq!(times.next(&key, &service, &pods), Some(100), "an unknown service counts from its creation");
        assert_eq!(times.next(&key, &service, &pods), None, "nothing changed");
        pods[0] = at("a", Some(130));
        pods.push(at("c", Some(125)));
        assert_eq!(times.next(&key, &service, &pods), Some(125));
        pods[0] = at("a", Some(140));
        assert_eq!(times.next(&key, &service, &pods), Some(140), "a later time of a known pod");
        pods[1] = at("b", Some(90));
        assert_eq!(times.next(&key, &service, &pods), None, "an earlier time is no new change");
        pods.remove(0);
        assert_eq!(times.next(&key, &service, &pods), None, "a pod that went has no time");
        times.forget(&key);
        assert_eq!(times.next(&key, &service, &pods), Some(100));
    }
}
