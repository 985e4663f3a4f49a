//! One reconcile: read, plan, send, report.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use k8s_openapi::api::core::v1::{ObjectReference, Service};
use parking_lot::Mutex;
use quarterdeck_runtime::client::{ApiError, Class};
use quarterdeck_runtime::controller::{Cx, Error};
use quarterdeck_runtime::events::Reason;
use quarterdeck_runtime::object::{Cached as _, ObjectKey};
use quarterdeck_runtime::select::selected;

use super::apply::Writer;
use super::family::Family;
use super::hints::{self, Mode};
use super::metrics::Totals;
use super::plan::{MissingNode, Op, Plan, Snapshot, plan};
use super::topology::{Shares, ZoneCounts};
use super::watch::BY_SERVICE;
use super::{EndpointSliceController, Key, reasons};

/// What is known of zones, and of the services in topology mode Auto.
pub(super) struct Topology {
    /// The nodes changed since the shares were computed.
    outdated: AtomicBool,
    state: Mutex<TopologyState>,
}

#[derive(Default)]
struct TopologyState {
    shares: Option<Arc<Shares>>,
    /// The shares on which services were last looked at because of nodes.
    looked_at: Option<Arc<Shares>>,
    /// Endpoints by zone; none where there could be no hints.
    services: HashMap<(ObjectKey, Family), Option<ZoneCounts>>,
}

impl Default for Topology {
    fn default() -> Self {
        Self { outdated: AtomicBool::new(true), state: Mutex::default() }
    }
}

impl Topology {
    /// Notes that nodes changed; returns whether a service may be concerned.
    pub(super) fn outdate(&self) -> bool {
        self.outdated.store(true, Ordering::Release);
        !self.state.lock().services.is_empty()
    }

    /// Takes the outcome for a service in; returns whether hints were there before. `None` means
    /// that the service is not in mode Auto.
    pub(super) fn set(&self, service: &ObjectKey, family: Family, outcome: Option<Option<ZoneCounts>>) -> bool {
        let mut state = self.state.lock();
        if state.services.is_empty() && outcome.is_none() {
            return false;
        }
        let key = (service.clone(), family);
        let before = match outcome {
            Some(counts) => state.services.insert(key, counts),
            None => state.services.remove(&key),
        };
        before.flatten().is_some()
    }
}

/// A service, and what to do about it.
pub(super) struct Planned {
    pub(super) service: Arc<Service>,
    pub(super) plan: Plan,
    /// What the plan knew of zones; none outside mode Auto.
    pub(super) shares: Option<Arc<Shares>>,
}

impl EndpointSliceController {
    /// Brings the slices of a service to where they should be.
    pub(super) async fn sync(&self, cx: &Cx, key: &ObjectKey) -> Result<(), Error> {
        let Some(Planned { service, plan, shares }) = self.plan(key) else { return Ok(()) };
        let Plan { mode, families, obsolete, missing } = plan;

        let mut writer = Writer { api: &cx.api, own: &self.own, metrics: &self.metrics, overwritten: false };
        let mut failed: Option<ApiError> = None;
        let mut totals = Totals { distribution: self.distribution(&service, mode), ..Totals::default() };
        for family in families {
            self.metrics.planned(family.added, family.removed);
            totals.endpoints += family.endpoints;
            totals.slices += family.slices;
            totals.ideal_slices += family.ideal_slices;
            let count = family.ops.len();
            match writer.send(family.ops).await {
                Ok(()) => self.metrics.wrote(mode == Mode::Auto, totals.distribution.as_deref(), count),
                Err(error) => failed = worse(failed, error),
            }
            self.report_topology(cx, &service, key, family.family, family.topology);
        }
        self.metrics.contributes(key, Some(totals));
        for slice in obsolete {
            if let Err(error) = writer.send(vec![Op::Delete(slice)]).await {
                failed = worse(failed, error);
            }
        }
        if writer.overwritten {
            self.queue.add(Key::Service(key.clone()));
        }
        if mode == Mode::Auto {
            self.look_again_unless(key, shares.as_ref());
        }

        let error = match failed {
            Some(error) => Error::from(error),
            None => match missing_nodes(&missing) {
                Some(message) => Error::Transient(message),
                None => return Ok(()),
            },
        };
        if matches!(error.class(), Class::Transient | Class::Terminal) {
            let message = format!("cannot bring the EndpointSlices of service {key} up to date: {error}");
            cx.recorder.event(&reference(&service), reasons::UPDATE_FAILED, message);
        }
        Err(error)
    }

