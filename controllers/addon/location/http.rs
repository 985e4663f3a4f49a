//! A small HTTP client: one request a connection, to addresses that were checked.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use base64::Engine as _;
use bytes::{Bytes, BytesMut};
use http::header::{
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, HOST, LOCATION, USER_AGENT,
};
use http::response::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;

use super::fetch::FetchError;
use super::network::{Network, system_tls};
use super::policy::HostPolicy;
use super::url::HttpUrl;

/// Redirects that are followed.
const MOST_REDIRECTS: usize = 5;
/// How long the system may try to reach one of a host's addresses.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// Addresses of a host that are tried.
const MOST_ADDRESSES: usize = 4;

/// What is asked.
#[derive(Clone, Debug)]
pub(super) struct Ask<'a> {
    pub(super) url: &'a HttpUrl,
    /// Headers besides the usual ones.
    pub(super) headers: HeaderMap,
    /// Largest body that is read, bytes.
    pub(super) limit: u64,
}

/// What was answered.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    /// The body of a 200; other answers' are not read.
    pub(super) body: Bytes,
}

/// A client under a policy.
pub(super) struct HttpClient {
    network: Arc<dyn Network>,
    /// None where everybody may be asked.
    policy: Option<HostPolicy>,
    tls: OnceLock<Arc<ClientConfig>>,
}

impl HttpClient {
    /// A client; `tls` is the system's if none is given.
    pub(super) fn new(network: Arc<dyn Network>, policy: HostPolicy, tls: Option<Arc<ClientConfig>>) -> Self {
        let cell = OnceLock::new();
        if let Some(tls) = tls {
            let _ = cell.set(tls);
        }
        Self { network, policy: Some(policy), tls: cell }
    }

    /// A client of the same network that asks whoever it is told to: for hosts that no index names.
    #[cfg(any(feature = "channel-s3", feature = "channel-gs", feature = "channel-azure"))]
    pub(super) fn trusting(&self) -> Self {
        Self { network: Arc::clone(&self.network), policy: None, tls: self.tls.clone() }
    }

    /// Asks once, following redirects.
    pub(super) async fn get(&self, ask: &Ask<'_>) -> Result<Answer, FetchError> {
        let mut url = ask.url.clone();
        let mut headers = ask.headers.clone();
        for _ in 0..=MOST_REDIRECTS {
            let open = self.exchange(&url, request(&url, &headers)?).await?;
            let status = open.head.status;
            if !matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308) {
                let headers = open.head.headers.clone();
                let body = if status == StatusCode::OK { open.read(ask.limit).await? } else { Bytes::new() };
                return Ok(Answer { status, headers, body });
            }
            let next = redirect(&url, &open.head.headers)?;
            if !next.is_same_origin(&url) {
                headers.remove(AUTHORIZATION);
            }
            url = next;
        }
        Err(FetchError::Redirects(MOST_REDIRECTS))
    }

    /// One request and the head of its answer.
    pub(super) async fn exchange<B>(&self, url: &HttpUrl, request: Request<B>) -> Result<Open, FetchError>
    where
        B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        let stream = self.connect(url).await?;
        let opened = if url.secure {
            let tls = self.encrypt(url, stream).await?;
            open(tls, request).await
        } else {
            open(stream, request).await
        };
        opened.map_err(|source| FetchError::Http { host: url.host.clone(), source })
    }

    /// Connects to an address that was checked: a second look-up could say something else.
    async fn connect(&self, url: &HttpUrl) -> Result<TcpStream, FetchError> {
        let policy = self.policy.as_ref();
        if policy.is_some_and(|policy| !policy.permits_host(&url.host)) {
            return Err(FetchError::HostNotAllowed(url.host.clone()));
        }
        let lookup = |source| FetchError::Resolve { host: url.host.clone(), source };
        let found = self.network.resolve(&url.host, url.port).await.map_err(lookup)?;
        let first = *found.first().ok_or_else(|| lookup(io::Error::other("it has no address")))?;
        let permitted = |address: &&SocketAddr| {
            policy.is_none_or(|policy| policy.permits_address(&url.host, address.ip().to_canonical()))
        };
        let permitted: Vec<SocketAddr> = found.iter().filter(permitted).copied().collect();
        if permitted.is_empty() {
            return Err(FetchError::Address { host: url.host.clone(), address: first.ip() });
        }
        let mut last = io::ErrorKind::TimedOut.into();
        for address in permitted.into_iter().take(MOST_ADDRESSES) {
            match tokio::time::timeout(CONNECT_LIMIT, self.network.connect(address)).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => last = error,
                Err(_) => {}
            }
        }
        Err(FetchError::Connect { host: url.host.clone(), source: last })
    }

    async fn encrypt(
        &self,
        url: &HttpUrl,
        stream: TcpStream,
    ) -> Result<tokio_rustls::client::TlsStream<TcpStream>, FetchError> {
        let broken = |source| FetchError::Tls { host: url.host.clone(), source };
        let tls = match self.tls.get() {
            Some(tls) => Arc::clone(tls),
            None => {
                let loaded = tokio::task::spawn_blocking(system_tls).await.map_err(io::Error::other);
                let loaded = loaded.and_then(|tls| tls).map_err(broken)?;
                Arc::clone(self.tls.get_or_init(|| loaded))
            }
        };
        let name = ServerName::try_from(url.host.clone()).map_err(|error| broken(io::Error::other(error)))?;
        TlsConnector::from(tls).connect(name, stream).await.map_err(broken)
    }
}

