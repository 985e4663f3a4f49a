//! Three replicas on two kube-apiservers over one etcd, each behind a network that fails: whatever happens, what a past
//! tenure sends does no harm.
//!
//! Every scenario ends a tenure in its own way while the replicas write all the time. The history of all writes is then
//! judged by [`quarterdeck_it::checker`]. Of the ways, `pauses` stop a process between the gate and the server; `mishaps` do
//! not. That the checker sees what it should is shown by `seeded` faults of our own, and by a `control`: an election that is
//! known to fail.

mod arena;
mod control;
mod load;
mod mishaps;
mod pauses;
mod recorder;
mod runs;
mod seeded;

use std::time::Duration;

/// Time that anything gets on a loaded machine.
const LONG: Duration = Duration::from_secs(60);
