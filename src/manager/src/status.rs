//! Gathers what a replica says of itself on `/statusz`.

use std::collections::BTreeMap;
use std::sync::Arc;

use quarterdeck_api::status::{ControllerPart, ElectionPart, GatePart, InformerPart, RefusalPart, Status, history};
use quarterdeck_election::{ElectionStatus, FenceState};
use quarterdeck_runtime::client::Refusal;
use quarterdeck_runtime::controller::Account;
use quarterdeck_runtime::engine::Unit;
use quarterdeck_runtime::informer;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::control::State;
use crate::metrics::fence_state;
use crate::serve::Served;

/// What is told: the model that clients read, and the parts of facilities and controllers as those write them, in the
/// order of their fields.
#[derive(Debug, Serialize)]
pub(crate) struct Told {
    #[serde(flatten)]
    status: Status,
    #[serde(flatten)]
    parts: BTreeMap<&'static str, Box<RawValue>>,
}

/// The status of a replica now.
pub(crate) fn of(served: &Served) -> Told {
    let counts = served.clients.gate().counts();
    let holder = served.election.as_ref().and_then(|status| status.borrow().holder.as_deref().map(str::to_owned));
    let mut parts: BTreeMap<_, _> = served.facilities.status().into_iter().collect();
    parts.extend(served.units.iter().filter_map(|unit| unit.told()));
    let status = Status {
        server: served.clients.server(),
        election: served.election.as_ref().map(|status| election(served, &status.borrow())),
        controllers: controllers(served),
        informers: served.informers.statuses().into_iter().map(informer).collect(),
        gate: GatePart {
            admitted: counts.admitted,
            not_leading: counts.not_leading,
            too_late: counts.deadline_too_near,
        },
        masters: served.masters.parts(holder.as_deref()),
        masters_unknown: served.masters.trouble(),
        history: history(served.masters.terms(), holder.as_deref()),
        refusals: refusals(served),
        ..Status::default()
    };
    Told { status, parts }
}

fn refusals(served: &Served) -> Vec<RefusalPart> {
    let controller = |account: String| {
        let of = |unit: &&Arc<dyn Unit>| {
            let Account { namespace, name, .. } = unit.account();
            account == format!("system:serviceaccount:{namespace}:{name}")
        };
        served.units.iter().find(of).map_or(account.clone(), |unit| unit.descriptor().name.to_owned())
    };
    let part = |refusal: Refusal| RefusalPart {
        at: refusal.at.to_string(),
        by: refusal.by.as_str().to_owned(),
        controller: refusal.account.map(controller).unwrap_or_default(),
        what: refusal.what,
        why: refusal.why,
    };
    served.clients.refusals().all().into_iter().map(part).collect()
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
            name: name.to_owned(),
            state: state.name().to_owned(),
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
        form: status.form.to_owned(),
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
