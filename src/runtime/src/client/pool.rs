//! The write pool: HTTP/1.1 connections kept alive, one write a connection, so that a write that
//! has to be killed takes no other one with it. Nearest the wire stands the gate: it is asked when
//! the body is serialised and the connection is there, right before sending.

use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HOST, USER_AGENT};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use parking_lot::Mutex;
use quarterdeck_election::{Gate, Permit, Refused};
use tokio::time::Instant;

use super::connect::{BoxError, Wire, Wires};
use super::connection::{Broken, Connection};
use super::metrics::Metrics;
use super::streams::IMPERSONATE_USER;

/// After a write's own time, how long its connection is left for the server's 504 to arrive.
const GRACE: Duration = Duration::from_millis(250);
/// Idle connections are closed before kube-apiserver closes them (90 s).
const LONGEST_IDLE: Duration = Duration::from_secs(60);
/// Idle connections that are kept at most.
const MOST_IDLE: usize = 32;
/// How many connections found dead a write may meet before it gives up.
const FRESH_TRIES: usize = 3;

/// One write, ready to be sent any number of times.
pub(crate) struct Call {
    /// HTTP method.
    pub(crate) method: Method,
    /// Path with query, without `timeout`.
    pub(crate) path: String,
    /// Content type of the body.
    pub(crate) content_type: &'static str,
    /// What the answer should be.
    pub(crate) accept: &'static str,
    /// The account it is made as; `None` for the manager's own user.
    pub(crate) impersonate: Option<HeaderValue>,
    /// A further extra of the account, sent only while impersonating.
    pub(crate) extra: Option<(HeaderName, HeaderValue)>,
    /// Whether it may only go out with the epoch's token, under a fence that is known to work.
    pub(crate) needs_fence: bool,
    /// Serialised once.
    pub(crate) body: Bytes,
}

/// Why an attempt has no answer.
pub(crate) enum Failed {
    /// The gate refused; nothing was sent.
    Refused(Refused),
    /// The write needs the fence, and the fence is not known to work; nothing was sent.
    Unfenced,
    /// Nothing was sent.
    Unsent(BoxError),
    /// Sent, perhaps carried out, but the answer was lost.
    Lost(BoxError),
    /// Sent, perhaps carried out, but not answered in its time; the connection is gone.
    Killed {
        /// What the write had been given.
        limit: Duration,
    },
}

/// The pool. One a process.
pub(crate) struct Pool {
    wires: Arc<Wires>,
    gate: Gate,
    metrics: Metrics,
    user_agent: HeaderValue,
    idle: Arc<Mutex<IdleSet>>,
}

impl Pool {
    /// Opens nothing yet.
    pub(crate) fn new(wires: Arc<Wires>, gate: Gate, metrics: Metrics, user_agent: HeaderValue) -> Self {
        Self { wires, gate, metrics, user_agent, idle: Arc::default() }
    }

    /// The gate that all writes pass.
    pub(crate) fn gate(&self) -> &Gate {
        &self.gate
    }

    /// Sends a write once, with the time `limit` for the server.
    ///
    /// Once sent, the exchange runs in a task of its own: a caller that is cancelled neither leaves
    /// the fate of the write open for longer than its time, nor a half-used connection.
    pub(crate) async fn attempt(&self, call: &Call, limit: Duration) -> Result<Answer, Failed> {
        for _ in 0..FRESH_TRIES {
            let wire = self.wires.current();
            let mut request = self.request(&wire, call, limit).await.map_err(Failed::Unsent)?;
            let connection = self.connection(&wire).await.map_err(Failed::Unsent)?;
            let permit = match self.gate.admit(limit) {
                Ok(permit) => permit,
                Err(refused) => {
                    self.metrics.gate_refused(&refused);
                    put_back(&self.idle, connection);
                    return Err(Failed::Refused(refused));
                }
            };
            // The server takes extras only together with a user to impersonate.
            match permit.fence_header().filter(|_| call.impersonate.is_some()) {
                Some((name, value)) => {
                    request.headers_mut().insert(name, value);
                }
                None if call.needs_fence => {
                    permit.finished();
                    put_back(&self.idle, connection);
                    return Err(Failed::Unfenced);
                }
                None => {}
            }
            let sent = Sent {
                connection,
                permit,
                limit,
                method: call.method.clone(),
                idle: Arc::clone(&self.idle),
                metrics: self.metrics.clone(),
                bytes: call.body.len(),
            };
            match tokio::spawn(sent.run(request)).await {
                Ok(Ok(answer)) => {
                    if answer.response.status() == StatusCode::UNAUTHORIZED {
                        self.wires.unauthorized();
                    }
                    return Ok(answer);
                }
                // Closed by the server while idle: another connection, and the gate again.
                Ok(Err(Failed::Unsent(_))) => {}
                Ok(Err(failed)) => return Err(failed),
                Err(error) => return Err(Failed::Lost(error.into())),
            }
        }
        Err(Failed::Unsent(format!("{FRESH_TRIES} connections were closed before the request was sent").into()))
    }

