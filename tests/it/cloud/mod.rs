//! The cloud side.

mod metal_net;
