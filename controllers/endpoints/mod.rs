//! The endpoints controller: one `Endpoints` object for each service that has a selector.
//!
//! Behaviour: kubernetes/kubernetes:pkg/controller/endpoint/endpoints_controller.go v1.36.3. What
//! differs, and why, stands in `docs/controllers/endpoints-controller.md`.

mod canonical;
mod plan;
pub mod reasons;
mod relevance;
#[cfg(test)]
mod tests;
mod trigger;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::SignedDuration;
use k8s_openapi::api::core::v1::{Endpoints, ObjectReference, Service};
use quarterdeck_runtime::client::{ApiError, Class, DeletePrecondition, Propagation};
use quarterdeck_runtime::controller::{
    Action, ClientShare, Controller, Cx, Descriptor, Error, Predecessor, Setup, SetupError,
};
use quarterdeck_runtime::events::Reason;
use quarterdeck_runtime::informer::{Change, Lister, Selection};
use quarterdeck_runtime::object::{Cached, Kind, ObjectKey};
use quarterdeck_runtime::queue::{Enqueue, Retry};
use quarterdeck_runtime::select;
use quarterdeck_runtime::view::PodView;

use plan::{Op, Snapshot, holds_leader_record, plan, wants_endpoints};
use trigger::TriggerTimes;

/// Failures in a row after which a service is left alone until something changes.
const TRIES: u32 = 15;

/// Flags of the endpoints controller.
#[derive(clap::Args, Clone, Debug)]
pub struct EndpointsConfig {
    /// Number of services whose Endpoints are brought up to date at once.
    #[arg(long, value_name = "COUNT", default_value_t = 5, help_heading = "Endpoint controller")]
    pub concurrent_endpoint_syncs: usize,
    /// How long a change of a pod waits for others before the Endpoints are written; longer means
    /// fewer writes and later ones.
    #[arg(long, value_name = "DURATION", default_value = "0s", help_heading = "Endpoint controller")]
    pub endpoint_updates_batch_period: SignedDuration,
}

/// Keeps the `Endpoints` of services with a selector.
pub struct EndpointsController {
    services: Lister<Service>,
    pods: Lister<PodView>,
    endpoints: Lister<Endpoints>,
    times: TriggerTimes,
}

impl Controller for EndpointsController {
    const DESCRIPTOR: Descriptor = Descriptor {
        name: "endpoints-controller",
        aliases: &["endpoint"],
        enabled_by_default: true,
        account: "endpoint-controller",
        upstream_role: true,
        writes_anything: false,
        predecessor: Some(Predecessor::KubeControllerManager),
        queue: "endpoint",
        share: ClientShare::ONE,
    };
    type Config = EndpointsConfig;
    type Key = ObjectKey;

    fn setup(config: &EndpointsConfig, setup: &mut Setup<ObjectKey>) -> Result<Self, SetupError> {
        let batch = Duration::try_from(config.endpoint_updates_batch_period).map_err(|_| SetupError {
            flag: "endpoint-updates-batch-period",
            reason: "must not be negative".to_owned(),
        })?;
        if config.concurrent_endpoint_syncs == 0 {
            return Err(SetupError { flag: "concurrent-endpoint-syncs", reason: "must be at least 1".to_owned() });
        }
        setup.workers(config.concurrent_endpoint_syncs);
        setup.retry(Retry { tries: Some(TRIES), ..Retry::default() });

        let services = setup.informer::<Service>(Selection::default());
        let pods = setup.informer::<PodView>(Selection::default());
        let endpoints = setup.informer::<Endpoints>(Selection::default());
        services.add_index(select::by_selector());
        pods.add_index(select::by_label());

        setup.watch(&services, |change, queue| {
            if relevance::service_changed(&change) {
                queue.add(change.object().key());
            }
        });
        let of_pod = services.clone();
        setup.watch(&pods, move |change, queue| {
            relevance::services_of_change(&of_pod, &change, |key| add(queue, key, batch));
        });
        watch_endpoints(setup, &endpoints);

        Ok(Self { services, pods, endpoints, times: TriggerTimes::default() })
    }

