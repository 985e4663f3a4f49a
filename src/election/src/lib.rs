//! Lease election, the write gate and the epoch fence.

/// Why the gate refused a write.
#[derive(Debug, thiserror::Error)]
#[error("not the leader")]
pub struct Refused;
