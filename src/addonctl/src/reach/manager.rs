//! A manager that was verified, and what it answers.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared};
use http::header::{HOST, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Empty, LengthLimitError, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

use super::credentials::Credentials;
use super::error::ReachError;
use super::link::{self, Link, PATIENCE, unreachable};
use super::verify::{self, Trust};

/// Most bytes of an answer.
const LARGEST: usize = 32 << 20;
/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(15);

/// An answer, whole.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    /// Its code.
    pub(crate) status: StatusCode,
    /// Its headers.
    pub(crate) headers: HeaderMap,
    /// Its body.
    pub(crate) body: Bytes,
}

impl Answer {
    /// The answer, if it is what was asked for.
    ///
    /// # Errors
    /// When it says no; the error says what would help.
    pub(crate) fn accepted(self, place: &str, path: &str) -> Result<Self, ReachError> {
        let place = place.to_owned();
        let said = || message(&self.body);
        match self.status {
            StatusCode::OK => Ok(self),
            StatusCode::UNAUTHORIZED => {
                let message = match said() {
                    nothing if nothing.is_empty() || nothing == "Unauthorized" => String::new(),
                    said => format!(": {said}"),
                };
                Err(ReachError::Unauthorized { place, message })
            }
            StatusCode::FORBIDDEN => Err(ReachError::Refused { place, message: said() }),
            status => {
                let said = said();
                let answer = if said.is_empty() { status.to_string() } else { format!("{status}: {said}") };
                Err(ReachError::Unexpected { place, path: path.to_owned(), answer })
            }
        }
    }
}

/// A connection to a manager whose certificate was verified.
pub(crate) struct Manager {
    /// Name of the replica; what was given with `--address` if there is none.
    pub(crate) name: String,
    /// Which it is and how it is reached, for messages.
    pub(crate) place: String,
    sender: SendRequest<Empty<Bytes>>,
    host: HeaderValue,
    credentials: Arc<Credentials>,
    trouble: Shared<BoxFuture<'static, String>>,
    traffic: JoinHandle<()>,
}

impl Manager {
    /// Shakes hands over a link. `server` is the name or address that the certificate has to be for, if an authority
    /// vouches for it.
    ///
    /// # Errors
    /// When the other side is not who it has to be, or does not answer.
    pub(super) async fn over(
        link: Link,
        (name, place): (&str, &str),
        server: &str,
        trust: &Trust,
        credentials: Arc<Credentials>,
    ) -> Result<Self, ReachError> {
        let Link { stream, trouble } = link;
        let trouble = trouble.shared();
        let bad_name =
            |_| ReachError::Flag { flag: "tls-server-name", reason: format!("{server:?} is no name of a server") };
        let server_name = ServerName::try_from(server.to_owned()).map_err(bad_name)?;
        let connector = TlsConnector::from(Arc::new(credentials.tls(trust)?));
        let shaken = tokio::select! {
            biased;
            said = trouble.clone() => return Err(unreachable(place, &said)),
            shaken = tokio::time::timeout(PATIENCE, connector.connect(server_name, stream)) => shaken,
        };
        let what = || format!("{place}: the TLS handshake");
        let shaken = shaken.map_err(|_| ReachError::TimedOut { what: what(), after: PATIENCE })?;
        let tls = shaken.map_err(|error| {
            // The word of the kubelet says more than a stream that ended.
            match trouble.clone().now_or_never() {
                Some(said) => unreachable(place, &said),
                None => verify::explain(&error, place, trust),
            }
        })?;
        let spoken = http1::Builder::new().max_headers(64).handshake(TokioIo::new(tls)).await;
        let (sender, connection) = spoken.map_err(|error| unreachable(place, &error.to_string()))?;
        let traffic = tokio::spawn(async move {
            // How it ended is told by the request that it cost.
            let _ = connection.await;
        });
        let host = if server.contains(':') { format!("[{server}]") } else { server.to_owned() };
        let host = HeaderValue::try_from(host).map_err(|error| unreachable(place, &error.to_string()))?;
        Ok(Self { name: name.to_owned(), place: place.to_owned(), sender, host, credentials, trouble, traffic })
    }

