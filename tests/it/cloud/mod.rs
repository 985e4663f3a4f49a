//! Clouds.

mod conformance;
mod faults;
mod faults_world;
