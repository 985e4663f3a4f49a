//! From leadership to running controllers: each controller has a supervisor that decides, from the
//! lease, its caches and its predecessor, which state it is in.

mod barrier;
mod predecessor;
mod state;
mod supervise;

pub(crate) use barrier::Barrier;
pub(crate) use predecessor::{Predecessors, Sight};
pub(crate) use state::{State, States};
pub(crate) use supervise::Supervisor;
