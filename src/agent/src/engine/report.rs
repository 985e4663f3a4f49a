//! What is told of this host.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use quarterdeck_api::cloud::metal::{AgentStatus, Announcement, LoadBalancerReport, RouteReport, UnhealthyBackend};

use super::Engine;
use crate::desired::ObjectKind;
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
            match object.kind {
                ObjectKind::Balancer => say(&mut entry(&mut balancers, &object.name).error, error),
                ObjectKind::Route => say(&mut entry(&mut routes, &object.name).error, error),
            }
        }
        // What is held says nothing of this host: it takes in traffic as before.
        let ready = problems.is_empty();
        problems.extend(self.held());
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
            ready,
            announces: announces.collect(),
            problems,
            load_balancers: balancers.into_values().collect(),
            routes: routes.into_values().collect(),
            unhealthy: unhealthy.collect(),
        }
    }
}

impl Engine {
    /// What is to be said of objects that are held.
    fn held(&self) -> Option<String> {
        let held = &self.kept.accepted.desired.held;
        let balancers = held.iter().filter(|id| id.kind == ObjectKind::Balancer).count();
        (!held.is_empty()).then(|| {
            let routes = held.len() - balancers;
            format!(
                "{balancers} load balancers and {routes} nodes' routes vanished from the cluster at once and are held: \
                 they stay in force until they come back, or until --accept-deletions"
            )
        })
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
