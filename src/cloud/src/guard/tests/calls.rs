//! What callers get.

use std::sync::Arc;
use std::time::Duration;

use prometheus::Registry;
use quarterdeck_election::{Gate, TokioClock};
use quarterdeck_runtime::facility::Authority;
use uuid::Uuid;

use super::super::{BreakerLimits, BreakerState, CloudMetrics, Limits, Method, Rate, TroubleKind};
use super::provider::{Does, Wild, route};
use super::{PATIENCE, SHORT, authority, guard, patient, quick, until};
use crate::error::CloudError;
use crate::model::NodeRef;

fn away() -> CloudError {
    CloudError::Unavailable("502".to_owned())
}

/// kubernetes#53191: a call without a deadline held a worker for 145 minutes.
#[tokio::test]
async fn timeout_defect_a_call_that_hangs_is_given_up_and_dropped() {
    let wild = Wild::that(&[("routes.create", Does::Pend), ("routes.list", Does::Pend)]);
    let guard = guard(&wild, quick());
    let error = guard.create_route(&authority(), Uuid::new_v4(), &route()).await.unwrap_err();
    assert!(matches!(error, CloudError::Timeout { method: "routes.create", maybe_applied: true, .. }), "{error:?}");
    assert!(wild.last_token("routes.create").is_cancelled());
    let error = guard.routes().await.unwrap_err();
    assert!(matches!(error, CloudError::Timeout { maybe_applied: false, .. }), "{error:?}");
    until(&guard, "nothing is left", |status| status.abandoned == 0 && status.in_flight.iter().all(|(_, n)| *n == 0))
        .await;
    assert_eq!(*wild.dropped.lock(), 2);
    assert_eq!(guard.status().last_error.unwrap().method, "routes.list");
}

#[tokio::test]
async fn a_caller_that_goes_away_ends_the_call() {
    let wild = Wild::that(&[("routes.list", Does::Pend)]);
    let guard = guard(&wild, Limits { deadline: |_| Duration::from_secs(3600), ..patient() });
    let call = tokio::spawn({
        let guard = Arc::clone(&guard);
        async move { guard.routes().await }
    });
    until(&guard, "it runs", |_| wild.count("routes.list") == 1).await;
    call.abort();
    until(&guard, "it ended", |_| *wild.dropped.lock() == 1).await;
    assert!(wild.last_token("routes.list").is_cancelled());
}

#[tokio::test]
async fn a_panic_costs_one_call() {
    let wild = Wild::that(&[("routes.list", Does::Panic)]);
    let guard = guard(&wild, patient());
    let error = guard.routes().await.unwrap_err();
    assert_eq!(error, CloudError::Other("provider wild panicked in routes.list: out of cheese".to_owned()));
    guard.probe().await.unwrap();
}

