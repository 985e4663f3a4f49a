//! One line of the audit log.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

/// An audit event (`audit.k8s.io/v1`).
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// The same for all stages of one request.
    #[serde(rename = "auditID")]
    pub audit_id: String,
    /// How far the request has come.
    pub stage: Stage,
    /// Path and query of the request.
    #[serde(rename = "requestURI")]
    pub request_uri: String,
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`,
    /// `deletecollection`; the HTTP method in lower case for other paths.
    pub verb: String,
    /// Who sent it.
    pub user: Actor,
    /// In whose name, if that is another.
    pub impersonated_user: Option<Actor>,
    /// The program that sent it.
    #[serde(default)]
    pub user_agent: String,
    /// What it is about; none for paths that are no resources.
    pub object_ref: Option<ObjectReference>,
    /// How it was answered; none before the answer.
    pub response_status: Option<Outcome>,
    /// The body that was sent, if the policy keeps bodies.
    pub request_object: Option<Value>,
    /// The body that was answered, if the policy keeps bodies.
    pub response_object: Option<Value>,
    /// When the request arrived, by the server's clock.
    pub request_received_timestamp: Timestamp,
    /// When it reached this stage.
    pub stage_timestamp: Timestamp,
    /// What admission and authorization noted.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    /// Number of the kube-apiserver that wrote the line (the reader's).
    #[serde(skip)]
    pub server: usize,
}

/// How far a request has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Stage {
    /// It arrived (left out by our policies).
    RequestReceived,
    /// The head of the answer was sent: a watch is open.
    ResponseStarted,
    /// The answer is complete.
    ResponseComplete,
    /// The server panicked.
    Panic,
}

/// A user.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Actor {
    /// The user's name.
    #[serde(default)]
    pub username: String,
    /// The user's groups.
    #[serde(default)]
    pub groups: Vec<String>,
    /// Extra facts, among them those of `Impersonate-Extra`.
    #[serde(default)]
    pub extra: BTreeMap<String, Vec<String>>,
}

/// What a request is about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ObjectReference {
    /// Plural name of the resource.
    pub resource: String,
    /// Empty for resources of the cluster, and for all namespaces.
    pub namespace: String,
    /// Empty for lists, and for objects whose name the server makes.
    pub name: String,
    /// The uid that the request names.
    pub uid: String,
    /// Empty for the core group.
    pub api_group: String,
    /// Version of the group.
    pub api_version: String,
    /// The resourceVersion that the request names.
    pub resource_version: String,
    /// Empty for the object itself.
    pub subresource: String,
}

/// How a request was answered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Outcome {
    /// HTTP code.
    pub code: u16,
    /// Reason of a failure, such as `Conflict`.
    pub reason: String,
    /// Text of a failure.
    pub message: String,
}

impl Event {
    /// Could the request change an object?
    pub fn is_write(&self) -> bool {
        matches!(self.verb.as_str(), "create" | "update" | "patch" | "delete" | "deletecollection")
    }

    /// Was it only tried (`?dryRun=All`)?
    pub fn is_dry_run(&self) -> bool {
        let query = self.request_uri.split_once('?').map_or("", |(_, query)| query);
        query.split('&').any(|pair| pair.starts_with("dryRun="))
    }

    /// The HTTP code of the answer, 0 before it.
    pub fn code(&self) -> u16 {
        self.response_status.as_ref().map_or(0, |status| status.code)
    }

    /// Was it answered with a 2xx code?
    pub fn succeeded(&self) -> bool {
        (200..300).contains(&self.code())
    }

    /// Name of the user that counted: the impersonated one, if there is one.
    pub fn acting_user(&self) -> &str {
        &self.impersonated_user.as_ref().unwrap_or(&self.user).username
    }

    /// `resource.group/subresource` as kubectl writes it: `pods`,
    /// `pods/status`, `leases.coordination.k8s.io`; empty for other paths.
    pub fn resource(&self) -> String {
        let Some(object) = &self.object_ref else {
            return String::new();
        };
        let mut text = object.resource.clone();
        if !object.api_group.is_empty() {
            text = format!("{text}.{}", object.api_group);
        }
        if !object.subresource.is_empty() {
            text = format!("{text}/{}", object.subresource);
        }
        text
    }

    /// Namespace of the object; empty when there is none.
    pub fn namespace(&self) -> &str {
        self.object_ref.as_ref().map_or("", |object| &object.namespace)
    }

    /// Name of the object, from the answer for one whose name the server made.
    pub fn name(&self) -> &str {
        let asked = self.object_ref.as_ref().map_or("", |object| object.name.as_str());
        if !asked.is_empty() {
            return asked;
        }
        let body = self.response_object.as_ref();
        body.and_then(|body| body["metadata"]["name"].as_str()).unwrap_or_default()
    }

    /// The resourceVersion in the answered body: the order of writes in etcd.
    pub fn response_version(&self) -> Option<u64> {
        self.response_object.as_ref()?["metadata"]["resourceVersion"].as_str()?.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_tells_who_wrote_what_and_at_which_version() {
        let event: Event = serde_json::from_str(
            r#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"RequestResponse",
            "auditID":"7","stage":"ResponseComplete",
            "requestURI":"/apis/discovery.k8s.io/v1/namespaces/a/endpointslices?dryRun=All",
            "verb":"create","user":{"username":"manager","groups":["g"]},
            "impersonatedUser":{"username":"writer","extra":{"k":["v"]}},
            "sourceIPs":["127.0.0.1"],"userAgent":"x",
            "objectRef":{"resource":"endpointslices","namespace":"a","apiGroup":"discovery.k8s.io",
            "apiVersion":"v1"},"responseStatus":{"metadata":{},"code":201},
            "responseObject":{"metadata":{"name":"web-1","resourceVersion":"42"}},
            "requestReceivedTimestamp":"2026-01-02T03:04:05.000006Z",
            "stageTimestamp":"2026-01-02T03:04:05.100006Z"}"#,
        )
        .unwrap();
        assert!(event.is_write() && event.is_dry_run() && event.succeeded());
        assert_eq!(event.acting_user(), "writer");
        assert_eq!(event.resource(), "endpointslices.discovery.k8s.io");
        assert_eq!((event.namespace(), event.name()), ("a", "web-1"));
        assert_eq!(event.response_version(), Some(42));
    }
}
