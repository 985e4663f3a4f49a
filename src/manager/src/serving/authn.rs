//! Who makes a request: front proxy, client certificate, bearer token, or nobody.
//!
//! Order and outcome as upstream's delegating authenticator (apiserver:authentication/
//! authenticatorfactory, v1.36.3): the first that knows the user wins; if none does, but some
//! credential was wrong, the request is refused; without any credential the user is anonymous.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use http::header::AUTHORIZATION;
use rustls::pki_types::CertificateDer;
use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;

use super::cache::Cache;
use super::review::{self, Reviews};
use super::trust::{FrontProxy, ProxyHeaders, Trust};
use super::user::User;
use super::x509;

/// Tokens whose holders are remembered.
const CAPACITY: usize = 4096;

/// Finds out who makes a request.
pub(crate) struct Authenticator {
    trust: Arc<Trust>,
    reviews: Option<Arc<dyn Reviews>>,
    keep: Duration,
    salt: [u8; 16],
    holders: Cache<[u8; 32], Option<User>>,
    asking: Arc<Semaphore>,
}

impl Authenticator {
    /// Without `reviews`, tokens are not looked at.
    pub(crate) fn new(
        trust: Arc<Trust>,
        reviews: Option<Arc<dyn Reviews>>,
        keep: Duration,
        asking: Arc<Semaphore>,
    ) -> Self {
        let salt = *uuid::Uuid::new_v4().as_bytes();
        Self { trust, reviews, keep, salt, holders: Cache::new(CAPACITY), asking }
    }

