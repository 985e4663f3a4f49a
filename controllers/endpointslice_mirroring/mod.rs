//! The endpointslice mirroring controller copies hand-made Endpoints objects, those of services
//! without a selector, into EndpointSlices, which is what proxies read.
//!
//! Behaviour follows pkg/controller/endpointslicemirroring v1.36.3; what differs stands in
//! `docs/controllers/endpointslice-mirroring-controller.md`.

mod config;
mod desired;
mod metrics;
mod plan;
pub mod reasons;
mod sync;
mod watch;

#[cfg(test)]
mod plan_tests;
#[cfg(test)]
mod watch_tests;

use std::time::Duration;

use k8s_openapi::api::core::v1::{Endpoints, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use quarterdeck_runtime::controller::{
    Action, ClientShare, Controller, Cx, Descriptor, Error, Predecessor, Setup, SetupError,
};
use quarterdeck_runtime::informer::{Lister, Selection};
use quarterdeck_runtime::object::{Cached as _, ObjectKey};
use quarterdeck_runtime::queue::Retry;

pub use config::Config;
pub use plan::{Op, Plan, Snapshot, plan};

use metrics::Metrics;

/// Label that names the service of a slice.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// Label that names the manager of a slice.
pub const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
/// Our value of [`MANAGED_BY`], the same as upstream's, so that slices are handed over as they are.
pub const MANAGER: &str = "endpointslicemirroring-controller.k8s.io";

/// The endpointslice mirroring controller.
pub struct EndpointSliceMirroringController {
    endpoints: Lister<Endpoints>,
    services: Lister<Service>,
    slices: Lister<EndpointSlice>,
    max_endpoints: usize,
    metrics: Metrics,
}

impl Controller for EndpointSliceMirroringController {
    const DESCRIPTOR: Descriptor = Descriptor {
        name: "endpointslice-mirroring-controller",
        aliases: &["endpointslicemirroring"],
        enabled_by_default: true,
        account: "endpointslicemirroring-controller",
        upstream_role: true,
        writes_anything: false,
        predecessor: Some(Predecessor::KubeControllerManager),
        queue: "endpoint_slice_mirroring",
        share: ClientShare::ONE,
    };
    type Config = Config;
    type Key = ObjectKey;

    fn setup(config: &Config, setup: &mut Setup<ObjectKey>) -> Result<Self, SetupError> {
        config.validate()?;
        setup.workers(usize::from(config.mirroring_concurrent_syncs));
        setup.retry(Retry { base: Duration::from_secs(1), max: Duration::from_secs(100), tries: Some(15) });

        let services = setup.informer::<Service>(Selection::default());
        let endpoints = setup.informer::<Endpoints>(Selection::default());
        let slices = setup.informer::<EndpointSlice>(Selection::default());
        slices.add_index(watch::by_service());

        setup.watch(&services, |change, queue| {
            if watch::service_matters(&change) {
                queue.add(change.object().key());
            }
        });
        let known = services.clone();
        setup.watch(&endpoints, move |change, queue| {
            let has_selector = |key: &ObjectKey| known.get(key).map(|service| watch::has_selector(&service));
            if watch::endpoints_matter(&change, has_selector) {
                queue.add(change.object().key());
            }
        });
        let batch = config.mirroring_batch_period;
        setup.watch(&slices, move |change, queue| {
            watch::on_slice(&change, |key| match batch {
                Duration::ZERO => queue.add(key),
                batch => queue.add_after(key, batch),
            });
        });

        Ok(Self {
            endpoints,
            services,
            slices,
            max_endpoints: usize::from(config.mirroring_max_endpoints),
            metrics: Metrics::new(setup.metrics()),
        })
    }

    async fn reconcile(&self, cx: &Cx, key: ObjectKey) -> Result<Action, Error> {
        let began = tokio::time::Instant::now();
        let result = self.sync(cx, &key).await;
        self.metrics.synced(began.elapsed());
        result.map(|()| Action::Done)
    }
}
