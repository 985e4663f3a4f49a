//! The client stack: one way to the API server for reads, one for writes, each request under an
//! identity, each write behind its precondition and the gate.
//!
//! Layers, outer to inner: rate limit → retry (safe verbs, and 429) → metrics (each attempt) →
//! gate → auth → connector. Reads and watches share one HTTP/2 connection; writes go through a
//! small pool of HTTP/1.1 connections, one write a connection, so that a write that must die dies
//! alone; the Lease has a connection of its own.
//!
//! | module | what it holds |
//! |---|---|
//! | `clients` | the place where all connections are made |
//! | `api` | the calls, and the precondition of each |
//! | `exceptions` | the calls that pass without gate or precondition |
//! | `writer`, `pool`, `connection` | a write: its answers, its attempts, its wire |
//! | `reader`, `streams`, `transport` | reads, and the streams of informers |
//! | `connect` | address and credentials, kept fresh |

pub mod accept;
mod api;
mod backoff;
mod clients;
mod connect;
mod connection;
mod error;
mod exceptions;
mod identity;
mod limit;
mod metrics;
mod path;
mod pool;
mod reader;
mod refusals;
mod streams;
#[cfg(test)]
pub(crate) mod tests;
mod transport;
mod write;
mod writer;

pub use api::{Api, ListQuery, Page};
pub use clients::{ClientOptions, Clients};
pub use connect::{ConnectError, Source};
pub use error::{ApiError, Class, ImpersonationRefused};
pub use exceptions::{EXCEPTIONS, Exception, Without};
pub use identity::Identity;
pub use refusals::{Refusal, Refusals, Refuser};
pub use write::{
    ApplyOptions, ApplyTo, DeletePrecondition, Expect, PatchPrecondition, Propagation, WriteLog, Written, Wrote,
};