#[tokio::test]
async fn places_are_waited_for_so_long_and_no_longer() {
    let wild = Wild::that(&[("routes.list", Does::Pend)]);
    let limits = Limits { deadline: |_| Duration::from_secs(3600), patience: Duration::from_millis(100), ..patient() };
    let guard = guard(&wild, limits);
    let calls: Vec<_> = (0..8)
        .map(|_| {
            let guard = Arc::clone(&guard);
            tokio::spawn(async move { guard.routes().await })
        })
        .collect();
    until(&guard, "all places are taken", |status| status.in_flight[0].1 == 8).await;
    let error = guard.routes().await.unwrap_err();
    assert!(matches!(error, CloudError::Busy { class: "read", .. }), "{error:?}");
    // Another class has places of its own.
    guard.delete_route(&authority(), Uuid::new_v4(), &route()).await.unwrap();
    calls.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn a_provider_that_keeps_failing_is_left_alone_and_then_tried() {
    let wild = Wild::that(&[("routes.list", Does::Fail(away())), ("identity.probe", Does::Fail(away()))]);
    let breaker = BreakerLimits { faults: 3, first: Duration::from_millis(300), longest: Duration::from_millis(300) };
    let guard = guard(&wild, Limits { breaker, ..patient() });
    let mut errors = Vec::new();
    while guard.status().breaker == BreakerState::Closed {
        errors.push(guard.routes().await.unwrap_err());
    }
    assert!(errors.len() <= 3, "{errors:?}");
    let error = guard.routes().await.unwrap_err();
    assert!(matches!(&error, CloudError::BreakerOpen { last, .. } if last.contains("502")), "{error:?}");
    assert!(error.retry_after().is_some());
    wild.tell("routes.list", Does::Answer);
    wild.tell("identity.probe", Does::Answer);
    until(&guard, "it is time to try", |status| status.left.is_none()).await;
    let _ = guard.routes().await;
    until(&guard, "it is well", |status| status.breaker == BreakerState::Closed).await;
    guard.routes().await.unwrap();
}

#[tokio::test]
async fn what_the_provider_answers_is_no_fault_of_its() {
    let wild = Wild::default();
    let breaker = BreakerLimits { faults: 1, ..BreakerLimits::default() };
    let wild = Arc::new(wild);
    let guard = guard(&wild, Limits { breaker, rate: Rate { per_second: 0.0, burst: 0 }, ..patient() });
    for error in [
        CloudError::NotFound(String::new()),
        CloudError::Denied(String::new()),
        CloudError::Quota(String::new()),
        CloudError::Invalid(String::new()),
        CloudError::Throttled { after: None, message: String::new() },
    ] {
        wild.tell("routes.list", Does::Fail(error.clone()));
        assert_eq!(guard.routes().await.unwrap_err(), error);
    }
    assert_eq!(guard.status().breaker, BreakerState::Closed);
}

#[tokio::test]
async fn a_storm_of_throttling_slows_our_calls_of_that_class() {
    let message = String::new;
    let storm = CloudError::Throttled { after: Some(Duration::from_secs(3600)), message: message() };
    let wild = Wild::that(&[("routes.list", Does::Fail(storm))]);
    let guard = guard(&wild, Limits { patience: Duration::from_secs(5), ..patient() });
    guard.routes().await.unwrap_err();
    // The cloud is not asked again: there is no token within our patience.
    let error = guard.routes().await.unwrap_err();
    assert!(matches!(error, CloudError::Throttled { after: Some(_), .. }), "{error:?}");
    assert_eq!(wild.count("routes.list"), 1);
    let rates = guard.status().rates.map(|(_, rate)| rate);
    assert!(rates[0] < rates[2], "{rates:?}");
    guard.create_route(&authority(), Uuid::new_v4(), &route()).await.unwrap();
}

#[tokio::test]
async fn the_gate_is_asked_when_the_call_starts() {
    let wild = Wild::that(&[("routes.create", Does::Pend)]);
    let guard = guard(&wild, Limits { deadline: |_| Duration::from_secs(3600), patience: PATIENCE, ..patient() });
    let right = authority();
    let create = || {
        let (guard, right) = (Arc::clone(&guard), right.clone());
        tokio::spawn(async move { guard.create_route(&right, Uuid::new_v4(), &route()).await })
    };
    let calls: Vec<_> = (0..16).map(|_| create()).collect();
    until(&guard, "all places are taken", |_| wild.count("routes.create") == 16).await;
    assert!(wild.epochs("routes.create").iter().all(|epoch| *epoch == 7));
    // This one waits for a place; when it gets one, the tenure is over.
    let late = create();
    tokio::task::yield_now().await;
    right.gate.shut();
    wild.tell("routes.create", Does::Answer);
    calls.iter().for_each(tokio::task::JoinHandle::abort);
    let error = late.await.unwrap().unwrap_err();
    assert!(matches!(error, CloudError::NotLeading(_)), "{error:?}");
    assert_eq!(wild.count("routes.create"), 16);
    // Reads need no right, and carry no number.
    guard.routes().await.unwrap();
    assert_eq!(wild.epochs("routes.list"), [0]);
}

#[tokio::test]
async fn who_never_led_changes_nothing() {
    let wild = Wild::that(&[]);
    let guard = guard(&wild, patient());
    let (gate, _keeper) = Gate::new(quarterdeck_election::Timing::default(), Arc::new(TokioClock::default()));
    let right = Authority { gate, epoch: 1 };
    let error = guard.delete_route(&right, Uuid::new_v4(), &route()).await.unwrap_err();
    assert!(matches!(error, CloudError::NotLeading(_)), "{error:?}");
    assert_eq!(wild.count("routes.delete"), 0);
}

#[tokio::test]
async fn bad_credentials_are_told_once() {
    let denied = CloudError::Denied("bad key".to_owned());
    let wild = Wild::that(&[("identity.probe", Does::Fail(denied.clone())), ("routes.list", Does::Fail(denied))]);
    let guard = guard(&wild, Limits { probe_every: Duration::from_millis(20), ..patient() });
    guard.routes().await.unwrap_err();
    until(&guard, "it is known", |status| status.trouble.is_some()).await;
    let trouble = guard.take_trouble().unwrap();
    assert_eq!((trouble.kind, trouble.message.as_str()), (TroubleKind::Denied, "denied: bad key"));
    let probes = wild.count("identity.probe");
    until(&guard, "it is asked again", |_| wild.count("identity.probe") > probes + 1).await;
    assert_eq!(guard.take_trouble(), None);
    wild.tell("identity.probe", Does::Answer);
    until(&guard, "it is well", |status| status.trouble.is_none()).await;
}

#[tokio::test]
async fn a_provider_that_nobody_uses_is_not_asked() {
    let wild = Wild::that(&[]);
    let guard = guard(&wild, Limits { probe_every: Duration::from_millis(5), ..patient() });
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(wild.count("identity.probe"), 0);
    guard.routes().await.unwrap();
    until(&guard, "it is asked", |_| wild.count("identity.probe") > 0).await;
}

#[tokio::test]
async fn a_provider_is_asked_once_what_it_is() {
    let wild = Wild::that(&[]);
    let guard = guard(&wild, patient());
    let infos = futures::future::join_all((0..20).map(|_| guard.info())).await;
    assert!(infos.iter().all(Result::is_ok));
    assert_eq!(wild.count("identity.info"), 1);
    // While it hangs, those who ask wait for one question, not for one after the other.
    let hung = Wild::that(&[("identity.info", Does::Pend)]);
    let guard = super::guard(&hung, Limits { deadline: |_| SHORT, ..patient() });
    let infos = futures::future::join_all((0..20).map(|_| guard.info())).await;
    assert!(infos.iter().all(Result::is_err));
    assert_eq!(hung.count("identity.info"), 1);
}

#[tokio::test]
async fn a_provider_that_may_be_another_one_is_asked_anew() {
    let wild = Wild::that(&[]);
    let guard = guard(&wild, patient());
    guard.info().await.unwrap();
    wild.become_another(&["wild", "wilder"]);
    assert_eq!(guard.info().await.unwrap().schemes.len(), 2);
    assert_eq!(wild.count("identity.info"), 2);
    assert!(guard.take_change().is_some_and(|change| change.contains("wilder")));
    assert_eq!(guard.take_change(), None);
    // One that is down is what it was, and is not asked again and again.
    wild.tell("identity.info", Does::Fail(CloudError::Unavailable("down".to_owned())));
    wild.become_another(&["wild"]);
    for _ in 0..3 {
        assert_eq!(guard.info().await.unwrap().schemes.len(), 2);
    }
    assert_eq!(wild.count("identity.info"), 3);
}

#[tokio::test]
async fn a_provider_is_asked_now_and_then_what_it_is() {
    let wild = Wild::that(&[]);
    let every = Duration::from_millis(5);
    let guard = guard(&wild, Limits { probe_every: every, info_every: every, ..patient() });
    guard.info().await.unwrap();
    until(&guard, "it is asked again", |_| wild.count("identity.info") > 2).await;
}

#[tokio::test]
async fn questions_about_nodes_pass_the_guard() {
    let wild = Wild::that(&[]);
    let guard = guard(&wild, patient());
    let node = NodeRef { name: "n".into(), provider_id: None };
    let seen = guard.look_up(std::slice::from_ref(&node), Duration::ZERO).await.unwrap();
    assert_eq!(&*seen[0].account, "acme");
    assert_eq!(guard.status().account.as_deref(), Some("acme"));
    let deadline = |method: &Method| if method.name == "instances.get_many" { SHORT } else { PATIENCE };
    let hung = Wild::that(&[("instances.get_many", Does::Pend)]);
    let guard = super::guard(&hung, Limits { deadline, ..patient() });
    let error = guard.look_up(&[node], Duration::ZERO).await.unwrap_err();
    assert!(matches!(error, CloudError::Timeout { method: "instances.get_many", .. }), "{error:?}");
}

#[tokio::test]
async fn what_happens_is_counted() {
    let registry = Registry::new();
    let metrics = CloudMetrics::register(&registry).unwrap();
    let storm = CloudError::Throttled { after: None, message: String::new() };
    let wild = Wild::that(&[("routes.create", Does::Pend), ("routes.list", Does::Fail(storm))]);
    let deadline = |method: &Method| if method.name == "routes.create" { SHORT } else { PATIENCE };
    let cluster = Arc::new(std::sync::OnceLock::from(crate::model::ClusterId("c".into())));
    let guard = super::Guarded::new("wild", Arc::clone(&wild) as _, cluster, Limits { deadline, ..patient() })
        .unwrap()
        .measured(&metrics);
    let right = authority();
    guard.create_route(&right, Uuid::new_v4(), &route()).await.unwrap_err();
    right.gate.shut();
    guard.create_route(&right, Uuid::new_v4(), &route()).await.unwrap_err();
    guard.routes().await.unwrap_err();
    guard.look_up(&[NodeRef { name: "n".into(), provider_id: None }], Duration::ZERO).await.unwrap();
    let text = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
    for line in [
        "api_request_duration_seconds_count{method=\"create\",outcome=\"timeout\",provider=\"wild\",service=\"routes\"} 1",
        "refused_calls_total{method=\"create\",provider=\"wild\",reason=\"not_leading\",service=\"routes\"} 1",
        "throttled_total{method=\"list\",provider=\"wild\",service=\"routes\"} 1",
        "batch_size_count{provider=\"wild\"} 1",
        "breaker_state{provider=\"wild\",state=\"closed\"} 1",
        "breaker_state{provider=\"wild\",state=\"open\"} 0",
        "trouble{kind=\"denied\",provider=\"wild\"} 0",
        "inflight{class=\"batch\",provider=\"wild\"} 0",
        "abandoned_calls{provider=\"wild\"}",
        "cache_age_seconds{provider=\"wild\"}",
        "rate_limit{class=\"route\",provider=\"wild\"} 20",
    ] {
        assert!(text.contains(&format!("quarterdeck_cloudprovider_{line}")), "{line} is missing in\n{text}");
    }
}
