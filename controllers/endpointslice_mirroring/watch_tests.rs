//! What wakes the controller, and what does not.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Endpoints, Service, ServiceSpec};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use quarterdeck_runtime::informer::Change;

use super::watch::{endpoints_matter, on_slice, service_matters};
use super::{MANAGED_BY, MANAGER, SERVICE_NAME};

fn map(pairs: &[(&str, &str)]) -> Option<BTreeMap<String, String>> {
    Some(pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect())
}

fn endpoints(labels: &[(&str, &str)], annotations: &[(&str, &str)]) -> Arc<Endpoints> {
    let metadata = ObjectMeta { labels: map(labels), annotations: map(annotations), ..ObjectMeta::default() };
    Arc::new(Endpoints { metadata, ..Endpoints::default() })
}

#[test]
fn endpoints_matter_unless_they_opt_out_or_have_a_selector() {
    let plain = endpoints(&[], &[]);
    let skipped = endpoints(&[("endpointslice.kubernetes.io/skip-mirror", "true")], &[]);
    let kept = endpoints(&[("endpointslice.kubernetes.io/skip-mirror", "false")], &[]);
    let lock = endpoints(&[], &[("control-plane.alpha.kubernetes.io/leader", "{}")]);
    // Added, has the service a selector → matters
    let cases = [
        (&plain, None, true),
        (&plain, Some(false), true),
        (&plain, Some(true), false),
        (&skipped, Some(false), false),
        (&kept, Some(false), true),
        (&lock, Some(false), false),
    ];
    for (endpoints, selector, matters) in cases {
        assert_eq!(endpoints_matter(&Change::Added(endpoints), |_| selector), matters, "{endpoints:?} {selector:?}");
    }
    for (old, new, matters) in [(&plain, &skipped, true), (&skipped, &plain, true), (&skipped, &lock, false)] {
        assert_eq!(endpoints_matter(&Change::Updated { old, new }, |_| None), matters);
    }
}

#[test]
fn services_matter_when_the_selector_comes_or_goes() {
    let service = |selector: Option<&[(&str, &str)]>| {
        let spec = ServiceSpec { selector: selector.and_then(map), ..ServiceSpec::default() };
        Arc::new(Service { spec: Some(spec), ..Service::default() })
    };
    let (without, empty, with) = (service(None), service(Some(&[])), service(Some(&[("app", "web")])));
    assert!(service_matters(&Change::Added(&without)));
    assert!(service_matters(&Change::Added(&empty)));
    assert!(!service_matters(&Change::Added(&with)));
    assert!(service_matters(&Change::Deleted { last: &without, is_final: true }));
    assert!(service_matters(&Change::Updated { old: &without, new: &with }));
    assert!(service_matters(&Change::Updated { old: &with, new: &without }));
    assert!(!service_matters(&Change::Updated { old: &with, new: &with }));
}

#[test]
fn only_slices_under_our_management_wake_their_endpoints() {
    let slice = |manager: &str, service: &str, version: &str| {
        let metadata = ObjectMeta {
            namespace: Some("ns".to_owned()),
            labels: map(&[(MANAGED_BY, manager), (SERVICE_NAME, service)]),
            resource_version: Some(version.to_owned()),
            ..ObjectMeta::default()
        };
        Arc::new(EndpointSlice { metadata, ..EndpointSlice::default() })
    };
    let woken = |change: Change<'_, EndpointSlice>| {
        let mut keys = Vec::new();
        on_slice(&change, |key| keys.push(key.to_string()));
        keys
    };
    let (ours, moved) = (slice(MANAGER, "a", "1"), slice(MANAGER, "b", "2"));
    let theirs = slice("someone", "a", "3");
    assert_eq!(woken(Change::Added(&ours)), ["ns/a"]);
    assert_eq!(woken(Change::Added(&theirs)), Vec::<String>::new());
    assert_eq!(woken(Change::Deleted { last: &ours, is_final: true }), ["ns/a"]);
    assert_eq!(woken(Change::Updated { old: &ours, new: &moved }), ["ns/a", "ns/b"]);
    assert_eq!(woken(Change::Updated { old: &ours, new: &theirs }), ["ns/a"]);
    assert_eq!(woken(Change::Updated { old: &ours, new: &ours }), Vec::<String>::new(), "a re-list");
}
