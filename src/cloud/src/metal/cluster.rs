//! Calls to the API server, as the account of the controller on whose behalf they are made.

use std::sync::{Arc, OnceLock};

use quarterdeck_runtime::client::{
    Api, ApiError, Class, Clients, DeletePrecondition, Identity, ListQuery, Propagation,
};
use quarterdeck_runtime::controller::ClientShare;
use quarterdeck_runtime::object::{Kind, Whole};

use crate::error::{CloudError, Result};
use crate::model::Page;

/// By how much the flags' rate is exceeded: hundreds of Services may need a write each at once.
const SHARE: ClientShare = ClientShare { qps: 10.0, burst: 10 };

/// An account, once the process is connected.
pub(super) struct Account {
    clients: Arc<OnceLock<Clients>>,
    name: &'static str,
    api: OnceLock<Api>,
}

impl Account {
    pub(super) fn new(clients: Arc<OnceLock<Clients>>, name: &'static str) -> Self {
        Self { clients, name, api: OnceLock::new() }
    }

    fn api(&self) -> Result<&Api> {
        if let Some(api) = self.api.get() {
            return Ok(api);
        }
        let clients = self.clients.get().ok_or_else(|| CloudError::Unavailable("not connected yet".to_owned()))?;
        Ok(self.api.get_or_init(|| clients.api_with(&Identity::system(self.name), SHARE)))
    }

    /// Whether the kind is served and may be read.
    pub(super) async fn serves<T: Whole>(&self) -> Result<()> {
        let query = ListQuery { limit: Some(1), metadata_only: true, ..ListQuery::default() };
        let page = self.api()?.list::<serde_json::Value>(&Kind::of::<T>(), None, &query).await;
        page.map(drop).map_err(as_cloud)
    }

    /// An object by its name. It is asked for by a list: a kind that is not served answers 404 to a get as well.
    pub(super) async fn find<T: Whole>(&self, name: &str) -> Result<Option<T>> {
        let query = ListQuery { fields: Some(format!("metadata.name={name}")), ..ListQuery::default() };
        let page = self.api()?.list::<T>(&Kind::of::<T>(), None, &query).await.map_err(as_cloud)?;
        Ok(page.items.into_iter().next())
    }

    /// One page, of so many, of the objects with a label.
    pub(super) async fn page<T: Whole>(&self, label: String, size: u32, page: Option<&str>) -> Result<Page<T>> {
        let query = ListQuery {
            labels: Some(label),
            limit: Some(size),
            continue_token: page.map(str::to_owned),
            ..ListQuery::default()
        };
        let got = self.api()?.list::<T>(&Kind::of::<T>(), None, &query).await.map_err(as_cloud)?;
        Ok(Page { items: got.items, next: got.continue_token })
    }

    pub(super) async fn create<T: Whole>(&self, object: &T) -> Result<()> {
        self.api()?.create(object).await.map(drop).map_err(as_cloud)
    }

    pub(super) async fn replace<T: Whole>(&self, object: &T) -> Result<()> {
        self.api()?.replace(object).await.map(drop).map_err(as_cloud)
    }

    /// Deletes an object as it was read; one that is gone is deleted. With `unchanged`, not if it was written since.
    pub(super) async fn delete<T: Whole>(&self, object: &T, unchanged: bool) -> Result<()> {
        let precondition = DeletePrecondition {
            uid: object.uid().to_owned(),
            resource_version: unchanged.then(|| object.resource_version().to_owned()),
        };
        match self.api()?.delete(&T::kind(), &object.key(), &precondition, Propagation::Background).await {
            Err(error) if !error.is_not_found() => Err(as_cloud(error)),
            _ => Ok(()),
        }
    }
}

/// What a failed call to the API server is to the callers of a cloud.
#[allow(clippy::needless_pass_by_value, reason = "it stands in map_err")]
fn as_cloud(error: ApiError) -> CloudError {
    let text = error.to_string();
    match error.class() {
        Class::NotLeader => CloudError::NotLeading(text),
        Class::Conflict => CloudError::Conflict(text),
        _ if error.is_forbidden() => CloudError::Denied(text),
        _ if error.is_not_found() => {
            CloudError::Unavailable(format!("{text}; does the cluster serve the kind? quarterdeck install brings it"))
        }
        _ => match error.code() {
            Some(422 | 400) => CloudError::Invalid(text),
            Some(429) => CloudError::Throttled { after: None, message: text },
            _ => CloudError::Unavailable(text),
        },
    }
}
