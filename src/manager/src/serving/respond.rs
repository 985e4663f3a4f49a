//! Answers.

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use http_body_util::Full;
use hyper::body::Body as _;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;

/// An answer, whole.
pub(crate) type Answer = Response<Full<Bytes>>;

/// Type of plain text.
pub(crate) const TEXT: &str = "text/plain; charset=utf-8";
/// Type of JSON.
pub(crate) const JSON: &str = "application/json";

/// An answer of this type.
pub(crate) fn answer(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    answer.headers_mut().insert(HeaderName::from_static("x-content-type-options"), HeaderValue::from_static("nosniff"));
    answer
}

/// Plain text.
pub(crate) fn text(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    answer(status, TEXT, body)
}

/// A value as JSON.
pub(crate) fn json(status: StatusCode, value: &impl serde::Serialize) -> Answer {
    match serde_json::to_vec(value) {
        Ok(body) => answer(status, JSON, body),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("cannot be written as JSON: {error}\n")),
    }
}

/// Nothing is here.
pub(crate) fn not_found() -> Answer {
    text(StatusCode::NOT_FOUND, "404 page not found\n")
}

/// The credentials were refused.
pub(crate) fn unauthorized() -> Answer {
    status(StatusCode::UNAUTHORIZED, "Unauthorized", "Unauthorized")
}

/// The user may not do that.
pub(crate) fn forbidden(user: &str, verb: &str, path: &str, reason: &str) -> Answer {
    let message = format!("forbidden: User {} cannot {verb} path {}", quoted(user), quoted(path));
    let reason = if reason.is_empty() { String::new() } else { format!(": {reason}") };
    status(StatusCode::FORBIDDEN, "Forbidden", &format!("{message}{reason}"))
}

/// The answer does not depend on the user.
pub(crate) fn failed(path: &str, error: &str) -> Answer {
    text(StatusCode::INTERNAL_SERVER_ERROR, sanitised(&format!("Internal Server Error: {path:?}: {error}\n")))
}

/// Leaves the length of the body and takes the rest: the answer to HEAD. (hyper does this for
/// HTTP/1.1 only.)
pub(crate) fn strip_body(answer: &mut Answer) {
    let length = answer.body().size_hint().exact().unwrap_or(0);
    answer.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
    *answer.body_mut() = Full::default();
}

/// Text in quotes that cannot be taken for markup.
fn quoted(text: &str) -> String {
    sanitised(&format!("{text:?}"))
}

fn sanitised(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

fn status(code: StatusCode, reason: &str, message: &str) -> Answer {
    let status = Status {
        status: Some("Failure".into()),
        message: Some(message.into()),
        reason: Some(reason.into()),
        code: Some(i32::from(code.as_u16())),
        ..Status::default()
    };
    json(code, &status)
}
