//! A real control plane for tests, benches and `hack/cluster`: etcd and
//! kube-apiserver on free ports of this machine, with TLS, RBAC and an audit
//! log, the Go peers (kube-controller-manager, kube-scheduler, kwok), and the
//! faults that a test puts on them.
//!
//! ```no_run
//! # async fn example() -> anyhow::Result<()> {
//! use quarterdeck_it::{ControlPlane, shared};
//!
//! // One control plane for all tests of the process; a namespace for this one.
//! let control_plane = shared().await;
//! control_plane.namespace("mine").await?;
//! let client = control_plane.admin().await?;
//!
//! // One of its own for a test that restarts servers.
//! let own = ControlPlane::builder().apiservers(2).start().await?;
//! own.apiserver(0).kill().await?;
//! # drop(client);
//! # Ok(())
//! # }
//! ```
//!
//! Three rules keep tests honest: nothing but [`eventually`] waits; a client
//! belongs to the runtime of the test that made it (so clients are made anew,
//! never shared between tests); and a test that stops, pauses or reconfigures
//! a server starts its own control plane.

pub mod audit;
mod binaries;
pub mod checker;
pub mod cloud;
mod control_plane;
pub mod deck;
mod kubeconfig;
pub mod masters;
pub mod netns;
mod pki;
mod ports;
mod process;
pub mod proxy;
mod skip;
mod turnstile;
mod wait;
pub mod webhook;

pub use audit::{AuditPolicy, AuditReader};
pub use binaries::{Binaries, Peer, repository, target};
pub use cloud::CloudSim;
pub use control_plane::{Builder, ControlPlane, Node, Server, shared};
pub use deck::Deck;
pub use kubeconfig::Credentials;
pub use ports::ReservedPort;
pub use process::{Exit, Launch, Process, Usage};
pub use proxy::Proxy;
pub use skip::skip;
pub use turnstile::Turnstile;
pub use wait::eventually;
pub use webhook::Webhook;

/// Signals for [`Process::signal`].
pub use nix::sys::signal::Signal;
