//! A collector: gRPC on HTTP/2 with one method, which keeps what it is sent.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use prost::Message as _;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::otlp::{Request, Resource, Span};

const EXPORT: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
/// Head of a gRPC message: whether it is compressed, and its length.
const HEAD: usize = 5;

/// What was received.
#[derive(Default)]
pub(super) struct Received {
    pub(super) spans: Vec<Span>,
    pub(super) resources: Vec<Resource>,
    /// What made no sense.
    pub(super) wrong: Vec<String>,
}

/// A collector that listens until it is dropped.
pub(super) struct Collector {
    address: SocketAddr,
    received: Arc<Mutex<Received>>,
    task: JoinHandle<()>,
}

impl Collector {
    pub(super) async fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let (address, received) = (listener.local_addr()?, Arc::new(Mutex::new(Received::default())));
        let all = Arc::clone(&received);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let all = Arc::clone(&all);
                let service = service_fn(move |request: http::Request<Incoming>| {
                    let all = Arc::clone(&all);
                    async move { Ok::<_, Infallible>(answer(request, &all).await) }
                });
                let serving = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), service);
                tokio::spawn(serving);
            }
        });
        Ok(Self { address, received, task })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Looks at what was received so far.
    pub(super) fn look<T>(&self, look: impl FnOnce(&Received) -> T) -> T {
        look(&self.received.lock())
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(
    request: http::Request<Incoming>,
    all: &Mutex<Received>,
) -> Response<http_body_util::combinators::BoxBody<Bytes, Infallible>> {
    match read(request).await {
        Ok(request) => {
            let mut all = all.lock();
            for resource in request.resource_spans {
                all.resources.extend(resource.resource);
                all.spans.extend(resource.scope_spans.into_iter().flat_map(|scope| scope.spans));
            }
        }
        Err(error) => all.lock().wrong.push(format!("{error:#}")),
    }
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    // An empty message.
    let body = Full::new(Bytes::from_static(&[0; HEAD])).with_trailers(std::future::ready(Some(Ok(trailers))));
    let mut response = Response::new(body.boxed());
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    response
}

async fn read(request: http::Request<Incoming>) -> Result<Request> {
    ensure!(request.uri().path() == EXPORT, "{}", request.uri());
    let body = request.into_body().collect().await?.to_bytes();
    let (head, message) = body.split_at_checked(HEAD).context("no head")?;
    let length = u32::from_be_bytes(head[1..].try_into()?);
    ensure!(head[0] == 0 && usize::try_from(length)? == message.len(), "{head:?} before {} bytes", message.len());
    Ok(Request::decode(message)?)
}
