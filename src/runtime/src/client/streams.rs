//! Requests on HTTP/2: reads, watches and, on a connection of its own, the Lease.
//!
//! All of them share one connection, until so many streams are open on it that the server would
//! make new ones wait (kube-apiserver allows 100 a connection); then there is another. Requests for
//! one collection go on the connection that carries its watch, so that what one of them has shown
//! was sent after what the other one carried before.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::USER_AGENT;
use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use hyper_rustls::{FixedServerNameResolver, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use kube::client::Body;
use parking_lot::Mutex;

use super::connect::{BoxError, Wire, Wires};
use super::metrics::Metrics;

/// Streams on one connection before another one is opened; below the server's limit, because a
/// stream that was dropped counts there until its reset has arrived.
const STREAMS_A_CONNECTION: usize = 80;
/// Streams on one connection before a collection's next one has to go elsewhere.
const STREAMS_BESIDE: usize = 98;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes that the server may send ahead of what is read of a stream. A watch that is not taken off the server's hands in time is
/// ended by it; a window that adapts to the round trip stays at 64 KiB on a fast network, for all streams together.
const STREAM_WINDOW: u32 = 1 << 20;
/// The same for all streams of a connection: so much that one that is not read holds up no other.
const CONNECTION_WINDOW: u32 = STREAM_WINDOW * 128;

/// The header that says who a request is made as.
pub(crate) const IMPERSONATE_USER: HeaderName = HeaderName::from_static("impersonate-user");

type Http = hyper_util::client::legacy::Client<HttpsConnector<HttpConnector>, Body>;

/// How soon a dead connection is noticed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pings {
    /// A ping this often, with or without streams.
    pub(crate) every: Duration,
    /// The connection is dead if a ping is not answered in this time.
    pub(crate) timeout: Duration,
}

/// One HTTP/2 connection, re-made when it breaks.
#[derive(Clone)]
struct Lane(Arc<LaneInner>);

struct LaneInner {
    http: Http,
    wire: Arc<Wire>,
    /// How many streams of each path are open.
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    total: usize,
    paths: HashMap<Arc<str>, usize>,
}

impl Lane {
    fn new(wire: Arc<Wire>, pings: Pings) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let mut builder = hyper_util::client::legacy::Client::builder(TokioExecutor::new());
        builder.timer(TokioTimer::new()).pool_timer(TokioTimer::new());
        let connector = match &wire.tls {
            Some(tls) => {
                // Without prior knowledge the first requests would race for connections of their own.
                builder
                    .http2_only(true)
                    .http2_initial_stream_window_size(STREAM_WINDOW)
                    .http2_initial_connection_window_size(CONNECTION_WINDOW)
                    .http2_keep_alive_interval(pings.every)
                    .http2_keep_alive_timeout(pings.timeout)
                    .http2_keep_alive_while_idle(true);
                HttpsConnectorBuilder::new()
                    .with_tls_config(tls.clone())
                    .https_only()
                    .with_server_name_resolver(FixedServerNameResolver::new(wire.server_name.clone()))
                    .enable_http2()
                    .wrap_connector(tcp)
            }
            None => {
                let tls = rustls::ClientConfig::builder()
                    .with_root_certificates(rustls::RootCertStore::empty())
                    .with_no_client_auth();
                HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().wrap_connector(tcp)
            }
        };
        Self(Arc::new(LaneInner { http: builder.build(connector), wire, open: Mutex::default() }))
    }

    /// Counts a stream in if there is room for it: less room for paths that have none yet.
    fn admit(&self, path: &Arc<str>, known_only: bool) -> Option<OpenStream> {
        let mut open = self.0.open.lock();
        let room = if known_only { STREAMS_BESIDE } else { STREAMS_A_CONNECTION };
        if open.total >= room || (known_only && !open.paths.contains_key(path)) {
            return None;
        }
        open.total += 1;
        *open.paths.entry(Arc::clone(path)).or_default() += 1;
        drop(open);
        Some(OpenStream { lane: self.clone(), path: Arc::clone(path) })
    }
}

/// Counts as a stream on its lane until it is dropped.
struct OpenStream {
    lane: Lane,
    path: Arc<str>,
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        let mut open = self.lane.0.open.lock();
        open.total -= 1;
        if let Some(count) = open.paths.get_mut(&self.path) {
            *count -= 1;
            if *count == 0 {
                open.paths.remove(&self.path);
            }
        }
    }
}

/// The body of an answer while it arrives. Dropping it ends the stream.
pub(crate) struct StreamBody {
    body: Incoming,
    _stream: OpenStream,
}

impl http_body::Body for StreamBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The lanes to one API server.
pub(crate) struct Streams {
    wires: Arc<Wires>,
    metrics: Metrics,
    user_agent: HeaderValue,
    pings: Pings,
    lanes: Mutex<Vec<Lane>>,
}

impl Streams {
    /// Opens nothing yet.
    pub(crate) fn new(wires: Arc<Wires>, metrics: Metrics, user_agent: HeaderValue, pings: Pings) -> Self {
        Self { wires, metrics, user_agent, pings, lanes: Mutex::default() }
    }

    /// Room for one more stream on a lane of the present generation.
    fn place(&self, path: &str) -> OpenStream {
        let wire = self.wires.current();
        let path = Arc::from(path);
        let mut lanes = self.lanes.lock();
        // Streams of an older generation hold their lane themselves.
        lanes.retain(|lane| lane.0.wire.generation == wire.generation);
        for known_only in [true, false] {
            if let Some(stream) = lanes.iter().find_map(|lane| lane.admit(&path, known_only)) {
                return stream;
            }
        }
        let lane = Lane::new(wire, self.pings);
        lanes.push(lane.clone());
        lane.admit(&path, false).expect("a new lane is empty")
    }

    /// Sends a request, whose URI is a path and query, and returns when the answer's head is there.
    /// Counts it as one attempt.
    pub(crate) async fn send(
        &self,
        request: Request<Body>,
        impersonate: Option<&HeaderValue>,
    ) -> Result<Response<StreamBody>, BoxError> {
        let method = request.method().clone();
        let sent = self.send_on(request, impersonate).await;
        let status = sent.as_ref().ok().map(Response::status);
        self.metrics.attempt(&method, status);
        if status == Some(StatusCode::UNAUTHORIZED) {
            self.wires.unauthorized();
        }
        sent
    }

    async fn send_on(
        &self,
        mut request: Request<Body>,
        impersonate: Option<&HeaderValue>,
    ) -> Result<Response<StreamBody>, BoxError> {
        let stream = self.place(request.uri().path());
        let LaneInner { http, wire, .. } = &*stream.lane.0;
        let path = request.uri().path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
        *request.uri_mut() = wire.uri(&path)?;
        request.headers_mut().extend(wire.auth_headers().await?);
        request.headers_mut().insert(USER_AGENT, self.user_agent.clone());
        if let Some(user) = impersonate {
            request.headers_mut().insert(IMPERSONATE_USER, user.clone());
        }
        let answer = http.request(request).await?;
        Ok(answer.map(|body| StreamBody { body, _stream: stream }))
    }
}
