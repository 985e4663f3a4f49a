//! The canonical form of subsets: addresses grouped by the exact set of ports they offer, each list
//! sorted; equal content has one form, so that comparing is walking two lists.
//!
//! Grouping follows kubernetes/kubernetes:pkg/api/v1/endpoints/util.go v1.36.3. Subsets and ports
//! are ordered by what they hold, not by the hash of a Go memory dump; readers do not depend on it.

use std::cmp::Ordering;
use std::collections::HashMap;

use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset, ObjectReference};

/// Most addresses that an Endpoints object holds.
pub(super) const CAPACITY: usize = 1000;

/// Collects (address, port, ready) and packs them into subsets.
#[derive(Default)]
pub(super) struct Packer {
    entries: Vec<Entry>,
    /// Distinct ports; `None` stands for an address without ports.
    ports: Vec<Option<EndpointPort>>,
}

struct Entry {
    address: EndpointAddress,
    /// Index into the ports, and whether the address is ready there.
    offers: Vec<(usize, bool)>,
}

impl Packer {
    pub(super) fn with_capacity(addresses: usize) -> Self {
        Self { entries: Vec::with_capacity(addresses), ports: Vec::new() }
    }

    /// Adds an address; the answer names it in [`Self::offer`].
    pub(super) fn address(&mut self, address: EndpointAddress) -> usize {
        self.entries.push(Entry { address, offers: Vec::new() });
        self.entries.len() - 1
    }

    /// Says that an address offers a port, or, with `None`, stands there without ports.
    pub(super) fn offer(&mut self, address: usize, port: Option<EndpointPort>, ready: bool) {
        let at = self.ports.iter().position(|known| *known == port).unwrap_or_else(|| {
            self.ports.push(port);
            self.ports.len() - 1
        });
        self.entries[address].offers.push((at, ready));
    }

    /// The canonical subsets.
    pub(super) fn pack(mut self) -> Vec<EndpointSubset> {
        self.entries.retain(|entry| !entry.offers.is_empty());
        // Stable: of addresses with the same IP and uid, the first one's facts stand.
        self.entries.sort_by(|a, b| order(&a.address, &b.address));
        self.entries.dedup_by(|later, first| {
            let same = order(&later.address, &first.address) == Ordering::Equal;
            if same {
                first.offers.append(&mut later.offers);
            }
            same
        });

        let mut members: Vec<Vec<(usize, bool)>> = vec![Vec::new(); self.ports.len()];
        for (rank, entry) in self.entries.iter().enumerate() {
            for &(port, ready) in &entry.offers {
                match members[port].last_mut() {
                    // Not ready trumps ready.
                    Some((last, was)) if *last == rank => *was &= ready,
                    _ => members[port].push((rank, ready)),
                }
            }
        }

        let mut groups: HashMap<Vec<(usize, bool)>, Vec<EndpointPort>> = HashMap::new();
        for (port, members) in std::mem::take(&mut self.ports).into_iter().zip(members) {
            groups.entry(members).or_default().extend(port);
        }
        let mut subsets: Vec<_> = groups.into_iter().map(|(members, ports)| self.subset(&members, ports)).collect();
        // No port stands in two groups and one group at most has none: ports alone give the order.
        subsets.sort_by(|a, b| ports_of(a).iter().map(port_key).cmp(ports_of(b).iter().map(port_key)));
        subsets
    }

    fn subset(&self, members: &[(usize, bool)], mut ports: Vec<EndpointPort>) -> EndpointSubset {
        ports.sort_by(|a, b| port_key(a).cmp(&port_key(b)));
        let pick = |wanted: bool| -> Option<Vec<EndpointAddress>> {
            let picked: Vec<_> = members
                .iter()
                .filter(|(_, ready)| *ready == wanted)
                .map(|(rank, _)| self.entries[*rank].address.clone())
                .collect();
            Some(picked).filter(|p| !p.is_empty())
        };
        EndpointSubset {
            addresses: pick(true),
            not_ready_addresses: pick(false),
            ports: Some(ports).filter(|p| !p.is_empty()),
        }
    }
}

/// The canonical form of subsets as another writer stored them.
pub(super) fn repack(subsets: &[EndpointSubset]) -> Vec<EndpointSubset> {
    let mut packer = Packer::default();
    for subset in subsets {
        for (address, ready) in both(subset) {
            let entry = packer.address(address.clone());
            if ports_of(subset).is_empty() {
                packer.offer(entry, None, ready);
            }
            for port in ports_of(subset) {
                packer.offer(entry, Some(port.clone()), ready);
            }
        }
    }
    packer.pack()
}