    /// Reads the caches and plans. `None` if the service is gone or none of our business.
    pub(super) fn plan(&self, key: &ObjectKey) -> Option<Planned> {
        let Some(service) = self.services.get(key) else {
            self.forget(key);
            return None;
        };
        let spec = service.spec.as_ref()?;
        let selector = spec.selector.as_ref().filter(|selector| !selector.is_empty());
        let Some(selector) = selector.filter(|_| spec.type_.as_deref() != Some("ExternalName")) else {
            self.forget(key);
            return None;
        };
        let pods = selected(&self.pods, key.namespace(), selector);
        let mut slices = self.slices.indexed(BY_SERVICE, &key.to_string());
        slices.retain(|slice| !slice.is_deleting());
        let shares = (Mode::of(&service) == Mode::Auto).then(|| self.shares()).flatten();
        let namespace = key.namespace_arc();
        let plan = plan(&Snapshot {
            service: &service,
            pods: &pods,
            slices: &slices,
            node: &|name| self.nodes.get(&ObjectKey::cluster(Arc::clone(name))),
            name_taken: &|name| self.slices.get(&ObjectKey::new(Arc::clone(&namespace), name)).is_some(),
            max_endpoints: self.max_endpoints,
            shares: shares.as_deref(),
            trigger: self.triggers.next(key, &service, &pods),
        });
        self.waiting.set(key, plan.missing.iter().filter_map(|missing| missing.node.clone()));
        Some(Planned { service, plan, shares })
    }

    /// Drops what is remembered of a service. Its slices are the garbage collector's, or remain
    /// for whoever writes the slices of services without a selector.
    fn forget(&self, key: &ObjectKey) {
        self.triggers.forget(key);
        self.metrics.contributes(key, None);
        self.waiting.set(key, std::iter::empty());
        for family in Family::ALL {
            self.topology.set(key, family, None);
        }
    }

    fn distribution(&self, service: &Service, mode: Mode) -> Option<String> {
        let honoured = matches!(mode, Mode::SameZone | Mode::SameNode);
        hints::distribution(service).filter(|_| honoured).map(str::to_owned)
    }

    /// The zones' shares, computed anew if nodes changed.
    fn shares(&self) -> Option<Arc<Shares>> {
        // Locked before the mark is taken away: who finds it gone must not find the old shares.
        let mut state = self.topology.state.lock();
        if self.topology.outdated.swap(false, Ordering::AcqRel) {
            let nodes = self.nodes.all();
            state.shares = Shares::of(nodes.iter().map(AsRef::as_ref)).map(Arc::new);
        }
        state.shares.clone()
    }

    /// Enqueues a service in mode Auto unless the shares are still those that its plan rested on: when
    /// they changed, what its hints would be was not known yet, and nobody else looks at it again.
    pub(super) fn look_again_unless(&self, key: &ObjectKey, rested_on: Option<&Arc<Shares>>) {
        if self.shares().as_ref() != rested_on {
            self.queue.add(Key::Service(key.clone()));
        }
    }

    /// After a change of nodes: services that have too few endpoints for a zone are looked at
    /// again, and so are those that could have no hints.
    pub(super) fn look_at_nodes(&self) {
        let shares = self.shares();
        let mut state = self.topology.state.lock();
        if state.looked_at == shares {
            return;
        }
        state.looked_at.clone_from(&shares);
        for ((service, _), counts) in &state.services {
            let concerned = match (counts, &shares) {
                (Some(counts), Some(shares)) => shares.overload(counts),
                (Some(_), None) | (None, Some(_)) => true,
                (None, None) => false,
            };
            if concerned {
                self.queue.add(Key::Service(service.clone()));
            }
        }
    }

    /// Remembers how a family's endpoints were spread over zones, and tells of a change.
    fn report_topology(
        &self,
        cx: &Cx,
        service: &Service,
        key: &ObjectKey,
        family: Family,
        outcome: Option<Result<ZoneCounts, String>>,
    ) {
        let outcome =
            outcome.map(|outcome| outcome.map_err(|reason| format!("no topology hints for {family}: {reason}")));
        let counts = outcome.as_ref().map(|outcome| outcome.as_ref().ok().cloned());
        let had_hints = self.topology.set(key, family, counts);
        let (reason, message): (Reason, String) = match outcome {
            Some(Ok(_)) if had_hints => return,
            None if !had_hints => return,
            Some(Ok(_)) => (reasons::HINTS_SET, format!("topology hints for {family} set")),
            Some(Err(message)) => (reasons::HINTS_GONE, message),
            None => {
                (reasons::HINTS_GONE, format!("topology hints for {family} removed: topology mode is no longer Auto"))
            }
        };
        cx.recorder.event(&reference(service), reason, message);
    }
}

/// Of two errors the one that decides what is to be done: the loss of the lease first, and a
/// conflict only if there is nothing else.
fn worse(known: Option<ApiError>, new: ApiError) -> Option<ApiError> {
    let rank = |error: &ApiError| match error.class() {
        Class::NotLeader => 3,
        Class::Transient => 2,
        Class::Terminal => 1,
        Class::Conflict => 0,
    };
    match known {
        Some(known) if rank(&known) >= rank(&new) => Some(known),
        _ => Some(new),
    }
}

fn missing_nodes(missing: &[MissingNode]) -> Option<String> {
    let first = missing.first()?;
    let node = first.node.as_deref().unwrap_or("none");
    let others = match missing.len() - 1 {
        0 => String::new(),
        others => format!(", and {others} more"),
    };
    Some(format!("left out pods whose node is not known: {} on node {node}{others}", first.pod))
}

fn reference(service: &Service) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Service".to_owned()),
        namespace: service.metadata.namespace.clone(),
        name: service.metadata.name.clone(),
        uid: service.metadata.uid.clone(),
        resource_version: service.metadata.resource_version.clone(),
        ..ObjectReference::default()
    }
}
