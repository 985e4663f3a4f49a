//! Fetching a location's bytes within limits.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ETAG, IF_NONE_MATCH};
use http::{HeaderMap, HeaderValue, StatusCode};
use rustls::ClientConfig;

use super::http::{Ask, HttpClient};
use super::network::{Network, SystemNetwork};
use super::place::{FilePlace, Location};
use super::policy::HostPolicy;
use super::url::HttpUrl;
use crate::addon::source::directory::{ReadFault, Root};

/// Why a location could not be read. Says where, never with which credentials.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// A file of this machine.
    #[error(transparent)]
    File(#[from] ReadFault),
    /// An answer other than the file.
    #[error("the server answered {0}")]
    Status(StatusCode),
    /// Larger than may be read.
    #[error("larger than the {limit} bytes that are read at most")]
    TooLarge {
        /// The limit, bytes.
        limit: u64,
    },
    /// Everything read at this time is too large together.
    #[error("the channels' files are larger together than may be read at one time")]
    Budget,
    /// It took too long.
    #[error("not read within {0:?}{last}", last = .1.as_ref().map(|error| format!("; the last attempt: {error}")).unwrap_or_default())]
    Slow(Duration, Option<Box<FetchError>>),
    /// The list of hosts lacks it.
    #[error("host {0} is not allowed; --channel-allow-host={0} would allow it")]
    HostNotAllowed(String),
    /// The host is at an address that it may not be asked at.
    #[error("host {host} is at {address}, which is not a public address, and was not configured by its name")]
    Address {
        /// The host.
        host: String,
        /// The first of its addresses.
        address: IpAddr,
    },
    /// Too many redirects.
    #[error("more than {0} redirects")]
    Redirects(usize),
    /// A redirect that leads nowhere.
    #[error("redirected to something that is no URL")]
    BadRedirect,
    /// A redirect from https to http.
    #[error("redirected from https ({from}) to http ({to}), which is not followed")]
    Downgrade {
        /// Host that redirected.
        from: String,
        /// Host that it redirected to.
        to: String,
    },
    /// A compressed answer, although none was asked for.
    #[error("the answer is encoded as {0:?}, which was not asked for")]
    Encoding(String),
    /// The host's name could not be looked up.
    #[error("host {host} cannot be looked up: {source}")]
    Resolve {
        /// The host.
        host: String,
        /// Why.
        source: io::Error,
    },
    /// No connection.
    #[error("no connection to {host}: {source}")]
    Connect {
        /// The host.
        host: String,
        /// Why.
        source: io::Error,
    },
    /// No TLS.
    #[error("no TLS with {host}: {source}")]
    Tls {
        /// The host.
        host: String,
        /// Why.
        source: io::Error,
    },
    /// No exchange.
    #[error("no answer from {host}: {source}")]
    Http {
        /// The host.
        host: String,
        /// Why.
        source: hyper::Error,
    },
    /// The body broke off.
    #[error("the answer broke off: {0}")]
    Body(#[source] hyper::Error),
    /// Compiled without what this kind of location needs.
    #[error("this build cannot read {scheme}:// locations; it was built without the feature {feature}")]
    NotBuilt {
        /// Scheme of the location.
        scheme: &'static str,
        /// What it would have to be built with.
        feature: &'static str,
    },
    /// A store of objects said no.
    #[error("{message}")]
    Object {
        /// What it said.
        message: String,
        /// Whether another try may help.
        transient: bool,
    },
    /// A registry said something that makes no sense.
    #[error("{0}")]
    Registry(String),
}

impl FetchError {
    /// Whether another try may help.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Status(status) => status.is_server_error() || matches!(status.as_u16(), 408 | 425 | 429),
            Self::Resolve { .. } | Self::Connect { .. } | Self::Http { .. } | Self::Body(_) => true,
            Self::Tls { source, .. } => source.kind() != io::ErrorKind::InvalidData,
            Self::Object { transient, .. } => *transient,
            _ => false,
        }
    }
}

/// Bounds on one location.
#[derive(Clone, Copy, Debug)]
pub struct FetchLimits {
    /// Largest file, bytes.
    pub bytes: u64,
    /// Time for one file, attempts included.
    pub time: Duration,
    /// Attempts.
    pub attempts: u32,
    /// Wait before the second attempt; it doubles with each (kops:util/pkg/vfs/context.go).
    pub first_wait: Duration,
}

impl Default for FetchLimits {
    fn default() -> Self {
        Self { bytes: 16 << 20, time: Duration::from_secs(30), attempts: 5, first_wait: Duration::from_millis(500) }
    }
}

/// What may be read at one time, all files together.
#[derive(Debug)]
pub struct Budget {
    left: AtomicU64,
}

impl Budget {
    /// A budget of so many bytes.
    #[must_use]
    pub const fn new(bytes: u64) -> Self {
        Self { left: AtomicU64::new(bytes) }
    }

    fn left(&self) -> u64 {
        self.left.load(Ordering::Relaxed)
    }

    fn take(&self, bytes: u64) -> Result<(), FetchError> {
        let taken = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(bytes));
        taken.map(|_| ()).map_err(|_| FetchError::Budget)
    }
}

