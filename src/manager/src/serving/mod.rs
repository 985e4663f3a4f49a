//! Secure serving.

pub mod tls;
