//! URLs of http and https, and how references resolve against them (RFC 3986).

use std::fmt;

/// Why a text is no URL.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// It cannot be taken apart.
    #[error("not a URL")]
    Malformed,
    /// Another scheme than http and https.
    #[error("neither http nor https")]
    Scheme,
    /// No host.
    #[error("no host")]
    NoHost,
    /// A port that is none.
    #[error("the port is not a number from 1 to 65535")]
    Port,
}

/// A URL of http or https. Shown without credentials and query.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct HttpUrl {
    /// Whether it is https.
    pub secure: bool,
    /// User and password as written, percent-encoded: `user:password`.
    pub credentials: Option<String>,
    /// Host name in lower case, or address without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Path, percent-encoded, with its leading slash.
    pub path: String,
    /// Query without the question mark.
    pub query: Option<String>,
}

impl HttpUrl {
    /// Reads an absolute URL; a fragment is dropped.
    ///
    /// # Errors
    /// When it is no URL of http or https.
    pub fn parse(text: &str) -> Result<Self, UrlError> {
        let (scheme, rest) = text.split_once("://").ok_or(UrlError::Malformed)?;
        let secure = match scheme.to_ascii_lowercase().as_str() {
            "https" => true,
            "http" => false,
            _ => return Err(UrlError::Scheme),
        };
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, rest) = rest.split_at(end);
        Self::with_authority(secure, authority, rest)
    }

    fn with_authority(secure: bool, authority: &str, rest: &str) -> Result<Self, UrlError> {
        let (credentials, host_port) = match authority.rsplit_once('@') {
            Some((credentials, host_port)) => (Some(credentials).filter(|text| !text.is_empty()), host_port),
            None => (None, authority),
        };
        let (host, port) = split_port(host_port)?;
        let is_name = |host: &str| host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'));
        let is_address = |host: &str| host.parse::<std::net::Ipv6Addr>().is_ok();
        if host.is_empty() {
            return Err(UrlError::NoHost);
        }
        if !is_name(host) && !is_address(host) {
            return Err(UrlError::Malformed);
        }
        let rest = rest.split_once('#').map_or(rest, |(rest, _)| rest);
        let (path, query) = rest.split_once('?').map_or((rest, None), |(path, query)| (path, Some(query)));
        let path = if path.is_empty() { "/".to_owned() } else { encode(path) };
        let port = port.unwrap_or(if secure { 443 } else { 80 });
        Ok(Self {
            secure,
            credentials: credentials.map(encode),
            host: host.to_ascii_lowercase(),
            port,
            path: without_dots(&path),
            query: query.map(encode),
        })
    }

    /// What a reference in a file at this URL means; only those without a scheme are taken.
    ///
    /// # Errors
    /// When the reference names a host that cannot be read.
    pub fn join(&self, reference: &str) -> Result<Self, UrlError> {
        if let Some(rest) = reference.strip_prefix("//") {
            let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
            let (authority, rest) = rest.split_at(end);
            return Self::with_authority(self.secure, authority, rest);
        }
        let reference = reference.split_once('#').map_or(reference, |(rest, _)| rest);
        let (path, query) =
            reference.split_once('?').map_or((reference, None), |(path, query)| (path, Some(encode(query))));
        let joined = match path {
            "" => Self { query: query.or_else(|| self.query.clone()), ..self.clone() },
            path if path.starts_with('/') => Self { path: without_dots(&encode(path)), query, ..self.clone() },
            path => {
                let folder = self.path.rfind('/').map_or("/", |end| &self.path[..=end]);
                Self { path: without_dots(&format!("{folder}{}", encode(path))), query, ..self.clone() }
            }
        };
        Ok(joined)
    }

    /// Whether both are of one scheme, host and port: credentials for one are for the other.
    #[must_use]
    pub fn is_same_origin(&self, other: &Self) -> bool {
        (self.secure, &self.host, self.port) == (other.secure, &other.host, other.port)
    }

    /// Path and query as a request line has them.
    #[must_use]
    pub fn target(&self) -> String {
        match &self.query {
            Some(query) => format!("{}?{query}", self.path),
            None => self.path.clone(),
        }
    }

    /// Host, and the port where it is not the scheme's own.
    #[must_use]
    pub fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        let usual = if self.secure { 443 } else { 80 };
        if self.port == usual { host } else { format!("{host}:{}", self.port) }
    }

    /// User and password, decoded; a colon divides them.
    #[must_use]
    pub fn basic_credentials(&self) -> Option<Vec<u8>> {
        self.credentials.as_deref().map(|credentials| {
            let (user, password) = credentials.split_once(':').unwrap_or((credentials, ""));
            [decode(user), b":".to_vec(), decode(password)].concat()
        })
    }
}

impl fmt::Display for HttpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.secure { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority(), self.path)
    }
}

impl fmt::Debug for HttpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Divides `host:port`; an address of version 6 stands in brackets.
fn split_port(text: &str) -> Result<(&str, Option<u16>), UrlError> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, after) = rest.split_once(']').ok_or(UrlError::Malformed)?;
            (host, after.strip_prefix(':').or(after.is_empty().then_some("")).ok_or(UrlError::Malformed)?)
        }
        None => {
            let (host, port) = text.split_once(':').unwrap_or((text, ""));
            if host.contains(':') || port.contains(':') {
                return Err(UrlError::Malformed);
            }
            (host, port)
        }
    };
    if port.is_empty() {
        return Ok((host, None));
    }
    let digits = port.bytes().all(|byte| byte.is_ascii_digit());
    match port.parse() {
        Ok(port) if digits && port != 0 => Ok((host, Some(port))),
        _ => Err(UrlError::Port),
    }
}

