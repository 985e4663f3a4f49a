//! The agent of metal: what the manager decided becomes addresses, load balancers and routes of this host's kernel.
//!
//! ```text
//! cluster or file → Accepted (epochs, kept on disk) → plan (pure) → nftables, addresses, routes → report
//! ```
//! Everything of ours in the kernel is known by a mark: a table of its own, protocol number 99 on addresses, routes
//! and routing rules. Nothing else is ever changed.

pub mod announce;
pub mod brake;
pub mod desired;
pub mod engine;
pub mod health;
pub mod host;
pub mod kernel;
pub mod metrics;
pub mod nft;
pub mod options;
pub mod plan;
pub mod run;
pub mod serve;
pub mod slots;
pub mod source;
pub mod store;
