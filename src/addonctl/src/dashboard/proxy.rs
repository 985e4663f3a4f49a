//! The server on the loopback address, and the way from it to the leader.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http::header::{ACCEPT, ACCEPT_LANGUAGE, IF_NONE_MATCH, SET_COOKIE};
use http::{HeaderMap, HeaderValue, Request, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::{Mutex, Semaphore};
use tokio::time::{Instant, timeout};

use super::guard::{Guard, PAGE, Ruling};
use super::respond::{Said, nobody, page, passed_on, text};
use crate::cli::{Connection, ReachFlags};
use crate::reach::{Answer, Follower, ReachError, Site};

/// Connections of browsers at a time.
const CONNECTIONS: usize = 64;
/// How long the head of a request may take to arrive.
const HEAD: Duration = Duration::from_secs(10);
/// How long a request waits for an answer; the page asks again.
const PATIENCE: Duration = Duration::from_secs(8);
/// How often credentials that were refused are made anew.
const RENEWAL: Duration = Duration::from_secs(30);
/// Headers of a request that are passed on.
const PASSED: [http::HeaderName; 3] = [ACCEPT, ACCEPT_LANGUAGE, IF_NONE_MATCH];

/// Passes requests on to the leader.
pub(super) struct Proxy {
    guard: Guard,
    follower: Mutex<Follower>,
    /// What the follower was made of.
    origin: (Connection, ReachFlags),
    renewed: Mutex<Option<Instant>>,
}

impl Proxy {
    pub(super) fn new(guard: Guard, follower: Follower, origin: (Connection, ReachFlags)) -> Self {
        Self { guard, follower: Mutex::new(follower), origin, renewed: Mutex::new(None) }
    }

    async fn answer(&self, request: &Request<Incoming>) -> Said {
        match self.guard.rule(request.method(), request.uri(), request.headers()) {
            Ruling::Pass => self.pass(request).await,
            Ruling::Enter => self.enter(),
            Ruling::ToPage => to_page(),
            Ruling::Refuse(status, reason) => text(status, reason),
        }
    }

    /// Gives the cookie, and leads on. This is no redirect: the browser would count the request for the page to whoever
    /// linked to us, and keep the cookie back.
    fn enter(&self) -> Said {
        let mut said = to_page();
        match HeaderValue::try_from(self.guard.cookie()) {
            Ok(cookie) => said.headers_mut().append(SET_COOKIE, cookie),
            Err(error) => return text(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
        };
        said
    }

    async fn pass(&self, request: &Request<Incoming>) -> Said {
        let wants_page = wants_page(request.headers());
        match timeout(PATIENCE, self.ask(request)).await {
            Ok(Ok(answer)) => passed_on(&answer),
            Ok(Err(error)) => nobody(&error.to_string(), wants_page),
            Err(_) => nobody("nobody answers; a replica may be about to take over", wants_page),
        }
    }

    async fn ask(&self, request: &Request<Incoming>) -> Result<Answer, ReachError> {
        let uri = request.uri();
        let path = uri.path_and_query().map_or(uri.path(), http::uri::PathAndQuery::as_str);
        let headers: HeaderMap = PASSED
            .iter()
            .flat_map(|name| request.headers().get_all(name).iter().map(move |value| (name.clone(), value.clone())))
            .collect();
        let mut follower = self.follower.lock().await;
        let answer = follower.ask(request.method(), path, &headers).await;
        let refused = match &answer {
            Ok(answer) => answer.status == StatusCode::UNAUTHORIZED,
            Err(ReachError::Server { source, .. }) => {
                matches!(&**source, kube::Error::Api(status) if status.code == 401)
            }
            Err(_) => false,
        };
        if refused && self.may_renew().await {
            // Certificates and tokens of programs end; the kubeconfig knows how to get new ones.
            if let Ok(site) = Site::open(&self.origin.0, &self.origin.1).await {
                *follower = Follower::new(site);
                return follower.ask(request.method(), path, &headers).await;
            }
        }
        answer
    }

    async fn may_renew(&self) -> bool {
        let mut renewed = self.renewed.lock().await;
        let due = renewed.is_none_or(|last| last.elapsed() >= RENEWAL);
        if due {
            *renewed = Some(Instant::now());
        }
        due
    }
}

/// A page that leads on to the status page by itself.
fn to_page() -> Said {
    let body =
        format!("<meta http-equiv=\"refresh\" content=\"0;url={PAGE}\"><p><a href=\"{PAGE}\">The status page</a></p>");
    page(StatusCode::OK, &body)
}

/// Whether a person looks at the answer.
fn wants_page(headers: &HeaderMap) -> bool {
    headers.get(ACCEPT).and_then(|value| value.to_str().ok()).is_some_and(|accept| accept.contains("text/html"))
}

/// Serves until it is dropped.
pub(super) async fn serve(listener: TcpListener, proxy: Arc<Proxy>) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(_) => {
                // Out of descriptors, most likely: others have to end first.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let proxy = Arc::clone(&proxy);
        tokio::spawn(async move {
            let _permit = permit;
            let service = service_fn(move |request: Request<Incoming>| {
                let proxy = Arc::clone(&proxy);
                async move { Ok::<_, Infallible>(proxy.answer(&request).await) }
            });
            let mut server = http1::Builder::new();
            server.timer(TokioTimer::new()).header_read_timeout(HEAD).max_buf_size(32 << 10).max_headers(64);
            // How a browser's connection ends is its own business.
            let _ = server.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}
