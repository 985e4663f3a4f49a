//! Who kept addons before. While a pod of kube-addon-manager is alive, addons are only looked at; while
//! keiko's addon-manager renews its Lease, Addon objects are.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use parking_lot::Mutex;
use quarterdeck_runtime::informer::{Informers, Lister, Selection};
use quarterdeck_runtime::object::{Kind, ObjectKey};
use quarterdeck_runtime::view::{PodPhase, PodView};
use tokio::time::Instant;

/// Namespace of its pods.
pub(super) const NAMESPACE: &str = "kube-system";

/// Whether a pod is one of kube-addon-manager's
/// (`kubernetes:cluster/gce/manifests/kube-addon-manager.yaml`), by label or by name: static pods
/// are called after their node.
#[must_use]
pub(super) fn is_predecessor(pod: &PodView) -> bool {
    pod.key.namespace() == NAMESPACE
        && (pod.labels.get("component") == Some("kube-addon-manager")
            || pod.key.name().starts_with("kube-addon-manager"))
}

/// Whether it may still write: until it is gone, a pod that is being deleted may.
#[must_use]
pub(super) fn is_alive(pod: &PodView) -> bool {
    is_predecessor(pod) && !matches!(pod.phase, PodPhase::Succeeded | PodPhase::Failed)
}

/// Namespace of keiko's addon-manager.
const KEIKO_NAMESPACE: &str = "addon-manager-system";
/// Its Lease (`keikoproj/addon-manager:main.go`, the id of its leader election).
const KEIKO_LEASE: &str = "addonmgr.keikoproj.io";
/// How long a holder counts as alive whose Lease does not say: controller-runtime's default.
const LEASE_DURATION: Duration = Duration::from_secs(15);

/// keiko's addon-manager, as its Lease shows it.
pub(super) struct Keiko {
    lease: Lister<Lease>,
    seen: Mutex<Option<Renewal>>,
}

/// What is known of keiko's addon-manager.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sight {
    /// Its Lease has not been looked at yet.
    NotYet,
    /// Its Lease may not be read: it may be alive.
    Hidden,
    /// It renews its Lease; unless it does so again, it counts as gone after this time.
    Alive(Duration),
    /// There is none, or it stopped.
    Gone,
}

impl Sight {
    /// Whether Addon objects are only looked at.
    pub(super) fn has_the_word(self) -> bool {
        self != Self::Gone
    }
}

/// A renewal, and when it was seen. Clocks of different machines are never compared: a Lease counts
/// from when it was last seen to change.
#[derive(Clone, Debug)]
struct Renewal {
    mark: (String, String),
    seen: Instant,
}

impl Keiko {
    /// Watches that one Lease.
    pub(super) fn new(informers: &Informers) -> Self {
        let selection = Selection {
            namespace: Some(KEIKO_NAMESPACE.to_owned()),
            fields: Some(format!("metadata.name={KEIKO_LEASE}")),
            labels: None,
        };
        Self { lease: informers.dynamic(Kind::of::<Lease>(), selection), seen: Mutex::default() }
    }

    /// Calls `changed` when the Lease may say something else; it may only enqueue.
    pub(super) fn on_change(&self, changed: impl Fn() + Send + Sync + 'static) {
        self.lease.on_change(move |_| changed());
    }

    /// What is known of it now.
    pub(super) fn sight(&self, now: Instant) -> Sight {
        if self.lease.refusal().is_some() {
            return Sight::Hidden;
        }
        if !self.lease.has_synced() {
            return Sight::NotYet;
        }
        let lease = self.lease.get(&ObjectKey::new(KEIKO_NAMESPACE, KEIKO_LEASE));
        look(lease.as_deref(), &mut self.seen.lock(), now)
    }
}

