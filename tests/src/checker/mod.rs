//! Judges what replicas wrote while they took the deck from each other.
//!
//! A [`History`] holds the tenures that the Lease's writes tell of, and every write that landed, in the order of etcd's
//! revisions; [`history`] makes it of audit logs and a recorder's watch, and [`check`], which is pure, looks for writes that
//! no law allows.

mod check;
mod collect;
mod history;

pub use check::{Law, Violation, check, unfenced};
pub use collect::{Landed, history};
pub use history::{History, Tenure, Verb, Write};
