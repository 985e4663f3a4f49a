//! The cloud side.

mod metal_net;
mod metal_net_agent;
