//! Topology mode Auto: endpoints are allocated to zones in proportion to the zones' CPUs
//! (k8s.io/endpointslice:topologycache v0.36.3).

use std::collections::BTreeMap;

use k8s_openapi::api::discovery::v1::{Endpoint, EndpointHints, EndpointSlice, ForZone};
use quarterdeck_runtime::view::NodeView;

use super::endpoint::is_ready;
use super::hints::{self, move_to_update, written};
use super::pack::Drafts;

/// Label of a node that names its zone.
pub(super) const ZONE: &str = "topology.kubernetes.io/zone";
/// Nodes with one of these labels count for nothing: no workload runs there.
const EXCLUDED: [&str; 2] = ["node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master"];
/// How much more traffic than its share an endpoint may get (0.2 = 20 %).
const OVERLOAD: f64 = 0.2;

/// Each zone's share of the allocatable CPUs of all ready nodes; at least two zones.
#[derive(Clone, Debug, PartialEq)]
pub struct Shares(BTreeMap<String, f64>);

/// How many endpoints are hinted to each zone.
pub type ZoneCounts = BTreeMap<String, usize>;

impl Shares {
    /// The shares that a cluster's nodes give; none if a ready node has no zone or no CPUs, or if
    /// there are fewer than two zones.
    pub fn of<'a>(nodes: impl IntoIterator<Item = &'a NodeView>) -> Option<Self> {
        let mut zones = BTreeMap::<&str, u64>::new();
        for node in nodes {
            if !node.ready || EXCLUDED.iter().any(|label| node.labels.get(label).is_some()) {
                continue;
            }
            let zone = node.labels.get(ZONE).filter(|zone| !zone.is_empty())?;
            if node.allocatable_cpu_milli == 0 {
                return None;
            }
            *zones.entry(zone).or_default() += node.allocatable_cpu_milli;
        }
        let total: u64 = zones.values().sum();
        (zones.len() > 1)
            .then(|| Self(zones.into_iter().map(|(zone, cpu)| (zone.to_owned(), ratio(cpu, total))).collect()))
    }

    /// Whether some zone has so few endpoints of a service that they get more than their share and
    /// the tolerated overload.
    #[must_use]
    pub fn overload(&self, counts: &ZoneCounts) -> bool {
        let total: usize = counts.values().sum();
        !counts.is_empty()
            && self.0.iter().any(|(zone, share)| counts.get(zone).is_none_or(|count| *count < minimum(*share, total)))
    }

    /// What each zone shall get of `total` endpoints, or why that cannot be.
    fn allocate(&self, total: usize) -> Result<BTreeMap<&str, Allocation>, String> {
        let zones = self.0.len();
        if zones > total {
            return Err(format!("fewer ready endpoints ({total}) than zones ({zones})"));
        }
        let minimums: usize = self.0.values().map(|share| minimum(*share, total)).sum();
        if minimums > total {
            return Err(format!("{total} ready endpoints cannot be spread over {zones} zones without overload"));
        }
        let allocation = |share: f64| {
            let minimum = minimum(share, total);
            Allocation { maximum: minimum + total - minimums, desired: (share * count(total)).max(count(minimum)) }
        };
        Ok(self.0.iter().map(|(zone, share)| (zone.as_str(), allocation(*share))).collect())
    }
}

/// What a zone shall get.
#[derive(Clone, Copy, Debug)]
struct Allocation {
    /// More than this starves another zone.
    maximum: usize,
    /// The share, at least the minimum.
    desired: f64,
}

/// The least number of `total` endpoints that keeps a zone with this share within the tolerance.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and total")]
fn minimum(share: f64, total: usize) -> usize {
    (share * count(total) / (1.0 + OVERLOAD)).ceil() as usize
}

#[expect(clippy::cast_precision_loss, reason = "numbers of endpoints are small")]
fn count(number: usize) -> f64 {
    number as f64
}

#[expect(clippy::cast_precision_loss, reason = "millicores of a cluster are far below 2^52")]
fn ratio(part: u64, whole: u64) -> f64 {
    part as f64 / whole as f64
}

/// Hints the ready endpoints of one family to zones. Slices that stay keep their hints where these
/// leave every zone its share. Returns how many endpoints each zone got.
///
/// # Errors
/// Why there can be no hints; they have been removed then.
pub(super) fn add(drafts: &mut Drafts, shares: Option<&Shares>) -> Result<ZoneCounts, String> {
    let before = drafts.update.len();
    let added = try_add(drafts, shares);
    if added.is_err() {
        hints::remove(drafts);
    }
    keep_unchanged(drafts, before);
    added
}

