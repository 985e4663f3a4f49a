//! The HTTPS server: sockets, TLS, limits, and the way of a request through the filters.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use http::header::{CACHE_CONTROL, HeaderValue};
use http::request::Parts;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use quarterdeck_runtime::ongoing::Ongoing;
use rustls::pki_types::CertificateDer;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::authn::Authenticator;
use super::authz::Authorizer;
use super::cert::{CertError, Certificates, RELOAD_PERIOD};
use super::client_cert::AskForCertificate;
use super::connections::{Connection, Connections};
use super::metrics::ServingMetrics;
use super::respond::{self, Answer};
use super::routes::{Endpoints, label};
use super::settings::{Limits, Security, Settings};
use super::trust::Trust;

/// Why the server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address is taken, or is none of ours.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What went wrong.
        source: io::Error,
    },
    /// The certificate cannot be used.
    #[error("serving certificate: {0}")]
    Certificate(#[from] CertError),
    /// The TLS settings do not go together.
    #[error("tls: {0}")]
    Tls(#[from] rustls::Error),
    /// Two metrics of the same name.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

/// What every connection shares.
struct Shared {
    endpoints: Arc<Endpoints>,
    authenticator: Authenticator,
    authorizer: Authorizer,
    metrics: ServingMetrics,
    limits: Limits,
    http2_streams: u32,
    /// What the server itself cannot do now.
    troubles: Ongoing<&'static str>,
}

/// A server that listens already.
pub struct Server {
    listener: TcpListener,
    acceptor: TlsAcceptor,
    certificates: Arc<Certificates>,
    trust: Arc<Trust>,
    shared: Arc<Shared>,
    fingerprint: watch::Sender<String>,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("listener", &self.listener).finish_non_exhaustive()
    }
}

impl Server {
    /// Loads the certificate and starts to listen. Its metrics are registered with those that the
    /// endpoints serve.
    ///
    /// # Errors
    /// When the address is taken or the certificate cannot be used.
    pub fn bind(settings: Settings, security: Security, endpoints: Endpoints) -> Result<Self, ServeError> {
        let listener = listen(&settings)?;
        let Settings { certificate, named, address, profile, http2, http2_streams, limits, .. } = settings;
        let provider = profile.provider;
        let certificates = Arc::new(Certificates::load(&certificate, &named, address, Arc::clone(&provider))?);
        let mut tls = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&profile.versions)?
            .with_client_cert_verifier(Arc::new(AskForCertificate::new(&provider)))
            .with_cert_resolver(Arc::clone(&certificates) as Arc<dyn rustls::server::ResolvesServerCert>);
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        if http2 {
            tls.alpn_protocols.insert(0, b"h2".to_vec());
        }
        let asking = Arc::new(Semaphore::new(limits.reviews));
        let Security { trust, reviews, open_paths, keep_token, keep_allowed, keep_refused } = security;
        let metrics = ServingMetrics::register(&endpoints.metrics)?;
        metrics.expires(certificates.expiry());
        let shared = Shared {
            endpoints: Arc::new(endpoints),
            authenticator: Authenticator::new(Arc::clone(&trust), reviews.clone(), keep_token, Arc::clone(&asking)),
            authorizer: Authorizer::new(open_paths, reviews, (keep_allowed, keep_refused), asking),
            metrics,
            limits,
            http2_streams,
            troubles: Ongoing::default(),
        };
        let (acceptor, fingerprint) =
            (TlsAcceptor::from(Arc::new(tls)), watch::Sender::new(certificates.fingerprint()));
        Ok(Self { listener, acceptor, certificates, trust, shared: Arc::new(shared), fingerprint })
    }

    /// SHA-256 of the certificate that clients get who name no server of `--tls-sni-cert-key`, DER, in hexadecimal
    /// digits; it follows the files.
    #[must_use]
    pub fn certificate(&self) -> watch::Receiver<String> {
        self.fingerprint.subscribe()
    }

    /// Where the server listens.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `stop` is cancelled, then lets requests under way finish. Follows the files of
    /// certificates and authorities meanwhile.
    pub async fn run(self, stop: CancellationToken) {
        let Self { listener, acceptor, certificates, trust, shared, fingerprint } = self;
        let tasks = TaskTracker::new();
        let connections = Connections::new(shared.limits.connections, stop.child_token());
        let files = stop.child_token();
        tasks.spawn(follow_certificates(Arc::clone(&certificates), Arc::clone(&shared), fingerprint, files.clone()));
        tasks.spawn(trust.follow_files(RELOAD_PERIOD, files));
        while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of file descriptors, or a client that went away: neither ends the server.
                    if shared.troubles.begins("accept") {
                        tracing::warn!(%error, "connections are not accepted");
                    }
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            if shared.troubles.ends(&"accept") {
                tracing::info!("connections are accepted again");
            }
            let Some(connection) = connections.open() else {
                tracing::debug!(%peer, "connection refused: too many, all of them busy");
                continue;
            };
            shared.metrics.connections.set(i64::try_from(connections.len()).unwrap_or(i64::MAX));
            let (acceptor, shared, all) = (acceptor.clone(), Arc::clone(&shared), Arc::clone(&connections));
            tasks.spawn(async move {
                serve(stream, acceptor, &shared, &connection).await;
                drop(connection);
                shared.metrics.connections.set(i64::try_from(all.len()).unwrap_or(i64::MAX));
            });
        }
        drop(listener);
        tasks.close();
        if tokio::time::timeout(shared.limits.drain, tasks.wait()).await.is_err() {
            tracing::info!("connections cut off at the end");
        }
    }
}

