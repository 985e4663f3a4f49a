//! Lease election, the write gate and the epoch fence.
