//! `sim`: a cloud that is made up, for tests and demonstrations. It never touches a machine or a packet.
//!
//! ```text
//! call → Faults (what is to go wrong) → pure transition on State (instances, balancers, routes) → kept → Faults → answer
//! ```
//! In memory it is [`Sim`]; `quarterdeck-cloud-sim` serves one to plug-in clients and keeps its state on disk. Whatever
//! a test may want of a cloud is a [`Command`], in memory and over the control socket alike.

mod balancers;
mod clock;
mod control;
mod faults;
mod grammar;
mod instances;
mod journal;
#[cfg(feature = "grpc")]
mod kind;
mod provider;
mod routes;
mod state;
#[cfg(test)]
mod tests;

/// Where `quarterdeck-cloud-sim` listens, and the manager looks for it, unless told otherwise.
pub const DEFAULT_SOCKET: &str = "unix:///run/quarterdeck/cloud-sim.sock";

pub use balancers::{ANNOTATIONS, ELSEWHERE, HOSTNAME, STEPS};
pub use clock::Clock;
pub use control::{Command, Dump, Reply};
pub use faults::{FailKind, Fault, Held, Moment, Rule};
pub use instances::{NewInstance, SCHEME};
pub use journal::Call;
#[cfg(feature = "grpc")]
pub(crate) use kind::KIND;
pub use provider::Sim;
pub use state::{Balancer, Machine, Phase, Power, Reservation, Settings, State, StoredRoute};
