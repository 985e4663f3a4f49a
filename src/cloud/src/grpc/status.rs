//! Errors on the wire: a status code, `google.rpc.ErrorInfo` and `google.rpc.RetryInfo`, to and from [`CloudError`].

use std::collections::HashMap;
use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use super::encode;
use super::pb::{self, ErrorReason};
use super::uri::PluginUri;
use crate::error::CloudError;
use crate::provider::CallClass;

/// The domain of our `google.rpc.ErrorInfo`.
const DOMAIN: &str = "quarterdeck.dev";
/// Bytes of a message at most; it travels thrice in trailers, for which libraries have little room.
const LONGEST: usize = 1024;
/// What stands before the words of [`ErrorReason`].
const PREFIX: &str = "ERROR_REASON_";

const MAYBE_APPLIED: &str = "maybe_applied";
const AFTER: &str = "after_ms";
const WAITED: &str = "waited_ms";
const PROVIDER: &str = "provider";
const CLASS: &str = "class";

/// An error, taken apart as it travels.
struct Parts {
    reason: ErrorReason,
    message: String,
    retry: Option<Duration>,
    metadata: HashMap<String, String>,
}

/// The call an error is of; plug-ins need not say so.
#[derive(Clone, Copy, Debug)]
pub struct Called<'a> {
    /// Its method, as in metrics.
    pub method: &'static str,
    /// Whether it may change something.
    pub changes: bool,
    /// How long it took.
    pub took: Duration,
    /// Where the plug-in is; told where the way to it broke.
    pub at: Option<&'a PluginUri>,
}

impl Called<'_> {
    /// A message about the way to the plug-in.
    fn unreachable(&self, message: &str) -> CloudError {
        let named = self.at.map(PluginUri::to_string).filter(|uri| !message.contains(uri));
        CloudError::Unavailable(named.map_or_else(|| message.to_owned(), |uri| format!("{uri}: {message}")))
    }
}

fn millis(time: Duration) -> String {
    time.as_millis().to_string()
}

fn parts(error: &CloudError) -> Parts {
    use CloudError as E;
    let mut metadata = HashMap::new();
    let mut put = |key: &str, value: String| {
        metadata.insert(key.to_owned(), value);
    };
    let (reason, message) = match error {
        E::NotFound(message) => (ErrorReason::NotFound, message.clone()),
        E::NotImplemented(message) => (ErrorReason::NotImplemented, message.clone()),
        E::ImplementedElsewhere(message) => (ErrorReason::ImplementedElsewhere, message.clone()),
        E::RetryAfter { message, .. } => (ErrorReason::RetryAfter, message.clone()),
        E::Throttled { message, .. } => (ErrorReason::Throttled, message.clone()),
        E::Timeout { after, maybe_applied, .. } => {
            put(AFTER, millis(*after));
            put(MAYBE_APPLIED, maybe_applied.to_string());
            (ErrorReason::Timeout, error.to_string())
        }
        E::Conflict(message) => (ErrorReason::Conflict, message.clone()),
        E::Immutable(message) => (ErrorReason::Immutable, message.clone()),
        E::Quota(message) => (ErrorReason::Quota, message.clone()),
        E::Denied(message) => (ErrorReason::Denied, message.clone()),
        E::Invalid(message) => (ErrorReason::Invalid, message.clone()),
        E::Unavailable(message) => (ErrorReason::Unavailable, message.clone()),
        E::BreakerOpen { provider, last, .. } => {
            put(PROVIDER, provider.clone());
            (ErrorReason::BreakerOpen, last.clone())
        }
        E::Busy { provider, class, waited } => {
            put(PROVIDER, provider.clone());
            put(CLASS, (*class).to_owned());
            put(WAITED, millis(*waited));
            (ErrorReason::Busy, error.to_string())
        }
        E::NotLeading(message) => (ErrorReason::NotLeading, message.clone()),
        E::Superseded(message) => (ErrorReason::Superseded, message.clone()),
        E::Other(message) => (ErrorReason::Other, message.clone()),
    };
    Parts { reason, message: shortened(message), retry: error.retry_after(), metadata }
}

/// The message, cut where it is too long for a trailer.
fn shortened(mut message: String) -> String {
    if message.len() > LONGEST {
        message.truncate(message.floor_char_boundary(LONGEST));
        message.push('…');
    }
    message
}

fn assemble(parts: Parts, called: &Called<'_>) -> CloudError {
    let Parts { reason, message, retry, metadata } = parts;
    let text = |key: &str| metadata.get(key).cloned().unwrap_or_default();
    let time = |key: &str| text(key).parse().map(Duration::from_millis);
    match reason {
        ErrorReason::NotFound => CloudError::NotFound(message),
        ErrorReason::NotImplemented => CloudError::NotImplemented(message),
        ErrorReason::ImplementedElsewhere => CloudError::ImplementedElsewhere(message),
        ErrorReason::RetryAfter => match retry {
            Some(after) => CloudError::RetryAfter { after, message },
            None => CloudError::Unavailable(message),
        },
        ErrorReason::Throttled => CloudError::Throttled { after: retry, message },
        ErrorReason::Timeout => CloudError::Timeout {
            method: called.method,
            after: time(AFTER).unwrap_or(called.took),
            maybe_applied: text(MAYBE_APPLIED).parse().unwrap_or(called.changes),
        },
        ErrorReason::Conflict => CloudError::Conflict(message),
        ErrorReason::Immutable => CloudError::Immutable(message),
        ErrorReason::Quota => CloudError::Quota(message),
        ErrorReason::Denied => CloudError::Denied(message),
        ErrorReason::Invalid => CloudError::Invalid(message),
        ErrorReason::Unavailable => CloudError::Unavailable(message),
        ErrorReason::BreakerOpen => {
            CloudError::BreakerOpen { provider: text(PROVIDER), left: retry.unwrap_or_default(), last: message }
        }
        ErrorReason::Busy => match CallClass::ALL.into_iter().find(|class| class.name() == text(CLASS)) {
            Some(class) => CloudError::Busy {
                provider: text(PROVIDER),
                class: class.name(),
                waited: time(WAITED).unwrap_or_default(),
            },
            None => CloudError::Throttled { after: retry, message },
        },
        ErrorReason::NotLeading => CloudError::NotLeading(message),
        ErrorReason::Superseded => CloudError::Superseded(message),
        ErrorReason::Other | ErrorReason::Unspecified => CloudError::Other(message),
    }
}

