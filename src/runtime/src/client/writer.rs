//! What happens around the attempts of one write: the rate limit before the first, and the answers
//! that allow another one. Each attempt passes the gate anew.

use std::sync::Arc;

use bytes::Bytes;
use http::{Response, StatusCode};
use quarterdeck_election::FenceRefusal;
use quarterdeck_election::gate::FenceVerdict;
use tracing::Instrument as _;

use super::ApiError;
use super::backoff::Attempts;
use super::error::read_status;
use super::limit::Limiter;
use super::metrics::Metrics;
use super::pool::{Answer, Call, Failed, Pool};
use super::refusals::{Refusals, Refuser};
use crate::spans;

/// How often a write that the fence refused under a token still ours is tried again.
const FENCE_TRIES: u32 = 3;

/// Sends writes for all [`Api`](super::Api) handles.
#[derive(Clone)]
pub(crate) struct Writer {
    pool: Arc<Pool>,
    metrics: Metrics,
    refusals: Refusals,
}

/// What a write is called in errors, and what its caller wants of the stack.
pub(crate) struct Purpose {
    /// Kubernetes verb.
    pub(crate) verb: &'static str,
    /// Resource and object.
    pub(crate) what: String,
    /// Whether a 504 is tried again with a longer time; not where it means progress.
    pub(crate) retry_timeouts: bool,
}

impl Writer {
    pub(crate) fn new(pool: Pool, metrics: Metrics) -> Self {
        Self { pool: Arc::new(pool), metrics, refusals: Refusals::default() }
    }

    /// The last writes that gate or fence refused.
    pub(crate) fn refusals(&self) -> &Refusals {
        &self.refusals
    }

    /// The error of a write that the fence refused for good.
    fn fenced(&self, call: &Call, purpose: &Purpose, still_ours: bool) -> ApiError {
        let error = ApiError::Fenced { verb: purpose.verb, what: purpose.what.clone(), still_ours };
        self.refused(Refuser::Fence, call, purpose, &error);
        error
    }

    /// Notes a refusal; the error says why.
    fn refused(&self, by: Refuser, call: &Call, purpose: &Purpose, error: &ApiError) {
        let why = match error {
            ApiError::Gate { source, .. } => source.to_string(),
            ApiError::Fenced { still_ours: true, .. } => "the server refused the epoch, which is still ours".to_owned(),
            ApiError::Fenced { .. } => "the server refused the epoch: another replica leads".to_owned(),
            other => other.to_string(),
        };
        self.refusals.note(by, call.impersonate.as_ref(), format!("{} {}", purpose.verb, purpose.what), why);
    }

    /// Sends a write until it has an answer that is final; a success is returned whole.
    pub(crate) async fn send(
        &self,
        call: &Call,
        purpose: &Purpose,
        limiter: &Limiter,
    ) -> Result<Response<Bytes>, ApiError> {
        let span = spans::child(|| {
            crate::span!(
                "write",
                otel.kind = "client",
                verb = purpose.verb,
                object = purpose.what,
                code = tracing::field::Empty,
                otel.status_code = tracing::field::Empty,
            )
        });
        let answer = self.send_within(call, purpose, limiter).instrument(span.clone()).await;
        match &answer {
            Ok(response) => span.record("code", response.status().as_u16()),
            Err(error) => span.record("code", error.code().unwrap_or_default()).record("otel.status_code", "ERROR"),
        };
        answer
    }

    async fn send_within(
        &self,
        call: &Call,
        purpose: &Purpose,
        limiter: &Limiter,
    ) -> Result<Response<Bytes>, ApiError> {
        let gate = self.pool.gate();
        let mut attempts = Attempts::new();
        let mut fenced = 0;
        let mut limit = gate.write_timeout();
        self.metrics.limited(&call.method, limiter.take().await);
        loop {
            let answer = match self.pool.attempt(call, limit).await {
                Ok(answer) => answer,
                Err(failed) => {
                    let by_gate = matches!(failed, Failed::Refused(_) | Failed::Unfenced);
                    let error = failure(purpose, failed);
                    if by_gate {
                        self.refused(Refuser::Gate, call, purpose, &error);
                    }
                    return Err(error);
                }
            };
            let status = answer.response.status();
            if status.is_success() {
                return Ok(finish(answer));
            }
            if is_epoch_refusal(status, answer.response.body()) {
                let FenceVerdict::RetryAfter(wait) = gate.fence_refused(answer.permit()) else {
                    self.metrics.fence_refused("not_leader");
                    return Err(self.fenced(call, purpose, false));
                };
                if fenced == FENCE_TRIES {
                    self.metrics.fence_refused("given_up");
                    return Err(self.fenced(call, purpose, true));
                }
                fenced += 1;
                self.metrics.fence_refused("retried");
                drop(answer);
                tokio::time::sleep(wait * fenced / FENCE_TRIES).await;
            } else if status == StatusCode::GATEWAY_TIMEOUT && purpose.retry_timeouts {
                limit = gate.longer_timeout(limit).map_err(|slow| ApiError::Deadline {
                    verb: purpose.verb,
                    what: purpose.what.clone(),
                    limit,
                    hint: slow.to_string(),
                })?;
            } else if let Some(wait) = attempts.write_again(status, answer.response.headers()) {
                drop(answer);
                tokio::time::sleep(wait).await;
            } else {
                let status = Box::new(read_status(status, answer.response.body()));
                return Err(ApiError::Status { verb: purpose.verb, what: purpose.what.clone(), status });
            }
            self.metrics.retry(&call.method, Some(status));
        }
    }
}

fn finish(mut answer: Answer) -> Response<Bytes> {
    std::mem::take(&mut answer.response)
}

/// The fence is known by its message, whatever code it comes with.
fn is_epoch_refusal(status: StatusCode, body: &[u8]) -> bool {
    status.is_client_error()
        && read_status(status, body).message.and_then(|message| FenceRefusal::of_message(&message))
            == Some(FenceRefusal::Epoch)
}

fn failure(purpose: &Purpose, failed: Failed) -> ApiError {
    let (verb, what) = (purpose.verb, purpose.what.clone());
    match failed {
        Failed::Refused(source) => ApiError::Gate { verb, what, source },
        Failed::Unfenced => ApiError::Unfenced { verb, what },
        Failed::Unsent(source) | Failed::Lost(source) => ApiError::Transport { verb, what, source },
        Failed::Killed { limit } => ApiError::Deadline {
            verb,
            what,
            limit,
            hint: "the server did not say a word; the connection was dropped".to_owned(),
        },
    }
}
