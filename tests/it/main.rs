//! The integration tests, one binary: a module for each topic.

#![allow(clippy::unwrap_used, reason = "a test fails where its helper does")]

mod addon;
mod cluster;
