//! What to write so that a service's slices hold its endpoints. Pure.

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use quarterdeck_runtime::view::{NodeView, PodView};

use super::endpoint::{Wanted, is_candidate};
use super::family::{Families, Family};
use super::hints::{self, Mode};
use super::pack::{Drafts, pack};
use super::ports::PortSets;
use super::slice::{self, TRIGGER_TIME, Template};
use super::topology::{self, Shares, ZONE, ZoneCounts};

/// All that a plan rests on.
pub struct Snapshot<'a> {
    /// The service; it has a selector.
    pub service: &'a Service,
    /// The pods it selects.
    pub pods: &'a [Arc<PodView>],
    /// Its slices under our management that are not being deleted.
    pub slices: &'a [Arc<EndpointSlice>],
    /// Looks a node up.
    pub node: &'a dyn Fn(&Arc<str>) -> Option<Arc<NodeView>>,
    /// Whether an object of this name is in the service's namespace, whoever manages it.
    pub name_taken: &'a dyn Fn(&str) -> bool,
    /// Most endpoints that a slice gets.
    pub max_endpoints: usize,
    /// The zones' shares, for topology mode Auto.
    pub shares: Option<&'a Shares>,
    /// When what led here happened, whole seconds since 1970.
    pub trigger: Option<i64>,
}

/// One write.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// Create a slice.
    Create(EndpointSlice),
    /// Replace a slice; it carries the resourceVersion it rests on.
    Update(EndpointSlice),
    /// Delete a slice, as it stands in the cache.
    Delete(Arc<EndpointSlice>),
}

/// The writes for one IP family, and what is worth counting.
#[derive(Debug)]
pub struct FamilyPlan {
    /// The family.
    pub family: Family,
    /// Creates, then updates, then deletes.
    pub ops: Vec<Op>,
    /// Endpoints that come anew.
    pub added: usize,
    /// Endpoints that go.
    pub removed: usize,
    /// Endpoints that there shall be.
    pub endpoints: usize,
    /// Slices that there shall be.
    pub slices: usize,
    /// Slices that would do, were all of them full.
    pub ideal_slices: usize,
    /// Endpoints by zone in topology mode Auto, or why there are no hints; none in other modes.
    pub topology: Option<Result<ZoneCounts, String>>,
}

/// A pod that is left out because its node is not known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissingNode {
    /// The pod's name.
    pub pod: String,
    /// The node it names; none if it names none.
    pub node: Option<Arc<str>>,
}

/// What to do for one service.
#[derive(Debug)]
pub struct Plan {
    /// How its traffic is to be routed.
    pub mode: Mode,
    /// The writes by family.
    pub families: Vec<FamilyPlan>,
    /// Slices of families that the service no longer has.
    pub obsolete: Vec<Arc<EndpointSlice>>,
    /// Pods left out for now.
    pub missing: Vec<MissingNode>,
}

impl Plan {
    /// Whether nothing needs to be written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.obsolete.is_empty() && self.families.iter().all(|family| family.ops.is_empty())
    }
}

/// A pod that belongs among the endpoints.
struct Candidate<'a> {
    pod: &'a PodView,
    zone: Option<&'a str>,
    /// Number of its port set.
    set: usize,
}

/// Plans the writes for a service (k8s.io/endpointslice:reconciler.go v0.36.3).
#[must_use]
pub fn plan(snapshot: &Snapshot<'_>) -> Plan {
    let service = snapshot.service;
    let pods: Vec<&PodView> = snapshot.pods.iter().map(AsRef::as_ref).filter(|pod| is_candidate(pod)).collect();
    let mut nodes: HashMap<&str, Option<Arc<NodeView>>> = HashMap::new();
    for node in pods.iter().filter_map(|pod| pod.node.as_ref()) {
        nodes.entry(node).or_insert_with(|| (snapshot.node)(node));
    }

    let mut sets = PortSets::new(service);
    let mut missing = Vec::new();
    let mut candidates = Vec::with_capacity(pods.len());
    for pod in pods {
        let node = pod.node.as_deref().and_then(|name| nodes.get(name)?.as_deref());
        if node.is_none() && !publishes_not_ready(service) {
            missing.push(MissingNode { pod: pod.key.name().to_owned(), node: pod.node.clone() });
            continue;
        }
        let zone = node.and_then(|node| node.labels.get(ZONE)).filter(|zone| !zone.is_empty());
        candidates.push(Candidate { pod, zone, set: sets.of(pod) });
    }

    let families = Family::of_service(service);
    let template = Template::of(service);
    let mode = Mode::of(service);
    let plans = Family::ALL.into_iter().filter(|family| families.has(*family));
    Plan {
        mode,
        families: plans.map(|family| plan_family(snapshot, &candidates, &sets, &template, mode, family)).collect(),
        obsolete: obsolete(snapshot.slices, families),
        missing,
    }
}

fn publishes_not_ready(service: &Service) -> bool {
    service.spec.as_ref().and_then(|spec| spec.publish_not_ready_addresses) == Some(true)
}

fn obsolete(slices: &[Arc<EndpointSlice>], families: Families) -> Vec<Arc<EndpointSlice>> {
    slices.iter().filter(|slice| !families.has_type(&slice.address_type)).cloned().collect()
}

