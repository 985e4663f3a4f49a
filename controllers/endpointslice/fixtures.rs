//! Objects for tests.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use quarterdeck_runtime::object::ObjectKey;
use quarterdeck_runtime::view::{Labels, NodeView, PodPhase, PodView, PortView, Protocol};

use super::plan::{Op, Plan, Snapshot, plan};
use super::topology::{Shares, ZONE};

/// A ready pod on node `n1` without an address.
pub(super) fn pod(name: &str) -> PodView {
    PodView {
        key: ObjectKey::new("ns", name),
        uid: format!("uid-{name}").into(),
        resource_version: "1".into(),
        labels: [("app", "web")].into_iter().collect(),
        deleting: false,
        node: Some("n1".into()),
        hostname: None,
        subdomain: None,
        ports: [PortView { name: "http".into(), port: 8080, protocol: Protocol::Tcp }].into(),
        phase: PodPhase::Running,
        ready: true,
        ready_changed: None,
        created: 0,
        ips: [].into(),
    }
}

/// The ready pod number `number`, with an IPv4 and an IPv6 address of its own.
pub(super) fn numbered(number: u16) -> PodView {
    let [high, low] = number.to_be_bytes();
    let ips = [format!("10.0.{high}.{low}"), format!("fd00::{number:x}")];
    PodView { ips: ips.iter().map(|ip| ip.parse().unwrap()).collect(), ..pod(&format!("p{number:05}")) }
}

/// Ready pods with these numbers.
pub(super) fn pods(numbers: impl IntoIterator<Item = u16>) -> Vec<Arc<PodView>> {
    numbers.into_iter().map(|number| Arc::new(numbered(number))).collect()
}

/// A ready node with four CPUs in a zone; none if the zone is empty.
pub(super) fn node(name: &str, zone: &str) -> NodeView {
    let labels: Labels = Some((ZONE, zone)).filter(|_| !zone.is_empty()).into_iter().collect();
    NodeView {
        uid: format!("uid-{name}").into(),
        resource_version: "1".into(),
        labels,
        ready: true,
        allocatable_cpu_milli: 4000,
        ..NodeView::named(name)
    }
}

