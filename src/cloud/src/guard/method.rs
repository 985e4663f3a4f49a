//! The methods of a provider, by name.

use crate::provider::CallClass;

/// A method of a provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Method {
    /// Its name, as in `--cloud-timeout` and in metrics: `instances.get_many`.
    pub name: &'static str,
    /// Its kind.
    pub class: CallClass,
}

const fn of(name: &'static str, class: CallClass) -> Method {
    Method { name, class }
}

pub(super) const INFO: Method = of("identity.info", CallClass::Read);
pub(super) const PROBE: Method = of("identity.probe", CallClass::Read);
pub(super) const GET_MANY: Method = of("instances.get_many", CallClass::Batch);
pub(super) const GET_BALANCERS: Method = of("loadbalancers.get", CallClass::Read);
pub(super) const ENSURE_BALANCER: Method = of("loadbalancers.ensure", CallClass::LoadBalancer);
pub(super) const UPDATE_BACKENDS: Method = of("loadbalancers.update_backends", CallClass::LoadBalancer);
pub(super) const DELETE_BALANCER: Method = of("loadbalancers.ensure_deleted", CallClass::LoadBalancer);
pub(super) const LIST_BALANCERS: Method = of("loadbalancers.list_owned", CallClass::Read);
pub(super) const LIST_ROUTES: Method = of("routes.list", CallClass::Read);
pub(super) const CREATE_ROUTE: Method = of("routes.create", CallClass::Route);
pub(super) const REPLACE_ROUTE: Method = of("routes.replace", CallClass::Route);
pub(super) const DELETE_ROUTE: Method = of("routes.delete", CallClass::Route);

impl Method {
    /// All of them.
    pub const ALL: [Self; 12] = [
        INFO,
        PROBE,
        GET_MANY,
        GET_BALANCERS,
        ENSURE_BALANCER,
        UPDATE_BACKENDS,
        DELETE_BALANCER,
        LIST_BALANCERS,
        LIST_ROUTES,
        CREATE_ROUTE,
        REPLACE_ROUTE,
        DELETE_ROUTE,
    ];

    /// The service it belongs to, as metrics have it: `instances`.
    #[must_use]
    pub fn service(&self) -> &'static str {
        self.name.split_once('.').map_or(self.name, |(service, _)| service)
    }

    /// Its name within its service: `get_many`.
    #[must_use]
    pub fn verb(&self) -> &'static str {
        self.name.split_once('.').map_or(self.name, |(_, verb)| verb)
    }
}
