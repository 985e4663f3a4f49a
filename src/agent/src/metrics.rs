//! What the agent counts.

use prometheus::{Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry};
use quarterdeck_api::cloud::metal::AgentStatus;

use crate::plan::Plan;

/// The agent's metrics.
#[derive(Clone)]
pub struct Metrics {
    /// Objects that were refused because their epoch was older than the one in force.
    pub refused: IntCounter,
    /// Passes in which something could not be brought to where it should be.
    pub failures: IntCounter,
    /// Transactions of nftables, and how long they took.
    pub loads: Histogram,
    /// From a change being seen to the kernel having it, by how it was worked in.
    pub changes: HistogramVec,
    /// What somebody else had changed and was put back, by part.
    pub repairs: IntCounterVec,
    /// Gratuitous ARP and unsolicited neighbour advertisements, by occasion.
    pub announcements: IntCounter,
    /// Flows of UDP that began anew because their backend gets no traffic any more.
    pub flows: IntCounter,
    /// Objects that the brake holds.
    pub held: IntGauge,
    addresses: IntGauge,
    balancers: IntGauge,
    backends: IntGauge,
    healthy: IntGauge,
    routes: IntGauge,
    epoch: IntGauge,
    problems: IntGauge,
}

impl Metrics {
    /// Metrics on this registry.
    ///
    /// # Errors
    /// When it has metrics of these names already.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let name = |name: &str| format!("quarterdeck_agent_{name}");
        let counter = |text: &str, help: &str| -> Result<IntCounter, prometheus::Error> {
            let counter = IntCounter::new(name(text), help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok(counter)
        };
        let gauge = |text: &str, help: &str| -> Result<IntGauge, prometheus::Error> {
            let gauge = IntGauge::new(name(text), help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok(gauge)
        };
        let buckets = vec![0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0];
        let help = "Time to bring our table of nftables to where it should be.";
        let loads = Histogram::with_opts(
            HistogramOpts::new(name("nftables_load_duration_seconds"), help).buckets(buckets.clone()),
        )?;
        registry.register(Box::new(loads.clone()))?;
        let help =
            "Time from a change of what is wanted, or of a backend's health, being seen to the kernel having it.";
        let options = HistogramOpts::new(name("change_duration_seconds"), help).buckets(buckets);
        let changes = HistogramVec::new(options, &["by"])?;
        registry.register(Box::new(changes.clone()))?;
        let help = "What somebody else had changed and was put back.";
        let repairs = IntCounterVec::new(Opts::new(name("repairs_total"), help), &["part"])?;
        registry.register(Box::new(repairs.clone()))?;
        Ok(Self {
            refused: counter("refused_total", "Objects refused because a later epoch is in force.")?,
            failures: counter(
                "failed_passes_total",
                "Passes in which something could not be brought to where it should be.",
            )?,
            announcements: counter(
                "announcements_total",
                "Gratuitous ARP and unsolicited neighbour advertisements sent.",
            )?,
            flows: counter(
                "udp_flows_forgotten_total",
                "Flows of UDP that began anew because their backend gets no traffic any more.",
            )?,
            addresses: gauge("announced_addresses", "Addresses that this host announces.")?,
            balancers: gauge("load_balancers", "Load balancers that this host takes in traffic for.")?,
            backends: gauge("checked_backends", "Checks of backends that are made.")?,
            healthy: gauge("unhealthy_backends", "Checks of backends that fail.")?,
            routes: gauge("routes", "Routes of ours, those to gateways included.")?,
            epoch: gauge("epoch", "Largest epoch in force.")?,
            problems: gauge("problems", "Things that are wrong with this host as a whole.")?,
            loads,
            changes,
            held: gauge(
                "held_objects",
                "Objects that are in the cluster no more and stay in force, because too many went at once.",
            )?,
            repairs,
        })
    }

    /// Shows a pass's outcome.
    pub fn show(&self, status: &AgentStatus, plan: &Plan) {
        let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.addresses.set(count(status.announces.len()));
        self.balancers.set(count(plan.balancers.len()));
        self.backends.set(count(plan.checks.len()));
        self.healthy.set(count(status.unhealthy.len()));
        self.routes.set(count(plan.routes.len()));
        self.epoch.set(i64::try_from(status.epoch).unwrap_or(i64::MAX));
        self.problems.set(count(status.problems.len()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_is_on_the_page_of_metrics() {
        let registry = Registry::new();
        let metrics = Metrics::new(&registry).unwrap();
        metrics.repairs.with_label_values(&["nftables"]).inc();
        metrics.changes.with_label_values(&["quick"]).observe(0.001);
        let page = include_str!("../../../docs/metrics.md");
        let served: Vec<String> = registry.gather().iter().map(|family| format!("| `{}` ", family.name())).collect();
        let said: Vec<&str> = page.lines().filter(|line| line.starts_with("| `quarterdeck_agent_")).collect();
        assert!(served.iter().all(|name| said.iter().any(|line| line.starts_with(name))), "{served:?}");
        assert_eq!(served.len(), said.len());
    }
}