    async fn reconcile(&self, cx: &Cx, key: ObjectKey) -> Result<Action, Error> {
        let service = self.services.get(&key);
        let endpoints = self.endpoints.get(&key);
        let Some(service) = service else {
            let snapshot = Snapshot { service: None, endpoints, pods: Vec::new(), trigger: None };
            self.apply(cx, &key, plan(&snapshot)).await?;
            self.times.forget(&key);
            return Ok(Action::Done);
        };
        if !wants_endpoints(&service) {
            return Ok(Action::Done);
        }
        let pods = match service.spec.as_ref().and_then(|spec| spec.selector.as_ref()) {
            Some(selector) => select::selected(&self.pods, key.namespace(), selector),
            None => Vec::new(),
        };
        let (seen, trigger) = self.times.observe(&key, &service, &pods, endpoints.as_deref());
        let snapshot = Snapshot { service: Some(service), endpoints, pods, trigger };
        self.apply(cx, &key, plan(&snapshot)).await?;
        // Only now: a write that failed is tried again with the same trigger time.
        self.times.commit(key, seen);
        Ok(Action::Done)
    }
}

/// Wakes the services of deleted Endpoints, and, once, of all Endpoints that exist when the process
/// starts: their service may have gone while nobody looked. Endpoints that appear later are not
/// looked at, since people make them by hand before the service.
fn watch_endpoints(setup: &mut Setup<ObjectKey>, endpoints: &Lister<Endpoints>) {
    let registered = Arc::new(AtomicBool::new(false));
    let (done, lister) = (Arc::clone(&registered), endpoints.clone());
    setup.watch(endpoints, move |change, queue| match change {
        Change::Deleted { last, .. } => queue.add(last.key()),
        Change::Added(object) => {
            let at_start = !done.load(Ordering::Acquire) || !lister.has_synced();
            if at_start && !holds_leader_record(object) {
                queue.add(object.key());
            }
        }
        Change::Updated { .. } => {}
    });
    registered.store(true, Ordering::Release);
}

fn add(queue: &Enqueue<ObjectKey>, key: ObjectKey, after: Duration) {
    if after.is_zero() {
        queue.add(key);
    } else {
        queue.add_after(key, after);
    }
}

impl EndpointsController {
    async fn apply(&self, cx: &Cx, key: &ObjectKey, ops: Vec<Op>) -> Result<(), Error> {
        for op in ops {
            match op {
                Op::Create(object) => {
                    let result = cx.api.create(&*object).await;
                    settle_create(cx, &object, result.map(drop))?;
                }
                Op::Replace(object) => {
                    let result = cx.api.replace(&*object).await;
                    settle_replace(cx, &object, result.map(drop))?;
                }
                Op::Delete { uid, resource_version } => {
                    let precondition = DeletePrecondition { uid, resource_version: Some(resource_version) };
                    let kind = Kind::of::<Endpoints>();
                    match cx.api.delete(&kind, key, &precondition, Propagation::Background).await {
                        Err(error) if !error.is_not_found() => return Err(error.into()),
                        _ => {}
                    }
                }
            }
        }
        Ok(())
    }
}

fn settle_create(cx: &Cx, object: &Endpoints, result: Result<(), ApiError>) -> Result<(), Error> {
    let Err(error) = result else { return Ok(()) };
    // Creates in a namespace that is going away can never succeed.
    if error.is_namespace_terminating() {
        return Ok(());
    }
    if error.is_already_exists() {
        return Err(Error::Stale(error.to_string()));
    }
    report(cx, object, reasons::CREATE_FAILED, "create", &error);
    Err(error.into())
}

fn settle_replace(cx: &Cx, object: &Endpoints, result: Result<(), ApiError>) -> Result<(), Error> {
    let Err(error) = result else { return Ok(()) };
    if error.is_not_found() {
        return Err(Error::Stale(error.to_string()));
    }
    report(cx, object, reasons::UPDATE_FAILED, "update", &error);
    Err(error.into())
}

/// An event for errors that somebody should look at: not for lost races or a lost lease.
fn report(cx: &Cx, object: &Endpoints, reason: Reason, verb: &str, error: &ApiError) {
    if matches!(error.class(), Class::Conflict | Class::NotLeader) {
        return;
    }
    let meta = &object.metadata;
    let about = ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Endpoints".to_owned()),
        namespace: meta.namespace.clone(),
        name: meta.name.clone(),
        uid: meta.uid.clone(),
        resource_version: meta.resource_version.clone(),
        ..ObjectReference::default()
    };
    let (namespace, name) = (meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default());
    cx.recorder.event(&about, reason, format!("Could not {verb} the endpoints of service {namespace}/{name}: {error}"));
}
