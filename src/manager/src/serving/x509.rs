//! What a client certificate says about its holder.

use std::collections::BTreeMap;

use sha2::{Digest as _, Sha256};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::user::User;

/// Object identifier of a user's unique id in a subject.
const UID: &str = "1.3.6.1.4.1.57683.2";
const COMMON_NAME: &str = "2.5.4.3";
const ORGANISATION: &str = "2.5.4.10";

/// The subject of a certificate, as far as it names a user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Subject {
    /// The last common name, as Go takes it.
    pub(crate) common_name: String,
    /// All organisations.
    pub(crate) organisations: Vec<String>,
    /// Unique ids.
    pub(crate) uids: Vec<String>,
}

/// Reads the subject; `None` if the certificate cannot be parsed or its names are no text.
pub(crate) fn subject(der: &[u8]) -> Option<Subject> {
    let (_, cert) = X509Certificate::from_der(der).ok()?;
    let mut subject = Subject::default();
    for attribute in cert.subject().iter_attributes() {
        let id = attribute.attr_type().to_id_string();
        if ![COMMON_NAME, ORGANISATION, UID].contains(&id.as_str()) {
            continue;
        }
        let value = attribute.as_str().ok()?.to_owned();
        match id.as_str() {
            COMMON_NAME => subject.common_name = value,
            ORGANISATION => subject.organisations.push(value),
            _ => subject.uids.push(value),
        }
    }
    Some(subject)
}

/// The user that a verified certificate names: the common name is the user, the organisations are
/// the groups. `None` if it has no common name, or more than one unique id
/// (apiserver:authentication/request/x509, v1.36.3).
pub(crate) fn user(der: &[u8]) -> Option<User> {
    let subject = subject(der)?;
    if subject.common_name.is_empty() || subject.uids.len() > 1 {
        return None;
    }
    let fingerprint: String = Sha256::digest(der).iter().map(|byte| format!("{byte:02x}")).collect();
    let credential =
        ("authentication.kubernetes.io/credential-id".to_owned(), vec![format!("X509SHA256={fingerprint}")]);
    Some(User {
        name: subject.common_name,
        uid: subject.uids.into_iter().next().unwrap_or_default(),
        groups: subject.organisations,
        extra: BTreeMap::from([credential]),
    })
}
