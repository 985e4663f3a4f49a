//! Errors of API calls, and what a caller should do about each class.

use http::StatusCode;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use quarterdeck_election::{FenceRefusal, Refused};

/// How much of an answer that is not a Status is kept for the message.
const LONGEST_EXCERPT: usize = 512;

/// What an error asks of its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// May pass by itself: retry with backoff.
    Transient,
    /// The object changed meanwhile: retry once the cache shows the newer version.
    Conflict,
    /// Retrying the same request cannot help.
    Terminal,
    /// This process does not hold the lease, or holds it no longer: stop without noise.
    NotLeader,
}

/// Who may not act as whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImpersonationRefused {
    /// The manager's user name.
    pub user: String,
    /// Namespace of the service account.
    pub namespace: String,
    /// Name of the service account.
    pub name: String,
}

/// A failed call to the API server.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The server answered with an error status.
    #[error("{verb} {what}: {} (code {})", .status.message.as_deref().unwrap_or("no message"), .status.code.unwrap_or(0))]
    Status {
        /// Kubernetes verb of the call.
        verb: &'static str,
        /// Resource and object, such as `services a/b`.
        what: String,
        /// The status as the server sent it.
        status: Box<Status>,
    },
    /// The gate did not let the write out.
    #[error("{verb} {what}: {source}")]
    Gate {
        /// Kubernetes verb of the call.
        verb: &'static str,
        /// Resource and object.
        what: String,
        /// Why the gate refused.
        source: Refused,
    },
    /// The server's epoch fence refused the write: another tenure has begun.
    #[error("{verb} {what}: refused by the epoch fence")]
    Fenced {
        /// Kubernetes verb of the call.
        verb: &'static str,
        /// Resource and object.
        what: String,
        /// Whether the token is still ours as far as this process knows: then the server is wrong,
        /// or behind by more than it should be.
        still_ours: bool,
    },
    /// The call is allowed only under a fence that is known to work, and there is none now; nothing
    /// was sent.
    #[error("{verb} {what}: not without a verified epoch fence")]
    Unfenced {
        /// Kubernetes verb of the call.
        verb: &'static str,
        /// Resource and object.
        what: String,
    },
    /// No answer within the time the call was given; it may or may not have been carried out.
    #[error("{verb} {what}: no answer within {limit:?}: {hint}")]
    Deadline {
        /// Kubernetes verb of the call.
        verb: &'static str,
        /// Resource and object.
        what: String,
        /// The time given.
        limit: std::time::Duration,
        /// What became of the call, or what would allow a longer time.
        hint: String,
    },
    /// The request did not reach the server, or its answer did not reach us.
    #[error("{verb} {what}: {}", chain(&**.source))]
    Transport {
        /// Kubernetes verb of the call.
        verb: &'static str,
        /// Resource and object.
        what: String,
        /// The underlying error.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The answer was not what it should be.
    #[error("{verb} {what}: cannot read the answer: {source}")]
    Decode {
        /// Kubernetes verb of the call.
        verb: &'static str,
        /// Resource and object.
        what: String,
        /// The decoder's error.
        source: serde_json::Error,
    },
    /// The call lacks what its verb requires, such as a resourceVersion; nothing was sent.
    #[error("{verb} {what}: {reason}")]
    Invalid {
        /// Kubernetes verb of the call.
        verb: &'static str,
        /// Resource and object.
        what: String,
        /// What is missing.
        reason: String,
    },
}

