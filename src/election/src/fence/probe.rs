//! Proves by two dry-run writes that the server refuses past epochs.

use std::{sync::Arc, time::Duration};

use futures::{FutureExt as _, future::BoxFuture};
use http::{HeaderName, HeaderValue};
use k8s_openapi::{
    api::core::v1::{Event, ObjectReference},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{Client, Resource as _, api::PostParams, core::Request};
use tokio::time::{Instant, sleep, timeout};

use super::{FenceProver, FenceRefusal, FenceState, ProbeError};
use crate::epoch::{Epoch, EpochToken};

/// The account whose writes probe the fence. It may create events in kube-system and nothing else; it need not exist.
pub const PROBE_ACCOUNT: &str = "system:serviceaccount:kube-system:quarterdeck-fence-probe";
/// The namespace of the events that are tried.
const PROBE_NAMESPACE: &str = "kube-system";

/// How long a server's copy of the Lease may lag behind before the fence counts as broken.
const LAG: Duration = Duration::from_secs(1);
/// The pause between two looks at a lagging server.
const PAUSE: Duration = Duration::from_millis(10);
/// How long one dry-run write may take.
const WRITE_LIMIT: Duration = Duration::from_secs(2);

/// Probes the fence of one Lease on a real server.
#[derive(Clone)]
pub struct KubeFenceProver {
    client: Client,
    lease: Arc<str>,
}

impl KubeFenceProver {
    /// Probes the fence of the Lease named `lease`, over `client`: without gate, without retries, and with the right to
    /// impersonate [`PROBE_ACCOUNT`] and the Lease's epoch key.
    pub fn new(client: Client, lease: impl Into<Arc<str>>) -> Self {
        Self { client, lease: lease.into() }
    }

    /// Looks whether `token` is admitted and the one before it refused.
    ///
    /// # Errors
    /// A write had no clear outcome: the server could not be reached, or refused for another reason than the fence.
    pub async fn verify(&self, token: &EpochToken) -> Result<FenceState, ProbeError> {
        let began = Instant::now();
        loop {
            let present = self.try_write(token).await?;
            let past = self.try_write(&token.previous()).await?;
            let reason = match (present, past) {
                (Outcome::Admitted, Outcome::Refused) => return Ok(FenceState::Verified),
                (Outcome::Admitted, Outcome::Admitted) => return Ok(FenceState::Absent),
                (Outcome::Refused, Outcome::Refused) => "the present epoch is refused",
                (Outcome::Refused, Outcome::Admitted) => "the present epoch is refused and the one before it admitted",
            };
            if began.elapsed() >= LAG {
                let cure = "the server's copy of the lease may be dead until it restarts, see kubernetes#130887";
                return Ok(FenceState::Broken(format!("{reason}: {cure}").into()));
            }
            sleep(PAUSE).await;
        }
    }

    async fn try_write(&self, token: &EpochToken) -> Result<Outcome, ProbeError> {
        let request = self.request(token).map_err(|error| ProbeError(error.to_string()))?;
        let exchange = self.client.request::<Event>(request);
        match timeout(WRITE_LIMIT, exchange).await {
            Err(_) => Err(ProbeError(format!("no answer within {WRITE_LIMIT:?}"))),
            Ok(Ok(_)) => Ok(Outcome::Admitted),
            Ok(Err(error)) => match FenceRefusal::of_error(&error) {
                Some(FenceRefusal::Epoch) => Ok(Outcome::Refused),
                _ => Err(ProbeError(error.to_string())),
            },
        }
    }

    fn request(&self, token: &EpochToken) -> Result<http::Request<Vec<u8>>, Box<dyn std::error::Error>> {
        let params = PostParams { dry_run: true, ..PostParams::default() };
        let event = Event {
            metadata: ObjectMeta {
                name: Some(format!("quarterdeck-fence-probe.{}", self.lease)),
                namespace: Some(PROBE_NAMESPACE.into()),
                ..Default::default()
            },
            involved_object: ObjectReference {
                api_version: Some("v1".into()),
                kind: Some("Namespace".into()),
                name: Some(PROBE_NAMESPACE.into()),
                namespace: Some(PROBE_NAMESPACE.into()),
                ..Default::default()
            },
            reason: Some("FenceProbe".into()),
            type_: Some("Normal".into()),
            ..Default::default()
        };
        let path = Event::url_path(&(), Some(PROBE_NAMESPACE));
        let mut request = Request::new(path).create(&params, serde_json::to_vec(&event)?)?;
        let (name, value) = Epoch::new(&self.lease, token.clone()).header();
        let headers = request.headers_mut();
        headers.insert(HeaderName::from_static("impersonate-user"), HeaderValue::from_static(PROBE_ACCOUNT));
        headers.insert(name, value);
        Ok(request)
    }
}

#[derive(Debug, Clone, Copy)]
enum Outcome {
    Admitted,
    Refused,
}

impl FenceProver for KubeFenceProver {
    fn prove(&self, token: EpochToken) -> BoxFuture<'static, Result<FenceState, ProbeError>> {
        let prover = self.clone();
        async move { prover.verify(&token).await }.boxed()
    }
}

#[cfg(test)]
mod tests;
