//! A server on loopback, authorities and certificates, a fake reviewer, and a client.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewStatus, UserInfo};
use k8s_openapi::api::authorization::v1::{SubjectAccessReview, SubjectAccessReviewStatus};
use parking_lot::Mutex;
use prometheus::Registry;
use rustls::RootCertStore;
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::flags::{AuthenticationFlags, AuthorizationFlags};

/// An authority that signs certificates.
pub(crate) struct Authority {
    pub(crate) pem: String,
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
    der: CertificateDer<'static>,
}

/// A certificate and its key.
pub(crate) struct Signed {
    pub(crate) cert: rcgen::Certificate,
    pub(crate) key: rcgen::KeyPair,
}

impl Signed {
    pub(crate) fn write(&self, cert: &Path, key: &Path) {
        std::fs::write(cert, self.cert.pem()).unwrap();
        std::fs::write(key, self.key.serialize_pem()).unwrap();
    }
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let cert = params.self_signed(&key).unwrap();
        Self { pem: cert.pem(), der: cert.der().clone(), issuer: rcgen::Issuer::new(params, key) }
    }

    pub(crate) fn sign(&self, names: &[&str], common_name: &str, organisations: &[&str]) -> Signed {
        self.sign_until(names, common_name, organisations, SystemTime::now() + Duration::from_secs(3600))
    }

    pub(crate) fn sign_until(&self, names: &[&str], cn: &str, organisations: &[&str], end: SystemTime) -> Signed {
        let key = rcgen::KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = rcgen::CertificateParams::new(names).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::CommonName, cn);
        for (at, organisation) in organisations.iter().enumerate() {
            // A name may hold each type once; two spellings of one type make two organisations.
            let spelled = rcgen::DnType::CustomDnType(vec![2, 5, 4, 10]);
            let kind = if at == 0 { rcgen::DnType::OrganizationName } else { spelled };
            params.distinguished_name.push(kind, *organisation);
        }
        params.not_before = (end.min(SystemTime::now()) - Duration::from_secs(7200)).into();
        params.not_after = end.into();
        params.extended_key_usages =
            vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth, rcgen::ExtendedKeyUsagePurpose::ClientAuth];
        Signed { cert: params.signed_by(&key, &self.issuer).unwrap(), key }
    }
}

/// Answers reviews from a table, and counts them.
#[derive(Default)]
pub(crate) struct FakeReviews {
    /// User and groups by token.
    pub(crate) tokens: BTreeMap<&'static str, (&'static str, Vec<&'static str>)>,
    /// Who may read paths that are not open.
    pub(crate) readers: Mutex<Vec<String>>,
    pub(crate) token_calls: AtomicU32,
    pub(crate) access_calls: AtomicU32,
    pub(crate) broken: AtomicBool,
    /// What the last access review asked, as JSON.
    pub(crate) last: Mutex<serde_json::Value>,
}

fn broken() -> ReviewError {
    ReviewError { message: "the server is away".into(), retriable: false }
}

impl Reviews for FakeReviews {
    fn token(&self, mut review: TokenReview) -> BoxFuture<'_, Result<TokenReview, ReviewError>> {
        async move {
            self.token_calls.fetch_add(1, Ordering::Relaxed);
            assert_ne!(review.spec.token, "panic", "on purpose");
            if self.broken.load(Ordering::Relaxed) {
                return Err(broken());
            }
            let found = self.tokens.get(review.spec.token.as_str());
            review.status = Some(TokenReviewStatus {
                authenticated: Some(found.is_some()),
                user: found.map(|(name, groups)| UserInfo {
                    username: Some((*name).to_owned()),
                    groups: Some(groups.iter().map(|group| (*group).to_owned()).collect()),
                    ..UserInfo::default()
                }),
                ..TokenReviewStatus::default()
            });
            Ok(review)
        }
        .boxed()
    }

    fn access(&self, mut review: SubjectAccessReview) -> BoxFuture<'_, Result<SubjectAccessReview, ReviewError>> {
        async move {
            self.access_calls.fetch_add(1, Ordering::Relaxed);
            if self.broken.load(Ordering::Relaxed) {
                return Err(broken());
            }
            *self.last.lock() = serde_json::to_value(&review.spec).unwrap();
            let user = review.spec.user.clone().unwrap_or_default();
            let allowed = self.readers.lock().contains(&user);
            review.status = Some(SubjectAccessReviewStatus { allowed, ..SubjectAccessReviewStatus::default() });
            Ok(review)
        }
        .boxed()
    }
}

/// A log level that is only remembered.
#[derive(Default)]
struct Level(Mutex<i32>);

impl Verbosity for Level {
    fn get(&self) -> i32 {
        *self.0.lock()
    }
    fn set(&self, level: i32) -> Result<(), String> {
        *self.0.lock() = level;
        Ok(())
    }
}

#[derive(serde::Serialize)]
struct Sample {
    leader: &'static str,
    state: &'static str,
}

/// A server under test.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) checks: Arc<Checks>,
    pub(crate) reviews: Arc<FakeReviews>,
    pub(crate) registry: Registry,
    pub(crate) trust: Arc<Trust>,
    pub(crate) stop: CancellationToken,
    pub(crate) task: JoinHandle<()>,
    pub(crate) serving_authority: Authority,
    /// Who signs the certificate of `api.example`.
    pub(crate) named_authority: Authority,
    pub(crate) dir: tempfile::TempDir,
}