/// A request as channels' servers are sent it.
fn request(url: &HttpUrl, headers: &HeaderMap) -> Result<Request<Empty<Bytes>>, FetchError> {
    let mut request = Request::get(url.target())
        .header(HOST, url.authority())
        .header(USER_AGENT, concat!("quarterdeck/", env!("CARGO_PKG_VERSION")))
        // What is compressed would have to be bounded twice.
        .header(ACCEPT_ENCODING, "identity")
        .header(CONNECTION, "close")
        .body(Empty::new())
        .map_err(|_| FetchError::BadRedirect)?;
    request.headers_mut().extend(headers.clone());
    request.headers_mut().entry(ACCEPT).or_insert(HeaderValue::from_static("*/*"));
    if let Some(credentials) = url.basic_credentials()
        && !request.headers().contains_key(AUTHORIZATION)
    {
        request.headers_mut().insert(AUTHORIZATION, basic(&credentials));
    }
    Ok(request)
}

/// `Authorization: Basic …`.
pub(super) fn basic(credentials: &[u8]) -> HeaderValue {
    let text = format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(credentials));
    let mut value = HeaderValue::from_str(&text).expect("base64 can stand in a header");
    value.set_sensitive(true);
    value
}

/// Where an answer leads; https never leads to http.
fn redirect(from: &HttpUrl, head: &HeaderMap) -> Result<HttpUrl, FetchError> {
    let target = header(head, &LOCATION).ok_or(FetchError::BadRedirect)?;
    let next = if target.contains("://") { HttpUrl::parse(target) } else { from.join(target) };
    let next = next.map_err(|_| FetchError::BadRedirect)?;
    if from.secure && !next.secure {
        return Err(FetchError::Downgrade { from: from.host.clone(), to: next.host });
    }
    Ok(next)
}

/// A header's text.
pub(super) fn header<'a>(head: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    head.get(name)?.to_str().ok()
}

/// An answer whose body is still on its way. Dropping it closes the connection.
pub(super) struct Open {
    pub(super) head: Parts,
    pub(super) body: Incoming,
    pub(super) _driver: AbortOnDropHandle<hyper::Result<()>>,
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

async fn open<B>(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    request: Request<B>,
) -> hyper::Result<Open>
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    let (mut sender, driver) = http1::handshake(TokioIo::new(stream)).await?;
    let driver = AbortOnDropHandle::new(tokio::spawn(driver));
    let (head, body) = sender.send_request(request).await?.into_parts();
    Ok(Open { head, body, _driver: driver })
}

impl Open {
    async fn read(mut self, limit: u64) -> Result<Bytes, FetchError> {
        let head = &self.head.headers;
        if let Some(encoding) = head.get(CONTENT_ENCODING)
            && encoding != "identity"
        {
            let shown = String::from_utf8_lossy(encoding.as_bytes()).chars().take(20).collect();
            return Err(FetchError::Encoding(shown));
        }
        let declared = header(head, &CONTENT_LENGTH).and_then(|length| length.parse::<u64>().ok());
        if declared.is_some_and(|length| length > limit) {
            return Err(FetchError::TooLarge { limit });
        }
        let mut bytes = BytesMut::new();
        while let Some(frame) = self.body.frame().await {
            let frame = frame.map_err(FetchError::Body)?;
            let Some(data) = frame.data_ref() else { continue };
            if (bytes.len() + data.len()) as u64 > limit {
                return Err(FetchError::TooLarge { limit });
            }
            bytes.extend_from_slice(data);
        }
        Ok(bytes.freeze())
    }
}
