//! Who may read through the proxy, and what.
//!
//! - It listens on 127.0.0.1 alone.
//! - The `Host` header has to name that address: a page of another site whose name was made to point at it cannot read.
//! - The URL that is printed holds a secret. Whoever shows it gets a cookie, which the browser sends back to this address
//!   alone, and never from pages of other sites (`SameSite=Strict`); nothing is shown without it. The secret is in no URL
//!   after that, and in no header that is passed on.
//! - A browser that says that the request comes from elsewhere (`Sec-Fetch-Site`) is refused, with the cookie too: pages on
//!   other ports of this machine count as the same site.
//! - Only the status page and its data can be read, and nothing can be written.

use http::header::{COOKIE, HOST};
use http::{HeaderMap, Method, StatusCode, Uri};

/// Where a manager serves its status page.
pub(super) const PAGE: &str = "/status";
/// What can be read through the proxy: the page, and the data that it polls.
pub(super) const PATHS: &[&str] = &[PAGE, "/statusz"];
/// Longest query that is passed on.
const LONGEST_QUERY: usize = 1024;

/// What is to be done with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ruling {
    /// Its path and query are passed on.
    Pass,
    /// It showed the secret: it gets the cookie.
    Enter,
    /// It is sent to the page.
    ToPage,
    /// It is refused.
    Refuse(StatusCode, &'static str),
}

/// Keeps out who is not meant.
pub(super) struct Guard {
    port: u16,
    /// In the URL that is printed.
    token: String,
    /// In the cookie.
    session: String,
}

impl Guard {
    /// With secrets of its own.
    pub(super) fn new(port: u16) -> Self {
        // 122 bits each from the system's source of randomness.
        let secret = || uuid::Uuid::new_v4().simple().to_string();
        Self { port, token: secret(), session: secret() }
    }

    /// What the user opens.
    pub(super) fn url(&self) -> String {
        format!("http://127.0.0.1:{}/?token={}", self.port, self.token)
    }

    /// The cookie of who showed the secret. Ports share their cookies: its name holds ours.
    pub(super) fn cookie(&self) -> String {
        format!("{}={}; Path=/; HttpOnly; SameSite=Strict", self.cookie_name(), self.session)
    }

    fn cookie_name(&self) -> String {
        format!("quarterdeck-{}", self.port)
    }

    /// What is to be done with a request.
    pub(super) fn rule(&self, method: &Method, uri: &Uri, headers: &HeaderMap) -> Ruling {
        let one = |name: &str| {
            let mut all = headers.get_all(name).iter();
            all.next().filter(|_| all.next().is_none()).and_then(|value| value.to_str().ok())
        };
        let here = [format!("127.0.0.1:{}", self.port), format!("localhost:{}", self.port)];
        if !one(HOST.as_str()).is_some_and(|host| here.iter().any(|here| here.eq_ignore_ascii_case(host))) {
            return Ruling::Refuse(
                StatusCode::MISDIRECTED_REQUEST,
                "this is addonctl dashboard; open the URL that it printed",
            );
        }
        if method != Method::GET && method != Method::HEAD {
            return Ruling::Refuse(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are served here");
        }
        let query = uri.query().unwrap_or_default();
        let token = query.split('&').find_map(|pair| pair.strip_prefix("token="));
        if let (true, Some(token)) = (uri.path() == "/", token) {
            return match is_same(token, &self.token) {
                true => Ruling::Enter,
                false => Ruling::Refuse(
                    StatusCode::FORBIDDEN,
                    "that is not the token of this dashboard; it may have been started anew",
                ),
            };
        }
        if headers.contains_key("sec-fetch-site")
            && !one("sec-fetch-site").is_some_and(|from| ["same-origin", "none"].contains(&from))
        {
            return Ruling::Refuse(StatusCode::FORBIDDEN, "a page of another site asks for this");
        }
        if !self.knows(headers) {
            return Ruling::Refuse(StatusCode::UNAUTHORIZED, "open the URL that addonctl dashboard printed");
        }
        match uri.path() {
            "/" => Ruling::ToPage,
            path if PATHS.contains(&path) && query.len() <= LONGEST_QUERY => Ruling::Pass,
            path if PATHS.contains(&path) => Ruling::Refuse(StatusCode::URI_TOO_LONG, "the query is too long"),
            _ => Ruling::Refuse(StatusCode::NOT_FOUND, "only the status page is served here"),
        }
    }

    /// Whether the cookie is among those that were sent.
    fn knows(&self, headers: &HeaderMap) -> bool {
        let sent =
            headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok()).flat_map(|line| line.split(';'));
        let name = self.cookie_name();
        let ours = sent.filter_map(|pair| pair.trim().split_once('=')).filter(|(sent, _)| *sent == name);
        // Every one of them is looked at: which of two was ours is not told by time.
        ours.fold(false, |known, (_, value)| known | is_same(value, &self.session))
    }
}

