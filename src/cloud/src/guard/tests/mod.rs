//! The guard around providers that misbehave.

mod blocked;
mod calls;
mod provider;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use quarterdeck_election::Gate;
use quarterdeck_runtime::facility::Authority;
use tokio::time::Instant;

use super::{AbandonedLimits, BreakerLimits, Guarded, Limits, ProviderStatus};
use crate::model::ClusterId;
use provider::Wild;

/// How long what has to happen may take on a machine that has other things to do.
const PATIENCE: Duration = Duration::from_secs(60);

/// Limits with which a test need not wait for long, and a breaker that stays out of the way.
fn quick() -> Limits {
    Limits {
        deadline: |_| Duration::from_millis(300),
        patience: Duration::from_secs(5),
        breaker: BreakerLimits { faults: 1_000, ..BreakerLimits::default() },
        abandoned: AbandonedLimits {
            grace: Duration::from_millis(50),
            keeps_place: Duration::from_millis(200),
            ..AbandonedLimits::default()
        },
        ..Limits::default()
    }
}

fn guard(provider: &Arc<Wild>, limits: Limits) -> Arc<Guarded> {
    let cluster = Arc::new(OnceLock::from(ClusterId("c".into())));
    Arc::new(Guarded::new("wild", Arc::clone(provider) as _, cluster, limits).unwrap())
}

/// A right that lasts.
fn authority() -> Authority {
    Authority { gate: Gate::unelected(Arc::new(quarterdeck_election::BootClock)), epoch: 7 }
}

/// Waits until the status is as it should be.
async fn until(guard: &Guarded, what: &str, holds: impl Fn(&ProviderStatus) -> bool) {
    let begun = Instant::now();
    while !holds(&guard.status()) {
        assert!(begun.elapsed() < PATIENCE, "{what}: {}", guard.status());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
