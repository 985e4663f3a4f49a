//! The guard around a provider: whatever a provider does, its callers get an answer in time, and nobody else notices.

mod calls;
mod lookup;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use quarterdeck_runtime::facility::Authority;
use tokio::runtime::Runtime;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::error::{CloudError, Result};
use crate::model::ClusterId;
use crate::provider::{CallClass, CallCtx, ProviderInfo, SharedProvider};

pub use lookup::Seen;

/// A method of a provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Method {
    /// Its name, as in `--cloud-timeout` and in metrics: `instances.get_many`.
    pub name: &'static str,
    /// Its kind.
    pub class: CallClass,
}

/// What is limited, and how.
#[derive(Clone, Debug)]
pub struct Limits {
    /// How long a call of a method may take.
    pub deadline: fn(&Method) -> Duration,
    /// How long a caller may wait for a place.
    pub patience: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { deadline: |method| method.class.default_deadline(), patience: Duration::from_secs(10) }
    }
}

/// A provider behind its guard. All calls to a provider go through here.
pub struct Guarded {
    name: Arc<str>,
    provider: SharedProvider,
    cluster: Arc<OnceLock<ClusterId>>,
    limits: Limits,
    places: [Arc<Semaphore>; 4],
    info: OnceLock<Arc<ProviderInfo>>,
    runtime: Option<Runtime>,
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
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name(format!("cloud-{name}"))
            .enable_all()
            .build()?;
        Ok(Self {
            name: name.into(),
            provider,
            cluster,
            limits,
            places: CallClass::ALL.map(|class| Arc::new(Semaphore::new(class.places()))),
            info: OnceLock::new(),
            runtime: Some(runtime),
        })
    }

    /// The provider's name, as `--cloud-provider` has it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Makes one call. Calls that change something need an authority, and the gate is asked when the call starts.
    async fn call<T, F>(
        &self,
        method: Method,
        authority: Option<&Authority>,
        op_id: Uuid,
        make: impl FnOnce(SharedProvider, CallCtx) -> F + Send + 'static,
    ) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let cluster = self
            .cluster
            .get()
            .cloned()
            .ok_or_else(|| CloudError::Unavailable("the cluster's id is not known yet".to_owned()))?;
        let places = Arc::clone(&self.places[method.class as usize]);
        let waiting = tokio::time::timeout(self.limits.patience, places.acquire_owned());
        let place = waiting.await.ok().and_then(std::result::Result::ok).ok_or_else(|| CloudError::Busy {
            provider: self.name.to_string(),
            class: method.class.name(),
            waited: self.limits.patience,
        })?;
        if let Some(authority) = authority {
            authority.gate.admit(authority.gate.write_timeout())?.finished();
        }
        let deadline = (self.limits.deadline)(&method);
        let cancel = CancellationToken::new();
        let stops = cancel.clone().drop_guard();
        let call = CallCtx {
            deadline: Instant::now() + deadline,
            cancel,
            lease_epoch: authority.map_or(0, |authority| authority.epoch),
            op_id,
            cluster,
        };
        let (tell, told) = oneshot::channel();
        let provider = Arc::clone(&self.provider);
        let runtime = self.runtime.as_ref().expect("it is there until the drop");
        runtime.spawn(async move {
            let answer = make(provider, call).await;
            // The place is given back only now: a call that was abandoned still takes one.
            drop(place);
            let _ = tell.send(answer);
        });
        let answer = tokio::time::timeout(deadline, told).await;
        drop(stops);
        match answer {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(CloudError::Other(format!("provider {} panicked in {}", self.name, method.name))),
            Err(_) => {
                Err(CloudError::Timeout { method: method.name, after: deadline, maybe_applied: method.class.changes() })
            }
        }
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Never waits: a provider may be stuck in it.
            runtime.shutdown_background();
        }
    }
}
