//! Whom we believe about who they are: the authorities of client certificates, and the front proxy.
//!
//! Each part comes from its flag, read again when the file changes, or else from the ConfigMap
//! `kube-system/extension-apiserver-authentication`, which the API server keeps
//! (apiserver:pkg/server/options/authentication.go, v1.36.3).

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::cert;
use crate::flags::{AuthenticationFlags, elements};

/// Namespace and name of the ConfigMap that holds the cluster's authentication settings.
pub const CLUSTER_SETTINGS: (&str, &str) = ("kube-system", "extension-apiserver-authentication");

const CLIENT_CA: &str = "client-ca-file";
const FRONT_PROXY_CA: &str = "requestheader-client-ca-file";

/// Settings that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// A file named by a flag.
    #[error("--{flag}: {source}")]
    File {
        /// The flag, without dashes.
        flag: &'static str,
        /// What is wrong with the file.
        source: cert::CertError,
    },
    /// An authority bundle that holds nothing usable.
    #[error("{origin}: {reason}")]
    Bundle {
        /// The flag or ConfigMap key.
        origin: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A list in the ConfigMap that is none.
    #[error("extension-apiserver-authentication, {key}: {source}")]
    List {
        /// The key.
        key: &'static str,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

/// Authorities that sign client certificates.
pub(crate) struct Authorities {
    verifier: Arc<dyn ClientCertVerifier>,
    /// The bundle they came from, to see whether it has changed.
    pem: Vec<u8>,
}

impl fmt::Debug for Authorities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authorities").field("bytes", &self.pem.len()).finish_non_exhaustive()
    }
}

impl Authorities {
    fn parse(pem: Vec<u8>, origin: &str, provider: &Arc<CryptoProvider>) -> Result<Self, TrustError> {
        let wrong = |reason: String| TrustError::Bundle { origin: origin.to_owned(), reason };
        let certs: Vec<_> =
            CertificateDer::pem_slice_iter(&pem).collect::<Result<_, _>>().map_err(|error| wrong(error.to_string()))?;
        let mut roots = rustls::RootCertStore::empty();
        let (added, ignored) = roots.add_parsable_certificates(certs);
        if added == 0 {
            return Err(wrong(format!("holds no usable certificate ({ignored} ignored)")));
        }
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
            .build()
            .map_err(|error| wrong(error.to_string()))?;
        Ok(Self { verifier, pem })
    }

    /// Whether the first certificate of the chain was signed by one of these, and is valid now.
    pub(crate) fn verify(&self, chain: &[CertificateDer<'_>]) -> Result<(), rustls::Error> {
        let Some((leaf, intermediates)) = chain.split_first() else {
            return Err(rustls::Error::NoCertificatesPresented);
        };
        self.verifier.verify_client_cert(leaf, intermediates, UnixTime::now()).map(drop)
    }
}

/// What the front proxy may say, and in which headers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ProxyHeaders {
    /// Common names that its certificate may have; empty: any.
    pub(crate) allowed_names: Vec<String>,
    /// Headers of the user's name; the first that is filled counts.
    pub(crate) username: Vec<String>,
    /// Headers of the user's unique id.
    pub(crate) uid: Vec<String>,
    /// Headers of the user's groups; all count.
    pub(crate) group: Vec<String>,
    /// Prefixes of further headers.
    pub(crate) extra_prefix: Vec<String>,
}

/// The front proxy: a server that has authenticated users for us.
#[derive(Debug)]
pub(crate) struct FrontProxy {
    /// Who signs its certificate.
    pub(crate) authorities: Authorities,
    /// What it may say.
    pub(crate) headers: ProxyHeaders,
}

/// Whom we believe; changes while we run.
pub struct Trust {
    provider: Arc<CryptoProvider>,
    client_ca_file: Option<PathBuf>,
    front_proxy_file: Option<(PathBuf, ProxyHeaders)>,
    lookup: bool,
    client_ca: ArcSwapOption<Authorities>,
    front_proxy: ArcSwapOption<FrontProxy>,
    /// Whether the cluster has told its settings, or that it has none.
    looked_up: AtomicBool,
    /// What was last complained about.
    complaint: Mutex<Option<String>>,
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trust")
            .field("client_ca_file", &self.client_ca_file)
            .field("front_proxy_file", &self.front_proxy_file)
            .field("lookup", &self.lookup)
            .finish_non_exhaustive()
    }
}

