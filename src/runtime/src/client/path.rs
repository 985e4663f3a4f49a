//! Paths and queries of requests.

use std::fmt::Write;

use crate::object::{Kind, ObjectKey};

/// Percent-encodes all but what stands for itself in every part of an address.
pub(crate) fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~:".contains(&byte) {
            out.push(char::from(byte));
        } else {
            write!(out, "%{byte:02X}").expect("a String takes everything");
        }
    }
    out
}

/// Path of one object or one of its subresources; names of cluster roles may hold any character.
pub(crate) fn of_object(kind: &Kind, key: &ObjectKey, subresource: Option<&str>) -> String {
    let mut path = format!("{}/{}", kind.path(Some(key.namespace())), encode(key.name()));
    if let Some(subresource) = subresource {
        path.push('/');
        path.push_str(subresource);
    }
    path
}

/// Appends the pairs that have a value as a query.
pub(crate) fn with_query<'a>(mut path: String, pairs: impl IntoIterator<Item = (&'a str, Option<String>)>) -> String {
    let mut joint = '?';
    for (name, value) in pairs {
        if let Some(value) = value {
            let _ = write!(path, "{joint}{name}={}", encode(&value));
            joint = '&';
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_names_and_selectors_are_encoded() {
        let roles = Kind::new("rbac.authorization.k8s.io", "v1", "ClusterRole", "clusterroles", false);
        let path = of_object(&roles, &ObjectKey::cluster("system:a b?c"), Some("status"));
        assert_eq!(path, "/apis/rbac.authorization.k8s.io/v1/clusterroles/system:a%20b%3Fc/status");
        let query =
            [("labelSelector", Some("a=b,c in (d)".to_owned())), ("limit", None), ("continue", Some("x".into()))];
        assert_eq!(with_query("/p".into(), query), "/p?labelSelector=a%3Db%2Cc%20in%20%28d%29&continue=x");
    }
}
