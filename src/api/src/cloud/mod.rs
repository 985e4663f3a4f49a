//! Objects of `cloud.quarterdeck.dev`: what the cloud side keeps in the cluster.

pub mod metal;
