//! The controller over caches that a test fills: what it enqueues, and what it plans from them.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::time::Duration;

use futures::FutureExt as _;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use prometheus::Registry;
use quarterdeck_runtime::controller::{Controller as _, Setup};
use quarterdeck_runtime::informer::testing::Feed;
use quarterdeck_runtime::informer::{Informers, Selection};
use quarterdeck_runtime::object::ObjectKey;
use quarterdeck_runtime::queue::{Queue, QueueMetricFamilies};
use quarterdeck_runtime::view::{NodeView, PodView};

use super::fixtures::{node, numbered, service};
use super::plan::{Op, Plan};
use super::topology::ZoneCounts;
use super::{Config, EndpointSliceController, Family, Key};

/// A controller, and the caches it reads.
struct Bench {
    controller: EndpointSliceController,
    services: Feed<Service>,
    pods: Feed<PodView>,
    nodes: Feed<NodeView>,
    slices: Feed<EndpointSlice>,
    queue: Queue<Key>,
    version: Cell<u32>,
}

impl Bench {
    fn new(batch_period: Duration) -> Self {
        let (informers, registry) = (Informers::new(), Registry::new());
        let queue = Queue::new(QueueMetricFamilies::register(&registry).unwrap().queue("endpoint_slice"));
        let mut setup = Setup::new(informers.clone(), queue.enqueue(), registry);
        let config = Config { concurrent_syncs: 1, max_endpoints: 100, batch_period };
        let controller = EndpointSliceController::setup(&config, &mut setup).unwrap();
        let bench = Self {
            controller,
            services: Feed::of(&informers, Selection::default()),
            pods: Feed::of(&informers, Selection::default()),
            nodes: Feed::of(&informers, Selection::default()),
            slices: Feed::of(&informers, Selection::default()),
            queue,
            version: Cell::new(1),
        };
        bench.nodes.sync([node("n1", "a")]);
        bench.services.sync([service()]);
        bench.pods.sync([numbered(1), numbered(2)]);
        bench.slices.sync([]);
        bench
    }

    fn next_version(&self) -> String {
        self.version.update(|version| version + 1);
        self.version.get().to_string()
    }

    /// The server stores a new state of a pod.
    fn pod(&self, pod: PodView) {
        self.pods.apply(PodView { resource_version: self.next_version().into(), ..pod });
    }

    /// The server stores a new state of a node.
    fn node(&self, node: NodeView) {
        self.nodes.apply(NodeView { resource_version: self.next_version().into(), ..node });
    }

    /// The server stores a new state of a service.
    fn service(&self, mut service: Service) {
        service.metadata.resource_version = Some(self.next_version());
        self.services.apply(service);
    }

    /// The keys that wait, each once; they count as done.
    fn take(&self) -> Vec<String> {
        let mut keys = Vec::new();
        while let Some(taken) = self.queue.take().now_or_never() {
            self.queue.done(&taken.key);
            keys.push(taken.key.to_string());
        }
        keys.sort();
        keys
    }

    fn plan(&self) -> Plan {
        self.controller.plan(&ObjectKey::new("ns", "svc")).expect("a service with a selector").plan
    }