/// Whether two lists of subsets say the same; the version of a target is no difference.
pub(super) fn same_subsets(a: &[EndpointSubset], b: &[EndpointSubset]) -> bool {
    all_same(a, b, |a, b| {
        all_same(ports_of(a), ports_of(b), same_port)
            && all_same(list(a.addresses.as_ref()), list(b.addresses.as_ref()), same_address)
            && all_same(list(a.not_ready_addresses.as_ref()), list(b.not_ready_addresses.as_ref()), same_address)
    })
}

/// Cuts subsets down to [`CAPACITY`] addresses, each in proportion to its share, ready ones first
/// (upstream `truncateEndpoints`). Answers whether anything was cut.
pub(super) fn truncate(subsets: &mut Vec<EndpointSubset>) -> bool {
    let count = |pick: fn(&EndpointSubset) -> Option<&Vec<EndpointAddress>>| -> usize {
        subsets.iter().filter_map(pick).map(Vec::len).sum()
    };
    let ready = count(|s| s.addresses.as_ref());
    let not_ready = count(|s| s.not_ready_addresses.as_ref());
    if ready + not_ready <= CAPACITY {
        return false;
    }
    let cut_ready = ready > CAPACITY;
    let (room, total) = if cut_ready { (CAPACITY, ready) } else { (CAPACITY - ready, not_ready) };
    let mut left = room;
    for subset in subsets.iter_mut() {
        if cut_ready {
            subset.not_ready_addresses = None;
        }
        let list = if cut_ready { &mut subset.addresses } else { &mut subset.not_ready_addresses };
        let Some(addresses) = list else { continue };
        let share = (addresses.len() * room).div_ceil(total).min(left);
        addresses.truncate(share);
        left -= addresses.len();
        if addresses.is_empty() {
            *list = None;
        }
    }
    // A subset without addresses is refused by the server.
    subsets.retain(|s| s.addresses.is_some() || s.not_ready_addresses.is_some());
    true
}

fn both(subset: &EndpointSubset) -> impl Iterator<Item = (&EndpointAddress, bool)> {
    let ready = list(subset.addresses.as_ref()).iter().map(|a| (a, true));
    ready.chain(list(subset.not_ready_addresses.as_ref()).iter().map(|a| (a, false)))
}

fn list(addresses: Option<&Vec<EndpointAddress>>) -> &[EndpointAddress] {
    addresses.map(Vec::as_slice).unwrap_or_default()
}

fn ports_of(subset: &EndpointSubset) -> &[EndpointPort] {
    subset.ports.as_deref().unwrap_or_default()
}

/// By the bytes of the IP, then by the target's uid, none first.
fn order(a: &EndpointAddress, b: &EndpointAddress) -> Ordering {
    a.ip.as_bytes().cmp(b.ip.as_bytes()).then_with(|| target_uid(a).cmp(&target_uid(b)))
}

fn target_uid(address: &EndpointAddress) -> Option<&str> {
    address.target_ref.as_ref().map(|target| target.uid.as_deref().unwrap_or_default())
}

fn port_key(port: &EndpointPort) -> (&str, i32, &str, &str) {
    (text(&port.name), port.port, text(&port.protocol), text(&port.app_protocol))
}

fn text(value: &Option<String>) -> &str {
    value.as_deref().unwrap_or_default()
}

fn all_same<T>(a: &[T], b: &[T], same: impl Fn(&T, &T) -> bool) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
}

fn same_port(a: &EndpointPort, b: &EndpointPort) -> bool {
    port_key(a) == port_key(b)
}

/// An empty text and none are one: which of them is stored depends on the writer.
fn same_address(a: &EndpointAddress, b: &EndpointAddress) -> bool {
    a.ip == b.ip
        && text(&a.hostname) == text(&b.hostname)
        && text(&a.node_name) == text(&b.node_name)
        && match (&a.target_ref, &b.target_ref) {
            (Some(a), Some(b)) => same_target(a, b),
            (None, None) => true,
            _ => false,
        }
}

fn same_target(a: &ObjectReference, b: &ObjectReference) -> bool {
    text(&a.uid) == text(&b.uid)
        && text(&a.name) == text(&b.name)
        && text(&a.namespace) == text(&b.namespace)
        && text(&a.kind) == text(&b.kind)
        && text(&a.api_version) == text(&b.api_version)
        && text(&a.field_path) == text(&b.field_path)
}