fn look(lease: Option<&Lease>, seen: &mut Option<Renewal>, now: Instant) -> Sight {
    let spec = lease.and_then(|lease| lease.spec.as_ref());
    let holder = spec.and_then(|spec| spec.holder_identity.as_deref()).unwrap_or_default();
    let (Some(spec), false) = (spec, holder.is_empty()) else {
        *seen = None;
        return Sight::Gone;
    };
    let renewed = spec.renew_time.as_ref().map_or_else(String::new, |time| time.0.to_string());
    let mark = (holder.to_owned(), renewed);
    let renewal = match seen.take() {
        Some(before) if before.mark == mark => before,
        _ => Renewal { mark, seen: now },
    };
    let since = now.duration_since(renewal.seen);
    *seen = Some(renewal);
    let duration = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
    let duration = duration.filter(|seconds| *seconds > 0).map_or(LEASE_DURATION, Duration::from_secs);
    match duration.checked_sub(since) {
        Some(left) if !left.is_zero() => Sight::Alive(left),
        _ => Sight::Gone,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_lease_counts_from_when_it_was_seen_to_change() {
        let lease = |holder: &str, renewed: &str| -> Lease {
            serde_json::from_value(json!({
                "spec": {"holderIdentity": holder, "leaseDurationSeconds": 10, "renewTime": renewed},
            }))
            .expect("a lease")
        };
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut seen = None;
        assert_eq!(look(None, &mut seen, at(0)), Sight::Gone);
        // However old it says it is: it may have been renewed a moment ago.
        let (first, second) = (lease("a", "2020-01-01T00:00:00.000000Z"), lease("a", "2020-01-01T00:00:02.000000Z"));
        assert_eq!(look(Some(&first), &mut seen, at(1)), Sight::Alive(Duration::from_secs(10)));
        assert_eq!(look(Some(&first), &mut seen, at(8)), Sight::Alive(Duration::from_secs(3)));
        assert_eq!(look(Some(&second), &mut seen, at(9)), Sight::Alive(Duration::from_secs(10)));
        assert_eq!(look(Some(&second), &mut seen, at(19)), Sight::Gone);
        assert_eq!(look(Some(&second), &mut seen, at(30)), Sight::Gone, "it stays gone");
        assert_eq!(
            look(Some(&lease("b", "2020-01-01T00:00:02.000000Z")), &mut seen, at(31)),
            Sight::Alive(Duration::from_secs(10))
        );
        assert_eq!(look(Some(&lease("", "2020-01-01T00:00:03.000000Z")), &mut seen, at(32)), Sight::Gone, "released");
        let bare = Lease {
            spec: Some(k8s_openapi::api::coordination::v1::LeaseSpec {
                holder_identity: Some("c".into()),
                ..Default::default()
            }),
            ..Lease::default()
        };
        assert_eq!(look(Some(&bare), &mut seen, at(33)), Sight::Alive(LEASE_DURATION));
    }

    #[test]
    fn its_pods_are_known_by_label_or_name() {
        let pod = |namespace: &str, name: &str, component: &str, phase: &str| {
            serde_json::from_value::<PodView>(json!({
                "metadata": {"namespace": namespace, "name": name, "uid": "u", "resourceVersion": "1", "labels": {"component": component}, "creationTimestamp": "2026-01-01T00:00:00Z"},
                "spec": {"containers": []}, "status": {"phase": phase},
            }))
            .expect("a pod")
        };
        for (pod, alive) in [
            (pod("kube-system", "kube-addon-manager", "kube-addon-manager", "Running"), true),
            (pod("kube-system", "kube-addon-manager-master-1", "", "Pending"), true),
            (pod("kube-system", "x", "kube-addon-manager", "Unknown"), true),
            (pod("kube-system", "kube-addon-manager", "kube-addon-manager", "Failed"), false),
            (pod("kube-system", "kube-addon-manager", "kube-addon-manager", "Succeeded"), false),
            (pod("default", "kube-addon-manager", "kube-addon-manager", "Running"), false),
            (pod("kube-system", "addon-manager", "etcd", "Running"), false),
        ] {
            assert_eq!(is_alive(&pod), alive, "{pod:?}");
        }
    }
}
