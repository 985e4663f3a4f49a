use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use tokio::time::Instant;

use super::EventType;
use super::correlate::{Correlator, Occurrence, Report};

struct Bench {
    correlator: Correlator,
    start: Instant,
}

impl Bench {
    fn new() -> Self {
        Self { correlator: Correlator::new("test-controller"), start: Instant::now() }
    }

    /// Something happened to the service `a/<name>`, so many seconds after the start.
    fn at(&mut self, seconds: u64, name: &str, message: &str) -> Option<Report> {
        let about = ObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Service".into()),
            namespace: Some("a".into()),
            name: Some(name.into()),
            ..Default::default()
        };
        let at = Timestamp::from_second(1_000_000 + i64::try_from(seconds).unwrap()).unwrap();
        let occurrence = Occurrence { about, kind: EventType::Warning, reason: "Failed", message: message.into(), at };
        self.correlator.observe(occurrence, self.start + Duration::from_secs(seconds))
    }
}

fn count(report: &Report) -> i32 {
    report.event.count.unwrap()
}

#[test]
fn the_first_is_written_whole() {
    let report = Bench::new().at(0, "web", "no luck").unwrap();
    assert!(!report.counted);
    let event = report.event;
    assert_eq!(event.metadata.name.as_deref(), Some("web.38d7ea4c68000"));
    assert_eq!(event.metadata.namespace.as_deref(), Some("a"));
    assert_eq!((event.type_.as_deref(), event.reason.as_deref()), (Some("Warning"), Some("Failed")));
    assert_eq!(event.source.unwrap().component.as_deref(), Some("test-controller"));
    assert_eq!(event.reporting_component.as_deref(), Some("test-controller"));
    assert_eq!(event.first_timestamp, event.last_timestamp);
}

#[test]
fn the_same_again_is_counted_under_the_same_name() {
    let mut bench = Bench::new();
    let first = bench.at(0, "web", "no luck").unwrap();
    let again = bench.at(60, "web", "no luck").unwrap();
    assert!(again.counted);
    assert_eq!(count(&again), 2);
    assert_eq!(again.event.metadata.name, first.event.metadata.name);
    assert_eq!(again.event.first_timestamp, first.event.first_timestamp);
    assert_ne!(again.event.last_timestamp, first.event.last_timestamp);
    let other = bench.at(60, "web", "worse luck").unwrap();
    assert!(!other.counted);
    assert_ne!(other.event.metadata.name, first.event.metadata.name);
}

#[test]
fn a_spent_budget_drops_events_about_that_object_only() {
    let mut bench = Bench::new();
    let written = (0..40).filter(|_| bench.at(0, "web", "no luck").is_some()).count();
    assert_eq!(written, 25);
    assert!(bench.at(0, "db", "no luck").is_some());
    assert!(bench.at(299, "web", "no luck").is_none());
    let later = bench.at(301, "web", "no luck").unwrap();
    assert_eq!(count(&later), 42, "dropped ones are counted, too");
    assert!(bench.at(302, "web", "no luck").is_none());
}

#[test]
fn many_similar_ones_become_one() {
    let mut bench = Bench::new();
    let reports: Vec<_> = (0..12).map(|n| bench.at(0, "web", &format!("pod {n}")).unwrap()).collect();
    assert!(reports[..9].iter().all(|report| !report.counted));
    assert_eq!(reports[8].event.message.as_deref(), Some("pod 8"));
    assert_eq!(reports[9].event.message.as_deref(), Some("(combined from similar events): pod 9"));
    assert!(!reports[9].counted);
    assert!(reports[10].counted && reports[11].counted);
    assert_eq!(count(&reports[11]), 3);
    assert_eq!(reports[11].event.metadata.name, reports[9].event.metadata.name);
    let after_a_pause = bench.at(601, "web", "pod 50").unwrap();
    assert_eq!(after_a_pause.event.message.as_deref(), Some("pod 50"));
}

#[test]
fn objects_without_a_namespace_or_with_odd_names_get_valid_events() {
    let mut correlator = Correlator::new("test-controller");
    for name in ["system:odd name", "", &"x".repeat(250)] {
        let about = ObjectReference { name: Some(name.into()), ..Default::default() };
        let at = Timestamp::from_second(1_000_000).unwrap();
        let kind = EventType::Normal;
        let occurrence = Occurrence { about, kind, reason: "Made", message: String::new(), at };
        let event = correlator.observe(occurrence, Instant::now()).unwrap().event;
        assert_eq!(event.metadata.namespace.as_deref(), Some("default"));
        assert!(event.metadata.name.unwrap().starts_with("test-controller.38d7ea4c6800"), "{name}");
    }
}