    /// Stores what the plan says.
    fn store(&self) {
        for op in self.plan().families.into_iter().flat_map(|family| family.ops) {
            match op {
                Op::Create(slice) | Op::Update(slice) => self.slices.apply(slice),
                Op::Delete(_) => panic!("nothing to delete"),
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_service_is_enqueued_once_and_planned_from_the_caches() {
    let bench = Bench::new(Duration::ZERO);
    assert_eq!(bench.take(), ["ns/svc"]);
    assert_eq!(bench.plan().families[0].added, 2);
    bench.store();
    assert!(bench.plan().is_empty());
}

#[tokio::test(start_paused = true)]
async fn changes_of_pods_enqueue_the_services_that_select_them() {
    let bench = Bench::new(Duration::ZERO);
    let mut other = service();
    other.metadata.name = Some("other".to_owned());
    other.spec.as_mut().unwrap().selector = Some(BTreeMap::from([("app".to_owned(), "db".to_owned())]));
    bench.service(other);
    bench.take();

    bench.pod(numbered(1));
    assert_eq!(bench.take(), Vec::<String>::new(), "nothing that matters");
    bench.pod(PodView { ready: false, ..numbered(1) });
    assert_eq!(bench.take(), ["ns/svc"]);
    bench.pod(PodView { labels: [("app", "db")].into_iter().collect(), ..numbered(1) });
    assert_eq!(bench.take(), ["ns/other", "ns/svc"]);
    bench.pods.delete(&numbered(2).key);
    assert_eq!(bench.take(), ["ns/svc"]);
}

#[tokio::test(start_paused = true)]
async fn a_batch_period_collects_changes_of_pods() {
    let bench = Bench::new(Duration::from_secs(5));
    bench.take();
    bench.pod(PodView { ready: false, ..numbered(1) });
    assert_eq!(bench.take(), Vec::<String>::new());
    tokio::time::advance(Duration::from_secs(5)).await;
    assert_eq!(bench.take(), ["ns/svc"]);
}

#[tokio::test(start_paused = true)]
async fn a_foreign_change_of_a_slice_is_looked_at_after_a_second() {
    let bench = Bench::new(Duration::ZERO);
    bench.take();
    bench.store();
    tokio::time::advance(Duration::from_millis(999)).await;
    assert_eq!(bench.take(), Vec::<String>::new());
    tokio::time::advance(Duration::from_millis(1)).await;
    assert_eq!(bench.take(), ["ns/svc"]);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_appears_enqueues_the_services_that_miss_it() {
    let bench = Bench::new(Duration::ZERO);
    bench.pod(PodView { node: Some("n2".into()), ..numbered(2) });
    assert_eq!(bench.plan().missing.len(), 1);
    bench.take();
    bench.node(node("n3", "a"));
    assert_eq!(bench.take(), Vec::<String>::new());
    bench.node(node("n2", "a"));
    assert_eq!(bench.take(), ["ns/svc"]);
    assert!(bench.plan().missing.is_empty());
}

#[tokio::test(start_paused = true)]
async fn nodes_concern_services_whose_zones_they_overload() {
    let bench = Bench::new(Duration::ZERO);
    bench.node(node("n2", "b"));
    assert_eq!(bench.take(), ["ns/svc"], "no service in mode Auto: nodes are nobody's business");

    let mut auto = service();
    let mode = ("service.kubernetes.io/topology-mode".to_owned(), "Auto".to_owned());
    auto.metadata.annotations = Some([mode].into());
    bench.service(auto);
    let key = ObjectKey::new("ns", "svc");
    let outcome = bench.plan().families.remove(0).topology.unwrap().unwrap();
    assert_eq!(outcome, ZoneCounts::from([("a".to_owned(), 1), ("b".to_owned(), 1)]));
    bench.controller.topology.set(&key, Family::V4, Some(Some(outcome)));
    bench.take();

    bench.node(NodeView { allocatable_cpu_milli: 40_000, ..node("n1", "a") });
    assert_eq!(bench.take(), ["nodes"]);
    bench.controller.look_at_nodes();
    assert_eq!(bench.take(), ["ns/svc"], "half the endpoints for ten elevenths of the CPUs");
    bench.controller.look_at_nodes();
    assert_eq!(bench.take(), Vec::<String>::new(), "the same shares are looked at once");
}

#[tokio::test(start_paused = true)]
async fn nodes_that_change_during_a_reconcile_are_not_missed() {
    let bench = Bench::new(Duration::ZERO);
    let mut auto = service();
    let mode = ("service.kubernetes.io/topology-mode".to_owned(), "Auto".to_owned());
    auto.metadata.annotations = Some([mode].into());
    bench.service(auto);
    bench.node(node("n2", "b"));
    let key = ObjectKey::new("ns", "svc");
    let planned = bench.controller.plan(&key).unwrap();
    bench.take();
    bench.controller.look_again_unless(&key, planned.shares.as_ref());
    assert_eq!(bench.take(), Vec::<String>::new(), "nothing changed");

    bench.node(node("n2", "a"));
    bench.controller.look_at_nodes();
    assert_eq!(bench.take(), Vec::<String>::new(), "whether the service has hints is not known yet");
    bench.controller.look_again_unless(&key, planned.shares.as_ref());
    assert_eq!(bench.take(), ["ns/svc"]);
}

#[tokio::test(start_paused = true)]
async fn services_without_a_selector_are_left_alone() {
    let bench = Bench::new(Duration::ZERO);
    let key = ObjectKey::new("ns", "svc");
    type Edit = fn(&mut Service);
    let edits: [(&str, Edit); 3] = [
        ("none", |service| service.spec.as_mut().unwrap().selector = None),
        ("empty", |service| service.spec.as_mut().unwrap().selector = Some(BTreeMap::new())),
        ("external", |service| service.spec.as_mut().unwrap().type_ = Some("ExternalName".to_owned())),
    ];
    for (what, edit) in edits {
        let mut changed = service();
        edit(&mut changed);
        bench.service(changed);
        assert!(bench.controller.plan(&key).is_none(), "{what}");
    }
    bench.services.delete(&key);
    assert!(bench.controller.plan(&key).is_none(), "gone");
}

#[test]
fn setup_names_the_flag_that_makes_no_sense() {
    let registry = Registry::new();
    let queue = Queue::new(QueueMetricFamilies::register(&registry).unwrap().queue("endpoint_slice"));
    let mut setup = Setup::new(Informers::new(), queue.enqueue(), registry);
    let config = Config { concurrent_syncs: 5, max_endpoints: 0, batch_period: Duration::ZERO };
    let error = EndpointSliceController::setup(&config, &mut setup).err().expect("0 endpoints a slice");
    assert_eq!(error.to_string(), "--max-endpoints-per-slice: must be between 1 and 1000, is 0");
}
