//! What a replica says of itself on `/statusz`.

use quarterdeck_runtime::engine::SlowReconcile;
use quarterdeck_runtime::queue::QueueStatus;
use serde::Serialize;

/// The status of a replica.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Status {
    /// Program name and version.
    pub(crate) program: String,
    /// Seconds since the process started.
    pub(crate) uptime_seconds: u64,
    /// The API server's `host:port`.
    pub(crate) server: String,
    /// Who leads, as this replica sees it; `None` without election.
    pub(crate) election: Option<ElectionPart>,
    /// The controllers of the table.
    pub(crate) controllers: Vec<ControllerPart>,
    /// The caches.
    pub(crate) informers: Vec<InformerPart>,
    /// Writes that the gate refused, by reason.
    pub(crate) gate_refusals: GatePart,
}

/// Who leads, as a replica sees it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ElectionPart {
    /// Whether this replica leads.
    pub(crate) leading: bool,
    /// What its elector is doing.
    pub(crate) activity: String,
    /// This replica's name in the Lease.
    pub(crate) identity: String,
    /// Who holds the Lease.
    pub(crate) holder: Option<String>,
    /// The Lease, `namespace/name`.
    pub(crate) lease: String,
    /// How often the Lease changed hands.
    pub(crate) transitions: Option<i32>,
    /// When the holder last renewed, by the holder's clock.
    pub(crate) renewed: Option<String>,
    /// Seconds left until the last moment for a write of this tenure; 0 while not leading.
    pub(crate) deadline_seconds: f64,
    /// When this replica last began to lead.
    pub(crate) began: Option<String>,
    /// When this replica last stopped leading, and why.
    pub(crate) stopped: Option<String>,
    /// What is known of the fence.
    pub(crate) fence: Option<String>,
    /// The last failed exchange about the Lease.
    pub(crate) last_error: Option<String>,
}

/// One controller.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ControllerPart {
    /// Canonical name.
    pub(crate) name: &'static str,
    /// State on this replica.
    pub(crate) state: &'static str,
    /// Why it is in that state.
    pub(crate) reason: Option<String>,
    /// Its queue; `None` for disabled ones.
    pub(crate) queue: Option<QueueStatus>,
    /// Seconds for which it has had work and finished nothing.
    pub(crate) stuck_seconds: Option<f64>,
    /// Its slowest reconciles of late.
    pub(crate) slowest: Vec<SlowReconcile>,
}

/// One cache.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct InformerPart {
    /// What it reads: `services`, `endpointslices.discovery.k8s.io`.
    pub(crate) resource: String,
    /// The form it keeps.
    pub(crate) form: String,
    /// Which objects, when not all.
    pub(crate) selection: Option<String>,
    /// What it is doing.
    pub(crate) state: String,
    /// Whether it has had a complete list.
    pub(crate) synced: bool,
    /// Number of objects.
    pub(crate) objects: usize,
    /// Estimate of the bytes they take.
    pub(crate) bytes: u64,
    /// Newest version seen.
    pub(crate) version: String,
}

/// Writes that the gate refused since the start.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct GatePart {
    /// This replica did not lead.
    pub(crate) not_leading: u64,
    /// The write could not have ended before the deadline.
    pub(crate) too_late: u64,
}
