//! The CA and issuer of an addon with `needsPKI` (kops:channels/pkg/channels/addon.go). What is there is
//! left as it is.

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::api::{ObjectMeta, PostParams};
use quarterdeck_api::channel::{pki_issuer, pki_secret};
use serde_json::json;

use super::read::issuers;
use crate::server::{MANAGER, Server, explain};

/// Namespace of all CAs and issuers.
pub(super) const NAMESPACE: &str = "kube-system";
/// How long a CA is valid.
const YEARS: i64 = 10;

/// Makes what is missing.
pub(super) async fn make(server: &Server, addon: &str) -> anyhow::Result<()> {
    let params = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
    let (certificate, key) = authority(addon)?;
    let secret = Secret {
        metadata: ObjectMeta { name: Some(pki_secret(addon)), namespace: Some(NAMESPACE.into()), ..Default::default() },
        type_: Some("kubernetes.io/tls".into()),
        data: Some(
            [("tls.crt", certificate), ("tls.key", key)]
                .map(|(name, pem)| (name.to_owned(), ByteString(pem.into_bytes())))
                .into(),
        ),
        ..Secret::default()
    };
    let made = server.api::<Secret>(Some(NAMESPACE)).create(&params, &secret).await.map(drop);
    unless_there(made, "its CA")?;
    let issuer = json!({
        "apiVersion": "cert-manager.io/v1", "kind": "Issuer",
        "metadata": {"name": pki_issuer(addon), "namespace": NAMESPACE},
        "spec": {"ca": {"secretName": pki_secret(addon)}},
    });
    let made = issuers(server).create(&params, &serde_json::from_value(issuer)?).await.map(drop);
    unless_there(made, "its issuer (of cert-manager)")
}

fn unless_there(made: Result<(), kube::Error>, what: &str) -> anyhow::Result<()> {
    match made {
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
        made => made.map_err(|error| explain(error, what)),
    }
}

/// A new CA: its certificate and key, as PEM.
fn authority(name: &str) -> anyhow::Result<(String, String)> {
    let key = rcgen::KeyPair::generate()?;
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
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
    Ok((params.self_signed(&key)?.pem(), key.serialize_pem()))
}
