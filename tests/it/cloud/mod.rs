//! Clouds.

mod conformance;
mod faults;
mod faults_world;
mod service;
mod service_failover;
mod service_pools;
mod service_yard;
