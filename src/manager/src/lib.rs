//! The manager: one process that elects, warms caches, runs controllers, serves what operators ask,
//! and installs what the server needs.

mod announce;
mod builder;
mod control;
mod entry;
pub mod flags;
pub mod install;
mod log;
mod metrics;
#[cfg(feature = "otel")]
mod otel;
pub mod reasons;
mod replica;
mod run;
mod serve;
pub mod serving;
mod setup;
mod status;
mod watchdog;

pub use builder::Manager;
pub use quarterdeck_runtime::controller::Registrar;
