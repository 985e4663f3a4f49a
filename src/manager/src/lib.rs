//! The manager.

pub mod flags;
pub mod serving;
