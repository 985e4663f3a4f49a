//! The service controller: a load balancer for each Service of type `LoadBalancer`.
//!
//! Behaviour: cloud-provider:controllers/service/controller.go v0.36.3. What differs, and why, stands in
//! `docs/controllers/service-lb-controller.md`.

mod address;
mod audit;
mod complaint;
mod config;
mod key;
mod memory;
mod metrics;
mod node;
mod plan;
pub mod reasons;
mod record;
mod remove;
mod status;
mod steady;
mod sync;
#[cfg(test)]
mod upstream_tests;
mod watch;
mod wish;

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Namespace, Service};
use quarterdeck_api::cloud::pool::{AddressPool, AddressReservation};
use quarterdeck_cloud::error::Result as CloudResult;
use quarterdeck_cloud::provider::CallClass;
use quarterdeck_cloud::{Cloud, CloudError, Guarded};
use quarterdeck_runtime::controller::{
    Action, ClientShare, Controller, Cx, Descriptor, Error, Grant, Predecessor, Setup, SetupError,
};
use quarterdeck_runtime::informer::{Lister, Selection};
use quarterdeck_runtime::object::Cached as _;
use quarterdeck_runtime::queue::{Enqueue, Retry};
use quarterdeck_runtime::view::NodeView;
use tokio::sync::{Semaphore, SemaphorePermit};

use address::Addresses;
use complaint::Complaints;
use config::Classes;
use memory::Memory;
use metrics::Metrics;
use watch::NodesChanged;

pub use config::ServiceLbConfig;
pub use key::Key;

/// First and longest delay after a failure; upstream's.
const RETRY: Retry = Retry { base: Duration::from_secs(5), max: Duration::from_secs(300), tries: None };
/// Keeps a load balancer for each Service that wants one.
pub struct ServiceLbController {
    /// Nothing without a cloud.
    balancer: Option<Balancer>,
}

/// The controller, where there is a cloud.
struct Balancer {
    cloud: Arc<Cloud>,
    classes: Classes,
    services: Lister<Service>,
    nodes: Lister<NodeView>,
    addresses: Arc<Addresses>,
    memory: Memory,
    complaints: Complaints,
    audits: audit::Audits,
    nodes_changed: NodesChanged,
    metrics: Metrics,
    queue: Enqueue<Key>,
    /// Workers that each provider may occupy, in the order of the flag: one that hangs leaves some to the others.
    shares: Vec<Semaphore>,
}

impl Controller for ServiceLbController {
    const DESCRIPTOR: Descriptor = Descriptor {
        name: "service-lb-controller",
        aliases: &["service"],
        enabled_by_default: true,
        account: "service-controller",
        upstream_role: true,
        writes_anything: false,
        predecessor: Some(Predecessor::CloudControllerManager),
        queue: "service",
        // Two patches, a reservation and two events a Service: 500 Services within the minute that their cloud needs.
        share: ClientShare { qps: 5.0, burst: 10 },
    };
    type Config = ServiceLbConfig;
    type Key = Key;

