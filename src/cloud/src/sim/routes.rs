//! Routes: one table for each cluster's network.

use ipnet::IpNet;

use super::state::{Power, State, StoredRoute};
use crate::error::{CloudError, Result};
use crate::model::{ClusterId, Route};

impl State {
    /// Routes that this cluster made, by id.
    pub(super) fn routes_of(&self, cluster: &ClusterId) -> Vec<(String, Route)> {
        let own = self.routes.values().filter(|one| one.owned && one.table == *cluster);
        own.map(|one| (one.id.clone(), self.show(one))).collect()
    }

    /// A route as it is now: what it leads to may be gone.
    fn show(&self, stored: &StoredRoute) -> Route {
        let prefix = self.id_prefix();
        let machine = self.instances.values().find(|one| one.provider_id(&prefix) == stored.provider_id);
        let blackhole = !stored.provider_id.is_empty() && machine.is_none_or(|one| one.power == Power::Terminated);
        Route {
            name: stored.name.clone(),
            destination: stored.destination,
            node: if blackhole { String::new() } else { machine.map_or(&stored.node, |one| &one.name).clone() },
            provider_id: stored.provider_id.clone(),
            next_hops: stored.next_hops.clone(),
            blackhole,
        }
    }

    fn at(&self, cluster: &ClusterId, destination: IpNet) -> Option<&StoredRoute> {
        self.routes.values().find(|one| one.table == *cluster && one.destination.trunc() == destination.trunc())
    }

    /// What a route leads to: the id of a machine that is there, or nothing but addresses.
    fn target(&self, route: &Route) -> Result<String> {
        let alive = |one: &&super::state::Machine| one.power != Power::Terminated;
        let prefix = self.id_prefix();
        if !route.provider_id.is_empty() {
            let mut machines = self.instances.values().filter(alive);
            let known = machines.any(|one| one.provider_id(&prefix) == route.provider_id);
            let lost = || CloudError::NotFound(format!("no instance {} for route {}", route.provider_id, route.name));
            return if known { Ok(route.provider_id.clone()) } else { Err(lost()) };
        }
        match self.machine(&route.node) {
            Ok(machine) => Ok(machine.provider_id(&prefix)),
            Err(_) if !route.next_hops.is_empty() => Ok(String::new()),
            Err(error) => Err(error),
        }
    }

    /// Makes a route.
    ///
    /// # Errors
    /// When the destination leads elsewhere already, or the target is not there.
    pub(super) fn create_route(&mut self, cluster: &ClusterId, route: &Route) -> Result<()> {
        let provider_id = self.target(route)?;
        if let Some(there) = self.at(cluster, route.destination) {
            if there.owned && there.provider_id == provider_id && there.next_hops == route.next_hops {
                return Ok(());
            }
            let whose = if there.owned { "" } else { " of somebody else" };
            return Err(CloudError::Conflict(format!("{} has a route{whose} already", route.destination)));
        }
        let id = self.next_id("rt");
        let stored = StoredRoute {
            id: id.clone(),
            table: cluster.clone(),
            owned: true,
            name: route.name.clone(),
            destination: route.destination,
            node: route.node.clone(),
            provider_id,
            next_hops: route.next_hops.clone(),
        };
        self.routes.insert(id, stored);
        self.touch();
        Ok(())
    }

    /// Has a route's destination lead elsewhere, at one moment.
    ///
    /// # Errors
    /// When there is no such route of this cluster, or the new target is not there.
    pub(super) fn replace_route(&mut self, cluster: &ClusterId, old: &Route, new: &Route) -> Result<()> {
        if old.destination.trunc() != new.destination.trunc() {
            return Err(CloudError::Invalid(format!("{} does not replace {}", new.destination, old.destination)));
        }
        let provider_id = self.target(new)?;
        let Some(id) = self.at(cluster, old.destination).filter(|one| one.owned).map(|one| one.id.clone()) else {
            return Err(CloudError::NotFound(format!("the cluster has no route to {}", old.destination)));
        };
        if let Some(stored) = self.routes.get_mut(&id) {
            stored.name.clone_from(&new.name);
            stored.node.clone_from(&new.node);
            stored.next_hops.clone_from(&new.next_hops);
            stored.provider_id = provider_id;
        }
        self.touch();
        Ok(())
    }

    /// Removes a route of this cluster, if it is there.
    pub(super) fn delete_route(&mut self, cluster: &ClusterId, route: &Route) {
        let Some(id) = self.at(cluster, route.destination).filter(|one| one.owned).map(|one| one.id.clone()) else {
            return;
        };
        self.routes.remove(&id);
        self.touch();
    }

    /// Puts a route of somebody else into a cluster's table.
    pub fn add_foreign_route(&mut self, cluster: &ClusterId, destination: IpNet) -> String {
        let id = self.next_id("rt");
        let stored = StoredRoute {
            id: id.clone(),
            table: cluster.clone(),
            owned: false,
            name: format!("foreign-{id}"),
            destination,
            node: String::new(),
            provider_id: String::new(),
            next_hops: Vec::new(),
        };
        self.routes.insert(id.clone(), stored);
        self.touch();
        id
    }

    /// Removes whatever routes lead to a destination, behind everybody's back.
    pub fn lose_routes(&mut self, destination: IpNet) -> usize {
        let before = self.routes.len();
        self.routes.retain(|_, one| one.destination.trunc() != destination.trunc());
        self.touch();
        before - self.routes.len()
    }
}
