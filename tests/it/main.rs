//! Tests on a real control plane, a module a topic.

#![allow(clippy::unwrap_used, reason = "a test fails where its helper does")]

mod account;
mod addon;
mod addon_crd;
mod addon_workflow;
mod addonctl;
mod bad_input;
mod client;
mod cloud;
mod cluster;
mod dashboard;
mod deploy;
mod endpoints;
mod equality;
mod events_doc;
mod fence;
mod fuzz;
mod handover;
mod informer;
mod isolation;
mod logs_doc;
mod masters;
mod metrics_doc;
mod namespace;
mod node;
mod observe;
mod page;
mod paste;
mod rbac;
mod rooms;
mod rotation;
mod run_check;
mod serving;
mod split_brain;
mod standby;
mod told;
mod traces;
