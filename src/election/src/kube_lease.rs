//! [`LeaseApi`] over a kube client.
//!
//! The client is made by the caller, for the Lease alone: a connection of its own, HTTP/2 with pings (2 s and 2 s), no retry
//! layer. Only get, create, update and watch are used: the server's `leader-election` priority level knows no patch.

use std::time::Duration;

use futures::{StreamExt as _, stream::BoxStream};
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{
    Client, Resource as _,
    api::{PostParams, WatchParams},
    core::{Request, WatchEvent, request::Error as RequestError},
};
use serde::de::DeserializeOwned;

use crate::{
    lease_api::{LeaseApi, LeaseError, LeaseSight},
    record::{LeaseView, Record},
};

/// How long the server keeps one watch open.
const WATCH_SECONDS: u32 = 290;

/// One Lease on a real server.
#[derive(Clone)]
pub struct KubeLeases {
    client: Client,
    namespace: String,
    name: String,
}

impl KubeLeases {
    /// The Lease `namespace/name`, over `client`.
    pub fn new(client: Client, namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { client, namespace: namespace.into(), name: name.into() }
    }

    fn request(&self) -> Request {
        Request::new(Lease::url_path(&(), Some(&self.namespace)))
    }

    fn body(&self, base: Option<&ObjectMeta>, record: &Record) -> Result<Vec<u8>, LeaseError> {
        let mut metadata = base.cloned().unwrap_or_default();
        metadata.name = Some(self.name.clone());
        metadata.namespace = Some(self.namespace.clone());
        let lease = Lease { metadata, spec: Some(LeaseSpec::from(record)) };
        serde_json::to_vec(&lease).map_err(|error| LeaseError::Rejected(error.to_string()))
    }

    async fn send<T: DeserializeOwned>(
        &self,
        request: Result<http::Request<Vec<u8>>, RequestError>,
        within: Duration,
    ) -> Result<T, LeaseError> {
        let mut request = request.map_err(|error| LeaseError::Rejected(error.to_string()))?;
        limit(&mut request, within);
        let exchange = self.client.request::<T>(request);
        match tokio::time::timeout(within, exchange).await {
            Ok(answer) => answer.map_err(|error| classify(&error)),
            Err(_) => Err(LeaseError::Unknown(format!("no answer within {within:?}"))),
        }
    }
}

impl LeaseApi for KubeLeases {
    async fn get(&self, within: Duration) -> Result<Option<LeaseView>, LeaseError> {
        let request = self.request().get(&self.name, &kube::api::GetParams::default());
        match self.send::<Lease>(request, within).await {
            Ok(lease) => Ok(Some(lease.into())),
            Err(LeaseError::NotFound) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn create(&self, record: &Record, within: Duration) -> Result<LeaseView, LeaseError> {
        let request = self.request().create(&PostParams::default(), self.body(None, record)?);
        self.send::<Lease>(request, within).await.map(LeaseView::from)
    }

    async fn replace(&self, base: &LeaseView, record: &Record, within: Duration) -> Result<LeaseView, LeaseError> {
        let body = self.body(Some(&base.metadata), record)?;
        let request = self.request().replace(&self.name, &PostParams::default(), body);
        self.send::<Lease>(request, within).await.map(LeaseView::from)
    }

    async fn watch(&self) -> Result<BoxStream<'static, Result<LeaseSight, LeaseError>>, LeaseError> {
        // Without a version the stream begins with the present state. A role limited by name needs the field selector.
        let params = WatchParams::default()
            .fields(&format!("metadata.name={}", self.name))
            .timeout(WATCH_SECONDS)
            .disable_bookmarks();
        let request = self.request().watch(&params, "").map_err(|error| LeaseError::Rejected(error.to_string()))?;
        let events = self.client.request_events::<Lease>(request).await.map_err(|error| classify(&error))?;
        let sights = futures::StreamExt::filter_map(events, |event| std::future::ready(sight(event)));
        Ok(sights.boxed())
    }
}

/// What a watch event says of the Lease, if anything.
fn sight(event: kube::Result<WatchEvent<Lease>>) -> Option<Result<LeaseSight, LeaseError>> {
    Some(match event {
        Ok(WatchEvent::Added(lease) | WatchEvent::Modified(lease)) => Ok(LeaseSight::Is(lease.into())),
        Ok(WatchEvent::Deleted(lease)) => Ok(LeaseSight::Gone(LeaseView::from(lease).version_number())),
        Ok(WatchEvent::Bookmark(_)) => return None,
        Ok(WatchEvent::Error(status)) => Err(LeaseError::Rejected(status.message)),
        Err(error) => Err(classify(&error)),
    })
}

/// Tells the server how long we wait, so that an abandoned request does not linger there.
fn limit(request: &mut http::Request<Vec<u8>>, within: Duration) {
    let uri = request.uri().to_string();
    let joint = if uri.contains('?') { '&' } else { '?' };
    let millis = within.as_millis().max(1);
    if let Ok(uri) = format!("{uri}{joint}timeout={millis}ms").parse() {
        *request.uri_mut() = uri;
    }
}

fn classify(error: &kube::Error) -> LeaseError {
    let kube::Error::Api(status) = error else {
        return LeaseError::Unknown(chain(error));
    };
    match status.code {
        409 => LeaseError::Conflict,
        404 => LeaseError::NotFound,
        408 | 500.. => LeaseError::Unknown(format!("{} {}", status.code, status.message)),
        code => LeaseError::Rejected(format!("{code} {}", status.message)),
    }
}

/// The error with its causes: the outermost of a transport error says little.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests;
