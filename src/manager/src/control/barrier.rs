//! The take-over barrier: work starts on caches that are as new as the tenure, as far as a second
//! of waiting can bring that about.

use std::collections::HashMap;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared, join_all};
use parking_lot::Mutex;
use prometheus::{IntCounterVec, Opts, Registry};
use quarterdeck_election::{EpochToken, Tenure};
use quarterdeck_runtime::informer::{InformerHandle, Informers};

/// The longest time that the barrier may hold a controller back.
const LIMIT: Duration = Duration::from_secs(1);

type Passing = Shared<BoxFuture<'static, ()>>;

/// Asks for each cache once a tenure, however many controllers read it.
pub(crate) struct Barrier {
    informers: Informers,
    late: IntCounterVec,
    passing: Mutex<(Option<EpochToken>, HashMap<InformerHandle, Passing>)>,
}

impl Barrier {
    /// A barrier for these caches.
    pub(crate) fn register(informers: Informers, registry: &Registry) -> Result<Self, prometheus::Error> {
        let late = IntCounterVec::new(
            Opts::new(
                "quarterdeck_takeover_barrier_late_total",
                "Take-overs that began without proof that the cache of this resource was as new as the tenure",
            ),
            &["resource"],
        )?;
        registry.register(Box::new(late.clone()))?;
        Ok(Self { informers, late, passing: Mutex::default() })
    }

    /// Waits until these caches are as new as the tenure, or the time is up.
    pub(crate) async fn pass(&self, tenure: &Tenure, caches: &[InformerHandle]) {
        join_all(caches.iter().map(|cache| self.passing(tenure, cache))).await;
    }

    fn passing(&self, tenure: &Tenure, cache: &InformerHandle) -> Passing {
        let mut passing = self.passing.lock();
        if passing.0.as_ref() != Some(tenure.token()) {
            *passing = (Some(tenure.token().clone()), HashMap::new());
        }
        let begin = || {
            let (informers, late) = (self.informers.clone(), self.late.clone());
            let (cache, version) = (cache.clone(), tenure.lease_version());
            async move {
                for (informer, freshness) in informers.barrier_of(vec![cache], version, LIMIT).await {
                    if !freshness.is_fresh() {
                        let (kind, selection) = (informer.kind(), informer.selection());
                        late.with_label_values(&[&kind.to_string()]).inc();
                        tracing::warn!(%kind, ?selection, ?freshness, "no proof that this cache is as new as the tenure");
                    }
                }
            }
            .boxed()
            .shared()
        };
        passing.1.entry(cache.clone()).or_insert_with(begin).clone()
    }
}