/// Writes what may not stand in a request line as percent signs; percent signs stay.
fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_graphic() && !matches!(byte, b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// The bytes that a percent-encoded text stands for.
pub(super) fn decode(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = bytes.get(at + 1..at + 3).and_then(|pair| std::str::from_utf8(pair).ok());
        match (bytes[at], hex.and_then(|pair| u8::from_str_radix(pair, 16).ok())) {
            (b'%', Some(byte)) if bytes[at + 1].is_ascii_hexdigit() => {
                out.push(byte);
                at += 3;
            }
            (byte, _) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    out
}

/// Takes `.` and `..` out of an absolute path; `..` stops at the root.
pub(super) fn without_dots(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let mut parts = path.split('/').skip(1).peekable();
    while let Some(part) = parts.next() {
        let last = parts.peek().is_none();
        match part {
            "." | ".." => {
                if part == ".." {
                    kept.pop();
                }
                if last {
                    kept.push("");
                }
            }
            part => kept.push(part),
        }
    }
    format!("/{}", kept.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> HttpUrl {
        HttpUrl::parse(text).expect(text)
    }

    #[test]
    fn urls_are_taken_apart() {
        let full = url("HTTPS://user:p%40ss@Example.COM:8443/a b/../c?x=1#y");
        assert_eq!((full.secure, full.host.as_str(), full.port), (true, "example.com", 8443));
        assert_eq!((full.path.as_str(), full.query.as_deref()), ("/c", Some("x=1")));
        assert_eq!(full.basic_credentials().as_deref(), Some(b"user:p@ss".as_slice()));
        assert_eq!(
            (url("http://[::1]:80").authority(), url("http://a:81/").authority()),
            ("[::1]".into(), "a:81".into())
        );
        assert_eq!(url("http://a/b c").target(), "/b%20c");
        for (text, error) in [
            ("a/b", UrlError::Malformed),
            ("ftp://a/b", UrlError::Scheme),
            ("http:///b", UrlError::NoHost),
            ("http://user@/b", UrlError::NoHost),
            ("http://a:0/", UrlError::Port),
            ("http://a:+1/", UrlError::Port),
            ("http://a:65536/", UrlError::Port),
            ("http://a b/", UrlError::Malformed),
            ("http://[::1/", UrlError::Malformed),
            ("http://::1/", UrlError::Malformed),
            ("http://a\r\nHost: b/", UrlError::Port),
            ("http://a\r\n/", UrlError::Malformed),
        ] {
            assert_eq!(HttpUrl::parse(text).map(|url| url.to_string()), Err(error), "{text}");
        }
    }

    #[test]
    fn nothing_secret_is_shown() {
        let url = url("https://user:secret@example.com/a?X-Signature=secret");
        assert_eq!(
            (url.to_string(), format!("{url:?}")),
            ("https://example.com/a".into(), "https://example.com/a".into())
        );
    }

    /// RFC 3986, 5.4, less the fragments.
    #[test]
    fn references_resolve() {
        let base = url("http://u:p@a/b/c/d;p?q");
        for (reference, expected) in [
            ("g", "/b/c/g"),
            ("./g", "/b/c/g"),
            ("g/", "/b/c/g/"),
            ("/g", "/g"),
            ("?y", "/b/c/d;p?y"),
            ("g?y", "/b/c/g?y"),
            ("#s", "/b/c/d;p?q"),
            (";x", "/b/c/;x"),
            ("", "/b/c/d;p?q"),
            (".", "/b/c/"),
            ("./", "/b/c/"),
            ("..", "/b/"),
            ("../g", "/b/g"),
            ("../..", "/"),
            ("../../g", "/g"),
            ("../../../g", "/g"),
            ("/./g", "/g"),
            ("/../g", "/g"),
            ("g.", "/b/c/g."),
            ("..g", "/b/c/..g"),
            ("./g/.", "/b/c/g/"),
            ("g/../h", "/b/c/h"),
        ] {
            let joined = base.join(reference).expect(reference);
            assert_eq!(joined.target(), expected, "{reference}");
            assert!(joined.is_same_origin(&base) && joined.credentials == base.credentials);
        }
        let other = base.join("//Other:81/x").expect("a URL");
        assert_eq!((other.to_string(), other.credentials), ("http://other:81/x".into(), None));
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics_and_targets_stay_one_line(text in "\\PC{0,40}", reference in "[./a?#%é \\r\\n]{0,20}") {
            let _ = HttpUrl::parse(&format!("http://{text}"));
            let joined = url("http://a/b/c").join(&reference);
            if let Ok(joined) = joined {
                proptest::prop_assert!(joined.target().starts_with('/') && joined.target().bytes().all(|b| b.is_ascii_graphic()));
                proptest::prop_assert!(!joined.path.split('/').any(|part| part == ".."));
            }
        }
    }
}
