//! The controllers, one folder each.

pub mod addon;
pub mod endpoints;
pub mod endpointslice;
pub mod endpointslice_mirroring;
pub mod namespace;
