//! What a replica tells: a line of the log and an Event for each change, once, and nothing at rest.

mod log;
mod long;
