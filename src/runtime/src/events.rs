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

/// Records events under one component name. Cheap to clone; recording only queues.
#[derive(Clone)]
pub struct Recorder {
    _private: (),
}

impl Recorder {
    /// Queues an event about an object. Dropped, and counted, when the object's budget is spent.
    pub fn event(
        &self,
        _about: &ObjectReference,
        _kind: EventType,
        _reason: &'static str,
        _message: impl Into<String>,
    ) {
        todo!()
    }
}
