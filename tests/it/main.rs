//! Tests on a real control plane, a module a topic.

#![allow(clippy::unwrap_used, reason = "a test fails where its helper does")]

mod account;
mod addon;
mod client;
mod cluster;
mod fence;
mod informer;
mod isolation;
mod split_brain;
mod standby;
