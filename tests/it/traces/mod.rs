//! Traces of reconciles, received as a collector does.

mod collector;
mod long;
mod otlp;