impl ApiError {
    /// What the error asks of its caller.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::Status { status, .. } => class_of(status),
            Self::Gate { source: Refused::NotLeading, .. } | Self::Fenced { still_ours: false, .. } => Class::NotLeader,
            // The lease is still ours; it will be renewed, or lost, in which case the work is stopped.
            Self::Gate { source: Refused::DeadlineTooNear { .. }, .. }
            | Self::Fenced { still_ours: true, .. }
            | Self::Unfenced { .. }
            | Self::Deadline { .. }
            | Self::Transport { .. } => Class::Transient,
            Self::Decode { .. } | Self::Invalid { .. } => Class::Terminal,
        }
    }

    /// The server's HTTP status code, if it answered.
    #[must_use]
    pub fn code(&self) -> Option<u16> {
        match self {
            Self::Status { status, .. } => status.code.and_then(|code| u16::try_from(code).ok()),
            _ => None,
        }
    }

    /// The server says the object does not exist.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.code() == Some(404)
    }

    /// The object changed, or is not the one decided on (a 409 other than AlreadyExists, or a 422
    /// on `metadata.uid`).
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Status { status, .. } if is_conflict(status))
    }

    /// The name is taken.
    #[must_use]
    pub fn is_already_exists(&self) -> bool {
        matches!(self, Self::Status { status, .. } if reason(status) == "AlreadyExists")
    }

    /// The namespace is being deleted (cause `NamespaceTerminating`).
    #[must_use]
    pub fn is_namespace_terminating(&self) -> bool {
        matches!(self, Self::Status { status, .. } if has_cause(status, "NamespaceTerminating"))
    }

    /// The fence refused to delete what a namespace holds: the namespace is not being deleted.
    #[must_use]
    pub fn is_namespace_not_deleting(&self) -> bool {
        matches!(self, Self::Status { status, .. }
            if FenceRefusal::of_message(status.message.as_deref().unwrap_or_default())
                == Some(FenceRefusal::NamespaceNotDeleting))
    }

    /// The call needs a fence that is known to work ([`ApiError::Unfenced`]).
    #[must_use]
    pub fn is_unfenced(&self) -> bool {
        matches!(self, Self::Unfenced { .. })
    }

    /// The account lacks the right (403 that neither a namespace being deleted nor the fence
    /// explains).
    #[must_use]
    pub fn is_forbidden(&self) -> bool {
        self.code() == Some(403) && !self.is_namespace_terminating() && !self.is_namespace_not_deleting()
    }

    /// The manager may not act as the service account of the call
    /// (apiserver:pkg/endpoints/filters/impersonation.go, v0.36.3: the refusal names user and account).
    #[must_use]
    pub fn impersonation_refused(&self) -> Option<ImpersonationRefused> {
        let Self::Status { status, .. } = self else { return None };
        let message = status.message.as_deref().filter(|_| self.code() == Some(403))?;
        let after = |text: &str, start: &str| {
            let (_, rest) = text.split_once(start)?;
            rest.split_once('"').map(|(word, rest)| (word.to_owned(), rest.to_owned()))
        };
        let (name, rest) = after(message, "serviceaccounts \"")?;
        let (user, rest) = after(&rest, "User \"")?;
        let rest = rest.strip_prefix(" cannot impersonate resource ")?;
        let (namespace, _) = after(rest, "in the namespace \"")?;
        Some(ImpersonationRefused { user, namespace, name })
    }

    /// The version asked for is no longer kept: list again.
    #[must_use]
    pub fn is_expired(&self) -> bool {
        self.code() == Some(410)
    }

    /// The server gave up in the time it was given (504), or never answered.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        self.code() == Some(504) || matches!(self, Self::Deadline { .. })
    }
}

fn class_of(status: &Status) -> Class {
    if is_conflict(status) || reason(status) == "AlreadyExists" {
        return Class::Conflict;
    }
    match status.code.unwrap_or(0) {
        403 if has_cause(status, "NamespaceTerminating") => Class::Terminal,
        // Rights, quotas, credentials and admission are put right by somebody else, without an event for us.
        401 | 403 | 404 | 408 | 410 | 422 | 425 | 429 => Class::Transient,
        400..=499 => Class::Terminal,
        _ => Class::Transient,
    }
}

fn reason(status: &Status) -> &str {
    status.reason.as_deref().unwrap_or_default()
}

fn is_conflict(status: &Status) -> bool {
    let on_uid = || {
        let causes = status.details.iter().flat_map(|details| details.causes.iter().flatten());
        causes.into_iter().any(|cause| cause.field.as_deref() == Some("metadata.uid"))
    };
    match status.code {
        Some(409) => reason(status) != "AlreadyExists",
        Some(422) => on_uid(),
        _ => false,
    }
}

