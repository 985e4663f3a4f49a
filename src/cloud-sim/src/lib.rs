//! The server of a made-up cloud, and how to steer it.

pub mod client;
pub mod control;
pub mod keep;

pub use client::Client;
