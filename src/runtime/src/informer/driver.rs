//! skeleton
use super::WatchTransport;
use super::shared::{DryQuestions, Shared};
use crate::object::Cached;
use std::sync::Arc;
pub(super) async fn run<K: Cached>(_shared: Arc<Shared<K>>, _transport: Arc<dyn WatchTransport>, _q: DryQuestions) {}
