//! The connection to a plug-in: made when it is first needed, made again when it broke, with new certificates when
//! their files changed.

use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::Instant;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity, Uri};
use tower::service_fn;

use super::uri::PluginUri;
use crate::error::{CloudError, Result};

/// How long connecting may take, with TLS.
const CONNECT: Duration = Duration::from_secs(5);
/// For how long the plug-in is left alone after connecting did not succeed; doubled each time up to the second one.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));
/// How often certificates are looked at.
const LOOK: Duration = Duration::from_secs(2);
/// After this time a peer that acknowledges nothing is given up. The kernel sees to it rather than HTTP/2's pings:
/// gRPC's servers in other languages end connections whose clients ping more often than every five minutes.
const SILENT: Duration = Duration::from_secs(20);

/// Files of mutual TLS, all PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificates of the authority that signs the other side's.
    pub ca: PathBuf,
    /// Our certificate, with those between it and the authority.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// What is in [`TlsFiles`]; never logged.
#[derive(PartialEq, Eq)]
pub(super) struct TlsTexts {
    pub(super) ca: Vec<u8>,
    pub(super) cert: Vec<u8>,
    pub(super) key: Vec<u8>,
}

impl TlsFiles {
    /// Reads them.
    pub(super) async fn read(&self) -> io::Result<TlsTexts> {
        async fn one(path: &Path) -> io::Result<Vec<u8>> {
            let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
            tokio::fs::read(path).await.map_err(named)
        }
        Ok(TlsTexts { ca: one(&self.ca).await?, cert: one(&self.cert).await?, key: one(&self.key).await? })
    }
}

/// A connection to a plug-in.
pub(super) struct Connection {
    uri: PluginUri,
    tls: Option<TlsFiles>,
    state: Mutex<State>,
    backoff: Arc<Mutex<Backoff>>,
    /// How often a connection was made.
    made: Arc<AtomicU64>,
}

#[derive(Default)]
struct State {
    channel: Option<Channel>,
    /// When the other side last answered.
    answered: Option<Instant>,
    texts: Option<TlsTexts>,
    looked: Option<Instant>,
    /// What was last said about certificates that could not be used.
    complaint: String,
}

/// Keeps a plug-in that is not there from being knocked at all the time.
#[derive(Default)]
struct Backoff {
    pause: Duration,
    until: Option<Instant>,
    last: String,
}

impl Backoff {
    fn refuse(&self) -> Option<io::Error> {
        let left = self.until?.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())?;
        let message = format!("{} (tried again in {left:.1?})", self.last);
        Some(io::Error::new(io::ErrorKind::NotConnected, message))
    }

    fn note(&mut self, connected: std::result::Result<(), &io::Error>) {
        let Err(error) = connected else {
            *self = Self::default();
            return;
        };
        self.pause = (self.pause * 2).clamp(PAUSES.0, PAUSES.1);
        self.until = Some(Instant::now() + self.pause);
        self.last = error.to_string();
    }
}

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

impl Connection {
    pub(super) fn new(uri: PluginUri, tls: Option<TlsFiles>) -> Self {
        Self { uri, tls, state: Mutex::default(), backoff: Arc::default(), made: Arc::default() }
    }

    /// How often a connection was made: each time another process may be at the other end.
    pub(super) fn made(&self) -> u64 {
        self.made.load(SeqCst)
    }

    /// Where it leads.
    pub(super) fn uri(&self) -> &PluginUri {
        &self.uri
    }

    /// The channel for a call. Connects later, when the call is made.
    pub(super) async fn channel(&self) -> Result<Channel> {
        if let Some(channel) = self.as_good() {
            return Ok(channel);
        }
        let texts = match &self.tls {
            Some(files) => match files.read().await {
                Ok(texts) => Some(texts),
                Err(error) => return self.keep(&error.to_string()),
            },
            None => None,
        };
        let mut state = self.state.lock();
        state.looked = Some(Instant::now());
        if let (Some(channel), true) = (&state.channel, state.texts == texts) {
            return Ok(channel.clone());
        }
        match self.open(texts.as_ref()) {
            Ok(channel) => {
                *state = State { channel: Some(channel.clone()), texts, ..std::mem::take(&mut *state) };
                state.complaint.clear();
                Ok(channel)
            }
            Err(error) => {
                drop(state);
                self.keep(&innermost(&error))
            }
        }
    }