async fn follow_certificates(
    certificates: Arc<Certificates>,
    shared: Arc<Shared>,
    fingerprint: watch::Sender<String>,
    stop: CancellationToken,
) {
    let expiry = async {
        loop {
            shared.metrics.expires(certificates.expiry());
            let now = certificates.fingerprint();
            fingerprint.send_if_modified(|before| {
                let changed = *before != now;
                *before = now;
                changed
            });
            tokio::time::sleep(RELOAD_PERIOD).await;
        }
    };
    tokio::select! {
        () = Arc::clone(&certificates).follow(RELOAD_PERIOD, stop) => {}
        () = expiry => {}
    }
}

/// Opens the socket. An unspecified address means both families, as in Go.
fn listen(settings: &Settings) -> Result<TcpListener, ServeError> {
    let open = |address: SocketAddr| -> io::Result<TcpListener> {
        let domain = socket2::Domain::for_address(address);
        let socket = socket2::Socket::new(domain, socket2::Type::STREAM, Some(socket2::Protocol::TCP))?;
        if address.is_ipv6() {
            socket.set_only_v6(!address.ip().is_unspecified())?;
        }
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(settings.share_port)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(1024)?;
        TcpListener::from_std(socket.into())
    };
    let address = SocketAddr::new(settings.address, settings.port);
    let listener = if settings.address.is_unspecified() {
        let both = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), settings.port);
        let only_v4 = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), settings.port);
        open(both).or_else(|error| if error.kind() == io::ErrorKind::AddrInUse { Err(error) } else { open(only_v4) })
    } else {
        open(address)
    };
    listener.map_err(|source| ServeError::Listen { address, source })
}

