//! The trigger time: when the oldest change happened that the next write of Endpoints is the first
//! to show. kube-proxy measures its programming latency against it.
//!
//! As kubernetes/endpointslice:util/trigger_time_tracker.go v1.36.3, with two changes: a failed
//! write does not lose the time, and a process that sees a service for the first time goes by the
//! time its Endpoints already carry instead of by the service's age.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Endpoints, Service};
use parking_lot::Mutex;
use quarterdeck_runtime::object::ObjectKey;
use quarterdeck_runtime::view::PodView;

use super::plan::TRIGGER_TIME;

/// The times last seen of one service and its pods; sixteen bytes a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    service: i64,
    /// Hash of the pod's uid and its time, sorted by hash.
    pods: Box<[(u64, i64)]>,
}

/// The times last shown, for each service.
#[derive(Default)]
pub(super) struct TriggerTimes(Mutex<HashMap<ObjectKey, Arc<Seen>>>);

impl TriggerTimes {
    /// What is seen now, and the time to show. The queue lets one service be looked at once at a
    /// time, so nothing changes until [`Self::commit`].
    pub(super) fn observe(
        &self,
        key: &ObjectKey,
        service: &Service,
        pods: &[Arc<PodView>],
        endpoints: Option<&Endpoints>,
    ) -> (Seen, Option<i64>) {
        let before = self.0.lock().get(key).cloned();
        observe(before.as_deref(), service, pods, endpoints)
    }

    /// Remembers what has been shown.
    pub(super) fn commit(&self, key: ObjectKey, seen: Seen) {
        self.0.lock().insert(key, Arc::new(seen));
    }

    /// Forgets a service that is gone.
    pub(super) fn forget(&self, key: &ObjectKey) {
        self.0.lock().remove(key);
    }
}

/// The pure part of [`TriggerTimes::observe`].
pub(super) fn observe(
    before: Option<&Seen>,
    service: &Service,
    pods: &[Arc<PodView>],
    endpoints: Option<&Endpoints>,
) -> (Seen, Option<i64>) {
    let created = service.metadata.creation_timestamp.as_ref().map_or(0, |time| time.0.as_second());
    let mut times: Vec<_> = pods.iter().filter_map(|pod| Some((hash(&pod.uid), pod.ready_changed?))).collect();
    times.sort_unstable();

    let trigger = match (before, endpoints) {
        (None, None) => Some(created),
        (None, Some(endpoints)) => {
            shown_by(endpoints).and_then(|shown| times.iter().map(|(_, time)| *time).filter(|time| *time > shown).min())
        }
        (Some(before), _) => {
            let newer = times.iter().filter(|(pod, time)| before.of_pod(*pod).is_none_or(|was| *time > was));
            let service = (created > before.service).then_some(created);
            newer.map(|(_, time)| *time).chain(service).min()
        }
    };
    (Seen { service: created, pods: times.into() }, trigger)
}

impl Seen {
    fn of_pod(&self, pod: u64) -> Option<i64> {
        self.pods.binary_search_by_key(&pod, |(hash, _)| *hash).ok().map(|at| self.pods[at].1)
    }
}

fn shown_by(endpoints: &Endpoints) -> Option<i64> {
    let text = endpoints.metadata.annotations.as_ref()?.get(TRIGGER_TIME)?;
    text.parse::<Timestamp>().ok().map(Timestamp::as_second)
}

fn hash(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}
