//! Routes to the pods of other nodes.

use std::collections::BTreeMap;

use ipnet::IpNet;
use quarterdeck_api::cloud::metal::RouteReport;

use super::{KernelRoute, Plan, Settings};
use crate::desired::Desired;
use crate::host::Host;

pub(super) fn plan(plan: &mut Plan, desired: &Desired, host: &Host, settings: &Settings) {
    if !settings.routes {
        return;
    }
    // Of two nodes that claim one network, the later decision counts.
    let mut newest_first: Vec<_> = desired.routes.iter().collect();
    newest_first.sort_by_key(|(name, route)| (std::cmp::Reverse(route.spec.epoch), *name));
    let mut claimed: BTreeMap<IpNet, String> = BTreeMap::new();
    for (name, route) in newest_first {
        let spec = &route.spec;
        let own = *name == settings.name || spec.next_hops.iter().any(|hop| host.is_own(*hop));
        let mut errors = Vec::new();
        for destination in spec.destinations.iter().map(IpNet::trunc) {
            if let Some(other) = claimed.get(&destination) {
                errors.push(format!("{destination} belongs to {other} already"));
                continue;
            }
            claimed.insert(destination, name.clone());
            if own {
                continue;
            }
            let hop = spec.next_hops.iter().find(|hop| hop.is_ipv6() == destination.addr().is_ipv6());
            let Some(via) = hop.copied() else {
                errors.push(format!("{destination} has no next hop of its family"));
                continue;
            };
            plan.routes.insert(KernelRoute { destination, via, table: settings.route_table });
            plan.route_of.insert(destination, name.clone());
        }
        plan.node_routes.push(RouteReport {
            name: name.clone(),
            generation: route.generation,
            epoch: spec.epoch,
            error: errors.join("; "),
        });
    }
    plan.node_routes.sort_by(|a, b| a.name.cmp(&b.name));
}
