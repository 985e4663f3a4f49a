//! What is told of this host.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use quarterdeck_api::cloud::metal::{AgentStatus, Announcement, LoadBalancerReport, RouteReport, UnhealthyBackend};

use super::Engine;
use crate::host::Host;
use crate::kernel::KernelError;
use crate::plan::{KernelRoute, Plan};

/// Unhealthy backends that are listed at most; the size of an object is limited.
const LISTED: usize = 500;

impl Engine {
    pub(super) fn make_status(
        &self,
        plan: &Plan,
        host: &Host,
        mut problems: Vec<String>,
        routed: &BTreeMap<Option<KernelRoute>, KernelError>,
    ) -> AgentStatus {
        problems.extend(plan.problems.iter().cloned());
        problems.extend(self.source_error.clone());
        let mut balancers: BTreeMap<String, LoadBalancerReport> =
            plan.balancers.iter().map(|report| (report.name.clone(), report.clone())).collect();
        let mut routes: BTreeMap<String, RouteReport> =
            plan.node_routes.iter().map(|report| (report.name.clone(), report.clone())).collect();
        for (route, error) in routed {
            let node = route.filter(|route| route.table == self.tools.settings.route_table);
            match node.and_then(|route| plan.route_of.get(&route.destination)).and_then(|name| routes.get_mut(name)) {
                Some(report) => say(&mut report.error, &foreign(error)),
                None => problems.push(error.to_string()),
            }
        }
        // What was refused is told also where this host would do nothing with it.
        for (object, error) in &self.refusals {
            match object.split_once('/') {
                Some(("balancer", name)) => say(&mut entry(&mut balancers, name).error, error),
                Some(("route", name)) => say(&mut entry(&mut routes, name).error, error),
                _ => {}
            }
        }
        problems.sort();
        problems.dedup();
        let link_name =
            |index: Option<u32>| index.and_then(|index| host.links.get(&index)).map(|link| link.name.clone());
        let there = plan.addresses.iter().filter(|(address, _)| self.present.contains(*address));
        let announces = there.filter_map(|(address, planned)| {
            let link = link_name(planned.link)?;
            Some(Announcement {
                address: *address,
                load_balancer: planned.balancer.clone(),
                by: if self.tools.bird.is_some() { "bgp".to_owned() } else { link },
            })
        });
        let unhealthy = self.tools.health.unhealthy().into_iter().take(LISTED).map(|(check, known)| UnhealthyBackend {
            address: check.address.ip(),
            check: check.to_string(),
            reason: known.reason,
            since: Time(known.since),
        });
        AgentStatus {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            reported_at: None,
            epoch: self.kept.accepted.epoch(),
            ready: problems.is_empty(),
            announces: announces.collect(),
            problems,
            load_balancers: balancers.into_values().collect(),
            routes: routes.into_values().collect(),
            unhealthy: unhealthy.collect(),
        }
    }
}

fn foreign(error: &KernelError) -> String {
    if error.exists() { format!("{error} (there is one that is not ours)") } else { error.to_string() }
}

fn say(error: &mut String, more: &str) {
    if !error.is_empty() {
        error.push_str("; ");
    }
    error.push_str(more);
}

/// A report with a name.
trait Named: Default {
    fn named(name: &str) -> Self;
}

impl Named for LoadBalancerReport {
    fn named(name: &str) -> Self {
        Self { name: name.to_owned(), ..Self::default() }
    }
}

impl Named for RouteReport {
    fn named(name: &str) -> Self {
        Self { name: name.to_owned(), ..Self::default() }
    }
}

fn entry<'a, T: Named>(reports: &'a mut BTreeMap<String, T>, name: &str) -> &'a mut T {
    reports.entry(name.to_owned()).or_insert_with(|| T::named(name))
}