fn try_add(drafts: &mut Drafts, shares: Option<&Shares>) -> Result<ZoneCounts, String> {
    let shares =
        shares.ok_or("ready nodes need CPUs and a zone label, and must be in at least two zones".to_owned())?;
    let ready = |slice: &EndpointSlice| slice.endpoints.iter().flatten().filter(|e| is_ready(e)).count();
    let total =
        written(drafts).map(|s| ready(s)).sum::<usize>() + drafts.keep.iter().map(|slice| ready(slice)).sum::<usize>();
    let allocations = shares.allocate(total)?;

    let mut counts = ZoneCounts::new();
    move_to_update(drafts, |slice| match valid_hints(slice, &counts, &allocations) {
        Some(hinted) => {
            hinted.into_iter().for_each(|(zone, count)| *counts.entry(zone.to_owned()).or_default() += count);
            false
        }
        None => true,
    });

    for endpoint in written(drafts).flat_map(|slice| slice.endpoints.iter_mut().flatten()) {
        endpoint.hints = None;
        if is_ready(endpoint) {
            let zone = endpoint.zone.clone().filter(|zone| !zone.is_empty()).ok_or("an endpoint has no zone")?;
            endpoint.hints = Some(for_zone(zone.clone()));
            *counts.entry(zone).or_default() += 1;
        }
    }
    let (giving, receiving) = transfers(&allocations, &counts);
    redistribute(drafts, giving, receiving, &mut counts);
    Ok(counts)
}

/// Slices that were taken up for their hints, from `first` on, and came out as they were, stay.
fn keep_unchanged(drafts: &mut Drafts, first: usize) {
    let taken_up = drafts.update.split_off(first);
    for changed in taken_up {
        if changed.was.endpoints == changed.now.endpoints {
            drafts.keep.push(changed.was);
        } else {
            drafts.update.push(changed);
        }
    }
}

fn for_zone(name: String) -> EndpointHints {
    EndpointHints { for_zones: Some(vec![ForZone { name }]), for_nodes: None }
}

/// The hints of a slice by zone; none if an endpoint lacks one, a zone is unknown, or a zone would
/// get more than its maximum.
fn valid_hints<'a>(
    slice: &'a EndpointSlice,
    counts: &ZoneCounts,
    allocations: &BTreeMap<&str, Allocation>,
) -> Option<BTreeMap<&'a str, usize>> {
    let mut hinted = BTreeMap::<&str, usize>::new();
    for endpoint in slice.endpoints.iter().flatten().filter(|endpoint| is_ready(endpoint)) {
        let zones = endpoint.hints.as_ref()?.for_zones.as_deref().filter(|zones| !zones.is_empty())?;
        for zone in zones {
            *hinted.entry(&zone.name).or_default() += 1;
        }
    }
    let fits = hinted.iter().all(|(zone, count)| {
        allocations.get(zone).is_some_and(|a| count + counts.get(*zone).copied().unwrap_or(0) <= a.maximum)
    });
    fits.then_some(hinted)
}

/// Endpoints by zone that zones should give away or receive.
type Transfers = BTreeMap<String, usize>;

/// How many endpoints each zone should give to others, and receive from them.
fn transfers(allocations: &BTreeMap<&str, Allocation>, counts: &ZoneCounts) -> (Transfers, Transfers) {
    let mut gives: BTreeMap<&str, f64> = BTreeMap::new();
    let mut lacks: BTreeMap<&str, f64> = BTreeMap::new();
    for (zone, allocation) in allocations {
        let surplus = count(counts.get(*zone).copied().unwrap_or(0)) - allocation.desired;
        if surplus > 0.0 {
            gives.insert(zone, surplus)
        } else {
            lacks.insert(zone, -surplus)
        };
    }
    let (mut giving, mut receiving) = (Transfers::new(), Transfers::new());
    while let (Some((giver, most)), Some((receiver, least))) = (greatest(&mut gives), greatest(&mut lacks)) {
        if (*most < 1.0 && *least < 1.0) || *most < 0.5 || *least < 0.5 {
            break;
        }
        *giving.entry(giver.to_owned()).or_default() += 1;
        *receiving.entry(receiver.to_owned()).or_default() += 1;
        *most -= 1.0;
        *least -= 1.0;
    }
    (giving, receiving)
}

fn greatest<'m>(zones: &'m mut BTreeMap<&str, f64>) -> Option<(&'m str, &'m mut f64)> {
    zones.iter_mut().max_by(|a, b| a.1.total_cmp(b.1)).map(|(zone, number)| (*zone, number))
}

/// Hints endpoints of written slices to zones that lack some.
fn redistribute(drafts: &mut Drafts, mut giving: Transfers, mut receiving: Transfers, counts: &mut ZoneCounts) {
    for endpoint in written(drafts).flat_map(|slice| slice.endpoints.iter_mut().flatten()) {
        give(endpoint, &mut giving, &mut receiving, counts);
    }
}

fn give(endpoint: &mut Endpoint, giving: &mut Transfers, receiving: &mut Transfers, counts: &mut ZoneCounts) {
    if !is_ready(endpoint) {
        return;
    }
    let Some(own) = endpoint.zone.as_deref() else { return };
    let Some(gives) = giving.get_mut(own).filter(|gives| **gives > 0) else { return };
    let Some((zone, lacks)) = receiving.iter_mut().find(|(_, lacks)| **lacks > 0) else { return };
    *gives -= 1;
    *lacks -= 1;
    *counts.entry(own.to_owned()).or_default() -= 1;
    *counts.entry(zone.clone()).or_default() += 1;
    endpoint.hints = Some(for_zone(zone.clone()));
}
