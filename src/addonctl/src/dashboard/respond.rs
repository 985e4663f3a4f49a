//! What the proxy says itself.

use bytes::Bytes;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, REFERRER_POLICY, RETRY_AFTER,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body_util::Full;

use crate::reach::Answer;

/// An answer to the browser.
pub(super) type Said = Response<Full<Bytes>>;

/// What a manager's answer keeps of its headers.
const KEPT: &[HeaderName] = &[
    http::header::ALLOW,
    CACHE_CONTROL,
    CONTENT_SECURITY_POLICY,
    CONTENT_TYPE,
    http::header::ETAG,
    http::header::LAST_MODIFIED,
    RETRY_AFTER,
    http::header::VARY,
];

/// An answer of our own.
pub(super) fn text(status: StatusCode, text: &str) -> Said {
    said(status, "text/plain; charset=utf-8", format!("{text}\n").into())
}

/// A page of our own, under a policy that lets it do nothing.
pub(super) fn page(status: StatusCode, body: &str) -> Said {
    let whole = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <meta name=\"color-scheme\" content=\"light dark\"><title>quarterdeck</title>{body}</html>\n"
    );
    let mut said = said(status, "text/html; charset=utf-8", whole.into());
    let nothing =
        HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'");
    said.headers_mut().insert(CONTENT_SECURITY_POLICY, nothing);
    said
}

/// What a manager answered.
pub(super) fn passed_on(answer: &Answer) -> Said {
    let mut said = Response::new(Full::new(answer.body.clone()));
    *said.status_mut() = answer.status;
    for name in KEPT {
        for value in answer.headers.get_all(name) {
            said.headers_mut().append(name.clone(), value.clone());
        }
    }
    careful(said.headers_mut());
    said
}

/// There is nobody to ask at the moment; whoever asks may try again soon.
pub(super) fn nobody(reason: &str, wants_page: bool) -> Said {
    let mut said = if wants_page {
        let body = format!(
            "<meta http-equiv=\"refresh\" content=\"2\"><h1>No manager can be asked</h1><p>{}</p><p>This page tries again by \
             itself.</p>",
            escaped(reason)
        );
        page(StatusCode::SERVICE_UNAVAILABLE, &body)
    } else {
        text(StatusCode::SERVICE_UNAVAILABLE, reason)
    };
    said.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    said
}

fn said(status: StatusCode, kind: &'static str, body: Bytes) -> Said {
    let mut said = Response::new(Full::new(body));
    *said.status_mut() = status;
    said.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    careful(said.headers_mut());
    said
}

/// What is shown here is kept nowhere, is in no frame, and its address is told to nobody.
fn careful(headers: &mut HeaderMap) {
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
}

/// A text that cannot be taken for markup.
pub(super) fn escaped(text: &str) -> String {
    let mut safe = text.replace('&', "&amp;");
    for (letter, entity) in [('<', "&lt;"), ('>', "&gt;"), ('"', "&quot;"), ('\'', "&#39;")] {
        safe = safe.replace(letter, entity);
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_managers_answer_brings_no_cookies_and_stays_nowhere() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("set-cookie", "a=b"),
            ("content-type", "text/html"),
            ("etag", "\"1\""),
            ("cache-control", "max-age=60"),
            ("content-security-policy", "default-src 'self'"),
            ("connection", "close"),
            ("access-control-allow-origin", "*"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        let said = passed_on(&Answer { status: StatusCode::OK, headers, body: Bytes::from_static(b"x") });
        let value = |name: &str| said.headers().get(name).and_then(|value| value.to_str().ok());
        assert_eq!((value("content-type"), value("etag")), (Some("text/html"), Some("\"1\"")));
        assert_eq!(
            (value("cache-control"), value("content-security-policy")),
            (Some("no-store"), Some("default-src 'self'"))
        );
        assert_eq!(
            (value("set-cookie"), value("access-control-allow-origin"), value("connection")),
            (None, None, None)
        );
    }

    #[test]
    fn reasons_are_no_markup() {
        assert_eq!(escaped("<a href='x\"'>&"), "&lt;a href=&#39;x&quot;&#39;&gt;&amp;");
        let said = nobody("<script>", true);
        assert_eq!((said.status().as_u16(), &said.headers()["retry-after"]), (503, &HeaderValue::from_static("1")));
    }
}