/// What came of a fetch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fetch {
    /// The server says that it is what it was.
    Unchanged,
    /// The file.
    Content {
        /// Its bytes.
        bytes: Bytes,
        /// What to ask with next time, to be told that nothing changed.
        etag: Option<String>,
    },
}

/// Reads locations.
pub struct Fetcher {
    pub(super) http: HttpClient,
    pub(super) limits: FetchLimits,
    #[cfg(any(feature = "channel-s3", feature = "channel-gs", feature = "channel-azure"))]
    pub(super) stores: super::object::Stores,
}

impl Fetcher {
    /// A fetcher on the system's network.
    #[must_use]
    pub fn new(policy: HostPolicy, limits: FetchLimits) -> Self {
        Self::on(Arc::new(SystemNetwork), policy, limits, None)
    }

    /// A fetcher on another network; `tls` is the system's if none is given.
    #[must_use]
    pub fn on(
        network: Arc<dyn Network>,
        policy: HostPolicy,
        limits: FetchLimits,
        tls: Option<Arc<ClientConfig>>,
    ) -> Self {
        let http = HttpClient::new(network, policy, tls);
        Self {
            limits,
            #[cfg(any(feature = "channel-s3", feature = "channel-gs", feature = "channel-azure"))]
            stores: super::object::Stores::new(http.trusting()),
            http,
        }
    }

    /// Reads a location; `etag` is that of the last reading.
    ///
    /// # Errors
    /// When it cannot be read whole within the limits. That never means that it is gone.
    pub async fn fetch(&self, location: &Location, etag: Option<&str>, budget: &Budget) -> Result<Fetch, FetchError> {
        let limit = self.limits.bytes.min(budget.left());
        let mut last = None;
        let attempts = async {
            let mut wait = self.limits.first_wait;
            for attempt in 1.. {
                match self.attempt(location, etag, limit).await {
                    Err(error) if error.is_transient() && attempt < self.limits.attempts => last = Some(error),
                    done => return done,
                }
                tokio::time::sleep(wait).await;
                wait *= 2;
            }
            Err(FetchError::Budget)
        };
        let fetched = match tokio::time::timeout(self.limits.time, attempts).await {
            Ok(fetched) => fetched,
            Err(_) => Err(FetchError::Slow(self.limits.time, last.map(Box::new))),
        };
        let too_large = |error: &FetchError| {
            matches!(error, FetchError::TooLarge { .. } | FetchError::File(ReadFault::TooLarge { .. }))
        };
        match fetched {
            Err(error) if limit < self.limits.bytes && too_large(&error) => Err(FetchError::Budget),
            Ok(Fetch::Content { bytes, etag }) => {
                budget.take(bytes.len() as u64)?;
                Ok(Fetch::Content { bytes, etag })
            }
            other => other,
        }
    }

    async fn attempt(&self, location: &Location, etag: Option<&str>, limit: u64) -> Result<Fetch, FetchError> {
        match location {
            Location::File(place) => file(place.clone(), limit).await,
            Location::Http(url) => self.http(url, etag, limit).await,
            Location::Object(place) => self.object(place, etag, limit).await,
            Location::Oci(place) => self.oci(place, etag, limit).await,
        }
    }

    async fn http(&self, url: &HttpUrl, etag: Option<&str>, limit: u64) -> Result<Fetch, FetchError> {
        let mut headers = HeaderMap::new();
        if let Some(etag) = etag.and_then(|etag| HeaderValue::from_str(etag).ok()) {
            headers.insert(IF_NONE_MATCH, etag);
        }
        let asked = headers.contains_key(IF_NONE_MATCH);
        let answer = self.http.get(&Ask { url, headers, limit }).await?;
        match answer.status {
            StatusCode::OK => {
                let etag = super::http::header(&answer.headers, &ETAG).map(str::to_owned);
                Ok(Fetch::Content { bytes: answer.body, etag })
            }
            StatusCode::NOT_MODIFIED if asked => Ok(Fetch::Unchanged),
            status => Err(FetchError::Status(status)),
        }
    }

    #[cfg(not(any(feature = "channel-s3", feature = "channel-gs", feature = "channel-azure")))]
    async fn object(&self, place: &super::ObjectPlace, _: Option<&str>, _: u64) -> Result<Fetch, FetchError> {
        Err(super::place::not_built(place.store))
    }

    #[cfg(not(feature = "channel-oci"))]
    async fn oci(&self, _: &super::OciPlace, _: Option<&str>, _: u64) -> Result<Fetch, FetchError> {
        Err(FetchError::NotBuilt { scheme: "oci", feature: "channel-oci" })
    }
}

/// A file, read below its root only.
async fn file(place: FilePlace, limit: u64) -> Result<Fetch, FetchError> {
    let read = move || -> Result<Fetch, FetchError> {
        let text = Root::open(&place.root).map_err(ReadFault::from)?.read(&place.path, limit)?;
        Ok(Fetch::Content { bytes: text.bytes.into(), etag: None })
    };
    match tokio::task::spawn_blocking(read).await {
        Ok(done) => done,
        Err(_) => Err(ReadFault::from(io::Error::from(io::ErrorKind::Interrupted)).into()),
    }
}

#[cfg(test)]
#[path = "fetch_tests.rs"]
mod tests;
