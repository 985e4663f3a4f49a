//! What a replica says of itself on `/statusz`.

use std::collections::BTreeMap;

use quarterdeck_election::{ElectionStatus, FenceState};
use quarterdeck_runtime::engine::SlowReconcile;
use quarterdeck_runtime::informer;
use quarterdeck_runtime::queue::QueueStatus;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::control::State;
use crate::metrics::fence_state;
use crate::serve::Served;

/// The status of a replica.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Status {
    /// The API server's `host:port`.
    pub(crate) server: String,
    /// Who leads, as this replica sees it; `None` without election.
    pub(crate) election: Option<ElectionPart>,
    /// The controllers of the table.
    pub(crate) controllers: Vec<ControllerPart>,
    /// The caches.
    pub(crate) informers: Vec<InformerPart>,
    /// What the gate let out and refused.
    pub(crate) gate: GatePart,
    /// What controllers share, each part under its own name: the clouds under `cloud`.
    #[serde(flatten)]
    pub(crate) facilities: BTreeMap<&'static str, Box<RawValue>>,
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
    /// When this replica last stopped leading.
    pub(crate) stopped: Option<String>,
    /// Why it did.
    pub(crate) stopped_because: Option<String>,
    /// What is known of the fence.
    pub(crate) fence: Option<String>,
    /// Renewals that had to read the Lease first.
    pub(crate) slow_paths: u64,
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
    pub(crate) form: &'static str,
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
    /// Complete lists after the first.
    pub(crate) relists: u64,
    /// Objects that could not be decoded.
    pub(crate) decode_errors: u64,
}

/// What the gate let out and refused since the start.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct GatePart {
    /// Writes let out.
    pub(crate) admitted: u64,
    /// This replica did not lead.
    pub(crate) not_leading: u64,
    /// The write could not have ended before the deadline.
    pub(crate) too_late: u64,
}

/// The status of a replica now.
pub(crate) fn of(served: &Served) -> Status {
    let counts = served.clients.gate().counts();
    Status {
        server: served.clients.server(),
        election: served.election.as_ref().map(|status| election(served, &status.borrow())),
        controllers: controllers(served),
        informers: served.informers.statuses().into_iter().map(informer).collect(),
        gate: GatePart {
            admitted: counts.admitted,
            not_leading: counts.not_leading,
            too_late: counts.deadline_too_near,
        },
        facilities: served.facilities.status().into_iter().collect(),
    }
}

fn election(served: &Served, status: &ElectionStatus) -> ElectionPart {
    let leading = served.leadership.borrow().tenure().is_some();
    ElectionPart {
        leading,
        activity: format!("{:?}", status.activity).to_lowercase(),
        identity: status.identity.to_string(),
        holder: status.holder.as_deref().map(str::to_owned),
        lease: served.lease.clone(),
        transitions: status.transitions,
        renewed: status.renew_time.map(|time| time.to_string()),
        deadline_seconds: served.clients.gate().remaining().filter(|_| leading).unwrap_or_default().as_secs_f64(),
        began: status.last_began.map(|time| time.to_string()),
        stopped: status.last_stopped.map(|time| time.to_string()),
        stopped_because: status.last_loss.as_ref().map(ToString::to_string),
        fence: status.fence.as_ref().map(|fence| match fence {
            FenceState::Broken(reason) => format!("broken: {reason}"),
            other => fence_state(other).to_owned(),
        }),
        slow_paths: status.slow_paths,
        last_error: status.last_error.clone(),
    }
}

fn controllers(served: &Served) -> Vec<ControllerPart> {
    let part = |(name, state): (&'static str, State)| {
        let unit = served.units.iter().find(|unit| unit.descriptor().name == name);
        ControllerPart {
            name,
            state: state.name(),
            reason: state.reason().map(str::to_owned),
            queue: unit.map(|unit| unit.queue()),
            stuck_seconds: unit.and_then(|unit| unit.stuck_for()).map(|time| time.as_secs_f64()),
            slowest: unit.map(|unit| unit.slowest()).unwrap_or_default(),
        }
    };
    served.states.all().into_iter().map(part).collect()
}

fn informer(status: informer::Status) -> InformerPart {
    let selection = [
        status.selection.namespace.map(|namespace| format!("namespace={namespace}")),
        status.selection.labels.map(|labels| format!("labels={labels}")),
        status.selection.fields.map(|fields| format!("fields={fields}")),
    ];
    let selection: Vec<_> = selection.into_iter().flatten().collect();
    InformerPart {
        resource: status.kind.to_string(),
        form: status.form,
        selection: (!selection.is_empty()).then(|| selection.join(" ")),
        state: match status.state {
            informer::State::Retrying(reason) => format!("retrying: {reason}"),
            informer::State::Forbidden(reason) => format!("forbidden: {reason}"),
            other => format!("{other:?}").to_lowercase(),
        },
        synced: status.synced,
        objects: status.objects,
        bytes: status.bytes,
        version: status.version,
        relists: status.relists,
        decode_errors: status.decode_errors,
    }
}
