//! Clouds: what a provider is, the guard around every provider, and plug-ins over gRPC.
//!
//! ```text
//! controller → Cloud (which provider) → Guarded (deadline, bulkhead, breaker, rate, gate) → Provider → the cloud
//! ```
//! A provider does calls, one at a time, and nothing else: it needs no retries, no caches, no timeouts and no locks.
//! Whatever it does — hang, block its thread, panic, lie — costs the caller an error and nobody else anything.

pub mod error;
pub mod facility;
mod growing;
#[cfg(feature = "grpc")]
pub mod grpc;
pub mod guard;
pub mod metal;
pub mod model;
pub mod nodes;
mod plugins;
pub mod provider;
pub mod reasons;
pub mod sim;

pub use error::CloudError;
pub use facility::Cloud;
pub use guard::Guarded;
pub use provider::{CallCtx, Instances, LoadBalancers, Provider, Routes};