/// The flags of a group, as a command line gives them.
pub(crate) fn flags<A: clap::Args>(args: &[String]) -> A {
    let matches = A::augment_args(clap::Command::new("test").no_binary_name(true)).get_matches_from(args);
    A::from_arg_matches(&matches).unwrap()
}

/// Starts a server whose certificate comes from files.
pub(crate) fn start(authentication: &[String], reviews: FakeReviews, limits: Limits) -> Running {
    let dir = tempfile::tempdir().unwrap();
    let serving_authority = Authority::new("serving");
    let (cert, key) = (dir.path().join("tls.crt"), dir.path().join("tls.key"));
    serving_authority.sign(&["localhost"], "first", &[]).write(&cert, &key);
    let named_authority = Authority::new("named");
    let pair = (dir.path().join("named.crt"), dir.path().join("named.key"));
    named_authority.sign(&["api.example"], "named", &[]).write(&pair.0, &pair.1);
    let named = tls::NamedPair { cert: pair.0, key: pair.1, names: Vec::new() };
    let settings = Settings {
        address: [127, 0, 0, 1].into(),
        port: 0,
        certificate: CertSource::Files { cert, key },
        named: vec![named],
        profile: tls::Profile::default(),
        http2: true,
        http2_streams: 250,
        share_port: false,
        limits,
    };
    let authentication: AuthenticationFlags = flags(authentication);
    let authorization: AuthorizationFlags = flags(&[]);
    let trust = Arc::new(Trust::from_flags(&authentication, Arc::new(ring::default_provider())).unwrap());
    let (reviews, checks, registry) = (Arc::new(reviews), Arc::new(Checks::new()), Registry::new());
    let ask = Arc::clone(&reviews) as Arc<dyn Reviews>;
    let security = Security::from_flags(&authentication, &authorization, Arc::clone(&trust), Some(ask));
    let endpoints = Endpoints {
        component: Component { name: "quarterdeck".into(), version: "0.1.0".into(), started: SystemTime::now() },
        checks: Arc::clone(&checks),
        metrics: registry.clone(),
        disabled_metrics: ["quarterdeck_unwanted".to_owned()].into(),
        status: StatusSource::new(|| Sample { leader: "one", state: "standby" }),
        flags: BTreeMap::from([("leader-elect".to_owned(), "true".to_owned())]),
        config: Arc::new(|| serde_json::json!({"quarterdeck.dev": {}})),
        verbosity: Some(Arc::new(Level::default())),
    };
    let server = Server::bind(settings, security, endpoints).unwrap();
    let (address, stop) = (server.local_addr().unwrap(), CancellationToken::new());
    let task = tokio::spawn(server.run(stop.clone()));
    Running { address, checks, reviews, registry, trust, stop, task, serving_authority, named_authority, dir }
}

/// An answer, read whole.
#[derive(Debug)]
pub(crate) struct Got {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

/// A connection to a server under test.
pub(crate) enum Client {
    One(hyper::client::conn::http1::SendRequest<Full<Bytes>>),
    Two(hyper::client::conn::http2::SendRequest<Full<Bytes>>),
}

impl Running {
    pub(crate) async fn connect(&self, http2: bool, identity: Option<&Signed>) -> Client {
        connect(self.address, ("localhost", &self.serving_authority), http2, identity).await.unwrap()
    }

    /// One GET on a connection of its own.
    pub(crate) async fn get(&self, path: &str, headers: &[(&str, &str)]) -> Got {
        self.connect(false, None).await.send(Method::GET, path, headers, "").await
    }

    pub(crate) async fn get_as(&self, identity: &Signed, path: &str, headers: &[(&str, &str)]) -> Got {
        self.connect(false, Some(identity)).await.send(Method::GET, path, headers, "").await
    }
}

/// Connects and shakes hands; the server's certificate must be good for the name and signed by the
/// authority.
pub(crate) async fn connect(
    address: SocketAddr,
    (name, authority): (&'static str, &Authority),
    http2: bool,
    identity: Option<&Signed>,
) -> std::io::Result<Client> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.der.clone()).unwrap();
    let builder = rustls::ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match identity {
        Some(signed) => {
            let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(signed.key.serialize_der()));
            builder.with_client_auth_cert(vec![signed.cert.der().clone()], key).unwrap()
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![if http2 { b"h2".to_vec() } else { b"http/1.1".to_vec() }];
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from(name).unwrap();
    let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
    Ok(if http2 {
        let (send, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        Client::Two(send)
    } else {
        let (send, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        Client::One(send)
    })
}

impl Client {
    pub(crate) async fn send(&mut self, method: Method, path: &str, headers: &[(&str, &str)], body: &str) -> Got {
        self.try_send(method, path, headers, body).await.unwrap()
    }

    pub(crate) async fn try_send(
        &mut self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Result<Got, hyper::Error> {
        let body = Full::new(Bytes::from(body.to_owned()));
        let uri = match self {
            Self::One(_) => path.to_owned(),
            Self::Two(_) => format!("https://localhost{path}"),
        };
        let mut request = Request::builder().method(method).uri(uri).header("host", "localhost");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(body).unwrap();
        let answer = match self {
            Self::One(send) => {
                send.ready().await?;
                send.send_request(request).await?
            }
            Self::Two(send) => {
                send.ready().await?;
                send.send_request(request).await?
            }
        };
        let (parts, body) = answer.into_parts();
        let body = String::from_utf8(body.collect().await?.to_bytes().to_vec()).unwrap();
        Ok(Got { status: parts.status, headers: parts.headers, body })
    }
}
