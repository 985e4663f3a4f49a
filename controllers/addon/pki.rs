//! The CA and issuer of a channel's addon with `needsPKI`
//! (kops:channels/pkg/channels/addon.go, installPKI). What is there is left as it is, and never rotated.

use std::fmt;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use quarterdeck_api::channel::{pki_issuer, pki_secret};
use serde_json::{Value, json};

use super::ident::GroupKind;

/// Namespace of all CAs and issuers.
pub const NAMESPACE: &str = "kube-system";
/// How long a CA is valid.
const YEARS: i64 = 10;

/// A CA. Its key is shown nowhere.
pub struct Authority {
    certificate: String,
    key: String,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}

/// A CA that could not be made.
#[derive(Debug, thiserror::Error)]
#[error("making a CA: {0}")]
pub struct AuthorityError(#[from] rcgen::Error);

impl Authority {
    /// A new CA that signs itself and has the addon's name.
    ///
    /// # Errors
    /// When no key can be made.
    pub fn new(addon: &str) -> Result<Self, AuthorityError> {
        let key = rcgen::KeyPair::generate()?;
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::CommonName, addon);
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign, rcgen::KeyUsagePurpose::DigitalSignature];
        let date = |time: Timestamp| {
            let date = time.to_zoned(k8s_openapi::jiff::tz::TimeZone::UTC).date();
            rcgen::date_time_ymd(date.year().into(), date.month().unsigned_abs(), date.day().unsigned_abs())
        };
        let now = Timestamp::now();
        // From yesterday: a clock that is behind takes it too.
        params.not_before = date(now - SignedDuration::from_hours(24));
        params.not_after = date(now + SignedDuration::from_hours(24 * 365 * YEARS));
        let certificate = params.self_signed(&key)?.pem();
        Ok(Self { certificate, key: key.serialize_pem() })
    }

    /// The Secret that holds it.
    #[must_use]
    pub fn into_secret(self, addon: &str) -> Secret {
        let data = [("tls.crt", self.certificate), ("tls.key", self.key)];
        Secret {
            metadata: ObjectMeta {
                name: Some(pki_secret(addon)),
                namespace: Some(NAMESPACE.to_owned()),
                ..ObjectMeta::default()
            },
            type_: Some("kubernetes.io/tls".to_owned()),
            data: Some(data.map(|(name, pem)| (name.to_owned(), ByteString(pem.into_bytes()))).into()),
            ..Secret::default()
        }
    }
}

/// The kind of cert-manager's issuers.
#[must_use]
pub fn issuer_kind() -> GroupKind {
    GroupKind::new("cert-manager.io", "Issuer")
}

/// The issuer that signs with an addon's CA; `version` is that of its API.
#[must_use]
pub fn issuer(addon: &str, version: &str) -> Value {
    json!({
        "apiVersion": format!("cert-manager.io/{version}"),
        "kind": "Issuer",
        "metadata": {"name": pki_issuer(addon), "namespace": NAMESPACE},
        "spec": {"ca": {"secretName": pki_secret(addon)}},
    })
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;

    use super::*;

    #[test]
    fn a_ca_is_made_as_kops_makes_it() {
        let authority = Authority::new("dns").expect("a CA");
        assert!(!format!("{authority:?}").contains("KEY"), "its key is not shown");
        let secret = authority.into_secret("dns");
        let place = (secret.metadata.namespace.as_deref(), secret.metadata.name.as_deref(), secret.type_.as_deref());
        assert_eq!(place, (Some("kube-system"), Some("dns-ca"), Some("kubernetes.io/tls")));
        let data = secret.data.expect("data");
        let text = |name: &str| String::from_utf8(data[name].0.clone()).expect("PEM");
        assert!(text("tls.crt").starts_with("-----BEGIN CERTIFICATE-----"));
        assert!(text("tls.key").starts_with("-----BEGIN PRIVATE KEY-----"));
        assert_eq!(data.len(), 2);
        // Its name, and when it ends, as they stand in the certificate.
        let der: String = text("tls.crt").lines().filter(|line| !line.starts_with("-----")).collect();
        let der = base64::engine::general_purpose::STANDARD.decode(der).expect("base64");
        let holds = |word: &str| der.windows(word.len()).any(|bytes| bytes == word.as_bytes());
        let end = (Timestamp::now() + SignedDuration::from_hours(24 * 365 * YEARS)).strftime("%y%m%d").to_string();
        let day_before = (Timestamp::now() + SignedDuration::from_hours(24 * (365 * YEARS - 1))).strftime("%y%m%d");
        assert!(holds("dns") && (holds(&format!("{end}000000Z")) || holds(&format!("{day_before}000000Z"))), "{end}");
    }

    #[test]
    fn the_issuer_names_the_secret() {
        let issuer = issuer("dns", "v1");
        assert_eq!((&issuer["apiVersion"], &issuer["metadata"]["name"]), (&json!("cert-manager.io/v1"), &json!("dns")));
        assert_eq!(issuer["spec"], json!({"ca": {"secretName": "dns-ca"}}));
    }
}
