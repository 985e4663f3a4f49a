//! What a controller stands on: the client stack, informers, the work queue, events, and the
//! [`Controller`](controller::Controller) trait.

pub mod client;
pub mod controller;
pub mod engine;
pub mod events;
pub mod facility;
mod gist;
pub mod informer;
pub mod notes;
pub mod object;
pub mod ongoing;
pub mod queue;
pub mod select;
pub mod spans;
pub mod view;
