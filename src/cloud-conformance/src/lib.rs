//! What every cloud provider has to do: 41 cases, each a function, run against any provider.
//!
//! ```text
//! Known (what exists in the tested cloud) + Steering (what may be done to it) → Suite → CASES → Report
//! ```
//! A case that needs what the tested cloud does not offer is reported as not applicable, with the reason; it never
//! counts as passed. What a case makes is removed after it.

pub mod cases;
pub mod known;
pub mod made_up;
pub mod report;
pub mod steering;
pub mod suite;

#[cfg(test)]
mod tests;

pub use cases::{CASES, Case};
pub use known::{Known, Machine};
pub use report::{Report, Verdict};
pub use steering::{ByCommand, Described, Restarted, Steering, Unsteered};
pub use suite::{Stop, Suite};
