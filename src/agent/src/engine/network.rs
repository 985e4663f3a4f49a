//! Addresses, routes and routing rules.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::Engine;
use crate::kernel::{KernelError, OurAddress};
use crate::plan::{KernelRoute, KernelRule, Plan};

/// What an error is about: a route, or rules and reads.
type Errors = BTreeMap<Option<KernelRoute>, KernelError>;

impl Engine {
    /// Takes addresses away that are not planned.
    pub(super) async fn withdraw(&mut self, plan: &Plan) -> Vec<KernelError> {
        let there = match self.tools.kernel.addresses().await {
            Ok(there) => there,
            Err(error) => return vec![error],
        };
        let mut errors = Vec::new();
        for address in there.iter().filter(|address| address.ours) {
            let (ip, link) = (address.network.addr(), address.link);
            if plan.addresses.get(&ip).is_none_or(|planned| planned.link != Some(link)) {
                tracing::info!(address = %ip, "withdrawing an address");
                errors.extend(self.tools.kernel.remove_address(ip, link).await.err());
            }
        }
        errors
    }

    /// Adds addresses that are planned, and notes which are there.
    pub(super) async fn add(&mut self, plan: &Plan, ready: bool) -> Vec<KernelError> {
        let there = match self.tools.kernel.addresses().await {
            Ok(there) => there,
            Err(error) => return vec![error],
        };
        let is_there = |ip: IpAddr, link: u32| {
            there.iter().any(|OurAddress { network, link: on, .. }| network.addr() == ip && *on == link)
        };
        let before = std::mem::take(&mut self.present);
        let mut errors = Vec::new();
        for (ip, planned) in &plan.addresses {
            let Some(link) = planned.link else { continue };
            if is_there(*ip, link) {
                self.present.insert(*ip);
                continue;
            }
            if !ready || self.hold_until.is_some() {
                continue;
            }
            if before.contains(ip) {
                self.tools.metrics.repairs.with_label_values(&["addresses"]).inc();
            }
            tracing::info!(address = %ip, balancer = planned.balancer, "announcing an address");
            match self.tools.kernel.add_address(*ip, link).await {
                Ok(()) => drop(self.present.insert(*ip)),
                Err(error) => errors.push(error),
            }
        }
        errors
    }

    /// Brings routes and rules to where the plan has them.
    pub(super) async fn route(&mut self, plan: &Plan) -> Errors {
        let mut errors = Errors::new();
        let kernel = &self.tools.kernel;
        let (routes, rules) = match (kernel.routes().await, kernel.rules().await) {
            (Ok(routes), Ok(rules)) => (routes, rules),
            (Err(error), _) | (_, Err(error)) => return Errors::from([(None, error)]),
        };
        let there: BTreeSet<KernelRoute> = routes.into_iter().collect();
        // Rules go before the tables that they lead to; tables come before them.
        let mut kept: BTreeSet<KernelRule> = BTreeSet::new();
        for rule in rules {
            if plan.rules.contains(&rule) && kept.insert(rule) {
                continue;
            }
            if let Err(error) = kernel.remove_rule(&rule).await {
                errors.insert(None, error);
            }
        }
        let place = |route: &KernelRoute| (route.destination, route.table);
        let wanted: BTreeSet<_> = plan.routes.iter().map(place).collect();
        let mut ours: BTreeSet<_> = there.iter().map(place).collect();
        for route in plan.routes.difference(&there) {
            match kernel.add_route(route, ours.contains(&place(route))).await {
                Ok(()) => drop(ours.insert(place(route))),
                Err(error) => drop(errors.insert(Some(*route), error)),
            }
        }
        for route in there.difference(&plan.routes).filter(|route| !wanted.contains(&place(route))) {
            if let Err(error) = kernel.remove_route(route).await {
                errors.insert(Some(*route), error);
            }
        }
        for rule in plan.rules.difference(&kept) {
            if let Err(error) = kernel.add_rule(rule).await {
                errors.insert(None, error);
            }
        }
        errors
    }
}
