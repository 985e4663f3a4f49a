//! Clouds.

mod lifecycle;
mod metal_life;
mod metal_world;
mod node;
mod node_world;
mod route;
mod service;
mod service_failover;
mod service_pools;
mod service_yard;
