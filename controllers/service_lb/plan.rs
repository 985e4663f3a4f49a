//! What to do about one Service; pure.

use k8s_openapi::api::core::v1::Service;
use quarterdeck_cloud::model::Backend;
use tokio::time::Instant;

use super::memory::{Hold, Known};
use super::record::{Record, has_finalizer};

/// Where a Service should get to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Aim {
    /// It is not ours, and nothing of ours is left.
    Ignore,
    /// It should have a load balancer at this provider.
    Keep {
        /// The provider.
        provider: String,
        /// Another provider that made one, which has to go first.
        instead_of: Option<String>,
    },
    /// Its load balancer should go, and our traces with it.
    Remove {
        /// The provider that made it; `None`: nobody knows, so that all are asked.
        provider: Option<String>,
    },
}

/// Where a Service should get to. `ours` is the provider that looks after Services of its class, if any does.
///
/// Upstream looks at type and finalizer alone (controller.go: wantsLoadBalancer, needsCleanup); the finalizer of a
/// Service of a foreign class is the foreign controller's.
pub(super) fn aim(service: &Service, ours: Option<&str>) -> Aim {
    let record = Record::of(service);
    let provider = || record.as_ref().map(|record| record.provider.clone());
    let spec = service.spec.as_ref();
    let balanced = spec.is_some_and(|spec| spec.type_.as_deref() == Some("LoadBalancer"));
    let deleting = service.metadata.deletion_timestamp.is_some();
    let ours = ours.filter(|_| balanced);
    if let (Some(ours), false) = (ours, deleting) {
        let instead_of = provider().filter(|made| made != ours);
        return Aim::Keep { provider: ours.to_owned(), instead_of };
    }
    let foreign = balanced && ours.is_none();
    if record.is_some() || (has_finalizer(service) && !foreign) {
        return Aim::Remove { provider: provider() };
    }
    Aim::Ignore
}

/// The next step towards a load balancer that is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// It is as it should be.
    Nothing,
    /// Later, at this time.
    Wait(Instant),
    /// Look for it by its tags, then make it or change it.
    FindAndEnsure,
    /// Make it or change it.
    Ensure,
    /// Change its backends.
    UpdateBackends,
}

/// What is wanted and what is known of one load balancer.
pub(super) struct Snapshot<'a> {
    /// What is known.
    pub(super) known: &'a Known,
    /// What the Service carried before this reconcile.
    pub(super) record: Option<&'a Record>,
    /// Whether the Service carried the finalizer before this reconcile.
    pub(super) claimed: bool,
    /// Digest of what is wanted.
    pub(super) digest: &'a str,
    /// Nodes that should get traffic.
    pub(super) backends: &'a [Backend],
    /// Now.
    pub(super) now: Instant,
}

