//! Calls to the API server under one identity.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Response};
use k8s_openapi::api::core::v1::{Event, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use quarterdeck_election::seed::{self, Bug};
use quarterdeck_election::{NAMESPACE_DELETION_KEY, epoch};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::exceptions::{Without, passes_gateless, passes_without};
use super::limit::Limiter;
use super::path::{of_object, with_query};
use super::pool::Call;
use super::reader::{Read, Reader};
use super::writer::{Purpose, Writer};
use super::{
    ApiError, ApplyOptions, ApplyTo, DeletePrecondition, Expect, Identity, PatchPrecondition, Propagation, WriteLog,
    Written, Wrote, accept,
};
use crate::object::{Kind, ObjectKey, Whole, parse_version};

/// How long a review may take.
const REVIEW_LIMIT: Duration = Duration::from_secs(10);

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

/// A list as it arrives.
#[derive(Deserialize)]
#[serde(bound = "T: DeserializeOwned", rename_all = "camelCase")]
struct Listed<T> {
    #[serde(default)]
    metadata: ListedMeta,
    items: Option<Vec<T>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ListedMeta {
    resource_version: Option<String>,
    #[serde(rename = "continue")]
    continue_token: Option<String>,
}

/// What is read of a stored object; the rest of the answer is skipped.
#[derive(Deserialize)]
struct Stored {
    metadata: StoredMeta,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct StoredMeta {
    #[serde(default)]
    uid: String,
    #[serde(default)]
    resource_version: String,
    #[serde(default)]
    generation: i64,
}

/// Calls under one identity, reads and writes. Cheap to clone; clones share one rate limit.
///
/// Every write passes the gate and carries the precondition of its verb; the exceptions are the
/// rows of [`EXCEPTIONS`](super::EXCEPTIONS).
#[derive(Clone)]
pub struct Api {
    reader: Reader,
    writer: Writer,
    limiter: Arc<Limiter>,
    impersonate: Option<HeaderValue>,
    sendable: bool,
    log: Option<WriteLog>,
}

impl std::fmt::Debug for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Api").field("as", &self.impersonate).finish_non_exhaustive()
    }
}

/// The fixed parts of a write.
struct Write<'a> {
    verb: &'static str,
    kind: &'a Kind,
    key: &'a ObjectKey,
    method: Method,
    path: String,
    content_type: &'static str,
    accept: &'static str,
    extra: Option<(HeaderName, HeaderValue)>,
    retry_timeouts: bool,
    needs_fence: bool,
    /// The version or uid that a conflict says is outdated.
    resource_version: Option<&'a str>,
}

impl<'a> Write<'a> {
    fn new(verb: &'static str, method: Method, kind: &'a Kind, key: &'a ObjectKey, path: String) -> Self {
        Self {
            verb,
            kind,
            key,
            method,
            path,
            content_type: accept::JSON,
            accept: accept::METADATA,
            extra: None,
            retry_timeouts: true,
            needs_fence: false,
            resource_version: None,
        }
    }

    fn what(&self) -> String {
        format!("{} {}", self.kind, self.key)
    }
}

impl Api {
    pub(crate) fn new(reader: Reader, writer: Writer, identity: &Identity, limiter: Arc<Limiter>) -> Self {
        let (impersonate, sendable) = (identity.impersonate_user(), identity.is_sendable());
        Self { reader, writer, limiter, impersonate, sendable, log: None }
    }

    /// The same calls, with each successful write noted in `log`.
    #[must_use]
    pub fn logging_to(&self, log: WriteLog) -> Self {
        Self { log: Some(log), ..self.clone() }
    }

    /// The same calls as somebody else; the rate limit stays shared. The manager has to be allowed to
    /// act as them ([`ApiError::impersonation_refused`]).
    #[must_use]
    pub fn acting_as(&self, identity: &Identity) -> Self {
        Self { impersonate: identity.impersonate_user(), sendable: identity.is_sendable(), ..self.clone() }
    }

