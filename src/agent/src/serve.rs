//! `/healthz`, `/metrics` and `/status`, over plain HTTP.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use prometheus::{Encoder as _, Registry, TextEncoder};
use quarterdeck_api::cloud::metal::AgentStatus;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::Instant;

/// A pass must have ended within this time.
const ALIVE: Duration = Duration::from_secs(120);

/// What is shown.
#[derive(Clone)]
pub struct Shown {
    /// All metrics.
    pub registry: Registry,
    /// The report.
    pub status: watch::Receiver<Option<AgentStatus>>,
    /// When the last pass ended.
    pub passed: Arc<Mutex<Instant>>,
}

/// Serves until it is stopped.
///
/// # Errors
/// When the address is taken.
pub async fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(address).await
}

/// Answers on a listener until it is stopped.
pub async fn serve(listener: TcpListener, shown: Shown) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Out of files, most likely: it passes.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let shown = shown.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request: Request<Incoming>| {
                let answer = answer(&shown, request.uri().path());
                async move { Ok::<_, std::convert::Infallible>(answer) }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(Duration::from_secs(10))
                .serve_connection(TokioIo::new(stream), service);
            let _ = connection.await;
        });
    }
}

fn answer(shown: &Shown, path: &str) -> Response<Full<Bytes>> {
    let (status, kind, body) = match path {
        "/healthz" | "/livez" => {
            let since = shown.passed.lock().elapsed();
            if since < ALIVE {
                (StatusCode::OK, "text/plain", "ok\n".to_owned())
            } else {
                let text = format!("no pass has ended for {} s\n", since.as_secs());
                (StatusCode::SERVICE_UNAVAILABLE, "text/plain", text)
            }
        }
        "/metrics" => {
            let mut text = Vec::new();
            match TextEncoder::new().encode(&shown.registry.gather(), &mut text) {
                Ok(()) => (StatusCode::OK, "text/plain; version=0.0.4", String::from_utf8_lossy(&text).into_owned()),
                Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, "text/plain", error.to_string()),
            }
        }
        "/status" => {
            let text = serde_json::to_string_pretty(&*shown.status.borrow()).unwrap_or_default();
            (StatusCode::OK, "application/json", text)
        }
        _ => (StatusCode::NOT_FOUND, "text/plain", "there are /healthz, /metrics and /status\n".to_owned()),
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static(kind));
    response
}
