//! Clouds.

mod lifecycle;
mod node;
mod node_world;
mod route;
