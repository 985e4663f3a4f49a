//! Packing: the fewest writes that bring the wanted endpoints of one port set into slices.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::discovery::v1::{EndpointPort, EndpointSlice};

use super::endpoint::Wanted;
use super::family::Family;
use super::slice::{self, Template};

/// A slice that is to be written again.
#[derive(Clone, Debug)]
pub(super) struct Changed {
    /// The cached slice.
    pub(super) was: Arc<EndpointSlice>,
    /// What it shall become.
    pub(super) now: EndpointSlice,
}

/// What becomes of the slices of one family of a service.
#[derive(Debug, Default)]
pub(super) struct Drafts {
    /// New slices, without names yet.
    pub(super) create: Vec<EndpointSlice>,
    /// Slices that change.
    pub(super) update: Vec<Changed>,
    /// Slices that stay; never cloned.
    pub(super) keep: Vec<Arc<EndpointSlice>>,
    /// Slices that go.
    pub(super) delete: Vec<Arc<EndpointSlice>>,
    /// Endpoints that come anew.
    pub(super) added: usize,
    /// Endpoints that go.
    pub(super) removed: usize,
}

/// An existing slice while the packing goes on.
struct Slot<'a> {
    was: &'a Arc<EndpointSlice>,
    /// Set once it is known to change.
    now: Option<EndpointSlice>,
}

impl Slot<'_> {
    fn len(&self) -> usize {
        slice::len(self.now.as_ref().unwrap_or(self.was))
    }

    /// Moves wanted endpoints from the end of `left` into the slice until it is full.
    fn fill(&mut self, left: &mut Vec<&Wanted<'_>>, max: usize) {
        fill(self.now.get_or_insert_with(|| EndpointSlice::clone(self.was)), left, max);
    }
}

/// Packs `wanted` into `existing`, the service's slices of one port set and family
/// (k8s.io/endpointslice:reconciler.go reconcileByPortMapping v0.36.3): endpoints stay where they
/// are; new ones fill the slices that change anyway, the fullest first; the rest goes into the one
/// unchanged slice that it fills best, or else into new slices.
pub(super) fn pack(
    drafts: &mut Drafts,
    existing: &[&Arc<EndpointSlice>],
    wanted: &[Wanted<'_>],
    template: &Template<'_>,
    (family, ports): (Family, impl Fn() -> Vec<EndpointPort>),
    max: usize,
) {
    let mut placed = vec![false; wanted.len()];
    let mut slots = keep_in_place(drafts, existing, wanted, &mut placed, template);

    let mut left: Vec<&Wanted<'_>> =
        wanted.iter().zip(&placed).filter(|(_, placed)| !**placed).map(|(wanted, _)| wanted).collect();
    drafts.added += left.len();
    if !left.is_empty() {
        // Taken from the end, so that slices hold their endpoints in the order of names.
        left.sort_unstable_by(|a, b| b.pod.key.name().cmp(a.pod.key.name()));
        let mut changing: Vec<&mut Slot<'_>> = slots.iter_mut().filter(|slot| slot.now.is_some()).collect();
        changing.sort_by_key(|slot| Reverse(slot.len()));
        for slot in changing {
            slot.fill(&mut left, max);
        }
    }
    while !left.is_empty() {
        let room = |slot: &&mut Slot<'_>| max.checked_sub(left.len() + slot.len());
        let unchanged = slots.iter_mut().filter(|slot| slot.now.is_none());
        let best = unchanged.filter(|slot| room(slot).is_some()).min_by_key(|slot| room(slot));
        if let Some(slot) = best {
            slot.fill(&mut left, max);
        } else {
            let mut new = template.build(family, ports());
            fill(&mut new, &mut left, max);
            drafts.create.push(new);
        }
    }

    for slot in slots {
        match slot.now {
            Some(now) => drafts.update.push(Changed { was: Arc::clone(slot.was), now }),
            None => drafts.keep.push(Arc::clone(slot.was)),
        }
    }
}

/// Finds the wanted endpoints that exist, and marks them placed. Returns the slices that stay,
/// changed where an endpoint differs or goes, or the labels differ; empty ones go to
/// `drafts.delete`.
fn keep_in_place<'s>(
    drafts: &mut Drafts,
    existing: &[&'s Arc<EndpointSlice>],
    wanted: &[Wanted<'_>],
    placed: &mut [bool],
    template: &Template<'_>,
) -> Vec<Slot<'s>> {
    let by_name: HashMap<&str, usize> =
        if existing.is_empty() { HashMap::new() } else { wanted.iter().map(|w| w.pod.key.name()).zip(0..).collect() };
    let mut slots = Vec::with_capacity(existing.len());
    for &was in existing {
        let endpoints = was.endpoints.as_deref().unwrap_or_default();
        // Where each changed endpoint stands, and which endpoints go.
        let mut changed: Vec<(usize, usize)> = Vec::new();
        let mut gone: Vec<usize> = Vec::new();
        for (at, endpoint) in endpoints.iter().enumerate() {
            let name = endpoint.target_ref.as_ref().and_then(|target| target.name.as_deref());
            let found = name.and_then(|name| by_name.get(name).copied());
            match found.filter(|&i| !placed[i] && wanted[i].identifies(endpoint)) {
                Some(i) => {
                    placed[i] = true;
                    if !wanted[i].is_same(endpoint) {
                        changed.push((at, i));
                    }
                }
                None => gone.push(at),
            }
        }
        drafts.removed += gone.len();
        if gone.len() == endpoints.len() {
            drafts.delete.push(Arc::clone(was));
            continue;
        }
        let now = (!changed.is_empty() || !gone.is_empty() || !template.fits(was)).then(|| {
            let mut now = EndpointSlice::clone(was);
            now.metadata.labels = Some(template.labels.clone());
            let endpoints = now.endpoints.get_or_insert_default();
            for (at, i) in changed {
                endpoints[at] = wanted[i].build();
            }
            let mut gone = gone.into_iter().peekable();
            let mut at = 0;
            endpoints.retain(|_| {
                at += 1;
                gone.next_if_eq(&(at - 1)).is_none()
            });
            now
        });
        slots.push(Slot { was, now });
    }
    slots
}

fn fill(slice: &mut EndpointSlice, left: &mut Vec<&Wanted<'_>>, max: usize) {
    let endpoints = slice.endpoints.get_or_insert_default();
    let count = max.saturating_sub(endpoints.len()).min(left.len());
    endpoints.extend(left.drain(left.len() - count..).rev().map(Wanted::build));
}
