//! Clouds.

mod service;
mod service_failover;
mod service_pools;
mod service_yard;