    fn setup(config: &ServiceLbConfig, setup: &mut Setup<Key>) -> Result<Self, SetupError> {
        if config.concurrent_service_syncs == 0 {
            return Err(SetupError { flag: "concurrent-service-syncs", reason: "must be at least 1".to_owned() });
        }
        let audit_period = config.audit_period()?;
        let orphan_grace = config.orphan_grace()?;
        let Some(cloud) = Cloud::join(setup)? else { return Ok(Self { balancer: None }) };
        let names: Vec<&str> = cloud.providers().iter().map(|provider| provider.name()).collect();
        let classes = Classes::read(&config.load_balancer_class, &names, cloud.most() > names.len())?;

        setup.workers(config.concurrent_service_syncs);
        setup.retry(RETRY);
        grants(setup, &cloud);

        let services = setup.informer::<Service>(Selection::default());
        let nodes = setup.informer::<NodeView>(Selection::default());
        let pools = setup.informer::<AddressPool>(Selection::default());
        let reservations = setup.informer::<AddressReservation>(Selection::default());
        let namespaces = setup.informer::<Namespace>(Selection::default());
        services.add_index(watch::balanced());
        let addresses = Arc::new(Addresses::new(pools, reservations, namespaces));
        let nodes_changed = NodesChanged::default();
        watch::watch_services(setup, &services);
        watch::watch_nodes(setup, &nodes, &services, &nodes_changed);
        watch::watch_addresses(setup, &addresses);
        let queue = setup.queue();
        for at in 0..cloud.most() {
            queue.add(Key::Audit(at));
        }
        let (joined, waiting) = (queue.clone(), services.clone());
        cloud.on_join(move |at| {
            joined.add(Key::Audit(at));
            // Those that nobody looked after before are its own.
            waiting.indexed(watch::BALANCED, watch::YES).iter().for_each(|own| joined.add(Key::Service(own.key())));
        });

        let share = share(config.concurrent_service_syncs, cloud.providers().len());
        // Also for plug-ins that join later.
        let shares = (0..cloud.most()).map(|_| Semaphore::new(share)).collect();
        let metrics = Metrics::new(setup.metrics());
        let audits = audit::Audits::new(audit_period, orphan_grace, config.deletion_of_orphans()?);
        let memory = Memory::default();
        let balancer = Balancer {
            cloud,
            classes,
            services,
            nodes,
            addresses,
            memory,
            complaints: Complaints::default(),
            audits,
            nodes_changed,
            metrics,
            queue,
            shares,
        };
        Ok(Self { balancer: Some(balancer) })
    }

    async fn reconcile(&self, cx: &Cx, key: Key) -> Result<Action, Error> {
        let Some(balancer) = &self.balancer else { return Ok(Action::Done) };
        balancer.cloud.report_trouble(&cx.recorder);
        match key {
            Key::Service(key) => balancer.sync_service(cx, &key).await,
            Key::Pool(name) => balancer.addresses.sync_pool(cx, &name).await,
            Key::Audit(at) => balancer.audit(cx, at).await,
        }
    }
}

/// Rights beyond upstream's role: reservations, the status of pools, and what providers need.
fn grants(setup: &mut Setup<Key>, cloud: &Cloud) {
    let group = quarterdeck_api::cloud::GROUP;
    setup.grant(Grant { group, resource: "addressreservations", verbs: &["create", "update", "delete"] });
    setup.grant(Grant { group, resource: "addresspools/status", verbs: &["patch"] });
    cloud.load_balancer_grants().for_each(|grant| setup.grant(grant));
}

/// How many of the workers one of several providers may occupy.
fn share(workers: usize, providers: usize) -> usize {
    workers.checked_div(providers).unwrap_or(workers).max(1)
}

impl Balancer {
    /// A place among the workers for a call to this provider; `None` if it occupies its share already.
    fn place_for(&self, name: &str) -> Option<SemaphorePermit<'_>> {
        let at = self.cloud.providers().iter().position(|provider| provider.name() == name)?;
        self.shares[at].try_acquire().ok()
    }

    /// The providers' names, of those that are there by now.
    fn names(&self) -> Vec<&str> {
        self.cloud.providers().iter().map(|provider| provider.name()).collect()
    }

    /// The provider of this name.
    fn provider(&self, name: &str) -> Option<&Arc<Guarded>> {
        self.cloud.providers().iter().find(|provider| provider.name() == name)
    }

    /// The provider that looks after Services of this class: the first one of the class that makes load balancers.
    ///
    /// # Errors
    /// When one does not say whether it does.
    async fn provider_of_class(&self, class: Option<&str>) -> CloudResult<Option<&Arc<Guarded>>> {
        let providers = self.cloud.providers();
        for at in self.classes.candidates(class, &self.names()) {
            let provider = &providers[at];
            let busy = || CloudError::Busy {
                provider: provider.name().to_owned(),
                class: CallClass::Read.name(),
                waited: Duration::ZERO,
            };
            let _place = self.shares[at].try_acquire().map_err(|_| busy())?;
            if provider.info().await?.load_balancers {
                return Ok(Some(provider));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod share_tests {
    use super::share;

    #[test]
    fn a_provider_leaves_workers_to_the_others() {
        for (workers, providers, expected) in [(24, 1, 24), (24, 2, 12), (24, 5, 4), (1, 3, 1), (24, 0, 24)] {
            assert_eq!(share(workers, providers), expected, "{workers} {providers}");
        }
    }
}
