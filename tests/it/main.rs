//! Tests on a real control plane, a module a topic.

#![allow(clippy::unwrap_used, reason = "a test fails where its helper does")]

mod masters;
