//! What a replica serves: health, metrics, status.

use std::collections::BTreeMap;
use std::sync::Arc;

use quarterdeck_election::{ElectionStatus, Leadership};
use quarterdeck_runtime::client::Clients;
use quarterdeck_runtime::engine::Unit;
use quarterdeck_runtime::informer::Informers;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::control::States;
use crate::flags::Parsed;
use crate::watchdog::Watchdog;

/// What is served.
#[allow(dead_code)]
pub(crate) struct Served {
    pub(crate) program: String,
    pub(crate) lease: String,
    pub(crate) units: Vec<Arc<dyn Unit>>,
    pub(crate) states: States,
    pub(crate) informers: Informers,
    pub(crate) clients: Clients,
    pub(crate) election: Option<watch::Receiver<ElectionStatus>>,
    pub(crate) leadership: watch::Receiver<Leadership>,
    pub(crate) watchdog: Watchdog,
    pub(crate) registry: prometheus::Registry,
    pub(crate) flags: BTreeMap<String, String>,
}

pub(crate) async fn start(_parsed: &Parsed, _served: Served, _stop: &CancellationToken) -> anyhow::Result<()> {
    Ok(())
}
