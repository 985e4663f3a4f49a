//! What to write so that slices mirror an Endpoints object. Pure.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Endpoints, ObjectReference};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use sha2::{Digest as _, Sha256};

use super::desired::{Group, Identity, desired};
use super::{MANAGED_BY, MANAGER, SERVICE_NAME};

/// Annotations that are not copied: the time of the last change is the writer's own, and what
/// kubectl applied was not a slice.
const NOT_COPIED: [&str; 2] =
    ["endpoints.kubernetes.io/last-change-trigger-time", "kubectl.kubernetes.io/last-applied-configuration"];

/// All that a plan rests on.
pub struct Snapshot<'a> {
    /// The object to mirror.
    pub endpoints: &'a Endpoints,
    /// Its slices under our management that are not being deleted.
    pub slices: &'a [Arc<EndpointSlice>],
    /// Whether a slice of this name is in the namespace, whoever manages it.
    pub name_taken: &'a dyn Fn(&str) -> bool,
    /// Most addresses of a subset that are mirrored.
    pub max_endpoints: usize,
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

/// The writes, and what is worth counting.
#[derive(Debug, Default)]
pub struct Plan {
    /// Creates, then updates, then deletes.
    pub ops: Vec<Op>,
    /// Endpoints that come anew.
    pub added: usize,
    /// Endpoints that change.
    pub updated: usize,
    /// Endpoints that go.
    pub removed: usize,
    /// Addresses left out because they are no IP addresses.
    pub invalid: usize,
    /// Addresses left out, invalid ones included.
    pub skipped: usize,
    /// Endpoints that there shall be.
    pub endpoints: usize,
    /// Slices that there shall be.
    pub slices: usize,
}

/// Plans the mirror of an Endpoints object
/// (pkg/controller/endpointslicemirroring/reconciler.go v1.36.3): one slice for each address type
/// and port set.
#[must_use]
pub fn plan(snapshot: &Snapshot<'_>) -> Plan {
    let desired = desired(snapshot.endpoints, snapshot.max_endpoints);
    let meta = Meta::of(snapshot.endpoints);
    let mut plan = Plan {
        invalid: desired.invalid,
        skipped: desired.skipped,
        endpoints: desired.groups.iter().map(|group| group.endpoints.len()).sum(),
        slices: desired.groups.len(),
        ..Plan::default()
    };

    let mut left: Vec<&Arc<EndpointSlice>> = snapshot.slices.iter().collect();
    left.sort_unstable_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
    let mut missing: Vec<Group> = Vec::new();
    let mut updates: Vec<EndpointSlice> = Vec::new();
    for group in desired.groups {
        let fits = |slice: &&Arc<EndpointSlice>| {
            slice.address_type == group.address_type && same_ports(slice.ports.as_deref(), &group.ports)
        };
        let Some(at) = left.iter().position(fits) else {
            plan.added += group.endpoints.len();
            missing.push(group);
            continue;
        };
        let slice = left.remove(at);
        if plan.count_changes(slice, &group) || !meta.fits(slice) {
            updates.push(meta.rewrite(slice, group));
        }
    }
    plan.removed += left.iter().map(|slice| slice.endpoints.as_ref().map_or(0, Vec::len)).sum::<usize>();

    // What is to go becomes what is missing, if the address type, which cannot change, is the same.
    let mut creates: Vec<EndpointSlice> = Vec::new();
    for group in missing {
        match left.iter().position(|slice| slice.address_type == group.address_type) {
            Some(at) => updates.push(meta.rewrite(left.remove(at), group)),
            None => creates.push(meta.build(group)),
        }
    }
    if snapshot.endpoints.metadata.deletion_timestamp.is_some() {
        creates.clear();
    }
    let mut numbers: HashMap<String, u32> = HashMap::new();
    for new in &mut creates {
        let number = numbers.entry(new.address_type.clone()).or_default();
        new.metadata.name = loop {
            let name = name(snapshot.endpoints, &new.address_type, *number);
            *number += 1;
            if !(snapshot.name_taken)(&name) {
                break Some(name);
            }
        };
    }
    let creates = creates.into_iter().map(Op::Create);
    let deletes = left.into_iter().cloned().map(Op::Delete);
    plan.ops = creates.chain(updates.into_iter().map(Op::Update)).chain(deletes).collect();
    plan
}

impl Plan {
    /// Counts how a slice's endpoints differ from those wanted; returns whether they do.
    fn count_changes(&mut self, slice: &EndpointSlice, group: &Group) -> bool {
        let mut wanted: HashMap<Identity, &Endpoint> =
            group.endpoints.iter().map(|endpoint| (Identity::of(endpoint), endpoint)).collect();
        let before = (self.added, self.updated, self.removed);
        for endpoint in slice.endpoints.iter().flatten() {
            match wanted.remove(&Identity::of(endpoint)) {
                Some(wanted) => self.updated += usize::from(!is_same(endpoint, wanted)),
                None => self.removed += 1,
            }
        }
        self.added += wanted.len();
        before != (self.added, self.updated, self.removed)
    }
}

