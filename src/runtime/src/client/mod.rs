//! The client stack: one way to the API server for reads, one for writes, each request under an
//! identity, each write behind its precondition and the gate.
//!
//! Layers, outer to inner: rate limit → retry (safe verbs, and 429) → metrics (each attempt) →
//! gate → auth → connector. Reads and watches share one HTTP/2 connection; writes go through a
//! small pool of HTTP/1.1 connections, one write a connection, so that a write that must die dies
//! alone.

mod api;
mod error;
mod write;

pub use api::{Api, ClientOptions, Clients, Identity, ListQuery, Page};
pub use error::{ApiError, Class};
pub use write::{
    ApplyOptions, ApplyTo, DeletePrecondition, Expect, PatchPrecondition, Propagation, WriteLog, Written, Wrote,
};