impl Trust {
    /// Reads what the flags name.
    ///
    /// # Errors
    /// When a file that a flag names cannot be used.
    pub fn from_flags(flags: &AuthenticationFlags, provider: Arc<CryptoProvider>) -> Result<Self, TrustError> {
        let path = |file: &str| (!file.is_empty()).then(|| PathBuf::from(file));
        let list = |list: &[String]| elements(list).into_iter().map(str::to_owned).collect();
        let headers = ProxyHeaders {
            allowed_names: list(&flags.requestheader_allowed_names),
            username: list(&flags.requestheader_username_headers),
            uid: list(&flags.requestheader_uid_headers),
            group: list(&flags.requestheader_group_headers),
            extra_prefix: list(&flags.requestheader_extra_headers_prefix),
        };
        let trust = Self {
            provider,
            client_ca_file: path(&flags.client_ca_file),
            front_proxy_file: path(&flags.requestheader_client_ca_file).map(|path| (path, headers)),
            lookup: !flags.authentication_skip_lookup,
            client_ca: ArcSwapOption::empty(),
            front_proxy: ArcSwapOption::empty(),
            looked_up: AtomicBool::new(false),
            complaint: Mutex::new(None),
        };
        trust.read_files()?;
        Ok(trust)
    }

    /// Whether some part is to come from the cluster.
    #[must_use]
    pub fn needs_cluster(&self) -> bool {
        self.lookup && (self.client_ca_file.is_none() || self.front_proxy_file.is_none())
    }

    /// Why no client certificate that the cluster knows is believed yet; `None` once it has told its settings, or if they are
    /// not needed.
    #[must_use]
    pub fn waits_for_cluster(&self) -> Option<String> {
        if !self.needs_cluster() || self.looked_up.load(Ordering::Acquire) {
            return None;
        }
        Some(self.complaint.lock().clone().unwrap_or_else(|| "authentication settings are not read yet".to_owned()))
    }

    /// Takes over what the ConfigMap's `data` holds and no flag has set. What is missing there, or
    /// cannot be used, stays as it was.
    ///
    /// # Errors
    /// When a part cannot be used; the others are taken over all the same.
    pub fn update(&self, data: &BTreeMap<String, String>) -> Result<(), TrustError> {
        if !self.lookup {
            return Ok(());
        }
        let client_ca = if self.client_ca_file.is_none() { self.update_client_ca(data) } else { Ok(()) };
        let front_proxy = if self.front_proxy_file.is_none() { self.update_front_proxy(data) } else { Ok(()) };
        client_ca.and(front_proxy)
    }

    fn update_client_ca(&self, data: &BTreeMap<String, String>) -> Result<(), TrustError> {
        let Some(pem) = data.get(CLIENT_CA).filter(|pem| !pem.is_empty()) else { return Ok(()) };
        self.set_client_ca(pem.clone().into_bytes(), "extension-apiserver-authentication, client-ca-file")
    }

