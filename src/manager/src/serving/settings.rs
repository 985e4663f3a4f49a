//! How the server listens, whom it believes, and what clients may take.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::cert::CertSource;
use super::review::Reviews;
use super::tls::{NamedPair, Profile, TlsFlagError};
use super::trust::Trust;
use crate::flags::{AuthenticationFlags, AuthorizationFlags, ServingFlags, elements};

/// Bounds on what clients may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at a time; above it, the one that has been idle longest makes room.
    pub connections: usize,
    /// Bytes of a request's head.
    pub head_bytes: usize,
    /// Bytes of a request's body.
    pub body_bytes: usize,
    /// Time for the TLS handshake.
    pub handshake: Duration,
    /// Time for a request's head to arrive, and for an idle connection to be kept.
    pub idle: Duration,
    /// Time for a request, from its head to its answer.
    pub request: Duration,
    /// Time for requests under way when the server stops.
    pub drain: Duration,
    /// Questions to the API server at a time.
    pub reviews: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 512,
            head_bytes: 64 << 10,
            body_bytes: 64 << 10,
            handshake: Duration::from_secs(10),
            idle: Duration::from_secs(90),
            request: Duration::from_secs(30),
            drain: Duration::from_secs(5),
            reviews: 64,
        }
    }
}

/// Where and how the server listens.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Address; an unspecified one means every address of both families.
    pub address: IpAddr,
    /// Port; 0 lets the system choose, which only tests want.
    pub port: u16,
    /// Where the certificate comes from.
    pub certificate: CertSource,
    /// Certificates for some server names.
    pub named: Vec<NamedPair>,
    /// Versions and suites.
    pub profile: Profile,
    /// Whether HTTP/2 is offered.
    pub http2: bool,
    /// Requests at a time on one HTTP/2 connection.
    pub http2_streams: u32,
    /// Whether others may listen on the same port.
    pub share_port: bool,
    /// Bounds.
    pub limits: Limits,
}

impl Settings {
    /// What the flags say; `None` if they turn the server off. `program` names the pair in
    /// `--cert-dir`.
    ///
    /// # Errors
    /// When a TLS flag makes no sense.
    pub fn from_flags(flags: &ServingFlags, program: &str) -> Result<Option<Self>, TlsFlagError> {
        if flags.secure_port == 0 {
            return Ok(None);
        }
        let path = |text: &str| PathBuf::from(text);
        let certificate = if !flags.tls_cert_file.is_empty() {
            CertSource::Files { cert: path(&flags.tls_cert_file), key: path(&flags.tls_private_key_file) }
        } else if !flags.cert_dir.is_empty() {
            CertSource::Directory { dir: path(&flags.cert_dir), name: program.to_owned() }
        } else {
            CertSource::Memory
        };
        let streams = flags.http2_max_streams_per_connection;
        Ok(Some(Self {
            address: flags.bind_address,
            port: flags.secure_port,
            certificate,
            named: flags.tls_sni_cert_key.iter().map(|pair| NamedPair::parse(pair)).collect::<Result<_, _>>()?,
            profile: Profile::from_flags(flags)?,
            http2: !flags.disable_http2_serving,
            http2_streams: if streams == 0 { 250 } else { streams },
            share_port: flags.permit_port_sharing,
            limits: Limits::default(),
        }))
    }
}

/// Who may ask what.
pub struct Security {
    /// Whom we believe about who they are.
    pub trust: Arc<Trust>,
    /// Asks the API server; without it, tokens are not looked at and only open paths answer.
    pub reviews: Option<Arc<dyn Reviews>>,
    /// Paths that anyone may read.
    pub open_paths: Vec<String>,
    /// How long a token's holder is remembered.
    pub keep_token: Duration,
    /// How long a granted access is remembered.
    pub keep_allowed: Duration,
    /// How long a refused access is remembered.
    pub keep_refused: Duration,
}

impl fmt::Debug for Security {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Security")
            .field("trust", &self.trust)
            .field("open_paths", &self.open_paths)
            .finish_non_exhaustive()
    }
}

impl Security {
    /// What the flags say.
    #[must_use]
    pub fn from_flags(
        authentication: &AuthenticationFlags,
        authorization: &AuthorizationFlags,
        trust: Arc<Trust>,
        reviews: Option<Arc<dyn Reviews>>,
    ) -> Self {
        let open = elements(&authorization.authorization_always_allow_paths);
        Self {
            trust,
            reviews,
            open_paths: open.into_iter().map(str::to_owned).collect(),
            keep_token: authentication.authentication_token_webhook_cache_ttl,
            keep_allowed: authorization.authorization_webhook_cache_authorized_ttl,
            keep_refused: authorization.authorization_webhook_cache_unauthorized_ttl,
        }
    }
}
