//! Small grammars and CRD types shared by the manager and its tools; no I/O.

pub mod addon;
pub mod channel;
pub mod cloud;
pub mod duration;
pub mod nearest;
pub mod status;
pub mod version;