    /// The user of a request, or why its credentials are refused. The headers that carried
    /// credentials are removed.
    pub(crate) async fn user(&self, headers: &mut HeaderMap, chain: &[CertificateDer<'_>]) -> Result<User, String> {
        let mut refused = Vec::new();
        if !chain.is_empty() {
            if let Some(proxy) = self.trust.front_proxy() {
                match proxied(&proxy, headers, chain) {
                    Ok(Some(user)) => return Ok(user.authenticated()),
                    Ok(None) => {}
                    Err(reason) => refused.push(reason),
                }
            }
            if let Some(authorities) = self.trust.client_ca() {
                match authorities.verify(chain) {
                    Ok(()) => {
                        if let Some(user) = x509::user(&chain[0]) {
                            return Ok(user.authenticated());
                        }
                    }
                    Err(error) => refused.push(format!("client certificate: {error}")),
                }
            }
        }
        if let Some((reviews, token)) = self.reviews.as_deref().zip(bearer(headers)) {
            match self.holder(reviews, &token).await {
                Ok(Some(user)) => {
                    headers.remove(AUTHORIZATION);
                    return Ok(user.authenticated());
                }
                Ok(None) => refused.push("invalid bearer token".to_owned()),
                Err(error) => refused.push(format!("token review: {error}")),
            }
        }
        if refused.is_empty() { Ok(User::anonymous()) } else { Err(refused.join("; ")) }
    }

    async fn holder(&self, reviews: &dyn Reviews, token: &str) -> Result<Option<User>, review::ReviewError> {
        // A salted digest is kept, so that neither the memory nor a guess gives a token away.
        let key: [u8; 32] = Sha256::new().chain_update(self.salt).chain_update(token).finalize().into();
        self.holders
            .get(key, || async {
                let _permit = self.asking.acquire().await;
                Ok((review::token_holder(reviews, token).await?, self.keep))
            })
            .await
    }
}

/// The token of `Authorization: Bearer …`.
fn bearer(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?.trim();
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim_start().split(' ').next().unwrap_or_default();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then(|| token.to_owned())
}

/// The user that the front proxy names, if it is the front proxy.
fn proxied(proxy: &FrontProxy, headers: &mut HeaderMap, chain: &[CertificateDer<'_>]) -> Result<Option<User>, String> {
    proxy.authorities.verify(chain).map_err(|error| format!("front proxy certificate: {error}"))?;
    let allowed = &proxy.headers.allowed_names;
    if !allowed.is_empty() {
        let name = x509::subject(&chain[0]).unwrap_or_default().common_name;
        if !allowed.contains(&name) {
            return Err(format!("front proxy certificate: common name {name:?} is not in the allowed list"));
        }
    }
    Ok(named(&proxy.headers, headers))
}

/// The user that the headers name; the headers are removed.
fn named(names: &ProxyHeaders, headers: &mut HeaderMap) -> Option<User> {
    let first =
        |names: &[String]| names.iter().filter_map(|name| text(headers.get(name.as_str())?)).find(|v| !v.is_empty());
    let name = first(&names.username)?;
    let uid = first(&names.uid).unwrap_or_default();
    let groups = (names.group.iter())
        .flat_map(|name| headers.get_all(name.as_str()))
        .filter_map(text)
        .filter(|group| !group.is_empty())
        .collect();
    let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut used: Vec<String> = Vec::new();
    for prefix in names.extra_prefix.iter().map(|prefix| prefix.to_ascii_lowercase()) {
        for (header, value) in headers.iter() {
            let Some(key) = header.as_str().strip_prefix(&prefix) else { continue };
            extra.entry(unescape(key)).or_default().extend(text(value));
            used.push(header.as_str().to_owned());
        }
    }
    let fixed = names.username.iter().chain(&names.uid).chain(&names.group).cloned();
    for header in fixed.chain(used) {
        headers.remove(header.as_str());
    }
    Some(User { name, uid, groups, extra })
}

fn text(value: &http::HeaderValue) -> Option<String> {
    std::str::from_utf8(value.as_bytes()).ok().map(str::to_owned)
}

/// Decodes `%2f` and the like; a key that is not encoded well is taken as it stands.
pub(crate) fn unescape(key: &str) -> String {
    let mut bytes = Vec::with_capacity(key.len());
    let mut rest = key.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        if first != b'%' {
            bytes.push(first);
            rest = after;
            continue;
        }
        let digit = |at: usize| after.get(at).and_then(|byte| char::from(*byte).to_digit(16));
        let (Some(high), Some(low)) = (digit(0), digit(1)) else { return key.to_owned() };
        bytes.push(u8::try_from(high * 16 + low).expect("two hexadecimal digits make a byte"));
        rest = &after[2..];
    }
    String::from_utf8(bytes).unwrap_or_else(|_| key.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_bearer_tokens() {
        let cases = [
            ("Bearer abc", Some("abc")),
            ("bearer  abc ", Some("abc")),
            ("Bearer abc def", Some("abc")),
            ("Bearer ", None),
            ("Bearer", None),
            ("Basic abc", None),
            ("", None),
        ];
        for (value, expected) in cases {
            let headers = HeaderMap::from_iter([(AUTHORIZATION, value.parse().unwrap())]);
            assert_eq!(bearer(&headers).as_deref(), expected, "{value:?}");
        }
    }

    #[test]
    fn reads_and_removes_the_proxys_headers() {
        let names = ProxyHeaders {
            username: vec!["X-Empty".into(), "X-Remote-User".into()],
            uid: vec!["X-Remote-Uid".into()],
            group: vec!["X-Remote-Group".into()],
            extra_prefix: vec!["X-Remote-Extra-".into()],
            ..ProxyHeaders::default()
        };
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("x-empty", ""),
            ("x-remote-user", "ann"),
            ("x-remote-group", "a"),
            ("x-remote-group", ""),
            ("x-remote-group", "b"),
            ("x-remote-extra-acme.com%2fproject", "p"),
            ("x-remote-extra-acme.com%2fproject", "q"),
            ("x-remote-extra-bad%zz", "r"),
            ("accept", "*/*"),
        ] {
            headers.append(name, value.parse().unwrap());
        }
        let user = named(&names, &mut headers).unwrap();
        assert_eq!((user.name.as_str(), user.uid.as_str()), ("ann", ""));
        assert_eq!(user.groups, ["a", "b"]);
        let list = |values: &[&str]| values.iter().map(|value| (*value).to_owned()).collect::<Vec<_>>();
        assert_eq!(
            user.extra,
            BTreeMap::from([("acme.com/project".into(), list(&["p", "q"])), ("bad%zz".into(), list(&["r"]))])
        );
        assert_eq!(headers.keys().map(http::HeaderName::as_str).collect::<Vec<_>>(), ["accept"]);
        assert_eq!(named(&names, &mut headers), None);
    }
}
