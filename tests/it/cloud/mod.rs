//! Clouds.

mod conformance;