    /// One object from the server's storage; `None` is the server's own 404, never another error.
    pub async fn get<T: DeserializeOwned>(&self, kind: &Kind, key: &ObjectKey) -> Result<Option<T>, ApiError> {
        let path = of_object(kind, key, None);
        match self.fetch("get", &format!("{kind} {key}"), &path, accept::JSON).await {
            Ok(object) => Ok(Some(object)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The metadata of one object from the server's storage; `None` is the server's own 404.
    pub async fn get_metadata(&self, kind: &Kind, key: &ObjectKey) -> Result<Option<ObjectMeta>, ApiError> {
        #[derive(Deserialize)]
        struct Partial {
            metadata: ObjectMeta,
        }
        let path = of_object(kind, key, None);
        match self.fetch::<Partial>("get", &format!("{kind} {key}"), &path, accept::METADATA).await {
            Ok(partial) => Ok(Some(partial.metadata)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// One page of a collection.
    pub async fn list<T: DeserializeOwned>(
        &self,
        kind: &Kind,
        namespace: Option<&str>,
        query: &ListQuery,
    ) -> Result<Page<T>, ApiError> {
        let pairs = [
            ("labelSelector", query.labels.clone()),
            ("fieldSelector", query.fields.clone()),
            ("limit", query.limit.map(|limit| limit.to_string())),
            ("continue", query.continue_token.clone()),
        ];
        let path = with_query(kind.path(namespace), pairs);
        let accept = if query.metadata_only { accept::METADATA_LIST } else { accept::JSON };
        let what = match namespace {
            Some(namespace) => format!("{kind} in {namespace}"),
            None => kind.to_string(),
        };
        let listed: Listed<T> = self.fetch("list", &what, &path, accept).await?;
        Ok(Page {
            items: listed.items.unwrap_or_default(),
            resource_version: listed.metadata.resource_version.unwrap_or_default(),
            continue_token: listed.metadata.continue_token.filter(|token| !token.is_empty()),
        })
    }

    /// Any other read, such as discovery, as JSON; `path` may hold a query.
    pub async fn read<T: DeserializeOwned>(&self, path: &str) -> Result<T, ApiError> {
        self.fetch("get", path, path, accept::JSON).await
    }

    /// The end of what a container of a Pod wrote: at most `lines` lines and `bytes` bytes.
    pub async fn pod_log(&self, pod: &ObjectKey, container: &str, lines: u32, bytes: u32) -> Result<String, ApiError> {
        let path = of_object(&Kind::of::<Pod>(), pod, Some("log"));
        let query = [
            ("container", Some(container.to_owned())),
            ("tailLines", Some(lines.to_string())),
            ("limitBytes", Some(bytes.to_string())),
        ];
        let (path, what) = (with_query(path, query), format!("log of pod {pod}"));
        let read = self.reading("get", &what, &path, accept::TEXT)?;
        self.reader.get_text(&read, &self.limiter).await
    }

    /// What is served under `/api` or `/apis`: an `APIGroupDiscoveryList` where the server has it, else the `APIVersions` or
    /// `APIGroupList` of before (k8s.io/client-go:discovery/discovery_client.go v0.36.3).
    pub async fn discover<T: DeserializeOwned>(&self, path: &str) -> Result<T, ApiError> {
        self.fetch("get", path, path, accept::DISCOVERY).await
    }

    /// Creates an object; its name must be set (no `generateName`).
    pub async fn create<T: Whole>(&self, object: &T) -> Result<Written, ApiError> {
        let (kind, key) = (T::kind(), object.key());
        let path = kind.path(Some(key.namespace()));
        let write = Write::new("create", Method::POST, &kind, &key, path);
        check_name(&write)?;
        if object.metadata().resource_version.is_some() {
            return Err(invalid(&write, "metadata.resourceVersion must not be set on a new object"));
        }
        let body = encode_body(&write, object)?;
        self.store(&write, body).await
    }

    /// Replaces an object with PUT; its resourceVersion must be set.
    pub async fn replace<T: Whole>(&self, object: &T) -> Result<Written, ApiError> {
        self.put(None, object).await
    }

    /// Replaces a subresource (`status`, `finalize`) with PUT; the resourceVersion must be set.
    pub async fn replace_subresource<T: Whole>(&self, name: &'static str, object: &T) -> Result<Written, ApiError> {
        self.put(Some(name), object).await
    }

    async fn put<T: Whole>(&self, subresource: Option<&'static str>, object: &T) -> Result<Written, ApiError> {
        let (kind, key) = (T::kind(), object.key());
        let mut write = Write::new("update", Method::PUT, &kind, &key, of_object(&kind, &key, subresource));
        check_name(&write)?;
        let version = object.metadata().resource_version.as_deref().unwrap_or_default();
        if version.is_empty() {
            return Err(invalid(&write, "metadata.resourceVersion is not set: a replace must say what it replaces"));
        }
        write.resource_version = Some(version);
        let body = if seed::carries(Bug::PreconditionsOff) {
            let mut object = json!(object);
            object["metadata"]["resourceVersion"] = Value::Null;
            encode_body(&write, &object)?
        } else {
            encode_body(&write, object)?
        };
        self.store(&write, body).await
    }

    /// Deletes one object if it still is the one decided on. A 404 is an error of its own
    /// ([`ApiError::is_not_found`]), which callers usually take for done.
    pub async fn delete(
        &self,
        kind: &Kind,
        key: &ObjectKey,
        precondition: &DeletePrecondition,
        propagation: Propagation,
    ) -> Result<(), ApiError> {
        let mut write = Write::new("delete", Method::DELETE, kind, key, of_object(kind, key, None));
        write.accept = accept::JSON;
        check_name(&write)?;
        if precondition.uid.is_empty() {
            return Err(invalid(&write, "the precondition names no uid"));
        }
        write.resource_version = precondition.resource_version.as_deref();
        let mut body = delete_options(propagation);
        body["preconditions"] = match write.resource_version {
            _ if seed::carries(Bug::PreconditionsOff) => Value::Null,
            Some(version) => json!({"uid": precondition.uid, "resourceVersion": version}),
            None => json!({"uid": precondition.uid}),
        };
        let sent = self.send(&write, body.to_string().into()).await;
        // Not there means that this uid is gone, too.
        if sent.as_ref().map_or_else(ApiError::is_not_found, |_| true) {
            self.note(kind, key, Expect::Deleted { uid: precondition.uid.clone() });
        }
        sent.map(|_| ())
    }

    /// Deletes up to `limit` objects of a namespace. Carries no precondition: only for a namespace
    /// whose live object has just been seen deleting; sends the namespace-deletion extra, which the
    /// fence checks ([`ApiError::is_namespace_not_deleting`]). Goes out only while the fence is known
    /// to work ([`ApiError::is_unfenced`]): else list and delete by uid. A timeout ([`ApiError::is_timeout`]) means that some are gone.
    pub async fn delete_collection(&self, kind: &Kind, namespace: &str, limit: u32) -> Result<(), ApiError> {
        let key = ObjectKey::new(namespace, "*");
        let path = with_query(kind.path(Some(namespace)), [("limit", Some(limit.to_string()))]);
        let mut write = Write::new("deletecollection", Method::DELETE, kind, &key, path);
        write.accept = accept::METADATA_LIST;
        write.retry_timeouts = false;
        write.needs_fence = true;
        if namespace.is_empty() || !kind.namespaced {
            return Err(invalid(&write, "a collection is deleted in one namespace only"));
        }
        self.exempt(&write)?;
        write.extra = Some((epoch::extra_header(NAMESPACE_DELETION_KEY), HeaderValue::from_static("true")));
        self.send(&write, delete_options(Propagation::Background).to_string().into()).await.map(|_| ())
    }

    /// Server-side apply. `object` carries apiVersion, kind, name and namespace; the answer is the
    /// stored object.
    pub async fn apply(
        &self,
        kind: &Kind,
        key: &ObjectKey,
        object: &Value,
        to: &ApplyTo,
        options: &ApplyOptions,
    ) -> Result<Value, ApiError> {
        let force = options.force && !matches!(to, ApplyTo::Absent);
        let query = [
            ("fieldManager", Some(options.manager.to_owned())),
            ("force", force.then(|| "true".to_owned())),
            ("dryRun", options.dry_run.then(|| "All".to_owned())),
        ];
        let path = with_query(of_object(kind, key, None), query);
        let mut write = Write::new("apply", Method::PATCH, kind, key, path);
        write.content_type = accept::APPLY_PATCH;
        write.accept = accept::JSON;
        check_name(&write)?;
        let body = match to {
            ApplyTo::Absent => object.to_string(),
            ApplyTo::Known { uid } if uid.is_empty() => return Err(invalid(&write, "the precondition names no uid")),
            ApplyTo::Known { uid } => {
                let mut object = object.clone();
                metadata_of(&mut object).ok_or_else(|| invalid(&write, "the object is not a map"))?["uid"] = json!(uid);
                object.to_string()
            }
        };
        let answer = self.send(&write, body.into()).await?;
        let stored: Value = decode(&write, answer.body())?;
        if !options.dry_run
            && let Some(version) = stored.pointer("/metadata/resourceVersion").and_then(Value::as_str)
        {
            self.note_stored(kind, key, version);
        }
        Ok(stored)
    }

    /// Merge patch of single fields of an object; `subresource` is `None` or a name like `status`.
    pub async fn merge_patch(
        &self,
        kind: &Kind,
        key: &ObjectKey,
        subresource: Option<&'static str>,
        patch: &Value,
        precondition: &PatchPrecondition,
    ) -> Result<Written, ApiError> {
        let mut write = Write::new("patch", Method::PATCH, kind, key, of_object(kind, key, subresource));
        write.content_type = accept::MERGE_PATCH;
        self.patch(write, patch, precondition).await
    }

    /// Strategic merge patch of single fields of an object; only built-in kinds know it. `subresource` as in
    /// [`Self::merge_patch`].
    pub async fn strategic_patch(
        &self,
        kind: &Kind,
        key: &ObjectKey,
        subresource: Option<&'static str>,
        patch: &Value,
        precondition: &PatchPrecondition,
    ) -> Result<Written, ApiError> {
        let mut write = Write::new("patch", Method::PATCH, kind, key, of_object(kind, key, subresource));
        write.content_type = accept::STRATEGIC_PATCH;
        self.patch(write, patch, precondition).await
    }

    async fn patch<'a>(
        &self,
        mut write: Write<'a>,
        patch: &Value,
        precondition: &'a PatchPrecondition,
    ) -> Result<Written, ApiError> {
        check_name(&write)?;
        let (uid, version) = match precondition {
            PatchPrecondition::Uid(uid) => (uid, None),
            PatchPrecondition::ResourceVersion { uid, resource_version } => (uid, Some(resource_version)),
        };
        if uid.is_empty() || version.is_some_and(String::is_empty) {
            return Err(invalid(&write, "the precondition is empty"));
        }
        write.resource_version = version.map(String::as_str);
        let mut patch = patch.clone();
        let metadata = metadata_of(&mut patch).ok_or_else(|| invalid(&write, "the patch is not a map"))?;
        metadata["uid"] = json!(uid);
        if let Some(version) = version {
            metadata["resourceVersion"] = json!(version);
        }
        self.store(&write, patch.to_string().into()).await
    }

    /// A review (`tokenreviews`, `subjectaccessreviews`): a create that stores nothing; no gate.
    pub async fn review<T: Serialize + DeserializeOwned>(&self, path: &str, review: &T) -> Result<T, ApiError> {
        let what = || path.to_owned();
        if !path.ends_with("reviews") || !passes_gateless(&Method::POST, &path.parse().unwrap_or_default()) {
            let reason = "only reviews may pass without the gate".to_owned();
            return Err(ApiError::Invalid { verb: "create", what: what(), reason });
        }
        let body = serde_json::to_vec(review).map(Bytes::from).map_err(|error| ApiError::Invalid {
            verb: "create",
            what: what(),
            reason: format!("cannot be encoded: {error}"),
        })?;
        let read = self.reading("create", path, path, accept::JSON)?;
        self.limiter.take().await;
        let answer = self.reader.ask(&read, body, REVIEW_LIMIT).await?;
        serde_json::from_slice(&answer).map_err(|source| ApiError::Decode { verb: "create", what: what(), source })
    }

    /// Creates an Event, which needs no precondition.
    pub(crate) async fn create_event(&self, event: &Event) -> Result<(), ApiError> {
        let (kind, key) = (Kind::of::<Event>(), crate::object::Cached::key(event));
        let write = Write::new("create", Method::POST, &kind, &key, kind.path(Some(key.namespace())));
        check_name(&write)?;
        self.exempt(&write)?;
        let body = encode_body(&write, event)?;
        self.send(&write, body).await.map(|_| ())
    }

    /// Changes an Event's count, which needs no precondition.
    pub(crate) async fn patch_event(&self, key: &ObjectKey, patch: &Value) -> Result<(), ApiError> {
        let kind = Kind::of::<Event>();
        let mut write = Write::new("patch", Method::PATCH, &kind, key, of_object(&kind, key, None));
        write.content_type = accept::MERGE_PATCH;
        self.exempt(&write)?;
        self.send(&write, patch.to_string().into()).await.map(|_| ())
    }

    /// Refuses a call without a precondition unless the table lists it.
    fn exempt(&self, write: &Write<'_>) -> Result<(), ApiError> {
        if passes_without(Without::Precondition, write.kind, write.verb) {
            return Ok(());
        }
        Err(invalid(write, "the call carries no precondition"))
    }

    /// Sends a write that answers with the stored object, and notes what it did.
    async fn store(&self, write: &Write<'_>, body: Bytes) -> Result<Written, ApiError> {
        let answer = self.send(write, body).await?;
        let Stored { metadata } = decode(write, answer.body())?;
        self.note_stored(write.kind, write.key, &metadata.resource_version);
        Ok(Written { uid: metadata.uid, resource_version: metadata.resource_version, generation: metadata.generation })
    }

    async fn send(&self, write: &Write<'_>, body: Bytes) -> Result<Response<Bytes>, ApiError> {
        self.check_identity(write.verb, &write.what())?;
        let call = Call {
            method: write.method.clone(),
            path: write.path.clone(),
            content_type: write.content_type,
            accept: write.accept,
            impersonate: self.impersonate.clone(),
            extra: write.extra.clone(),
            needs_fence: write.needs_fence,
            body,
        };
        let purpose = Purpose { verb: write.verb, what: write.what(), retry_timeouts: write.retry_timeouts };
        let sent = self.writer.send(&call, &purpose, &self.limiter).await;
        if let (Err(error), Some(version)) = (&sent, write.resource_version)
            && error.is_conflict()
        {
            self.note(write.kind, write.key, Expect::OtherThan(version.to_owned()));
        }
        sent
    }

    fn note_stored(&self, kind: &Kind, key: &ObjectKey, version: &str) {
        if let Some(version) = parse_version(version) {
            self.note(kind, key, Expect::AtLeast(version));
        }
    }

    fn note(&self, kind: &Kind, key: &ObjectKey, expect: Expect) {
        if let Some(log) = &self.log {
            log.push(Wrote { kind: kind.clone(), key: key.clone(), expect });
        }
    }

    fn check_identity(&self, verb: &'static str, what: &str) -> Result<(), ApiError> {
        if self.sendable {
            return Ok(());
        }
        let reason = "the account's name cannot stand in a header".to_owned();
        Err(ApiError::Invalid { verb, what: what.to_owned(), reason })
    }

    fn reading<'a>(
        &'a self,
        verb: &'static str,
        what: &'a str,
        path: &'a str,
        accept: &'static str,
    ) -> Result<Read<'a>, ApiError> {
        self.check_identity(verb, what)?;
        Ok(Read { verb, what, path, accept, impersonate: self.impersonate.as_ref() })
    }

    async fn fetch<T: DeserializeOwned>(
        &self,
        verb: &'static str,
        what: &str,
        path: &str,
        accept: &'static str,
    ) -> Result<T, ApiError> {
        self.reader.get(&self.reading(verb, what, path, accept)?, &self.limiter).await
    }
}

fn invalid(write: &Write<'_>, reason: &str) -> ApiError {
    ApiError::Invalid { verb: write.verb, what: write.what(), reason: reason.to_owned() }
}

fn check_name(write: &Write<'_>) -> Result<(), ApiError> {
    if write.key.name().is_empty() {
        return Err(invalid(write, "the object has no name"));
    }
    if write.kind.namespaced && write.key.namespace().is_empty() {
        return Err(invalid(write, "the object has no namespace"));
    }
    Ok(())
}

fn encode_body<T: Serialize>(write: &Write<'_>, object: &T) -> Result<Bytes, ApiError> {
    serde_json::to_vec(object).map(Bytes::from).map_err(|error| invalid(write, &format!("cannot be encoded: {error}")))
}

fn decode<T: DeserializeOwned>(write: &Write<'_>, body: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice(body).map_err(|source| ApiError::Decode { verb: write.verb, what: write.what(), source })
}

/// `metadata` of an object or patch, made if it is missing.
fn metadata_of(object: &mut Value) -> Option<&mut Value> {
    let metadata = object.as_object_mut()?.entry("metadata").or_insert_with(|| json!({}));
    metadata.is_object().then_some(metadata)
}

fn delete_options(propagation: Propagation) -> Value {
    let policy = match propagation {
        Propagation::Background => "Background",
        Propagation::Foreground => "Foreground",
        Propagation::Orphan => "Orphan",
    };
    json!({"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": policy})
}
