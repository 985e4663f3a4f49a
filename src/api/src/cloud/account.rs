//! The account of a cloud in which a cluster's machines are: `CloudAccount`. Written down once, by the manager; nobody
//! but it and the cluster's administrators may write it.

use k8s_openapi::ClusterResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Serialize};

/// The definition of `CloudAccount`, as YAML.
pub const CRD: &str = include_str!("../../../../deploy/crds/cloudaccounts.cloud.quarterdeck.dev.yaml");

/// Says in which account or project of a cloud the cluster's machines are. Deleting it lets the account be written
/// down anew.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct CloudAccount {
    /// Standard metadata; the name is [`record_name`] of the provider.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// The account.
    #[serde(default)]
    pub spec: CloudAccountSpec,
    /// Never set: the kind has no status.
    #[serde(skip)]
    pub status: Option<()>,
}

kind!(CloudAccount, "cloudaccounts", ClusterResourceScope);

/// The account of a cloud.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct CloudAccountSpec {
    /// Provider, as in `--cloud-provider`.
    pub provider: String,
    /// Id of the account or project, as the provider tells it.
    pub account: String,
    /// Node that was found in it when it was written down.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub witness: String,
}

impl CloudAccount {
    /// A record to be created.
    #[must_use]
    pub fn new(provider: &str, account: &str, witness: &str) -> Self {
        Self {
            metadata: ObjectMeta { name: Some(record_name(provider)), ..ObjectMeta::default() },
            spec: CloudAccountSpec {
                provider: provider.to_owned(),
                account: account.to_owned(),
                witness: witness.to_owned(),
            },
            status: None,
        }
    }
}

/// Name of the record of a provider: its own name, or its bytes in hexadecimal where that is no name of an object.
#[must_use]
pub fn record_name(provider: &str) -> String {
    let part = |part: &str| {
        let inner = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
        !part.is_empty() && part.bytes().all(inner) && !part.starts_with('-') && !part.ends_with('-')
    };
    if provider.len() <= 253 && provider.split('.').all(part) {
        return provider.to_owned();
    }
    let hex: String = provider.bytes().take(120).map(|byte| format!("{byte:02x}")).collect();
    format!("hex-{hex}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_named_after_its_provider() {
        for (provider, expected) in [
            ("metal", "metal"),
            ("cloud.example", "cloud.example"),
            ("east-1", "east-1"),
            ("East_1", "hex-456173745f31"),
            ("a..b", "hex-612e2e62"),
            ("", "hex-"),
        ] {
            assert_eq!(record_name(provider), expected, "{provider:?}");
        }
    }

    #[test]
    fn it_is_read_as_it_is_written() {
        let record = CloudAccount::new("sim", "acc-1", "n1");
        let json = serde_json::to_value(&record).unwrap();
        assert_eq!(json["kind"], "CloudAccount");
        assert_eq!(json["spec"]["account"], "acc-1");
        assert_eq!(serde_json::from_value::<CloudAccount>(json).unwrap(), record);
    }
}