fn code(reason: ErrorReason) -> Code {
    match reason {
        ErrorReason::NotFound => Code::NotFound,
        ErrorReason::NotImplemented => Code::Unimplemented,
        ErrorReason::ImplementedElsewhere
        | ErrorReason::Immutable
        | ErrorReason::Superseded
        | ErrorReason::NotLeading => Code::FailedPrecondition,
        ErrorReason::RetryAfter | ErrorReason::Unavailable | ErrorReason::BreakerOpen => Code::Unavailable,
        ErrorReason::Throttled | ErrorReason::Quota | ErrorReason::Busy => Code::ResourceExhausted,
        ErrorReason::Timeout => Code::DeadlineExceeded,
        ErrorReason::Conflict => Code::Aborted,
        ErrorReason::Denied => Code::PermissionDenied,
        ErrorReason::Invalid => Code::InvalidArgument,
        ErrorReason::Other | ErrorReason::Unspecified => Code::Unknown,
    }
}

/// What a bare code is taken for. Never for more than it says: what is not known to be harmless may have been done.
fn bare(code: Code, retry: Option<Duration>) -> ErrorReason {
    match code {
        Code::NotFound => ErrorReason::NotFound,
        Code::Unimplemented => ErrorReason::NotImplemented,
        Code::Unavailable if retry.is_some() => ErrorReason::RetryAfter,
        // A call that is cancelled from the other side is one whose server went.
        Code::Unavailable | Code::Cancelled => ErrorReason::Unavailable,
        Code::ResourceExhausted => ErrorReason::Throttled,
        Code::DeadlineExceeded => ErrorReason::Timeout,
        Code::Aborted | Code::AlreadyExists => ErrorReason::Conflict,
        Code::PermissionDenied | Code::Unauthenticated => ErrorReason::Denied,
        Code::InvalidArgument => ErrorReason::Invalid,
        Code::Ok | Code::Unknown | Code::FailedPrecondition | Code::OutOfRange | Code::Internal | Code::DataLoss => {
            ErrorReason::Other
        }
    }
}

fn reason_of(word: &str) -> Option<ErrorReason> {
    ErrorReason::from_str_name(&format!("{PREFIX}{word}"))
}

/// An error as a plug-in sends it.
#[must_use]
pub fn to_status(error: &CloudError) -> Status {
    let Parts { reason, message, retry, metadata } = parts(error);
    let word = reason.as_str_name().trim_start_matches(PREFIX);
    let mut details = ErrorDetails::with_error_info(word, DOMAIN, metadata);
    if let Some(retry) = retry {
        details.set_retry_info(Some(retry));
    }
    Status::with_error_details(code(reason), message, details)
}

/// What an error that came from a plug-in, or from the way to it, is to its caller.
#[must_use]
pub fn from_status(status: &Status, called: &Called<'_>) -> CloudError {
    // A status with a source was made on this side: the connection broke, or there is none.
    if let Some(source) = std::error::Error::source(status) {
        return called.unreachable(&format!("{}: {}", status.message(), innermost(source)));
    }
    let retry = status.get_details_retry_info().and_then(|info| info.retry_delay);
    let info = status.get_details_error_info().filter(|info| info.domain == DOMAIN);
    let (told, metadata) = info.map(|info| (reason_of(&info.reason), info.metadata)).unwrap_or_default();
    let reason = told.unwrap_or_else(|| bare(status.code(), retry));
    let mut message = status.message().to_owned();
    if message.is_empty() {
        message = status.code().description().to_lowercase();
    }
    if told.is_none() && reason == ErrorReason::Unavailable {
        return called.unreachable(&message);
    }
    assemble(Parts { reason, message, retry, metadata }, called)
}

fn innermost<'a>(mut error: &'a (dyn std::error::Error + 'static)) -> &'a (dyn std::error::Error + 'static) {
    while let Some(source) = error.source() {
        error = source;
    }
    error
}

/// An error about one node.
pub(super) fn node_error(error: &CloudError) -> pb::NodeError {
    let Parts { reason, message, retry, metadata } = parts(error);
    pb::NodeError { reason: reason.into(), message, retry_after: retry.map(encode::duration), metadata }
}

pub(super) fn from_node_error(error: &pb::NodeError) -> CloudError {
    let parts = Parts {
        reason: error.reason(),
        message: error.message.clone(),
        retry: error.retry_after.and_then(|time| time.try_into().ok()),
        metadata: error.metadata.clone(),
    };
    assemble(parts, &Called { method: super::client::BATCH_GET, changes: false, took: Duration::ZERO, at: None })
}