/// The next step.
pub(super) fn step(snapshot: &Snapshot<'_>) -> Step {
    let Snapshot { known, record, claimed, digest, backends, now } = snapshot;
    if let Some(Hold { until, digest: of }) = &known.hold
        && until > now
        && of.as_deref().is_none_or(|of| of == *digest)
    {
        return Step::Wait(*until);
    }
    if let Some(made) = known.made.as_ref().filter(|made| made.digest == *digest && known.drift.is_none()) {
        match (known.uncertain, made.spec.backends == *backends) {
            (false, true) => return Step::Nothing,
            (false, false) => return Step::UpdateBackends,
            (true, _) => {}
        }
    }
    let handle_is_known = known.made.is_some() || record.is_some_and(|record| record.handle.is_some());
    // Somebody may have begun to make it, and may not have lived to write down what it is called.
    if known.uncertain || (*claimed && !handle_is_known) { Step::FindAndEnsure } else { Step::Ensure }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use quarterdeck_cloud::model::{ClusterId, Handle, LoadBalancerSpec, Owner};
    use serde_json::{Value, json};

    use super::*;
    use crate::service_lb::memory::Made;
    use crate::service_lb::record::{FINALIZER, RECORD};
    use crate::service_lb::wish::wish;

    fn service(kind: &str, finalizer: bool, made_by: Option<&str>, deleting: bool) -> Service {
        let mut metadata = json!({ "name": "web", "uid": "u" });
        if finalizer {
            metadata["finalizers"] = json!([FINALIZER]);
        }
        if let Some(provider) = made_by {
            let record = Record { uid: "u".into(), provider: provider.into(), ..Record::default() };
            metadata["annotations"] = json!({ RECORD: record.text() });
        }
        if deleting {
            metadata["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        }
        let spec: Value = json!({ "type": kind });
        serde_json::from_value(json!({ "metadata": metadata, "spec": spec })).unwrap()
    }

    #[test]
    fn services_get_where_they_should() {
        let keep =
            |instead_of: Option<&str>| Aim::Keep { provider: "p".into(), instead_of: instead_of.map(Into::into) };
        let remove = |provider: Option<&str>| Aim::Remove { provider: provider.map(Into::into) };
        // type, finalizer, made by, deleting, ours => aim
        let cases = [
            (("LoadBalancer", false, None, false), Some("p"), keep(None)),
            (("LoadBalancer", true, Some("p"), false), Some("p"), keep(None)),
            (("LoadBalancer", true, Some("q"), false), Some("p"), keep(Some("q"))),
            (("LoadBalancer", true, Some("p"), true), Some("p"), remove(Some("p"))),
            (("LoadBalancer", true, None, true), Some("p"), remove(None)),
            (("LoadBalancer", false, None, true), Some("p"), Aim::Ignore),
            (("LoadBalancer", true, None, true), None, Aim::Ignore),
            (("LoadBalancer", true, None, false), None, Aim::Ignore),
            (("LoadBalancer", true, Some("p"), false), None, remove(Some("p"))),
            (("ClusterIP", true, Some("p"), false), None, remove(Some("p"))),
            (("ClusterIP", true, None, false), None, remove(None)),
            (("ClusterIP", false, Some("p"), false), None, remove(Some("p"))),
            (("ClusterIP", false, None, false), None, Aim::Ignore),
            (("ClusterIP", true, Some("p"), false), Some("p"), remove(Some("p"))),
        ];
        for ((kind, finalizer, made_by, deleting), ours, expected) in cases {
            let service = service(kind, finalizer, made_by, deleting);
            assert_eq!(aim(&service, ours), expected, "{kind} {finalizer} {made_by:?} {deleting} {ours:?}");
        }
    }

    fn known() -> Known {
        let owner =
            Owner { cluster: ClusterId("c".into()), namespace: "a".into(), name: "web".into(), uid: "u".into() };
        Known::new(owner, "p", 1)
    }

    fn spec() -> LoadBalancerSpec {
        wish(&service("LoadBalancer", true, None, false), &ClusterId("c".into())).spec
    }

    fn made(digest: &str, backends: Vec<Backend>) -> Made {
        let spec = LoadBalancerSpec { backends, ..spec() };
        Made {
            digest: digest.into(),
            spec: Arc::new(spec),
            exact: true,
            handle: Handle("lb".into()),
            fingerprint: String::new(),
            ingress: Vec::new(),
            at: Instant::now(),
        }
    }

    #[test]
    fn the_next_step_follows_from_what_is_known() {
        let now = Instant::now();
        let later = now + Duration::from_secs(9);
        let node = || vec![Backend { name: "n".into(), provider_id: String::new(), addresses: Vec::new() }];
        let with = |change: fn(&mut Known)| {
            let mut known = known();
            known.made = Some(made("d", Vec::new()));
            change(&mut known);
            known
        };
        let hold = |digest: Option<&str>| {
            let mut known = known();
            known.hold = Some(Hold { until: later, digest: digest.map(Into::into) });
            known
        };
        let record = |handle: bool| Record { handle: handle.then(|| Handle("lb".into())), ..Record::default() };
        let cases = [
            ("new", known(), None, false, vec![], Step::Ensure),
            ("claimed by one who died", known(), Some(record(false)), true, vec![], Step::FindAndEnsure),
            ("claimed by upstream", known(), None, true, vec![], Step::FindAndEnsure),
            ("made by another leader", known(), Some(record(true)), true, vec![], Step::Ensure),
            ("made", with(|_| ()), Some(record(true)), true, vec![], Step::Nothing),
            ("nodes changed", with(|_| ()), Some(record(true)), true, node(), Step::UpdateBackends),
            ("drifted", with(|known| known.drift = Some("x".into())), None, true, vec![], Step::Ensure),
            ("uncertain", with(|known| known.uncertain = true), None, true, node(), Step::FindAndEnsure),
            (
                "uncertain, nodes as before",
                with(|known| known.uncertain = true),
                None,
                true,
                vec![],
                Step::FindAndEnsure,
            ),
            ("changed", with(|known| known.made = Some(made("e", Vec::new()))), None, true, vec![], Step::Ensure),
            ("held", hold(None), None, true, vec![], Step::Wait(later)),
            ("held as it is wanted", hold(Some("d")), None, true, vec![], Step::Wait(later)),
            ("held as it was wanted", hold(Some("e")), None, false, vec![], Step::Ensure),
        ];
        for (what, known, record, claimed, backends, expected) in cases {
            let snapshot =
                Snapshot { known: &known, record: record.as_ref(), claimed, digest: "d", backends: &backends, now };
            assert_eq!(step(&snapshot), expected, "{what}");
        }
    }
}