    /// Whether it still takes requests, as far as is known.
    pub(crate) fn is_open(&self) -> bool {
        !self.sender.is_closed()
    }

    /// Asks for a path (with its query), as the user.
    ///
    /// # Errors
    /// When no whole answer comes in time. Any answer is one, whatever its code.
    pub(crate) async fn ask(&mut self, method: Method, path: &str, headers: HeaderMap) -> Result<Answer, ReachError> {
        let mut request = Request::new(Empty::new());
        *request.method_mut() = method;
        *request.uri_mut() =
            path.parse::<http::Uri>().map_err(|error| unreachable(&self.place, &format!("{path:?}: {error}")))?;
        *request.headers_mut() = headers;
        request.headers_mut().extend(self.credentials.headers().await?);
        request.headers_mut().insert(HOST, self.host.clone());
        let agent = HeaderValue::from_static(concat!("addonctl/", env!("CARGO_PKG_VERSION")));
        request.headers_mut().insert(USER_AGENT, agent);
        let whole = async {
            self.sender.ready().await?;
            let (parts, body) = self.sender.send_request(request).await?.into_parts();
            Ok::<_, hyper::Error>((parts, Limited::new(body, LARGEST).collect().await))
        };
        let what = || format!("{}: {path}", self.place);
        let answered = tokio::time::timeout(ANSWER, whole).await;
        let answered = answered.map_err(|_| ReachError::TimedOut { what: what(), after: ANSWER })?;
        let (parts, body) = answered.map_err(|error| self.broken(&error))?;
        let body = body.map_err(|error| match error.downcast::<LengthLimitError>() {
            Ok(_) => ReachError::Unexpected {
                place: self.place.clone(),
                path: path.to_owned(),
                answer: format!("more than {} MiB", LARGEST >> 20),
            },
            Err(error) => unreachable(&self.place, &error.to_string()),
        })?;
        Ok(Answer { status: parts.status, headers: parts.headers, body: body.to_bytes() })
    }

    /// Asks for a path, and takes nothing but success for an answer.
    ///
    /// # Errors
    /// When there is no answer, or one that says no; the error says what would help.
    pub(crate) async fn get(&mut self, path: &str, accept: &'static str) -> Result<Answer, ReachError> {
        let headers = HeaderMap::from_iter([(http::header::ACCEPT, HeaderValue::from_static(accept))]);
        self.ask(Method::GET, path, headers).await?.accepted(&self.place, path)
    }

    /// Why a request got no answer.
    fn broken(&self, error: &hyper::Error) -> ReachError {
        if let Some(said) = self.trouble.clone().now_or_never() {
            return unreachable(&self.place, &said);
        }
        let mut reason = error.to_string();
        let mut source = std::error::Error::source(error);
        while let Some(error) = source {
            reason = format!("{reason}: {error}");
            source = error.source();
        }
        link::unreachable(&self.place, &reason)
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        self.traffic.abort();
    }
}

/// What an answer says: the message of a Status, else its first line.
fn message(body: &[u8]) -> String {
    /// Longest message, characters.
    const LONGEST: usize = 300;
    let status: Option<serde_json::Value> = serde_json::from_slice(body).ok();
    let said = status.as_ref().and_then(|status| status["message"].as_str()).map(str::to_owned);
    let said = said.unwrap_or_else(|| String::from_utf8_lossy(body).lines().next().unwrap_or_default().to_owned());
    // What a server says is shown on a terminal.
    said.chars().filter(|c| !c.is_control()).take(LONGEST).collect::<String>().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_one_harmless_line() {
        let cases = [
            (r#"{"kind": "Status", "message": "no\u001b[31m"}"#, "no[31m"),
            ("404 page not found\n", "404 page not found"),
            ("", ""),
            ("{}", "{}"),
        ];
        for (body, said) in cases {
            assert_eq!(message(body.as_bytes()), said, "{body}");
        }
        assert_eq!(message("x".repeat(999).as_bytes()).len(), 300);
    }
}