/// The endpoint of a pod in a family (k8s.io/endpointslice:utils.go podToEndpoint v0.36.3): a
/// terminating pod is never ready, unless addresses that are not ready are asked for.
fn wanted<'a>(service: &Service, candidate: &Candidate<'a>, family: Family) -> Wanted<'a> {
    let pod = candidate.pod;
    let in_domain = pod.subdomain.as_deref() == service.metadata.name.as_deref();
    Wanted {
        pod,
        family,
        zone: candidate.zone,
        hostname: pod.hostname.as_deref().filter(|_| in_domain),
        ready: publishes_not_ready(service) || (pod.ready && !pod.deleting),
        serving: pod.ready,
        terminating: pod.deleting,
    }
}

fn plan_family(
    snapshot: &Snapshot<'_>,
    candidates: &[Candidate<'_>],
    sets: &PortSets<'_>,
    template: &Template<'_>,
    mode: Mode,
    family: Family,
) -> FamilyPlan {
    let mut by_set: Vec<Vec<Wanted<'_>>> = (0..sets.len()).map(|_| Vec::new()).collect();
    for candidate in candidates {
        let wanted = wanted(snapshot.service, candidate, family);
        if wanted.has_address() {
            by_set[candidate.set].push(wanted);
        }
    }

    let mut drafts = Drafts::default();
    let mut existing: Vec<&Arc<EndpointSlice>> =
        snapshot.slices.iter().filter(|slice| slice.address_type == family.address_type()).collect();
    existing.sort_unstable_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
    let mut existing_by_set: Vec<Vec<&Arc<EndpointSlice>>> = by_set.iter().map(|_| Vec::new()).collect();
    for slice in existing {
        let set = sets.matching(slice.ports.as_deref()).filter(|set| !by_set[*set].is_empty());
        match set.filter(|_| slice::is_owned_by(slice, snapshot.service)) {
            Some(set) => existing_by_set[set].push(slice),
            None => drafts.delete.push(Arc::clone(slice)),
        }
    }

    let max = snapshot.max_endpoints;
    for (set, (wanted, existing)) in by_set.iter().zip(&existing_by_set).enumerate() {
        pack(&mut drafts, existing, wanted, template, (family, || sets.build(set)), max);
    }
    place_holder(&mut drafts, snapshot.service, template, family);

    let topology = match mode {
        Mode::Off => {
            hints::remove(&mut drafts);
            None
        }
        Mode::SameZone => {
            hints::prefer_near(&mut drafts, false);
            None
        }
        Mode::SameNode => {
            hints::prefer_near(&mut drafts, true);
            None
        }
        Mode::Auto => Some(topology::add(&mut drafts, snapshot.shares)),
    };

    let counts = by_set.iter().map(Vec::len);
    FamilyPlan {
        family,
        added: drafts.added,
        removed: drafts.removed,
        endpoints: counts.clone().sum(),
        slices: drafts.create.len() + drafts.update.len() + drafts.keep.len(),
        ideal_slices: counts.map(|count| count.div_ceil(max)).sum::<usize>().max(1),
        ops: ops(drafts, snapshot, template, family),
        topology,
    }
}

/// Where no slice would be left, there is to be one without ports and endpoints, so that proxies
/// and dashboards can tell an empty service from one that nobody looked at.
fn place_holder(drafts: &mut Drafts, service: &Service, template: &Template<'_>, family: Family) {
    if !(drafts.create.is_empty() && drafts.update.is_empty() && drafts.keep.is_empty()) {
        return;
    }
    let is_one = |slice: &Arc<EndpointSlice>| {
        slice.ports.as_ref().is_none_or(Vec::is_empty)
            && slice::len(slice) == 0
            && template.fits(slice)
            && slice::is_owned_by(slice, service)
    };
    match drafts.delete.iter().position(is_one) {
        Some(at) => drafts.keep.push(drafts.delete.remove(at)),
        None => drafts.create.push(template.build(family, Vec::new())),
    }
}

/// The drafts as writes. A slice that is to go and a new one become one update, if the service
/// owns the former; nothing is created for a service that is being deleted, because the garbage
/// collector is removing its slices.
fn ops(drafts: Drafts, snapshot: &Snapshot<'_>, template: &Template<'_>, family: Family) -> Vec<Op> {
    let Drafts { mut create, update, mut delete, .. } = drafts;
    let mut updates: Vec<EndpointSlice> = update.into_iter().map(|changed| changed.now).collect();
    delete.retain(|old| {
        if !slice::is_owned_by(old, snapshot.service) {
            return true;
        }
        let Some(mut new) = create.pop() else { return true };
        new.metadata = old.metadata.clone();
        new.metadata.labels = Some(template.labels.clone());
        updates.push(new);
        false
    });
    if snapshot.service.metadata.deletion_timestamp.is_some() {
        create.clear();
    }

    let mut number = 0;
    for new in &mut create {
        new.metadata.name = loop {
            let name = slice::name(snapshot.service, family, number);
            number += 1;
            if !(snapshot.name_taken)(&name) {
                break Some(name);
            }
        };
    }
    let trigger = snapshot.trigger.and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
    for written in create.iter_mut().chain(&mut updates) {
        let annotations = written.metadata.annotations.get_or_insert_default();
        match &trigger {
            Some(trigger) => annotations.insert(TRIGGER_TIME.to_owned(), trigger.to_string()),
            None => annotations.remove(TRIGGER_TIME),
        };
    }
    let creates = create.into_iter().map(Op::Create);
    creates.chain(updates.into_iter().map(Op::Update)).chain(delete.into_iter().map(Op::Delete)).collect()
}
