//! Calls to the API server under one identity.

use http::Method;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{ApiError, ApplyOptions, ApplyTo, DeletePrecondition, PatchPrecondition, Propagation, WriteLog, Written};
use crate::object::{Kind, ObjectKey, Whole};

/// Who a request is made as.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Identity {
    /// The kubeconfig's own user.
    Manager,
    /// A service account, by impersonation.
    ServiceAccount {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
}

/// How the clients are tuned; upstream's flags.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// `--kube-api-qps`: sustained requests a second of each controller's client.
    pub qps: f32,
    /// `--kube-api-burst`: how many may go at once.
    pub burst: u32,
    /// User-Agent header.
    pub user_agent: String,
}

/// The connections to one API server; gives out [`Api`] handles.
#[derive(Clone)]
pub struct Clients {
    _private: (),
}

/// Options of a list.
#[derive(Clone, Debug, Default)]
pub struct ListQuery {
    /// Label selector.
    pub labels: Option<String>,
    /// Field selector.
    pub fields: Option<String>,
    /// Page size.
    pub limit: Option<u32>,
    /// Token of the next page.
    pub continue_token: Option<String>,
    /// Ask for metadata only.
    pub metadata_only: bool,
}

/// One page of a list.
#[derive(Clone, Debug)]
pub struct Page<T> {
    /// The objects.
    pub items: Vec<T>,
    /// `metadata.resourceVersion` of the list.
    pub resource_version: String,
    /// Token of the next page, if there is one.
    pub continue_token: Option<String>,
}

/// Calls under one identity, reads and writes. Cheap to clone.
#[derive(Clone)]
pub struct Api {
    _private: (),
}

impl Api {
    /// The same calls, with each successful write noted in `log`.
    #[must_use]
    pub fn logging_to(&self, _log: WriteLog) -> Self {
        todo!()
    }

    /// One object from the server's storage; `None` is the server's own 404, never another error.
    pub async fn get<T: DeserializeOwned>(&self, _kind: &Kind, _key: &ObjectKey) -> Result<Option<T>, ApiError> {
        todo!()
    }

    /// One page of a collection.
    pub async fn list<T: DeserializeOwned>(
        &self,
        _kind: &Kind,
        _namespace: Option<&str>,
        _query: &ListQuery,
    ) -> Result<Page<T>, ApiError> {
        todo!()
    }

    /// Any other read, such as discovery, as JSON.
    pub async fn read<T: DeserializeOwned>(&self, _path: &str) -> Result<T, ApiError> {
        todo!()
    }

    /// Creates an object; its name must be set (no `generateName`).
    pub async fn create<T: Whole>(&self, _object: &T) -> Result<Written, ApiError> {
        todo!()
    }

    /// Replaces an object with PUT; its resourceVersion must be set.
    pub async fn replace<T: Whole>(&self, _object: &T) -> Result<Written, ApiError> {
        todo!()
    }

    /// Replaces a subresource (`status`, `finalize`) with PUT; the resourceVersion must be set.
    pub async fn replace_subresource<T: Whole>(&self, _name: &'static str, _object: &T) -> Result<Written, ApiError> {
        todo!()
    }

    /// Deletes one object if it still is the one decided on. A 404 is an error of its own
    /// ([`ApiError::is_not_found`]), which callers usually take for done.
    pub async fn delete(
        &self,
        _kind: &Kind,
        _key: &ObjectKey,
        _precondition: &DeletePrecondition,
        _propagation: Propagation,
    ) -> Result<(), ApiError> {
        todo!()
    }

    /// Deletes up to `limit` objects of a namespace. Carries no precondition: only for a namespace
    /// whose live object has just been seen deleting; sends the namespace-deletion extra, which the
    /// fence checks.
    pub async fn delete_collection(&self, _kind: &Kind, _namespace: &str, _limit: u32) -> Result<(), ApiError> {
        todo!()
    }

    /// Server-side apply. `object` carries apiVersion, kind, name and namespace; the answer is the
    /// stored object.
    pub async fn apply(
        &self,
        _kind: &Kind,
        _key: &ObjectKey,
        _object: &serde_json::Value,
        _to: &ApplyTo,
        _options: &ApplyOptions,
    ) -> Result<serde_json::Value, ApiError> {
        todo!()
    }

    /// Merge patch of single fields of an object; `subresource` is `None` or a name like `status`.
    pub async fn merge_patch(
        &self,
        _kind: &Kind,
        _key: &ObjectKey,
        _subresource: Option<&'static str>,
        _patch: &serde_json::Value,
        _precondition: &PatchPrecondition,
    ) -> Result<Written, ApiError> {
        todo!()
    }

    /// A review (`tokenreviews`, `subjectaccessreviews`): a create that stores nothing; no gate.
    pub async fn review<T: Serialize + DeserializeOwned>(&self, _path: &str, _review: &T) -> Result<T, ApiError> {
        let _ = Method::POST;
        todo!()
    }
}