/// A service `ns/svc` with an IPv4 cluster IP and port 80 to the pods' 8080.
pub(super) fn service() -> Service {
    Service {
        metadata: ObjectMeta {
            namespace: Some("ns".to_owned()),
            name: Some("svc".to_owned()),
            uid: Some("uid-svc".to_owned()),
            resource_version: Some("1".to_owned()),
            labels: Some(BTreeMap::from([("team".to_owned(), "a".to_owned())])),
            ..ObjectMeta::default()
        },
        spec: Some(ServiceSpec {
            cluster_ip: Some("10.1.0.1".to_owned()),
            ip_families: Some(vec!["IPv4".to_owned()]),
            ports: Some(vec![port("http", IntOrString::Int(8080))]),
            selector: Some(BTreeMap::from([("app".to_owned(), "web".to_owned())])),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}

/// A TCP service port.
pub(super) fn port(name: &str, target: IntOrString) -> ServicePort {
    ServicePort {
        name: Some(name.to_owned()),
        port: 80,
        protocol: Some("TCP".to_owned()),
        target_port: Some(target),
        ..ServicePort::default()
    }
}

/// A service, its world, and a server that stores slices.
pub(super) struct World {
    /// The service.
    pub(super) service: Service,
    /// The pods it selects.
    pub(super) pods: Vec<Arc<PodView>>,
    /// The nodes.
    pub(super) nodes: Vec<NodeView>,
    /// The stored slices.
    pub(super) slices: Vec<Arc<EndpointSlice>>,
    /// Most endpoints in a slice.
    pub(super) max: usize,
    /// The trigger time of the next plan.
    pub(super) trigger: Option<i64>,
    version: u64,
}

impl World {
    /// A world with one node `n1` in zone `a`.
    pub(super) fn new(pods: Vec<Arc<PodView>>) -> Self {
        let nodes = vec![node("n1", "a")];
        Self { service: service(), pods, nodes, slices: Vec::new(), max: 100, trigger: None, version: 1 }
    }

    /// The service's spec.
    pub(super) fn spec(&mut self) -> &mut ServiceSpec {
        self.service.spec.get_or_insert_default()
    }

    /// Changes the pod with this number.
    pub(super) fn edit(&mut self, number: u16, change: impl FnOnce(&mut PodView)) {
        let name = numbered(number).key;
        let pod = self.pods.iter_mut().find(|pod| pod.key == name).expect("pod exists");
        change(Arc::make_mut(pod));
    }

    /// Plans, and stores nothing.
    pub(super) fn plan(&self) -> Plan {
        let shares = Shares::of(&self.nodes);
        plan(&Snapshot {
            service: &self.service,
            pods: &self.pods,
            slices: &self.slices,
            node: &|name| self.nodes.iter().find(|node| node.key.name() == &**name).cloned().map(Arc::new),
            name_taken: &|name| self.slices.iter().any(|slice| slice.metadata.name.as_deref() == Some(name)),
            max_endpoints: self.max,
            shares: shares.as_ref(),
            trigger: self.trigger,
        })
    }

    /// Plans, and stores what the plan says, as a server would. Returns how many slices were
    /// created, updated and deleted.
    pub(super) fn sync(&mut self) -> (usize, usize, usize) {
        let plan = self.plan();
        let (mut creates, mut updates, mut deletes) = (0, 0, 0);
        let obsolete = plan.obsolete.into_iter().map(Op::Delete);
        for op in plan.families.into_iter().flat_map(|family| family.ops).chain(obsolete) {
            self.version += 1;
            match op {
                Op::Create(mut slice) => {
                    creates += 1;
                    assert!(self.slices.iter().all(|s| s.metadata.name != slice.metadata.name), "name is free");
                    slice.metadata.uid = Some(format!("uid-{}", self.version));
                    slice.metadata.resource_version = Some(self.version.to_string());
                    self.slices.push(Arc::new(slice));
                }
                Op::Update(mut slice) => {
                    updates += 1;
                    let stored = self.slices.iter_mut().find(|s| s.metadata.name == slice.metadata.name);
                    let stored = stored.expect("an updated slice exists");
                    assert_eq!(stored.metadata.resource_version, slice.metadata.resource_version, "precondition");
                    assert_eq!(stored.address_type, slice.address_type, "the address type cannot change");
                    slice.metadata.resource_version = Some(self.version.to_string());
                    *stored = Arc::new(slice);
                }
                Op::Delete(slice) => {
                    deletes += 1;
                    self.slices.retain(|s| !Arc::ptr_eq(s, &slice));
                }
            }
        }
        (creates, updates, deletes)
    }

    /// The sizes of the stored slices, largest first.
    pub(super) fn sizes(&self) -> Vec<usize> {
        let mut sizes: Vec<usize> = self.slices.iter().map(|slice| super::slice::len(slice)).collect();
        sizes.sort_unstable_by(|a, b| b.cmp(a));
        sizes
    }

    /// All stored endpoints.
    pub(super) fn endpoints(&self) -> Vec<&Endpoint> {
        self.slices.iter().flat_map(|slice| slice.endpoints.iter().flatten()).collect()
    }

    /// The stored endpoint of the pod with this number.
    pub(super) fn endpoint(&self, number: u16) -> &Endpoint {
        let name = numbered(number).key;
        let is_it = |endpoint: &&Endpoint| {
            endpoint.target_ref.as_ref().and_then(|target| target.name.as_deref()) == Some(name.name())
        };
        self.endpoints().into_iter().find(is_it).expect("endpoint exists")
    }

    /// Changes the stored slice at a place, as a foreign writer would.
    pub(super) fn tamper(&mut self, at: usize, change: impl FnOnce(&mut EndpointSlice)) {
        self.version += 1;
        let slice = Arc::make_mut(&mut self.slices[at]);
        change(slice);
        slice.metadata.resource_version = Some(self.version.to_string());
    }
}
