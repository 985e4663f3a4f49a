//! Epochs: what a tenure is called on the wire.

use std::{fmt, sync::Arc};

use http::{HeaderName, HeaderValue};

/// The one domain of all our keys, labels and annotations.
pub const DOMAIN: &str = "quarterdeck.dev";

/// The extra key of a request that may only act on a namespace which is being deleted; the fence checks it.
pub const NAMESPACE_DELETION_KEY: &str = "quarterdeck.dev/namespace-deletion";

/// One tenure of one Lease: `<lease uid>/<leaseTransitions>`. A deleted and re-created Lease counts from 0 again, hence the uid.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct EpochToken {
    /// `metadata.uid` of the Lease.
    pub lease_uid: Arc<str>,
    /// `spec.leaseTransitions` of the Lease.
    pub transitions: i32,
}

impl EpochToken {
    /// The token of the epoch before this one, which the fence must refuse.
    #[must_use]
    pub fn previous(&self) -> Self {
        Self { lease_uid: self.lease_uid.clone(), transitions: self.transitions.wrapping_sub(1) }
    }
}

impl fmt::Display for EpochToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.lease_uid, self.transitions)
    }
}

/// The extra key under which writes of the Lease `lease` carry their token: `quarterdeck.dev/epoch-<lease>`.
pub fn epoch_key(lease: &str) -> String {
    format!("{DOMAIN}/epoch-{lease}")
}

/// The request header that sets the extra `key` while impersonating.
///
/// The server lower-cases what follows `Impersonate-Extra-` and undoes percent encoding
/// (`apiserver:pkg/endpoints/filters/impersonation`), so any key can be sent.
pub fn extra_header(key: &str) -> HeaderName {
    let mut name = String::from("impersonate-extra-");
    for byte in key.bytes() {
        match byte.to_ascii_lowercase() {
            plain @ (b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_') => {
                name.push(char::from(plain));
            }
            other => name.push_str(&format!("%{other:02x}")),
        }
    }
    HeaderName::try_from(name).expect("only letters, digits, '-', '.', '_' and '%' are left")
}

/// A token with the key and header it travels under, ready to be put on a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Epoch {
    token: EpochToken,
    key: String,
    header: HeaderName,
    value: HeaderValue,
}

impl Epoch {
    /// The epoch `token` of the Lease named `lease`.
    pub fn new(lease: &str, token: EpochToken) -> Self {
        let key = epoch_key(lease);
        let header = extra_header(&key);
        let value = HeaderValue::try_from(token.to_string()).expect("a uid has no control characters");
        Self { token, key, header, value }
    }

    /// The token.
    pub fn token(&self) -> &EpochToken {
        &self.token
    }

    /// The extra key, as seen in `request.userInfo.extra` and in the audit log.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The impersonation header and its value.
    pub fn header(&self) -> (HeaderName, HeaderValue) {
        (self.header.clone(), self.value.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_and_header_have_the_shape_the_server_expects() {
        let token = EpochToken { lease_uid: "7b1e".into(), transitions: 3 };
        let epoch = Epoch::new("quarterdeck", token.clone());
        assert_eq!(token.to_string(), "7b1e/3");
        assert_eq!(token.previous().to_string(), "7b1e/2");
        assert_eq!(epoch.key(), "quarterdeck.dev/epoch-quarterdeck");
        let (name, value) = epoch.header();
        assert_eq!(name.as_str(), "impersonate-extra-quarterdeck.dev%2fepoch-quarterdeck");
        assert_eq!(value, "7b1e/3");
        assert_eq!(
            extra_header(NAMESPACE_DELETION_KEY).as_str(),
            "impersonate-extra-quarterdeck.dev%2fnamespace-deletion"
        );
    }
}
