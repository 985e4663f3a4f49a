//! Tests of the comparison.

use std::sync::Arc;

use quarterdeck_cloud::model::Handle;

use super::*;
use crate::service_lb::wish::wish;

fn cluster() -> ClusterId {
    ClusterId("c".into())
}

fn balancer(uid: &str, handle: &str, fingerprint: &str) -> OwnedLoadBalancer {
    let owner = Owner { cluster: cluster(), namespace: "a".into(), name: uid.into(), uid: uid.into() };
    OwnedLoadBalancer { owner, handle: Handle(handle.into()), fingerprint: fingerprint.into(), age: None }
}

fn made(handle: &str, fingerprint: &str, at: Instant) -> Made {
    Made {
        digest: "d".into(),
        spec: Arc::new(wish(&Service::default(), &cluster()).spec),
        exact: true,
        handle: Handle(handle.into()),
        fingerprint: fingerprint.into(),
        ingress: Vec::new(),
        at,
    }
}

fn live(services: Vec<(&str, Option<Made>, bool)>) -> HashMap<String, Live> {
    let service = |(uid, made, busy): (&str, Option<Made>, bool)| {
        (uid.to_owned(), Live { key: ObjectKey::new("a", uid), recorded: true, made, busy })
    };
    services.into_iter().map(service).collect()
}

fn names(keys: impl IntoIterator<Item = ObjectKey>) -> Vec<String> {
    let mut names: Vec<String> = keys.into_iter().map(|key| key.name().to_owned()).collect();
    names.sort();
    names
}

#[test]
fn what_is_gone_or_changed_is_found() {
    let before = Instant::now();
    let began = before + Duration::from_secs(1);
    let services = live(vec![
        ("same", Some(made("lb-1", "f", before)), false),
        ("changed", Some(made("lb-2", "f", before)), false),
        ("gone", Some(made("lb-3", "f", before)), false),
        ("silent", Some(made("lb-4", "", before)), false),
        ("made-since", Some(made("lb-5", "f", began)), false),
        ("being-made", None, true),
        ("not-yet", None, false),
    ]);
    let listed = [balancer("same", "lb-1", "f"), balancer("changed", "lb-2", "g"), balancer("silent", "lb-4", "x")];
    let found = compare(&cluster(), &services, &listed, began).unwrap();
    assert_eq!(names(found.gone.into_iter().map(|(key, _)| key)), ["gone"]);
    assert_eq!(names(found.changed.into_iter().map(|(key, _, _)| key)), ["changed"]);
    assert_eq!(names(found.unknown), ["not-yet"]);
    assert!(found.ownerless.is_empty() && found.duplicates.is_empty());
}

#[test]
fn those_of_nobody_and_those_too_many_are_found() {
    let services = live(vec![("two", None, false)]);
    let listed = [balancer("two", "lb-1", ""), balancer("two", "lb-2", ""), balancer("nobody", "lb-3", "")];
    let found = compare(&cluster(), &services, &listed, Instant::now()).unwrap();
    assert_eq!(found.ownerless, [&listed[2]]);
    assert_eq!(found.duplicates, [vec![&listed[0], &listed[1]]]);
}

#[test]
fn a_list_of_another_cluster_proves_nothing() {
    let services = live(vec![("gone", Some(made("lb-1", "f", Instant::now())), false)]);
    let mut listed = [balancer("nobody", "lb-3", "")];
    listed[0].owner.cluster = ClusterId("other".into());
    let began = Instant::now() + Duration::from_secs(1);
    assert_eq!(compare(&cluster(), &services, &listed, began), Err(ClusterId("other".into())));
}

#[tokio::test(start_paused = true)]
async fn a_suspicion_has_to_last() {
    let audits = Audits::new(Duration::from_secs(300), Duration::from_secs(600), None);
    let suspect = Suspect::LoadBalancer("p".into(), "lb".into());
    assert!(!audits.ripe(&suspect, Instant::now()));
    tokio::time::advance(Duration::from_secs(599)).await;
    assert!(!audits.ripe(&suspect, Instant::now()));
    tokio::time::advance(Duration::from_secs(1)).await;
    assert!(audits.ripe(&suspect, Instant::now()));
    assert!(audits.report_once(&suspect, false) && !audits.report_once(&suspect, false));
    assert!(audits.report_once(&suspect, true), "something else is to be said");
    audits.clear(&suspect);
    assert!(!audits.ripe(&suspect, Instant::now()), "it starts anew");
}

#[test]
fn too_many_orphans_at_once_are_kept() {
    for (orphans, of, percent, expected) in [
        (0, 0, 20, false),
        (2, 2, 20, false),
        (3, 3, 20, true),
        (3, 15, 20, false),
        (3, 14, 20, true),
        (100, 500, 20, false),
        (101, 500, 20, true),
        (3, 500, 0, true),
        (500, 500, 100, false),
    ] {
        assert_eq!(brakes(orphans, of, percent), expected, "{orphans} of {of}, {percent} %");
    }
}
