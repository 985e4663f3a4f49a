//! How long keys waited for a worker, by what a replica says in `/metrics`.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use quarterdeck_it::deck::Replica;

/// Queues of controllers that talk to clouds.
const OF_CLOUDS: [&str; 4] = ["Nodes", "cloud-node-lifecycle", "service", "Routes"];
const METRIC: &str = "workqueue_queue_duration_seconds";

/// A histogram of waiting times, of all controllers that do not talk to clouds.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Waits {
    /// Keys that waited at most so long, by the bounds' bits: they sort as the numbers do, being positive.
    upto: BTreeMap<u64, f64>,
    /// Seconds that all of them waited.
    sum: f64,
}

impl Waits {
    /// All waits since the replica began.
    pub(super) async fn read(replica: &Replica) -> Result<Self> {
        Self::parse(&replica.get("/metrics").await?)
    }

    fn parse(text: &str) -> Result<Self> {
        let mut waits = Self::default();
        for line in text.lines().filter_map(|line| line.strip_prefix(METRIC)) {
            let Some((series, value)) = line.rsplit_once(' ') else { continue };
            if label(series, "name").is_none_or(|name| OF_CLOUDS.contains(&name)) {
                continue;
            }
            let value: f64 = value.parse().with_context(|| line.to_owned())?;
            if series.starts_with("_sum") {
                waits.sum += value;
            } else if let Some(bound) = label(series, "le") {
                let bound: f64 = bound.trim_start_matches('+').parse().with_context(|| line.to_owned())?;
                *waits.upto.entry(bound.to_bits()).or_default() += value;
            }
        }
        Ok(waits)
    }

    /// Those that came since an earlier look.
    pub(super) fn since(&self, before: &Self) -> Self {
        let earlier = |bound: &u64| before.upto.get(bound).copied().unwrap_or_default();
        let upto = self.upto.iter().map(|(bound, count)| (*bound, count - earlier(bound))).collect();
        Self { upto, sum: self.sum - before.sum }
    }

    /// Adds others.
    pub(super) fn add(&mut self, others: &Self) {
        for (bound, count) in &others.upto {
            *self.upto.entry(*bound).or_default() += count;
        }
        self.sum += others.sum;
    }

    /// How many keys waited.
    pub(super) fn count(&self) -> f64 {
        self.upto.values().next_back().copied().unwrap_or_default()
    }

    /// How long they waited on average, in seconds.
    pub(super) fn mean(&self) -> f64 {
        self.sum / self.count()
    }

    /// The time that this part of them waited at most, in seconds, as Prometheus guesses it: waits are taken to be
    /// spread evenly over a bucket, and these buckets are ten times as wide as the one before.
    pub(super) fn quantile(&self, part: f64) -> f64 {
        let rank = part * self.count();
        let (mut low, mut below) = (0.0, 0.0);
        for (bound, count) in self.upto.iter().map(|(bound, count)| (f64::from_bits(*bound), *count)) {
            if count >= rank && count > below {
                return if bound.is_finite() { low + (bound - low) * (rank - below) / (count - below) } else { low };
            }
            (low, below) = (bound, count);
        }
        f64::NAN
    }
}

fn label<'a>(series: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = series.split_once(&format!("{name}=\""))?;
    rest.split('"').next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_of_others_and_guessed_within_a_bucket() {
        let text = "
# TYPE workqueue_queue_duration_seconds histogram
workqueue_queue_duration_seconds_bucket{name=\"endpoint\",le=\"0.001\"} 90
workqueue_queue_duration_seconds_bucket{name=\"endpoint\",le=\"0.01\"} 100
workqueue_queue_duration_seconds_bucket{name=\"endpoint\",le=\"+Inf\"} 100
workqueue_queue_duration_seconds_sum{name=\"endpoint\"} 0.1
workqueue_queue_duration_seconds_count{name=\"endpoint\"} 100
workqueue_queue_duration_seconds_bucket{name=\"service\",le=\"+Inf\"} 7
workqueue_queue_duration_seconds_sum{name=\"service\"} 700
";
        let waits = Waits::parse(text).unwrap();
        assert!((waits.count() - 100.0).abs() < 1e-9 && (waits.mean() - 0.001).abs() < 1e-9, "{waits:?}");
        assert!((waits.quantile(0.95) - 0.0055).abs() < 1e-9, "{}", waits.quantile(0.95));
        assert!((waits.quantile(0.45) - 0.0005).abs() < 1e-9, "{}", waits.quantile(0.45));
        let none = waits.since(&waits);
        assert!(none.count() < 1e-9);
        let mut twice = waits.clone();
        twice.add(&waits);
        assert!((twice.quantile(0.95) - waits.quantile(0.95)).abs() < 1e-9);
    }
}
