//! The kind that people write: an Account.

use std::borrow::Cow;
use std::collections::BTreeMap;

use k8s_openapi::ClusterResourceScope;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Serialize};

/// An account: `crd.yaml` is its definition.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Account {
    /// `accounts.example.com/v1`.
    pub api_version: String,
    /// `Account`.
    pub kind: String,
    /// Its name is the namespace's.
    pub metadata: ObjectMeta,
    /// What is wanted.
    pub spec: AccountSpec,
    /// What is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<AccountStatus>,
}

/// What is wanted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AccountSpec {
    /// Users who may edit the namespace.
    #[serde(default)]
    pub members: Vec<String>,
    /// Hard limits of the namespace, such as `pods: "10"`; no quota when empty.
    #[serde(default)]
    pub quota: BTreeMap<String, Quantity>,
}

/// What is there.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AccountStatus {
    /// `metadata.generation` that this is about.
    #[serde(default)]
    pub observed_generation: i64,
    /// Whether namespace, rights and limits are as wanted.
    #[serde(default)]
    pub ready: bool,
}

impl kube::Resource for Account {
    type DynamicType = ();
    type Scope = ClusterResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        "Account".into()
    }

    fn group((): &()) -> Cow<'_, str> {
        "accounts.example.com".into()
    }

    fn version((): &()) -> Cow<'_, str> {
        "v1".into()
    }

    fn plural((): &()) -> Cow<'_, str> {
        "accounts".into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}
