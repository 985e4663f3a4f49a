//! The guard around a provider: whatever a provider does, its callers get an answer in time, and nobody else notices.
//!
//! ```text
//! caller → breaker? → place (of its class) → token (of its class) → breaker → gate → call, on a thread of its own
//!            ↑                                                                          │ deadline: caller goes on
//!            └──────────── what came of it: breaker, rate, metrics, health ─────────────┘ cancel → drop → stuck
//! ```

mod breaker;
mod calls;
mod core;
mod flags;
mod info;
mod limits;
mod lookup;
mod method;
mod metrics;
mod probe;
mod rate;
mod running;
mod status;
#[cfg(test)]
mod tests;
mod threads;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt as _};
use tokio::time::Instant;
use uuid::Uuid;

use crate::error::{CloudError, Result};
use crate::model::{Answers, ClusterId, NodeRef};
use crate::provider::{ProviderInfo, SharedProvider};

use self::core::Core;
use lookup::{Asker, Lookups};

pub use breaker::{BreakerLimits, BreakerState};
pub use flags::GuardConfig;
pub use limits::{AbandonedLimits, Limits, Timeouts};
pub use lookup::Seen;
pub use method::Method;
pub use metrics::CloudMetrics;
pub use probe::{Trouble, TroubleKind};
pub use rate::Rate;
pub use status::{LastError, ProviderStatus};

/// A provider behind its guard. All calls to a provider go through here.
pub struct Guarded {
    core: Arc<Core>,
    lookups: Lookups,
}

impl Guarded {
    /// A guard around `provider`; `cluster` may be filled in later, calls fail until it is.
    ///
    /// # Errors
    /// When the provider's own runtime cannot be started.
    pub fn new(
        name: &str,
        provider: SharedProvider,
        cluster: Arc<OnceLock<ClusterId>>,
        limits: Limits,
    ) -> std::io::Result<Self> {
        let core = Arc::new(Core::new(name, provider, cluster, limits)?);
        Ok(Self { lookups: Lookups::new(Arc::clone(&core) as Arc<dyn Asker>), core })
    }

    /// What the provider said of itself, if it has.
    #[must_use]
    pub fn known_info(&self) -> Option<Arc<ProviderInfo>> {
        self.core.book.known()
    }

    /// Has its calls counted.
    #[must_use]
    pub fn measured(self, metrics: &CloudMetrics) -> Self {
        if self.core.metrics.set(metrics.clone()).is_ok() {
            metrics.follow(&self.core);
        }
        self
    }

    /// The provider's name, as `--cloud-provider` has it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.core.name
    }

    /// What the provider says of each of these nodes, in their order; answers that are not older than `max_age` may be
    /// of an earlier question. Zero: the cloud is asked.
    ///
    /// # Errors
    /// When it could not be asked for any of them. Where it could for some, the others have that error.
    pub async fn look_up(&self, nodes: &[NodeRef], max_age: Duration) -> Result<Vec<Seen>> {
        self.core.used();
        self.lookups.look_up(nodes, max_age).await
    }

    /// How the provider is, for a status page.
    #[must_use]
    pub fn status(&self) -> ProviderStatus {
        self.core.status()
    }

    /// What became different in what the provider says of itself, once for each time: whoever gets it tells the operator,
    /// in an event.
    #[must_use]
    pub fn take_change(&self) -> Option<String> {
        self.core.book.take_change()
    }

    /// What is wrong with the provider as a whole, once for each time that something is: whoever gets it tells the
    /// operator, in an event.
    #[must_use]
    pub fn take_trouble(&self) -> Option<Trouble> {
        self.core.health.take()
    }

    /// Whether the provider is well again after a trouble that was taken, once for each time: whoever gets it tells the
    /// operator, in an event.
    #[must_use]
    pub fn take_recovery(&self) -> bool {
        self.core.health.take_recovery()
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        self.core.stop.cancel();
        self.core.threads.stop();
    }
}

impl Asker for Core {
    fn max_batch(self: Arc<Self>) -> BoxFuture<'static, Result<usize>> {
        async move { Ok(self.info().await?.max_batch.max(1)) }.boxed()
    }

    fn ask(self: Arc<Self>, nodes: Arc<[NodeRef]>) -> BoxFuture<'static, Result<Answers>> {
        async move {
            let at = Instant::now();
            if let Some(metrics) = self.metrics.get() {
                metrics.asked(&self.name, nodes.len());
            }
            let ask = move |provider: SharedProvider, call| async move {
                let none = || CloudError::NotImplemented("instances".to_owned());
                provider.instances().ok_or_else(none)?.get_many(&call, &nodes).await
            };
            let answers = self.call(method::GET_MANY, None, Uuid::new_v4(), ask).await?;
            *self.refreshed.lock() = Some((answers.account.as_str().into(), at));
            Ok(answers)
        }
        .boxed()
    }
}
