//! What of a Service's request cannot be had: each is told once by an event, and counted, and everything else goes on.

use std::collections::{BTreeMap, HashMap};

use k8s_openapi::api::core::v1::Service;
use parking_lot::Mutex;
use quarterdeck_api::nearest::nearest;
use quarterdeck_cloud::model::Owner;
use quarterdeck_runtime::controller::Cx;
use quarterdeck_runtime::object::ObjectKey;

use super::record::RECORD;
use super::wish::{ADDRESSES, POOL, SHARING_KEY};
use super::{Balancer, reasons};

/// What all annotations of ours begin with.
const OURS: &str = "quarterdeck.dev/";
/// Annotations of ours that load balancers know.
const KNOWN: [&str; 4] = [ADDRESSES, POOL, SHARING_KEY, RECORD];
/// Parts of names that only annotations of load balancers have.
const TELLING: [&str; 4] = ["load-balancer", "loadbalancer", "address", "shared-ip"];

/// What is wrong with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// An annotation of ours that means nothing.
    UnknownAnnotation,
    /// Addresses that cannot be read, or not be had together.
    InvalidAddress,
    /// Source ranges that cannot be read.
    InvalidSourceRange,
    /// The pool that is asked for does not exist.
    NoSuchPool,
    /// No pool serves the Service, or has addresses of a family.
    NoPool,
    /// The address that is asked for is in no pool that the Service may use.
    OutsidePool,
    /// No address is left.
    Exhausted,
    /// The address is another Service's.
    InUse,
    /// The address is shared, and the Service does not get along with those who have it.
    SharingConflict,
}

impl Reason {
    /// Value of the label `reason` of the metric.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::UnknownAnnotation => "unknown_annotation",
            Self::InvalidAddress => "invalid_address",
            Self::InvalidSourceRange => "invalid_source_range",
            Self::NoSuchPool => "no_such_pool",
            Self::NoPool => "no_pool",
            Self::OutsidePool => "outside_pool",
            Self::Exhausted => "exhausted",
            Self::InUse => "in_use",
            Self::SharingConflict => "sharing_conflict",
        }
    }

    /// Reason of the event.
    fn event(self) -> quarterdeck_runtime::events::Reason {
        match self {
            Self::UnknownAnnotation => reasons::UNKNOWN_ANNOTATION,
            Self::InvalidAddress | Self::InvalidSourceRange => reasons::SYNC_FAILED,
            _ => reasons::ADDRESS_UNAVAILABLE,
        }
    }
}

/// One thing that cannot be had, and why, for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(super) struct Complaint {
    /// What kind of thing.
    pub(super) reason: Reason,
    /// Why.
    pub(super) message: String,
}

impl Complaint {
    pub(super) fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}

/// What a complaint is about: of each there is one at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Subject {
    /// Names of annotations.
    Annotations,
    /// What can be wrong with a wish by itself, addresses aside.
    Wish,
    /// The addresses.
    Addresses,
}

/// What each Service was told, so that it is told once.
#[derive(Default)]
pub(super) struct Complaints(Mutex<HashMap<ObjectKey, BTreeMap<Subject, String>>>);

impl Complaints {
    /// Notes what there is to say about a subject now, or that there is nothing; whether that is to be told.
    fn news(&self, key: &ObjectKey, subject: Subject, now: Option<&Complaint>) -> bool {
        let mut all = self.0.lock();
        let Some(now) = now else {
            if let Some(of_service) = all.get_mut(key) {
                of_service.remove(&subject);
                if of_service.is_empty() {
                    all.remove(key);
                }
            }
            return false;
        };
        let before = all.entry(key.clone()).or_default().insert(subject, now.message.clone());
        before.as_deref() != Some(&*now.message)
    }

    /// The Service is gone, or no concern of ours.
    pub(super) fn forget(&self, key: &ObjectKey) {
        self.0.lock().remove(key);
    }
}

/// Annotations of ours that mean nothing, with what was meant, if that can be told. Those of other parts of this program
/// (addons, for example) are theirs.
pub(super) fn unknown_annotations(service: &Service) -> Option<Complaint> {
    let keys = service.metadata.annotations.iter().flatten().map(|(key, _)| key.as_str());
    let unknown = keys.filter(|key| key.starts_with(OURS) && !KNOWN.contains(key)).filter_map(|key| {
        let meant = nearest(key, [ADDRESSES, POOL, SHARING_KEY]);
        let telling = TELLING.iter().any(|part| key.contains(part));
        match meant {
            Some(meant) => Some(format!("annotation {key} means nothing; {meant} may be meant")),
            None if telling => Some(format!("annotation {key} means nothing")),
            None => None,
        }
    });
    let all: Vec<String> = unknown.collect();
    (!all.is_empty()).then(|| Complaint::new(Reason::UnknownAnnotation, all.join("; ")))
}

impl Balancer {
    /// Tells the owner what cannot be had, once, and counts it; with `None`, all is well with the subject.
    pub(super) fn complain(
        &self,
        cx: &Cx,
        key: &ObjectKey,
        owner: &Owner,
        provider: &str,
        subject: Subject,
        complaint: Option<&Complaint>,
    ) {
        if !self.complaints.news(key, subject, complaint) {
            return;
        }
        let Some(Complaint { reason, message }) = complaint else { return };
        self.metrics.complained(provider, reason.label());
        let message = match reason.event() == reasons::SYNC_FAILED {
            true => format!("Error syncing load balancer: {message}"),
            false => message.clone(),
        };
        self.warn(cx, owner, reason.event(), message);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn annotations_that_mean_nothing_are_named() {
        let told = |keys: &[&str]| {
            let annotations: BTreeMap<&str, &str> = keys.iter().map(|key| (*key, "x")).collect();
            let service = serde_json::from_value(json!({ "metadata": { "annotations": annotations } })).unwrap();
            unknown_annotations(&service).map(|complaint| complaint.message)
        };
        assert_eq!(told(&[ADDRESSES, POOL, SHARING_KEY, RECORD]), None);
        assert_eq!(told(&["quarterdeck.dev/addon", "quarterdeck.dev/step", "sim.quarterdeck.dev/load-balancer"]), None);
        let meant =
            "annotation quarterdeck.dev/load-balancer-ip means nothing; quarterdeck.dev/load-balancer-ips may be meant";
        assert_eq!(told(&["quarterdeck.dev/load-balancer-ip"]).as_deref(), Some(meant));
        let both = told(&["quarterdeck.dev/addres-pool", "quarterdeck.dev/address-of-my-dreams"]).unwrap();
        assert!(both.contains("address-pool may be meant") && both.contains("dreams means nothing"), "{both}");
    }

    #[test]
    fn each_is_told_once() {
        let (all, key) = (Complaints::default(), ObjectKey::new("a", "web"));
        let complaint = |text: &str| Complaint::new(Reason::Exhausted, text);
        assert!(all.news(&key, Subject::Addresses, Some(&complaint("x"))));
        assert!(!all.news(&key, Subject::Addresses, Some(&complaint("x"))));
        assert!(all.news(&key, Subject::Wish, Some(&complaint("x"))), "of each subject");
        assert!(all.news(&key, Subject::Addresses, Some(&complaint("y"))), "another one");
        assert!(!all.news(&key, Subject::Addresses, None));
        assert!(all.news(&key, Subject::Addresses, Some(&complaint("y"))), "it came back");
        all.forget(&key);
        assert!(all.news(&key, Subject::Wish, Some(&complaint("x"))));
    }
}