/// Whether two endpoints of the same identity are the same in all else that is mirrored. The
/// version in the target reference does not count.
fn is_same(a: &Endpoint, b: &Endpoint) -> bool {
    let target = |endpoint: &Endpoint| -> Option<ObjectReference> {
        endpoint.target_ref.clone().map(|target| ObjectReference { resource_version: None, ..target })
    };
    let conditions = |endpoint: &Endpoint| endpoint.conditions.clone().unwrap_or_default();
    a.node_name == b.node_name
        && a.zone == b.zone
        && a.hints == b.hints
        && conditions(a) == conditions(b)
        && target(a) == target(b)
}

fn same_ports(existing: Option<&[EndpointPort]>, wanted: &[EndpointPort]) -> bool {
    let existing = existing.unwrap_or_default();
    let same = |a: &EndpointPort, b: &EndpointPort| {
        a.port == b.port
            && a.name.as_deref().unwrap_or_default() == b.name.as_deref().unwrap_or_default()
            && a.protocol.as_deref().unwrap_or("TCP") == b.protocol.as_deref().unwrap_or("TCP")
            && a.app_protocol == b.app_protocol
    };
    existing.len() == wanted.len() && wanted.iter().all(|port| existing.iter().any(|other| same(other, port)))
}

/// The metadata that all mirrored slices of an object have.
struct Meta {
    namespace: Option<String>,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
    owner: OwnerReference,
}

impl Meta {
    fn of(endpoints: &Endpoints) -> Self {
        let ObjectMeta { name, namespace, uid, labels, annotations, .. } = &endpoints.metadata;
        let name = name.clone().unwrap_or_default();
        let mut labels = labels.clone().unwrap_or_default();
        labels.insert(SERVICE_NAME.to_owned(), name.clone());
        labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
        let mut annotations = annotations.clone().unwrap_or_default();
        annotations.retain(|name, _| !NOT_COPIED.contains(&name.as_str()));
        let owner = OwnerReference {
            api_version: "v1".to_owned(),
            kind: "Endpoints".to_owned(),
            name,
            uid: uid.clone().unwrap_or_default(),
            controller: Some(true),
            block_owner_deletion: Some(true),
        };
        Self { namespace: namespace.clone(), labels, annotations, owner }
    }

    fn fits(&self, slice: &EndpointSlice) -> bool {
        let meta = &slice.metadata;
        meta.labels.as_ref() == Some(&self.labels)
            && meta.annotations.iter().flatten().eq(&self.annotations)
            && meta.owner_references.iter().flatten().any(|owner| *owner == self.owner)
    }

    fn put_on(&self, meta: &mut ObjectMeta) {
        meta.labels = Some(self.labels.clone());
        meta.annotations = Some(self.annotations.clone());
        meta.owner_references = Some(vec![self.owner.clone()]);
    }

    /// A slice with new content, and the name and version of an existing one.
    fn rewrite(&self, slice: &EndpointSlice, group: Group) -> EndpointSlice {
        let mut metadata = slice.metadata.clone();
        self.put_on(&mut metadata);
        with(metadata, group)
    }

    /// A new slice without a name.
    fn build(&self, group: Group) -> EndpointSlice {
        let mut metadata = ObjectMeta { namespace: self.namespace.clone(), ..ObjectMeta::default() };
        self.put_on(&mut metadata);
        with(metadata, group)
    }
}

fn with(metadata: ObjectMeta, group: Group) -> EndpointSlice {
    EndpointSlice {
        address_type: group.address_type.to_owned(),
        endpoints: Some(group.endpoints),
        metadata,
        ports: Some(group.ports),
    }
}

/// The `number`-th name of an object's slices of an address type. Depends on nothing else, so that
/// a create whose answer was lost meets its own result when it is tried again.
fn name(endpoints: &Endpoints, address_type: &str, number: u32) -> String {
    /// Letters and digits that cannot spell words, as generated names use.
    const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
    let uid = endpoints.metadata.uid.as_deref().unwrap_or_default();
    let digest = Sha256::digest(format!("{uid}/{address_type}/{number}"));
    let suffix = digest.iter().take(8).map(|byte| char::from(ALPHABET[usize::from(*byte) % ALPHABET.len()]));
    let mut name = endpoints.metadata.name.clone().unwrap_or_default();
    name.push('-');
    name.extend(suffix);
    name
}
