//! What becomes of an occurrence: a new Event, a higher count of one written before, or nothing.

use std::collections::HashSet;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use tokio::time::Instant;

use super::EventType;
use super::recent::Recent;

/// Entries of each map.
const CAPACITY: usize = 4096;
/// So many events of one source about one object at once …
const SPAM_BURST: f64 = 25.0;
/// … and then one more in each such time.
const SPAM_REFILL: Duration = Duration::from_secs(300);
/// So many different messages with one reason about one object make an aggregate …
const SIMILAR: usize = 10;
/// … if no two of them are further apart than this.
const SIMILAR_WITHIN: Duration = Duration::from_secs(600);
/// Namespace of events about objects that have none.
const DEFAULT_NAMESPACE: &str = "default";
/// The longest name of an object.
const LONGEST_NAME: usize = 253;

/// Something that happened to an object.
#[derive(Clone, Debug)]
pub(super) struct Occurrence {
    pub(super) about: ObjectReference,
    pub(super) kind: EventType,
    pub(super) reason: &'static str,
    pub(super) message: String,
    pub(super) at: Timestamp,
}

/// What is to be written of an occurrence.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Report {
    /// The whole event; if it is counted, under the name of the first one.
    pub(super) event: Event,
    /// Whether an event of this name should exist, so that its count has to be raised.
    pub(super) counted: bool,
}

/// The memory of one component.
#[derive(Debug)]
pub(super) struct Correlator {
    component: String,
    similar: Recent<String, Similar>,
    written: Recent<String, Option<Known>>,
    budgets: Recent<String, Budget>,
    last_nanos: i128,
}

/// Different messages with one reason.
#[derive(Debug, Default)]
struct Similar {
    messages: HashSet<String>,
    last: Option<Instant>,
}

/// An event that was written before.
#[derive(Clone, Debug)]
struct Known {
    name: String,
    count: i32,
    first: Timestamp,
}

/// Tokens for events about one object.
#[derive(Debug)]
struct Budget {
    tokens: f64,
    as_of: Instant,
}

impl Budget {
    fn spend(&mut self, now: Instant) -> bool {
        let gained = now.saturating_duration_since(self.as_of).as_secs_f64() / SPAM_REFILL.as_secs_f64();
        self.tokens = (self.tokens + gained).min(SPAM_BURST);
        self.as_of = now;
        if self.tokens < 1.0 {
            return false;
        }
        self.tokens -= 1.0;
        true
    }
}

impl Correlator {
    /// An empty memory.
    pub(super) fn new(component: &str) -> Self {
        Self {
            component: component.to_owned(),
            similar: Recent::new(CAPACITY),
            written: Recent::new(CAPACITY),
            budgets: Recent::new(CAPACITY),
            last_nanos: 0,
        }
    }

    /// Remembers the occurrence; `None` if the object's budget is spent.
    pub(super) fn observe(&mut self, occurrence: Occurrence, now: Instant) -> Option<Report> {
        let Occurrence { about, kind, reason, message, at } = occurrence;
        let object = key(&[
            about.kind.as_deref(),
            about.namespace.as_deref(),
            about.name.as_deref(),
            about.uid.as_deref(),
            about.api_version.as_deref(),
            Some(kind.as_str()),
        ]);
        let (message, slot) = self.aggregate(&object, &about, reason, message, now);
        let name = self.name_for(about.name.as_deref().unwrap_or_default(), at);
        let slot = self.written.entry(slot, || None);
        let counted = slot.is_some();
        let known = match slot.take() {
            Some(known) => Known { count: known.count.saturating_add(1), ..known },
            None => Known { name, count: 1, first: at },
        };
        *slot = Some(known.clone());
        if !self.budgets.entry(object, || Budget { tokens: SPAM_BURST, as_of: now }).spend(now) {
            return None;
        }
        let namespace = about.namespace.clone().filter(|namespace| !namespace.is_empty());
        let event = Event {
            metadata: ObjectMeta {
                name: Some(known.name),
                namespace: Some(namespace.unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned())),
                ..ObjectMeta::default()
            },
            involved_object: about,
            type_: Some(kind.as_str().to_owned()),
            reason: Some(reason.to_owned()),
            message: Some(message),
            count: Some(known.count),
            first_timestamp: Some(Time(known.first)),
            last_timestamp: Some(Time(at)),
            source: Some(EventSource { component: Some(self.component.clone()), host: None }),
            reporting_component: Some(self.component.clone()),
            reporting_instance: Some(String::new()),
            ..Event::default()
        };
        Some(Report { event, counted })
    }

    /// The message to show, and the slot under which its event is counted: many different messages
    /// with one reason share one.
    fn aggregate(
        &mut self,
        object: &str,
        about: &ObjectReference,
        reason: &str,
        message: String,
        now: Instant,
    ) -> (String, String) {
        let group = key(&[Some(object), Some(reason)]);
        let similar = self.similar.entry(group.clone(), Similar::default);
        if similar.last.is_some_and(|last| now.saturating_duration_since(last) > SIMILAR_WITHIN) {
            similar.messages.clear();
        }
        similar.last = Some(now);
        if similar.messages.len() < SIMILAR - 1 || similar.messages.contains(&message) {
            similar.messages.insert(message.clone());
            let slot = key(&[Some(&group), about.field_path.as_deref(), Some(&message)]);
            return (message, slot);
        }
        (format!("(combined from similar events): {message}"), group)
    }

    /// `<object>.<hexadecimal nanoseconds>`, never twice the same.
    fn name_for(&mut self, object: &str, at: Timestamp) -> String {
        self.last_nanos = at.as_nanosecond().max(self.last_nanos + 1);
        let suffix = format!(".{:x}", self.last_nanos);
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'.';
        let fits = object.bytes().all(plain) && !object.is_empty() && object.len() + suffix.len() <= LONGEST_NAME;
        let object = if fits { object.trim_end_matches(['.', '-']) } else { self.component.as_str() };
        format!("{object}{suffix}")
    }
}

fn key(parts: &[Option<&str>]) -> String {
    let mut key = String::new();
    for part in parts {
        key.push_str(part.unwrap_or_default());
        key.push('\0');
    }
    key
}
