//! Metrics that are read off when they are scraped: the election, the fence, queues' running work.

use std::sync::Arc;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Gauge, IntCounter, IntGauge, IntGaugeVec, Opts, Registry};
use quarterdeck_election::{ElectionStatus, FenceState, Leadership};
use quarterdeck_runtime::engine::Unit;
use tokio::sync::watch;

/// What is known of the fence, as label values.
const FENCE_STATES: [&str; 4] = ["verified", "absent", "broken", "unknown"];

/// The election's metrics, by upstream's names where they exist
/// (`component-base:metrics/prometheus/clientgo/leaderelection`, v0.36.3).
struct Election {
    leadership: watch::Receiver<Leadership>,
    status: Option<watch::Receiver<ElectionStatus>>,
    gate: quarterdeck_election::Gate,
    master: IntGauge,
    slow_paths: IntCounter,
    transitions: IntGauge,
    tenures: IntCounter,
    deadline: Gauge,
    fence: IntGaugeVec,
}

/// Registers the metrics of the election of the Lease `name`.
pub(crate) fn election(
    registry: &Registry,
    name: &str,
    leadership: watch::Receiver<Leadership>,
    status: Option<watch::Receiver<ElectionStatus>>,
    gate: quarterdeck_election::Gate,
) -> Result<(), prometheus::Error> {
    let opts = |metric: &str, help: &str| Opts::new(metric, help).const_label("name", name);
    registry.register(Box::new(Election {
        leadership,
        status,
        gate,
        master: IntGauge::with_opts(opts("leader_election_master_status", "1 if this replica leads"))?,
        slow_paths: IntCounter::with_opts(opts(
            "leader_election_slowpath_total",
            "Renewals that had to read the Lease before they could write it",
        ))?,
        transitions: IntGauge::with_opts(opts(
            "quarterdeck_leader_election_transitions",
            "leaseTransitions of the Lease as last seen",
        ))?,
        tenures: IntCounter::with_opts(opts(
            "quarterdeck_leader_election_tenures_total",
            "Times this replica began to lead",
        ))?,
        deadline: Gauge::with_opts(opts(
            "quarterdeck_leader_election_deadline_seconds",
            "Seconds until the last moment for a write of this tenure; 0 while not leading",
        ))?,
        fence: IntGaugeVec::new(
            opts("quarterdeck_fence_state", "1 for what is known of the epoch fence while leading"),
            &["state"],
        )?,
    }))
}

impl Collector for Election {
    fn desc(&self) -> Vec<&Desc> {
        let parts: [&dyn Collector; 6] =
            [&self.master, &self.slow_paths, &self.transitions, &self.tenures, &self.deadline, &self.fence];
        parts.into_iter().flat_map(Collector::desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let leads = self.leadership.borrow().tenure().is_some();
        self.master.set(i64::from(leads));
        self.deadline.set(if leads { self.gate.remaining().unwrap_or_default().as_secs_f64() } else { 0.0 });
        let mut fence = None;
        if let Some(status) = &self.status {
            let status = status.borrow();
            set(&self.slow_paths, status.slow_paths);
            set(&self.tenures, status.tenures);
            self.transitions.set(status.transitions.unwrap_or_default().into());
            fence = status.fence.as_ref().map(fence_state);
        }
        let fence = fence.unwrap_or("unknown");
        for state in FENCE_STATES {
            self.fence.with_label_values(&[state]).set(i64::from(leads && state == fence));
        }
        let parts: [&dyn Collector; 6] =
            [&self.master, &self.slow_paths, &self.transitions, &self.tenures, &self.deadline, &self.fence];
        parts.into_iter().flat_map(Collector::collect).collect()
    }
}

/// The state of the fence as a label value.
pub(crate) fn fence_state(state: &FenceState) -> &'static str {
    match state {
        FenceState::Verified => "verified",
        FenceState::Absent => "absent",
        FenceState::Broken(_) => "broken",
    }
}

fn set(counter: &IntCounter, value: u64) {
    counter.reset();
    counter.inc_by(value);
}

/// Refreshes gauges that grow while nothing happens, whenever metrics are gathered.
struct Refresh(Vec<Arc<dyn Unit>>, IntGauge);

/// Registers the count of controllers of this replica, which also keeps their queues' gauges true.
pub(crate) fn units(registry: &Registry, units: Vec<Arc<dyn Unit>>) -> Result<(), prometheus::Error> {
    let count = IntGauge::new("quarterdeck_controllers_enabled", "Controllers that this replica was told to run")?;
    registry.register(Box::new(Refresh(units, count)))
}

impl Collector for Refresh {
    fn desc(&self) -> Vec<&Desc> {
        self.1.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        for unit in &self.0 {
            unit.refresh_metrics();
        }
        self.1.set(i64::try_from(self.0.len()).unwrap_or(i64::MAX));
        self.1.collect()
    }
}
