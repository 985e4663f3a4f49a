//! Says who leads: in the log, and as Events on the Lease.

use k8s_openapi::api::core::v1::ObjectReference;
use quarterdeck_election::Leadership;
use quarterdeck_runtime::events::{EventType, Recorder};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::flags::ElectionFlags;

/// Upstream's reason of these events (`client-go:tools/leaderelection`, v0.36.3).
const REASON: &str = "LeaderElection";

/// Speaks for one replica.
#[derive(Clone)]
pub(crate) struct Announcer {
    lease: ObjectReference,
    identity: String,
    recorder: Recorder,
}

impl Announcer {
    /// A voice for the replica named `identity`; `recorder` writes as the manager.
    pub(crate) fn new(flags: &ElectionFlags, identity: &str, recorder: Recorder) -> Self {
        let lease = ObjectReference {
            api_version: Some("coordination.k8s.io/v1".to_owned()),
            kind: Some("Lease".to_owned()),
            namespace: Some(flags.leader_elect_resource_namespace.clone()),
            name: Some(flags.leader_elect_resource_name.clone()),
            ..ObjectReference::default()
        };
        Self { lease, identity: identity.to_owned(), recorder }
    }

    /// Follows the leadership until `stop`. A loss is only a log line: the gate is shut by then.
    pub(crate) async fn follow(self, mut leadership: watch::Receiver<Leadership>, stop: CancellationToken) {
        loop {
            match &*leadership.borrow_and_update() {
                Leadership::Leading(tenure) => {
                    tracing::info!(identity = self.identity, epoch = %tenure.token(), "became leader");
                    self.say("became leader");
                }
                Leadership::Standby { holder, lost: Some(loss) } => {
                    tracing::warn!(identity = self.identity, holder = holder.as_deref(), %loss, "stopped leading");
                }
                Leadership::Standby { holder, lost: None } => {
                    tracing::info!(identity = self.identity, holder = holder.as_deref(), "standing by");
                }
            }
            tokio::select! {
                () = stop.cancelled() => return,
                changed = leadership.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Says that this replica stops leading because it was told to.
    pub(crate) fn stopping(&self) {
        self.say("stopped leading");
    }

    fn say(&self, what: &str) {
        self.recorder.event(&self.lease, EventType::Normal, REASON, format!("{} {what}", self.identity));
    }
}
