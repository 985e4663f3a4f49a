//! The guard around providers that misbehave.

mod blocked;
mod calls;
mod deadlines;
mod provider;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use quarterdeck_election::Gate;
use quarterdeck_runtime::facility::Authority;
use tokio::time::Instant;

use super::{AbandonedLimits, BreakerLimits, Guarded, Limits, Method, ProviderStatus};
use crate::model::ClusterId;
use provider::Wild;

/// How long what has to happen may take on a machine that has other things to do.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long a call may take of which a test waits for the end.
const SHORT: Duration = Duration::from_millis(300);

/// Limits that a loaded machine does not reach, and a breaker that stays out of the way.
fn patient() -> Limits {
    Limits {
        deadline: |_| PATIENCE,
        patience: PATIENCE,
        breaker: BreakerLimits { faults: 1_000, ..BreakerLimits::default() },
        abandoned: AbandonedLimits {
            grace: Duration::from_millis(50),
            keeps_place: Duration::from_millis(200),
            ..AbandonedLimits::default()
        },
        ..Limits::default()
    }
}

/// The same, but for calls that list or make routes: they are soon given up.
fn quick() -> Limits {
    let deadline = |method: &Method| match method.name {
        "routes.list" | "routes.create" => SHORT,
        _ => PATIENCE,
    };
    Limits { deadline, ..patient() }
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
