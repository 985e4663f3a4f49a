//! Kubernetes Events: queued, filtered for spam and aggregated, so that recording never waits.
//!
//! They go out as core/v1 Events, as those of kube-controller-manager do: `kubectl get events` and
//! `kubectl describe` show their count, first and last time, and source (an events.k8s.io/v1 series
//! shows up there with less). Correlation follows `client-go:tools/record/events_cache.go` v1.36.3.
//!
//! Each component has a queue and a task of its own, so that one whose events are slow to write
//! holds up no other.

mod correlate;
mod reason;
mod recent;
mod sink;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use tokio::sync::mpsc;

pub use reason::Reason;
pub use sink::EventSink;

use correlate::Occurrence;
use sink::{Message, Tally};

/// Severity of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventType {
    /// Something that should happen.
    Normal,
    /// Something an operator should look at.
    Warning,
}

impl EventType {
    /// As it stands in an Event.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

/// Records events under one component name. Cheap to clone; recording only queues.
#[derive(Clone)]
pub struct Recorder {
    queue: Option<mpsc::Sender<Message>>,
    tally: Arc<Tally>,
}

impl Recorder {
    /// A recorder that drops everything, for tests of controllers.
    #[must_use]
    pub fn discard() -> Self {
        Self { queue: None, tally: Arc::new(Tally::unregistered()) }
    }

    /// Queues an event about an object. Dropped, and counted, when the object's budget is spent.
    pub fn event(&self, about: &ObjectReference, reason: Reason, message: impl Into<String>) {
        let Some(queue) = &self.queue else { return };
        let occurrence = Occurrence {
            about: about.clone(),
            kind: reason.kind(),
            reason: reason.name(),
            message: message.into(),
            at: Timestamp::now(),
        };
        if queue.try_send(Message::Event(Box::new(occurrence))).is_err() {
            self.tally.count("queue_full");
        }
    }
}

impl std::fmt::Debug for Recorder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recorder").field("component", &self.tally.component()).finish_non_exhaustive()
    }
}
