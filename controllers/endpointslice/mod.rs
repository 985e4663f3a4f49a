//! The endpointslice controller keeps the EndpointSlices of every service with a selector: which
//! pods stand behind it, at which addresses and ports, and whether they are ready.
//!
//! One reconcile reads a service, the pods it selects (by label index, never a whole namespace),
//! their nodes and the service's slices, plans the fewest writes ([`plan`]) and sends them.
//! Behaviour follows pkg/controller/endpointslice and k8s.io/endpointslice v1.36.3; what differs
//! stands in `docs/controllers/endpointslice-controller.md`.

mod apply;
mod config;
mod endpoint;
mod family;
#[cfg(test)]
mod fixtures;
mod hints;
mod metrics;
mod own_writes;
mod pack;
mod plan;
mod ports;
pub mod reasons;
mod slice;
mod sync;
mod topology;
mod trigger;
mod watch;

#[cfg(test)]
mod cache_tests;
#[cfg(test)]
mod plan_tests;
#[cfg(test)]
mod proptests;
#[cfg(test)]
mod topology_tests;
#[cfg(test)]
mod watch_tests;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use quarterdeck_runtime::client::Class;
use quarterdeck_runtime::controller::{
    Action, ClientShare, Controller, Cx, Descriptor, Error, Predecessor, Setup, SetupError,
};
use quarterdeck_runtime::informer::{Lister, Selection};
use quarterdeck_runtime::object::{Cached as _, ObjectKey};
use quarterdeck_runtime::queue::{Enqueue, Retry};
use quarterdeck_runtime::select::{by_label, by_selector, selecting};
use quarterdeck_runtime::view::{NodeView, PodView};

pub use config::Config;
pub use family::{Families, Family};
pub use hints::Mode;
pub use plan::{FamilyPlan, MissingNode, Op, Plan, Snapshot, plan};
pub use slice::{HEADLESS, MANAGED_BY, MANAGER, SERVICE_NAME, TRIGGER_TIME};
pub use topology::{Shares, ZoneCounts};

use metrics::Metrics;
use own_writes::OwnWrites;
use sync::Topology;
use trigger::TriggerTimes;
use watch::{NodeNews, Waiting};

/// What a reconcile is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Key {
    /// The slices of a service.
    Service(ObjectKey),
    /// The zones' shares of CPUs have changed: services in topology mode Auto may need new hints.
    Nodes,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service(key) => key.fmt(f),
            Self::Nodes => f.write_str("nodes"),
        }
    }
}

/// The endpointslice controller.
pub struct EndpointSliceController {
    services: Lister<Service>,
    pods: Lister<PodView>,
    nodes: Lister<NodeView>,
    slices: Lister<EndpointSlice>,
    queue: Enqueue<Key>,
    max_endpoints: usize,
    metrics: Metrics,
    triggers: TriggerTimes,
    own: Arc<OwnWrites>,
    waiting: Arc<Waiting>,
    topology: Arc<Topology>,
}

impl Controller for EndpointSliceController {
    const DESCRIPTOR: Descriptor = Descriptor {
        name: "endpointslice-controller",
        aliases: &["endpointslice"],
        enabled_by_default: true,
        account: "endpointslice-controller",
        upstream_role: true,
        writes_anything: false,
        predecessor: Some(Predecessor::KubeControllerManager),
        queue: "endpoint_slice",
        share: ClientShare::ONE,
    };
    type Config = Config;
    type Key = Key;

    fn setup(config: &Config, setup: &mut Setup<Key>) -> Result<Self, SetupError> {
        config.validate()?;
        setup.workers(usize::from(config.concurrent_syncs));
        setup.retry(Retry { base: Duration::from_secs(1), max: Duration::from_secs(1000), tries: Some(15) });

        let services = setup.informer::<Service>(Selection::default());
        services.add_index(by_selector());
        let pods = setup.informer::<PodView>(Selection::default());
        pods.add_index(by_label());
        let nodes = setup.informer::<NodeView>(Selection::default());
        let slices = setup.informer::<EndpointSlice>(Selection::default());
        slices.add_index(watch::by_service());

        let own = Arc::new(OwnWrites::default());
        let waiting = Arc::new(Waiting::default());
        let topology = Arc::new(Topology::default());
        let batch = config.batch_period;

        setup.watch(&services, |change, queue| watch::on_service(&change, queue));
        let known = services.clone();
        setup.watch(&pods, move |change, queue| {
            for service in watch::concerned(&change).flat_map(|pod| selecting(&known, pod)) {
                let key = Key::Service(service.key());
                if batch.is_zero() { queue.add(key) } else { queue.add_after(key, batch) }
            }
        });
        let written = Arc::clone(&own);
        setup.watch(&slices, move |change, queue| {
            watch::on_slice(&change, &written, |service, delay| {
                queue.add_after(Key::Service(service), delay.max(batch));
            });
        });
        let (waiters, shares) = (Arc::clone(&waiting), Arc::clone(&topology));
        setup.watch(&nodes, move |change, queue| {
            let news = watch::on_node(&change);
            if news == NodeNews::Appeared {
                waiters.for_node(change.object().key().name()).into_iter().for_each(|key| queue.add(Key::Service(key)));
            }
            if news != NodeNews::None && shares.outdate() {
                queue.add(Key::Nodes);
            }
        });

        Ok(Self {
            services,
            pods,
            nodes,
            slices,
            queue: setup.queue(),
            max_endpoints: usize::from(config.max_endpoints),
            metrics: Metrics::new(setup.metrics()),
            triggers: TriggerTimes::default(),
            own,
            waiting,
            topology,
        })
    }

    async fn reconcile(&self, cx: &Cx, key: Key) -> Result<Action, Error> {
        let key = match key {
            Key::Service(key) => key,
            Key::Nodes => {
                self.look_at_nodes();
                return Ok(Action::Done);
            }
        };
        let result = self.sync(cx, &key).await;
        match result.as_ref().map_err(Error::class) {
            Ok(()) => self.metrics.synced("success"),
            Err(Class::Conflict) => self.metrics.synced("stale"),
            Err(Class::Transient | Class::Terminal) => self.metrics.synced("error"),
            Err(Class::NotLeader) => {}
        }
        result.map(|()| Action::Done)
    }
}