/// Serves one connection until it ends, is idle for too long, or has to make room.
async fn serve(stream: TcpStream, acceptor: TlsAcceptor, shared: &Arc<Shared>, connection: &Arc<Connection>) {
    let limits = &shared.limits;
    let _ = stream.set_nodelay(true);
    let handshake = tokio::time::timeout(limits.handshake, acceptor.accept(stream));
    let stream: TlsStream<TcpStream> = match connection.ended().run_until_cancelled(handshake).await {
        Some(Ok(Ok(stream))) => stream,
        Some(Ok(Err(error))) => {
            tracing::debug!(%error, "tls handshake failed");
            return;
        }
        Some(Err(_)) | None => return,
    };
    let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let chain: Arc<[CertificateDer<'static>]> = stream
        .get_ref()
        .1
        .peer_certificates()
        .map(|chain| chain.iter().map(|cert| cert.clone().into_owned()).collect())
        .unwrap_or_default();
    let service = service_fn(|request: Request<Incoming>| {
        let (shared, chain, busy) = (Arc::clone(shared), Arc::clone(&chain), connection.busy());
        async move {
            let answer = handle(&shared, &chain, request).await;
            drop(busy);
            Ok::<_, std::convert::Infallible>(answer)
        }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.idle)
        .max_buf_size(limits.head_bytes.max(8192))
        .keep_alive(true);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(shared.http2_streams)
        .max_header_list_size(u32::try_from(limits.head_bytes).unwrap_or(u32::MAX))
        .keep_alive_interval(limits.idle / 3)
        .keep_alive_timeout(Duration::from_secs(20));
    // What ALPN agreed on is served, and nothing is guessed from the first bytes.
    let builder = if http2 { builder.http2_only() } else { builder.http1_only() };
    let mut serving = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
    let ended = tokio::select! {
        result = serving.as_mut() => Some(result),
        () = connection.ended().cancelled() => None,
        () = connection.idle_for(limits.idle) => None,
    };
    let result = match ended {
        Some(result) => result,
        None => {
            serving.as_mut().graceful_shutdown();
            tokio::time::timeout(limits.drain, serving).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "connection ended");
    }
}

/// The filters in upstream's order, outermost first: panics, log, cache-control, who, what, and then
/// the page (kubernetes:controller-manager/app/serve.go, v1.36.3).
async fn handle(shared: &Arc<Shared>, chain: &[CertificateDer<'static>], request: Request<Incoming>) -> Answer {
    let (parts, body) = request.into_parts();
    let (method, path) = (parts.method.clone(), parts.uri.path().to_owned());
    let started = tokio::time::Instant::now();
    let work = AssertUnwindSafe(filtered(shared, chain, parts, body)).catch_unwind();
    let mut answer = match tokio::time::timeout(shared.limits.request, work).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(_)) => {
            tracing::error!(%method, path, "request panicked");
            respond::text(
                StatusCode::INTERNAL_SERVER_ERROR,
                "This request caused a panic. Look in the log for details.\n",
            )
        }
        Err(_) => respond::text(StatusCode::GATEWAY_TIMEOUT, "the request took too long\n"),
    };
    answer.headers_mut().entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-cache, private"));
    if method == Method::HEAD {
        respond::strip_body(&mut answer);
    }
    shared.metrics.request(label(&path), answer.status().as_u16());
    tracing::debug!(%method, path, code = answer.status().as_u16(), dur_ms = started.elapsed().as_millis(), "served");
    answer
}

async fn filtered(shared: &Arc<Shared>, chain: &[CertificateDer<'static>], mut parts: Parts, body: Incoming) -> Answer {
    let user = match shared.authenticator.user(&mut parts.headers, chain).await {
        Ok(user) => user,
        Err(reason) => {
            tracing::debug!(reason, "unauthorized");
            return respond::unauthorized();
        }
    };
    let (verb, path) = (parts.method.as_str().to_ascii_lowercase(), parts.uri.path());
    match shared.authorizer.decide(&user, &verb, path).await {
        Ok(access) if access.allowed => {
            if shared.troubles.ends(&"review") {
                tracing::info!("the server reviews access again");
            }
        }
        Ok(access) => return respond::forbidden(&user.name, &verb, path, &access.reason),
        Err(error) => {
            if shared.troubles.begins("review") {
                tracing::warn!(%error, "the server does not review access: requests are refused");
            }
            return respond::failed(path, &error.to_string());
        }
    }
    let body: Bytes = match Limited::new(body, shared.limits.body_bytes).collect().await {
        Ok(body) => body.to_bytes(),
        Err(_) => return respond::text(StatusCode::PAYLOAD_TOO_LARGE, "the request's body is too large\n"),
    };
    shared.endpoints.answer(&parts, body).await
}
