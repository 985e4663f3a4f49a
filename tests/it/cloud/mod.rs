//! Clouds.

mod conformance;
mod faults;
mod faults_world;
mod lifecycle;
mod node;
mod node_world;
mod route;
mod service;
mod service_failover;
mod service_pools;
mod service_yard;
mod plugin;
mod plugin_shim;
mod plugin_template;

mod metal_net;
