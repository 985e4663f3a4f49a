//! skeleton
use super::{InformerHandle, WatchTransport};
use std::sync::Arc;
use std::time::Duration;
/// x
pub enum Freshness {
    /// x
    Fresh,
}
pub(super) async fn wait(
    _a: Vec<InformerHandle>,
    _t: Option<Arc<dyn WatchTransport>>,
    _v: u64,
    _l: Duration,
) -> Vec<(InformerHandle, Freshness)> {
    Vec::new()
}
