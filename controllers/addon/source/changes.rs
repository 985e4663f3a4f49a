//! Events of the file system, as those need them who read files when they change.

use std::time::Duration;

use notify::EventKind;
use notify::event::{AccessKind, AccessMode};
use tokio::sync::Notify;
use tokio::time::Instant;

/// Quiet after an event before files are read: a copy writes many.
const QUIET: Duration = Duration::from_millis(100);
/// Longest wait for quiet.
const QUIET_MAX: Duration = Duration::from_secs(1);

/// Waits for an event and then for quiet.
pub(super) async fn quiet_after(changed: &Notify) {
    changed.notified().await;
    let latest = Instant::now() + QUIET_MAX;
    while Instant::now() < latest {
        if tokio::time::timeout_at(latest.min(Instant::now() + QUIET), changed.notified()).await.is_err() {
            return;
        }
    }
}

/// Our own readings are events too.
pub(super) fn is_only_reading(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => false,
        EventKind::Access(_) => true,
        _ => false,
    }
}
