//! Hints that tell proxies which endpoints serve which zone or node.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointHints, EndpointSlice, ForNode, ForZone};

use super::endpoint::is_ready;
use super::pack::{Changed, Drafts};

/// How a service wants its traffic routed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// No hints.
    Off,
    /// Hints allocated to zones in proportion to their CPUs (annotation
    /// `service.kubernetes.io/topology-mode: Auto`).
    Auto,
    /// Each endpoint for its own zone (`trafficDistribution: PreferSameZone` or `PreferClose`).
    SameZone,
    /// Each endpoint for its own zone and node (`trafficDistribution: PreferSameNode`).
    SameNode,
}

impl Mode {
    /// What a service asks for. The annotation wins over the field, and the older annotation over
    /// the newer (k8s.io/endpointslice:utils.go hintsEnabled, reconciler.go v0.36.3).
    #[must_use]
    pub fn of(service: &Service) -> Self {
        let annotation = |name| service.metadata.annotations.as_ref().and_then(|all| all.get(name)).map(String::as_str);
        let mode = annotation("service.kubernetes.io/topology-aware-hints")
            .or_else(|| annotation("service.kubernetes.io/topology-mode"));
        if matches!(mode, Some("Auto" | "auto")) {
            return Self::Auto;
        }
        match distribution(service) {
            Some("PreferClose" | "PreferSameZone") => Self::SameZone,
            Some("PreferSameNode") => Self::SameNode,
            _ => Self::Off,
        }
    }
}

/// `spec.trafficDistribution` of a service.
pub(super) fn distribution(service: &Service) -> Option<&str> {
    service.spec.as_ref()?.traffic_distribution.as_deref()
}

/// Gives each endpoint exactly the hints that `hint` says it should have. Of the slices that stay,
/// only those where a hint is wrong are taken up among the changed ones.
fn apply(drafts: &mut Drafts, is_right: impl Fn(&Endpoint) -> bool, hint: impl Fn(&Endpoint) -> Option<EndpointHints>) {
    move_to_update(drafts, |slice| !slice.endpoints.iter().flatten().all(&is_right));
    for slice in written(drafts) {
        for endpoint in slice.endpoints.iter_mut().flatten() {
            endpoint.hints = hint(endpoint);
        }
    }
}

/// Removes all hints.
pub(super) fn remove(drafts: &mut Drafts) {
    apply(drafts, |endpoint| endpoint.hints.is_none(), |_| None);
}

/// Hints each ready endpoint to its own zone and, if asked, its own node
/// (k8s.io/endpointslice:trafficdist/trafficdist.go v0.36.3).
pub(super) fn prefer_near(drafts: &mut Drafts, by_node: bool) {
    apply(drafts, |endpoint| is_near(endpoint, by_node), |endpoint| near(endpoint, by_node));
}

fn own_zone(endpoint: &Endpoint) -> Option<&str> {
    endpoint.zone.as_deref().filter(|_| is_ready(endpoint))
}

fn own_node(endpoint: &Endpoint, by_node: bool) -> Option<&str> {
    endpoint.node_name.as_deref().filter(|_| by_node && is_ready(endpoint))
}

/// Whether an endpoint has just the hints that [`near`] gives; allocates nothing.
fn is_near(endpoint: &Endpoint, by_node: bool) -> bool {
    let (zone, node) = (own_zone(endpoint), own_node(endpoint, by_node));
    let Some(hints) = &endpoint.hints else { return zone.is_none() && node.is_none() };
    let zones = hints.for_zones.iter().flatten().map(|hint| hint.name.as_str());
    let nodes = hints.for_nodes.iter().flatten().map(|hint| hint.name.as_str());
    (zone.is_some() || node.is_some()) && zones.eq(zone) && nodes.eq(node)
}

fn near(endpoint: &Endpoint, by_node: bool) -> Option<EndpointHints> {
    let (zone, node) = (own_zone(endpoint), own_node(endpoint, by_node));
    (zone.is_some() || node.is_some()).then(|| EndpointHints {
        for_zones: zone.map(|name| vec![ForZone { name: name.to_owned() }]),
        for_nodes: node.map(|name| vec![ForNode { name: name.to_owned() }]),
    })
}

/// Takes the slices that stay, and for which `wrong` holds, up among the changed ones.
pub(super) fn move_to_update(drafts: &mut Drafts, mut wrong: impl FnMut(&EndpointSlice) -> bool) {
    let Drafts { keep, update, .. } = drafts;
    keep.retain(|was| {
        let wrong = wrong(was);
        if wrong {
            update.push(Changed { was: Arc::clone(was), now: EndpointSlice::clone(was) });
        }
        !wrong
    });
}

/// The slices that will be written.
pub(super) fn written(drafts: &mut Drafts) -> impl Iterator<Item = &mut EndpointSlice> {
    drafts.create.iter_mut().chain(drafts.update.iter_mut().map(|changed| &mut changed.now))
}
