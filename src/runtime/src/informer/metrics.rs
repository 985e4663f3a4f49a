//! What informers count and measure.

use std::sync::Weak;
use std::time::UNIX_EPOCH;

use parking_lot::Mutex;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{GaugeVec, IntCounter, IntCounterVec, IntGaugeVec, Opts, Registry};

use super::Status;
use super::registry::Table;
use crate::object::{Kind, parse_version};

const LABELS: [&str; 3] = ["group", "version", "resource"];

fn labels(kind: &Kind) -> [&str; 3] {
    [&kind.group, &kind.version, &kind.plural]
}

/// Counters of all informers.
pub(super) struct Metrics {
    events: IntCounterVec,
    lists: IntCounterVec,
    requests: IntCounterVec,
    decode_errors: IntCounterVec,
    handler_panics: IntCounterVec,
}

/// One informer's counters; informers of one kind share them.
pub(super) struct Counters {
    /// Events of watches, bookmarks among them.
    pub(super) events: IntCounter,
    /// Complete lists.
    pub(super) lists: IntCounter,
    /// List and watch requests sent.
    pub(super) requests: IntCounter,
    /// Objects that could not be decoded.
    pub(super) decode_errors: IntCounter,
    /// Panics of handlers.
    pub(super) handler_panics: IntCounter,
}

impl Metrics {
    /// Counters that no registry knows of yet.
    pub(super) fn new() -> Self {
        let vec = |name: &str, help: &str| {
            IntCounterVec::new(Opts::new(format!("quarterdeck_informer_{name}"), help), &LABELS)
                .expect("the names are valid and distinct")
        };
        Self {
            events: vec("events_total", "Watch events read, bookmarks included."),
            lists: vec("lists_total", "Complete lists read, as a stream or in pages."),
            requests: vec("requests_total", "List and watch requests sent."),
            decode_errors: vec(
                "decode_errors_total",
                "Objects that could not be decoded; the last good state is kept.",
            ),
            handler_panics: vec("handler_panics_total", "Panics of event handlers."),
        }
    }

    /// Shows the counters, and what `informers` hold whenever the registry is gathered.
    pub(super) fn register(&self, registry: &Registry, informers: Weak<Table>) -> Result<(), prometheus::Error> {
        for vec in [&self.events, &self.lists, &self.requests, &self.decode_errors, &self.handler_panics] {
            registry.register(Box::new(vec.clone()))?;
        }
        registry.register(Box::new(Gauges::new(informers)))
    }

    pub(super) fn counters(&self, kind: &Kind) -> Counters {
        let labels = labels(kind);
        Counters {
            events: self.events.with_label_values(&labels),
            lists: self.lists.with_label_values(&labels),
            requests: self.requests.with_label_values(&labels),
            decode_errors: self.decode_errors.with_label_values(&labels),
            handler_panics: self.handler_panics.with_label_values(&labels),
        }
    }

    /// Drops the counters of a kind that no informer reads any more.
    pub(super) fn forget(&self, kind: &Kind) {
        for vec in [&self.events, &self.lists, &self.requests, &self.decode_errors, &self.handler_panics] {
            // An error only says that there was none.
            let _ = vec.remove_label_values(&labels(kind));
        }
    }
}

/// Gauges that are filled in when they are gathered, so that events need not touch them.
struct Gauges {
    informers: Weak<Table>,
    objects: IntGaugeVec,
    bytes: IntGaugeVec,
    synced: IntGaugeVec,
    watching: IntGaugeVec,
    last_event: GaugeVec,
    store_version: IntGaugeVec,
    /// One gathering at a time: it begins with a reset.
    gathering: Mutex<()>,
}

impl Gauges {
    fn new(informers: Weak<Table>) -> Self {
        let gauge = |name: &str, help: &str, labels: &[&str]| {
            IntGaugeVec::new(Opts::new(name, help), labels).expect("the names are valid and distinct")
        };
        Self {
            informers,
            objects: gauge("quarterdeck_informer_objects", "Objects held.", &LABELS),
            bytes: gauge("quarterdeck_informer_bytes", "Estimate of the bytes that the objects held take.", &LABELS),
            synced: gauge("quarterdeck_informer_synced", "Informers that have read a complete list.", &LABELS),
            watching: gauge("quarterdeck_informer_watching", "Informers that follow changes.", &LABELS),
            last_event: GaugeVec::new(
                Opts::new(
                    "quarterdeck_informer_last_event_timestamp_seconds",
                    "When the server was last heard, in seconds since 1970.",
                ),
                &LABELS,
            )
            .expect("the names are valid and distinct"),
            store_version: gauge(
                "informer_store_resource_version",
                "Resource version up to which the informer's store is complete.",
                &["name", "group", "version", "resource"],
            ),
            gathering: Mutex::new(()),
        }
    }

    fn add(&self, status: &Status) {
        let labels = labels(&status.kind);
        self.objects.with_label_values(&labels).add(i64::try_from(status.objects).unwrap_or(i64::MAX));
        self.bytes.with_label_values(&labels).add(i64::try_from(status.bytes).unwrap_or(i64::MAX));
        self.synced.with_label_values(&labels).add(i64::from(status.synced));
        self.watching.with_label_values(&labels).add(i64::from(status.state == super::State::Watching));
        if let Some(since) = status.last_event.and_then(|time| time.duration_since(UNIX_EPOCH).ok()) {
            self.last_event.with_label_values(&labels).set(since.as_secs_f64());
        }
        let version = parse_version(&status.version).and_then(|version| i64::try_from(version).ok());
        let [group, version_name, resource] = labels;
        if let Some(version) = version {
            self.store_version.with_label_values(&["quarterdeck", group, version_name, resource]).set(version);
        }
    }
}

impl Collector for Gauges {
    fn desc(&self) -> Vec<&Desc> {
        let ints = [&self.objects, &self.bytes, &self.synced, &self.watching, &self.store_version];
        ints.into_iter().flat_map(Collector::desc).chain(self.last_event.desc()).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let _gathering = self.gathering.lock();
        let ints = [&self.objects, &self.bytes, &self.synced, &self.watching, &self.store_version];
        ints.iter().for_each(|vec| vec.reset());
        self.last_event.reset();
        let Some(informers) = self.informers.upgrade() else { return Vec::new() };
        for informer in informers.all() {
            self.add(&informer.status());
        }
        ints.into_iter().flat_map(Collector::collect).chain(self.last_event.collect()).collect()
    }
}
