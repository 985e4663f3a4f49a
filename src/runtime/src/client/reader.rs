//! Reads: single requests on the shared HTTP/2 connection, tried again where that is safe.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::ACCEPT;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use http_body_util::BodyExt;
use kube::client::Body;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use super::backoff::Attempts;
use super::connect::BoxError;
use super::error::read_status;
use super::limit::Limiter;
use super::metrics::Metrics;
use super::streams::Streams;
use super::{ApiError, accept};

/// The longest that one attempt of a read may take, its body included.
const READ_LIMIT: Duration = Duration::from_secs(60);

/// Sends reads for all [`Api`](super::Api) handles.
#[derive(Clone)]
pub(crate) struct Reader {
    pub(crate) streams: Arc<Streams>,
    pub(crate) metrics: Metrics,
}

/// One read.
pub(crate) struct Read<'a> {
    /// Kubernetes verb, for errors.
    pub(crate) verb: &'static str,
    /// Resource and object, for errors.
    pub(crate) what: &'a str,
    /// Path and query.
    pub(crate) path: &'a str,
    /// Accept header.
    pub(crate) accept: &'static str,
    /// The account it is made as.
    pub(crate) impersonate: Option<&'a HeaderValue>,
}

impl Reader {
    /// GETs and decodes.
    pub(crate) async fn get<T: DeserializeOwned>(&self, read: &Read<'_>, limiter: &Limiter) -> Result<T, ApiError> {
        let body = self.get_bytes(read, limiter).await?;
        serde_json::from_slice(&body).map_err(|source| ApiError::Decode {
            verb: read.verb,
            what: read.what.to_owned(),
            source,
        })
    }

    /// GETs what is not JSON; bytes that are no UTF-8 are replaced.
    pub(crate) async fn get_text(&self, read: &Read<'_>, limiter: &Limiter) -> Result<String, ApiError> {
        let body = self.get_bytes(read, limiter).await?;
        Ok(String::from_utf8_lossy(&body).into_owned())
    }

    async fn get_bytes(&self, read: &Read<'_>, limiter: &Limiter) -> Result<Bytes, ApiError> {
        let method = Method::GET;
        self.metrics.limited(&method, limiter.take().await);
        let mut attempts = Attempts::new();
        loop {
            let attempt = self.exchange(read, method.clone(), Bytes::new());
            let ended = tokio::time::timeout(READ_LIMIT, attempt).await;
            let (status, headers, error) = match ended {
                // A container that has not begun has no log, and the server says so with a 204.
                Ok(Ok((StatusCode::OK | StatusCode::NO_CONTENT, _, body))) => return Ok(body),
                Ok(Ok((status, headers, body))) => {
                    let error = status_error(read.verb, read.what, status, &body);
                    (Some(status), Some(headers), error)
                }
                Ok(Err(source)) => {
                    (None, None, ApiError::Transport { verb: read.verb, what: read.what.to_owned(), source })
                }
                Err(_) => {
                    let hint = "the read was given up".to_owned();
                    let what = read.what.to_owned();
                    (None, None, ApiError::Deadline { verb: read.verb, what, limit: READ_LIMIT, hint })
                }
            };
            let Some(wait) = attempts.read_again(status, headers.as_ref()) else { return Err(error) };
            tokio::time::sleep(wait).await;
            self.metrics.retry(&method, status);
        }
    }

    /// Sends one request that stores nothing, once.
    pub(crate) async fn ask(&self, read: &Read<'_>, body: Bytes, limit: Duration) -> Result<Bytes, ApiError> {
        let (verb, what) = (read.verb, read.what.to_owned());
        match tokio::time::timeout(limit, self.exchange(read, Method::POST, body)).await {
            Ok(Ok((status, _, body))) if status.is_success() => Ok(body),
            Ok(Ok((status, _, body))) => Err(status_error(verb, read.what, status, &body)),
            Ok(Err(source)) => Err(ApiError::Transport { verb, what, source }),
            Err(_) => Err(ApiError::Deadline { verb, what, limit, hint: "the question was given up".to_owned() }),
        }
    }

    async fn exchange(
        &self,
        read: &Read<'_>,
        method: Method,
        body: Bytes,
    ) -> Result<(StatusCode, HeaderMap, Bytes), BoxError> {
        let begun = Instant::now();
        let mut request = Request::new(Body::from(body));
        *request.uri_mut() = read.path.parse()?;
        request.headers_mut().insert(ACCEPT, HeaderValue::from_static(read.accept));
        if method == Method::POST {
            request.headers_mut().insert(http::header::CONTENT_TYPE, HeaderValue::from_static(accept::JSON));
        }
        *request.method_mut() = method.clone();
        let answer = self.streams.send(request, read.impersonate).await?;
        let (head, body) = answer.into_parts();
        let body = body.collect().await?.to_bytes();
        self.metrics.took(&method, begun.elapsed());
        self.metrics.response_bytes(&method, body.len());
        Ok((head.status, head.headers, body))
    }
}

fn status_error(verb: &'static str, what: &str, status: StatusCode, body: &[u8]) -> ApiError {
    ApiError::Status { verb, what: what.to_owned(), status: Box::new(read_status(status, body)) }
}