    async fn request(&self, wire: &Wire, call: &Call, limit: Duration) -> Result<Request<Full<Bytes>>, BoxError> {
        let joint = if call.path.contains('?') { '&' } else { '?' };
        let path = PathAndQuery::try_from(format!("{}{joint}timeout={}ms", call.path, limit.as_millis()))?;
        let uri = wire.uri(&path)?;
        let origin_form = uri.path_and_query().map_or("/", PathAndQuery::as_str).to_owned();
        let mut headers: HeaderMap = wire.auth_headers().await?;
        headers.insert(HOST, HeaderValue::try_from(wire.authority())?);
        headers.insert(USER_AGENT, self.user_agent.clone());
        headers.insert(ACCEPT, HeaderValue::from_static(call.accept));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(call.content_type));
        if let Some(user) = &call.impersonate {
            headers.insert(IMPERSONATE_USER, user.clone());
            headers.extend(call.extra.clone().map(|(name, value)| (Some(name), value)));
        }
        let mut request = Request::new(Full::new(call.body.clone()));
        *request.method_mut() = call.method.clone();
        *request.uri_mut() = origin_form.parse()?;
        *request.headers_mut() = headers;
        Ok(request)
    }

    /// An idle connection that is still open, or a new one.
    async fn connection(&self, wire: &Wire) -> Result<Connection, BoxError> {
        loop {
            // The one used last, so that those too many grow old.
            let Some(mut idle) = self.idle.lock().connections.pop() else { break };
            let fresh = idle.connection.generation == wire.generation && idle.since.elapsed() < LONGEST_IDLE;
            if fresh && idle.connection.is_ready().await {
                return Ok(idle.connection);
            }
        }
        Connection::open(wire, self.gate.write_timeout()).await
    }
}

/// The server's answer, with the permit that the write was sent under.
pub(crate) struct Answer {
    /// Head and whole body.
    pub(crate) response: Response<Bytes>,
    permit: Option<Permit>,
}

impl Answer {
    /// The permit that the write was sent under.
    pub(crate) fn permit(&self) -> &Permit {
        self.permit.as_ref().expect("taken in drop only")
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if let Some(permit) = self.permit.take() {
            permit.finished();
        }
    }
}

/// A write on its connection.
struct Sent {
    connection: Connection,
    permit: Permit,
    limit: Duration,
    method: Method,
    idle: Arc<Mutex<IdleSet>>,
    metrics: Metrics,
    bytes: usize,
}

impl Sent {
    async fn run(mut self, request: Request<Full<Bytes>>) -> Result<Answer, Failed> {
        let begun = Instant::now();
        let exchange = tokio::time::timeout(self.limit + GRACE, self.connection.exchange(request)).await;
        // Where the fate of the write is unknown its permit is dropped unfinished, which holds up
        // the release of the lease until the write's time is over.
        match exchange {
            Ok(Ok(response)) => {
                self.metrics.attempt(&self.method, Some(response.status()));
                self.metrics.took(&self.method, begun.elapsed());
                self.metrics.request_bytes(&self.method, self.bytes);
                self.metrics.response_bytes(&self.method, response.body().len());
                put_back(&self.idle, self.connection);
                Ok(Answer { response, permit: Some(self.permit) })
            }
            Ok(Err(Broken::Unsent(error))) => {
                self.permit.finished();
                Err(Failed::Unsent(error))
            }
            Ok(Err(Broken::Sent(error))) => {
                self.metrics.attempt(&self.method, None);
                Err(Failed::Lost(error))
            }
            Err(_) => {
                self.metrics.attempt(&self.method, None);
                self.metrics.killed(&self.method);
                Err(Failed::Killed { limit: self.limit })
            }
        }
    }
}

struct Idle {
    connection: Connection,
    since: Instant,
}

#[derive(Default)]
struct IdleSet {
    connections: Vec<Idle>,
    reaped: bool,
}

/// Keeps a connection for the next write; a task closes it when nobody wants it for long.
fn put_back(pool: &Arc<Mutex<IdleSet>>, connection: Connection) {
    let mut idle = pool.lock();
    if idle.connections.len() >= MOST_IDLE {
        return;
    }
    idle.connections.push(Idle { connection, since: Instant::now() });
    if !idle.reaped {
        idle.reaped = true;
        tokio::spawn(reap(Arc::downgrade(pool)));
    }
}

async fn reap(pool: Weak<Mutex<IdleSet>>) {
    loop {
        tokio::time::sleep(LONGEST_IDLE).await;
        let Some(pool) = pool.upgrade() else { return };
        let mut idle = pool.lock();
        idle.connections.retain(|idle| idle.since.elapsed() < LONGEST_IDLE);
        if idle.connections.is_empty() {
            idle.reaped = false;
            return;
        }
    }
}