fn has_cause(status: &Status, wanted: &str) -> bool {
    let causes = status.details.iter().flat_map(|details| details.causes.iter().flatten());
    causes.into_iter().any(|cause| cause.reason.as_deref() == Some(wanted))
}

/// The status that an answer holds, or one made up from its code and text.
pub(crate) fn read_status(code: StatusCode, body: &[u8]) -> Status {
    let mut status = serde_json::from_slice::<Status>(body).unwrap_or_else(|_| {
        let text = String::from_utf8_lossy(&body[..body.len().min(LONGEST_EXCERPT)]);
        let text = text.trim();
        let message = if text.is_empty() { code.canonical_reason().unwrap_or("no message") } else { text };
        Status { message: Some(message.to_owned()), ..Status::default() }
    });
    // An intermediary's answer may be JSON of another kind; the line's code is what counts.
    status.code = Some(i32::from(code.as_u16()));
    status
}

/// An error with its causes: hyper and rustls say what went wrong only in the last of them.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(code: u16, body: &serde_json::Value) -> ApiError {
        let status = Box::new(read_status(StatusCode::from_u16(code).unwrap(), body.to_string().as_bytes()));
        ApiError::Status { verb: "update", what: "services a/b".into(), status }
    }

    #[test]
    fn a_refused_impersonation_says_who_and_whom() {
        let text = r#"serviceaccounts "keeper" is forbidden: User "deck" cannot impersonate resource "serviceaccounts" in API group "" in the namespace "a": why"#;
        let refused = ImpersonationRefused { user: "deck".into(), namespace: "a".into(), name: "keeper".into() };
        let status = |text: &str| serde_json::json!({"kind": "Status", "reason": "Forbidden", "message": text});
        assert_eq!(error(403, &status(text)).impersonation_refused(), Some(refused));
        assert_eq!(error(500, &status(text)).impersonation_refused(), None);
        let other = r#"serviceaccounts "keeper" is forbidden: User "deck" cannot get resource "serviceaccounts" in API group "" in the namespace "a""#;
        assert_eq!(error(403, &status(other)).impersonation_refused(), None);
    }

    #[test]
    fn statuses_fall_into_their_classes() {
        use serde_json::json;
        let status = |reason: &str| json!({"kind": "Status", "reason": reason});
        let on =
            |field: &str| json!({"kind": "Status", "reason": "Invalid", "details": {"causes": [{"field": field}]}});
        let terminating = json!({"reason": "Forbidden", "details": {"causes": [{"reason": "NamespaceTerminating"}]}});
        let cases = [
            (409, status("Conflict"), Class::Conflict),
            (409, status("AlreadyExists"), Class::Conflict),
            (422, on("metadata.uid"), Class::Conflict),
            (422, on("spec.ports"), Class::Transient),
            (400, status("BadRequest"), Class::Terminal),
            (403, terminating.clone(), Class::Terminal),
            (403, status("Forbidden"), Class::Transient),
            (401, status("Unauthorized"), Class::Transient),
            (404, status("NotFound"), Class::Transient),
            (429, status("TooManyRequests"), Class::Transient),
            (500, status("InternalError"), Class::Transient),
            (504, status("Timeout"), Class::Transient),
        ];
        for (code, body, expected) in cases {
            assert_eq!(error(code, &body).class(), expected, "{code} {body}");
        }
        assert!(error(409, &status("AlreadyExists")).is_already_exists());
        assert!(!error(409, &status("AlreadyExists")).is_conflict());
        assert!(error(422, &on("metadata.uid")).is_conflict());
        assert!(error(403, &terminating).is_namespace_terminating());
        assert!(!error(403, &terminating).is_forbidden());
    }

    #[test]
    fn an_answer_that_is_no_status_keeps_its_text() {
        let status = read_status(StatusCode::BAD_GATEWAY, b"upstream down\n");
        assert_eq!((status.code, status.message.as_deref()), (Some(502), Some("upstream down")));
        let status = read_status(StatusCode::BAD_GATEWAY, b"");
        assert_eq!(status.message.as_deref(), Some("Bad Gateway"));
    }
}
