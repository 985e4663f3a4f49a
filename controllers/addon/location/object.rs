//! Objects in stores, through the crate `object_store`: its credentials, signatures and errors, on
//! our own connections.
//!
//! Endpoint, region, account and credentials come from the environment, as that crate reads it
//! (`AWS_*`, `GOOGLE_*`, `AZURE_*`), or from the machine's metadata service.

use std::collections::HashMap;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use http::header::{CONNECTION, HOST};
use http::{HeaderValue, Request};
use hyper::body::{Body, Frame, Incoming};
use object_store::client::{
    ClientOptions, HttpClient as StoreClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse,
    HttpResponseBody, HttpService,
};
use object_store::path::Path;
use object_store::{GetOptions, ObjectStore as Store, RetryConfig};
use parking_lot::Mutex;
use tokio_util::task::AbortOnDropHandle;

use super::fetch::{Fetch, FetchError, Fetcher};
use super::http::HttpClient;
use super::place::{ObjectPlace, ObjectStore};
use super::url::HttpUrl;

/// Stores that were used, by kind and bucket: they keep credentials that expire.
pub(super) struct Stores {
    connector: Connector,
    open: Mutex<HashMap<(ObjectStore, String), Arc<dyn Store>>>,
}

impl Stores {
    pub(super) fn new(http: HttpClient) -> Self {
        Self { connector: Connector(Arc::new(http)), open: Mutex::default() }
    }

    pub(super) fn open(&self, place: &ObjectPlace) -> Result<Arc<dyn Store>, FetchError> {
        let key = (place.store, place.bucket.clone());
        if let Some(store) = self.open.lock().get(&key) {
            return Ok(Arc::clone(store));
        }
        let store = build(place, &self.connector)?;
        self.open.lock().insert(key, Arc::clone(&store));
        Ok(store)
    }
}

fn build(place: &ObjectPlace, connector: &Connector) -> Result<Arc<dyn Store>, FetchError> {
    // Attempts are counted by the fetcher.
    let retry = RetryConfig { max_retries: 0, ..RetryConfig::default() };
    let (bucket, connector) = (place.bucket.clone(), connector.clone());
    let refused = |error: object_store::Error| told(&error);
    Ok(match place.store {
        #[cfg(feature = "channel-s3")]
        ObjectStore::S3 => {
            let builder = object_store::aws::AmazonS3Builder::from_env().with_bucket_name(bucket);
            Arc::new(builder.with_retry(retry).with_http_connector(connector).build().map_err(refused)?)
        }
        #[cfg(feature = "channel-gs")]
        ObjectStore::Gs => {
            let builder = object_store::gcp::GoogleCloudStorageBuilder::from_env().with_bucket_name(bucket);
            Arc::new(builder.with_retry(retry).with_http_connector(connector).build().map_err(refused)?)
        }
        #[cfg(feature = "channel-azure")]
        ObjectStore::Azure => {
            let builder = object_store::azure::MicrosoftAzureBuilder::from_env().with_container_name(bucket);
            Arc::new(builder.with_retry(retry).with_http_connector(connector).build().map_err(refused)?)
        }
        #[cfg(not(all(feature = "channel-s3", feature = "channel-gs", feature = "channel-azure")))]
        other => return Err(super::place::not_built(other)),
    })
}

impl Fetcher {
    pub(super) async fn object(
        &self,
        place: &ObjectPlace,
        etag: Option<&str>,
        limit: u64,
    ) -> Result<Fetch, FetchError> {
        let store = self.stores.open(place)?;
        let path = Path::parse(&place.key)
            .map_err(|error| FetchError::Object { message: error.to_string(), transient: false })?;
        let options = GetOptions { if_none_match: etag.map(str::to_owned), ..GetOptions::default() };
        let found = match store.get_opts(&path, options).await {
            Ok(found) => found,
            Err(object_store::Error::NotModified { .. }) if etag.is_some() => return Ok(Fetch::Unchanged),
            Err(error) => return Err(told(&error)),
        };
        if found.meta.size > limit {
            return Err(FetchError::TooLarge { limit });
        }
        let etag = found.meta.e_tag.clone();
        let mut stream = found.into_stream();
        let mut bytes = BytesMut::new();
        while let Some(part) = stream.next().await {
            let part = part.map_err(|error| told(&error))?;
            if (bytes.len() + part.len()) as u64 > limit {
                return Err(FetchError::TooLarge { limit });
            }
            bytes.extend_from_slice(&part);
        }
        Ok(Fetch::Content { bytes: bytes.freeze(), etag })
    }
}

/// What a store said, in one line and within bounds.
fn told(error: &object_store::Error) -> FetchError {
    const LONGEST: usize = 300;
    use object_store::Error as E;
    let transient = matches!(error, E::Generic { .. } | E::JoinError { .. });
    let message: String =
        error.to_string().split_whitespace().collect::<Vec<_>>().join(" ").chars().take(LONGEST).collect();
    FetchError::Object { message, transient }
}

/// Our connections for that crate.
#[derive(Clone)]
struct Connector(Arc<HttpClient>);

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connector")
    }
}

impl HttpConnector for Connector {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<StoreClient> {
        Ok(StoreClient::new(self.clone()))
    }
}

#[async_trait]
impl HttpService for Connector {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let (mut head, body) = request.into_parts();
        let url =
            HttpUrl::parse(&head.uri.to_string()).map_err(|error| HttpError::new(HttpErrorKind::Request, error))?;
        // The request line has the path as it was signed.
        let target = head.uri.path_and_query().map_or_else(|| url.target(), ToString::to_string);
        head.uri = target.parse().map_err(|error| HttpError::new(HttpErrorKind::Request, error))?;
        let host =
            HeaderValue::from_str(&url.authority()).map_err(|error| HttpError::new(HttpErrorKind::Request, error))?;
        head.headers.insert(HOST, host);
        head.headers.insert(CONNECTION, HeaderValue::from_static("close"));
        let opened = self.0.exchange(&url, Request::from_parts(head, body)).await;
        let opened = opened.map_err(|error| HttpError::new(HttpErrorKind::Connect, error))?;
        let body = Held { body: opened.body, _driver: opened._driver };
        Ok(HttpResponse::from_parts(opened.head, HttpResponseBody::new(body)))
    }
}

/// A body and the connection that it comes on.
struct Held {
    body: Incoming,
    _driver: AbortOnDropHandle<hyper::Result<()>>,
}

impl Body for Held {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        polled.map_err(|error| HttpError::new(HttpErrorKind::Interrupted, error))
    }
}