    fn update_front_proxy(&self, data: &BTreeMap<String, String>) -> Result<(), TrustError> {
        let Some(pem) = data.get(FRONT_PROXY_CA).filter(|pem| !pem.is_empty()) else { return Ok(()) };
        let list = |key: &'static str| match data.get(key).map(|text| text.trim()).filter(|text| !text.is_empty()) {
            Some(text) => serde_json::from_str(text).map_err(|source| TrustError::List { key, source }),
            None => Ok(Vec::new()),
        };
        let headers = ProxyHeaders {
            allowed_names: list("requestheader-allowed-names")?,
            username: list("requestheader-username-headers")?,
            uid: list("requestheader-uid-headers")?,
            group: list("requestheader-group-headers")?,
            extra_prefix: list("requestheader-extra-headers-prefix")?,
        };
        let origin = "extension-apiserver-authentication, requestheader-client-ca-file";
        self.set_front_proxy(pem.clone().into_bytes(), headers, origin)
    }

    fn set_client_ca(&self, pem: Vec<u8>, origin: &str) -> Result<(), TrustError> {
        if self.client_ca.load().as_ref().is_some_and(|current| current.pem == pem) {
            return Ok(());
        }
        self.client_ca.store(Some(Arc::new(Authorities::parse(pem, origin, &self.provider)?)));
        tracing::info!(origin, "client certificate authorities loaded");
        Ok(())
    }

    fn set_front_proxy(&self, pem: Vec<u8>, headers: ProxyHeaders, origin: &str) -> Result<(), TrustError> {
        let current = self.front_proxy.load();
        if current.as_ref().is_some_and(|current| current.authorities.pem == pem && current.headers == headers) {
            return Ok(());
        }
        let authorities = Authorities::parse(pem, origin, &self.provider)?;
        self.front_proxy.store(Some(Arc::new(FrontProxy { authorities, headers })));
        tracing::info!(origin, "front proxy authorities loaded");
        Ok(())
    }

    fn read_files(&self) -> Result<(), TrustError> {
        let read = |flag, path: &Path| cert::read(path).map_err(|source| TrustError::File { flag, source });
        if let Some(path) = &self.client_ca_file {
            self.set_client_ca(read(CLIENT_CA, path)?, "--client-ca-file")?;
        }
        if let Some((path, headers)) = &self.front_proxy_file {
            self.set_front_proxy(read(FRONT_PROXY_CA, path)?, headers.clone(), "--requestheader-client-ca-file")?;
        }
        Ok(())
    }

    /// Reads the flags' files again, every `period`, until `stop` is cancelled. A file that cannot be
    /// used leaves in place what was read before.
    pub async fn follow_files(self: Arc<Self>, period: Duration, stop: CancellationToken) {
        if self.client_ca_file.is_none() && self.front_proxy_file.is_none() {
            return;
        }
        let mut ticks = tokio::time::interval(period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            let this = Arc::clone(&self);
            let read = tokio::task::spawn_blocking(move || this.read_files().map_err(|error| error.to_string())).await;
            self.note(read.unwrap_or_else(|error| Err(error.to_string())));
        }
    }

    /// Takes over what a look at the ConfigMap showed. `None` (it does not exist) and errors leave in place what was there
    /// before.
    pub fn take<E: fmt::Display>(&self, fetched: Result<Option<BTreeMap<String, String>>, E>) {
        let taken = match fetched {
            Ok(data) => {
                self.looked_up.store(true, Ordering::Release);
                match data {
                    Some(data) => self.update(&data).map_err(|error| error.to_string()),
                    None => Err("extension-apiserver-authentication does not exist".to_owned()),
                }
            }
            Err(error) => Err(format!("extension-apiserver-authentication: {error}")),
        };
        self.note(taken);
    }

    /// Looks at the ConfigMap every `period`, and every `retry` until it was seen, until `stop` is cancelled.
    pub async fn follow_cluster<E, F>(
        self: Arc<Self>,
        fetch: impl Fn() -> F + Send,
        period: Duration,
        retry: Duration,
        stop: CancellationToken,
    ) where
        E: fmt::Display + Send,
        F: Future<Output = Result<Option<BTreeMap<String, String>>, E>> + Send,
    {
        while self.needs_cluster() {
            let pause = if self.looked_up.load(Ordering::Acquire) { period } else { retry };
            if stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                return;
            }
            let Some(fetched) = stop.run_until_cancelled(fetch()).await else { return };
            self.take(fetched);
        }
    }

    /// Logs a complaint when it is a new one.
    fn note(&self, result: Result<(), String>) {
        let complaint = result.err();
        let mut last = self.complaint.lock();
        if let Some(error) = complaint.as_ref().filter(|_| *last != complaint) {
            tracing::warn!(%error, "authentication settings not updated; the old ones stay in use");
        }
        *last = complaint;
    }

    /// Who signs users' certificates, if anyone.
    pub(crate) fn client_ca(&self) -> Option<Arc<Authorities>> {
        self.client_ca.load_full()
    }

    /// The front proxy, if there is one.
    pub(crate) fn front_proxy(&self) -> Option<Arc<FrontProxy>> {
        self.front_proxy.load_full()
    }
}