    /// The other side answered a call, be it with an error.
    pub(super) fn answered(&self) {
        self.state.lock().answered = Some(Instant::now());
    }

    /// A call that was made at `since` got no answer in time. If nothing else was answered since then either, the
    /// connection may lead nowhere although nobody closed it; the next call makes another one.
    pub(super) fn doubt(&self, since: Instant) {
        let mut state = self.state.lock();
        if state.answered.is_none_or(|answered| answered < since) {
            state.channel = None;
        }
    }

    /// The channel there is, unless its certificates are to be looked at.
    fn as_good(&self) -> Option<Channel> {
        let state = self.state.lock();
        let looked = state.looked.is_some_and(|at| at.elapsed() < LOOK);
        state.channel.clone().filter(|_| self.tls.is_none() || looked)
    }

    /// Goes on with the certificates there are, and says once why.
    fn keep(&self, reason: &str) -> Result<Channel> {
        let mut state = self.state.lock();
        state.looked = Some(Instant::now());
        let error = CloudError::Unavailable(format!("certificates for the plug-in at {}: {reason}", self.uri));
        if state.complaint != reason {
            tracing::warn!(plugin = %self.uri, reason, "the certificates for the plug-in cannot be used");
            reason.clone_into(&mut state.complaint);
        }
        state.channel.clone().ok_or(error)
    }

    fn open(&self, texts: Option<&TlsTexts>) -> std::result::Result<Channel, tonic::transport::Error> {
        let endpoint = match &self.uri {
            // Nobody resolves it: the path is the address.
            PluginUri::Unix(_) => Endpoint::from_static("http://plugin"),
            PluginUri::Https(uri) => Endpoint::from(uri.clone()),
        };
        let mut endpoint = endpoint.connect_timeout(CONNECT);
        if let (PluginUri::Https(uri), Some(texts)) = (&self.uri, texts) {
            let tls = ClientTlsConfig::new()
                .domain_name(uri.host().unwrap_or_default().trim_matches(['[', ']']))
                .ca_certificate(Certificate::from_pem(&texts.ca))
                .identity(Identity::from_pem(&texts.cert, &texts.key));
            endpoint = endpoint.tls_config(tls)?;
        }
        let (place, backoff, made) = (self.uri.clone(), Arc::clone(&self.backoff), Arc::clone(&self.made));
        let connector = service_fn(move |_: Uri| {
            let (place, backoff, made) = (place.clone(), Arc::clone(&backoff), Arc::clone(&made));
            async move {
                if let Some(error) = backoff.lock().refuse() {
                    return Err(error);
                }
                let connected = connect(&place).await;
                backoff.lock().note(connected.as_ref().map(|_| ()));
                if connected.is_ok() {
                    made.fetch_add(1, SeqCst);
                }
                connected.map(TokioIo::new)
            }
        });
        Ok(endpoint.connect_with_connector_lazy(connector))
    }
}

async fn connect(place: &PluginUri) -> io::Result<Pin<Box<dyn Io>>> {
    let named = |error: io::Error| io::Error::new(error.kind(), format!("{place}: {error}"));
    match place {
        PluginUri::Unix(path) => Ok(Box::pin(UnixStream::connect(path).await.map_err(named)?)),
        PluginUri::Https(uri) => {
            let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
            let port = uri.port_u16().unwrap_or(443);
            let stream = TcpStream::connect((host, port)).await.map_err(named)?;
            stream.set_nodelay(true)?;
            let socket = SockRef::from(&stream);
            socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(SILENT / 2).with_interval(SILENT / 4))?;
            socket.set_tcp_user_timeout(Some(SILENT))?;
            Ok(Box::pin(stream))
        }
    }
}

fn innermost(mut error: &(dyn std::error::Error + 'static)) -> String {
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}
