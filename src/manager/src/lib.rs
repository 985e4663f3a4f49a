//! The manager: one process that elects, warms caches, runs controllers, serves what operators ask,
//! and installs what the server needs.

mod address;
mod announce;
mod builder;
mod control;
mod entry;
pub mod flags;
pub mod install;
mod log;
mod masters;
mod metrics;
mod notify;
#[cfg(feature = "otel")]
mod otel;
mod page;
pub mod reasons;
mod replica;
mod run;
mod serve;
pub mod serving;
mod setup;
mod status;
mod terms;
mod watchdog;

pub use builder::Manager;
pub use quarterdeck_runtime::controller::Registrar;