/// Whether two secrets are the same, in a time that does not tell how much of them is.
fn is_same(given: &str, secret: &str) -> bool {
    given.len() == secret.len() && given.bytes().zip(secret.bytes()).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    const PORT: u16 = 8089;

    fn guard() -> Guard {
        Guard { port: PORT, token: "t".repeat(32), session: "s".repeat(32) }
    }

    fn rule(method: &Method, uri: &str, headers: &[(&'static str, &str)]) -> Ruling {
        let headers =
            headers.iter().map(|(name, value)| (http::HeaderName::from_static(name), value.parse().expect("a value")));
        guard().rule(method, &uri.parse().expect("a URI"), &headers.collect())
    }

    fn code(ruling: Ruling) -> u16 {
        match ruling {
            Ruling::Refuse(code, _) => code.as_u16(),
            other => panic!("{other:?}"),
        }
    }

    const HERE: (&str, &str) = ("host", "127.0.0.1:8089");

    fn cookie() -> String {
        format!("other=1; quarterdeck-{PORT}={}", "s".repeat(32))
    }

    #[test]
    fn the_token_opens_and_the_cookie_stays() {
        let uri = format!("/?token={}", "t".repeat(32));
        assert_eq!(rule(&Method::GET, &uri, &[HERE]), Ruling::Enter);
        // From a file or a chat: the token is enough.
        assert_eq!(rule(&Method::GET, &uri, &[HERE, ("sec-fetch-site", "cross-site")]), Ruling::Enter);
        assert_eq!(rule(&Method::GET, "/status", &[HERE, ("cookie", &cookie())]), Ruling::Pass);
        assert_eq!(rule(&Method::HEAD, "/statusz?x=1", &[HERE, ("cookie", &cookie())]), Ruling::Pass);
        assert_eq!(rule(&Method::GET, "/", &[HERE, ("cookie", &cookie())]), Ruling::ToPage);
        let localhost = ("host", "LOCALHOST:8089");
        assert_eq!(rule(&Method::GET, "/status", &[localhost, ("cookie", &cookie())]), Ruling::Pass);
    }

    #[test]
    fn strangers_are_refused() {
        let cookie = cookie();
        let known = ("cookie", cookie.as_str());
        let wrong = format!("quarterdeck-{PORT}={}", "x".repeat(32));
        let elsewhere = format!("quarterdeck-{}={}", PORT + 1, "s".repeat(32));
        for headers in [&[HERE][..], &[HERE, ("cookie", &wrong)], &[HERE, ("cookie", &elsewhere)]] {
            assert_eq!(code(rule(&Method::GET, "/status", headers)), 401, "{headers:?}");
        }
        for host in ["evil.example:8089", "evil.example", "127.0.0.1", "127.0.0.1:80", "127.0.0.1:8089.evil.example"] {
            assert_eq!(code(rule(&Method::GET, "/status", &[("host", host), known])), 421, "{host}");
            assert_eq!(
                code(rule(&Method::GET, &format!("/?token={}", "t".repeat(32)), &[("host", host)])),
                421,
                "{host}"
            );
        }
        assert_eq!(code(rule(&Method::GET, "/status", &[known])), 421);
        for token in ["", "t", &"x".repeat(32)] {
            assert_eq!(code(rule(&Method::GET, &format!("/?token={token}"), &[HERE])), 403, "{token}");
        }
        for from in ["cross-site", "same-site", "new-word"] {
            assert_eq!(code(rule(&Method::GET, "/statusz", &[HERE, known, ("sec-fetch-site", from)])), 403, "{from}");
        }
        for from in ["same-origin", "none"] {
            assert_eq!(
                rule(&Method::GET, "/statusz", &[HERE, known, ("sec-fetch-site", from)]),
                Ruling::Pass,
                "{from}"
            );
        }
    }

    #[test]
    fn only_the_page_is_read_and_nothing_is_written() {
        let cookie = cookie();
        let known = [HERE, ("cookie", cookie.as_str())];
        for path in
            ["/metrics", "/configz", "/debug/flags/v", "/status/", "/statusz/x", "//status", "/status%2f", "/healthz"]
        {
            assert_eq!(code(rule(&Method::GET, path, &known)), 404, "{path}");
        }
        for method in [Method::POST, Method::PUT, Method::DELETE, Method::OPTIONS, Method::CONNECT] {
            assert_eq!(code(rule(&method, "/status", &known)), 405, "{method}");
        }
        assert_eq!(code(rule(&Method::GET, &format!("/status?{}", "x".repeat(2000)), &known)), 414);
    }

    #[test]
    fn secrets_are_new_each_time() {
        let (one, two) = (Guard::new(1), Guard::new(1));
        assert!(one.token != two.token && one.session != two.session && one.token != one.session);
        assert_eq!(one.token.len(), 32);
        assert!(one.cookie().contains("SameSite=Strict") && one.cookie().contains("HttpOnly"));
    }
}
