//! Clouds.

mod conformance;
mod faults;
mod faults_hang;
mod faults_lead;
mod faults_more;
mod faults_shim;
mod faults_stone;
mod faults_wire;
mod faults_world;
mod lifecycle;
mod metal_conformance;
mod metal_faults;
mod metal_flow;
mod metal_flow_world;
mod metal_life;
mod metal_net;
mod metal_net_agent;
mod metal_net_bgp;
mod metal_net_deploy;
mod metal_net_local;
mod metal_world;
mod node;
mod node_world;
mod plugin;
mod plugin_conformance;
mod plugin_life;
mod plugin_shim;
mod plugin_template;
mod route;
mod service;
mod service_crash;
mod service_drift;
mod service_failover;
mod service_pools;
mod service_wishes;
mod service_witness;
mod service_yard;

/// How much of a matrix runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Extent {
    /// A small part, in every run of the tests.
    Core,
    /// All of it: for tests in modules `long`, which `hack/test --all` runs.
    Whole,
}

impl Extent {
    fn is_whole(self) -> bool {
        self == Self::Whole
    }
}
