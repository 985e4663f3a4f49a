//! Objects that nearly every test needs first.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, ServiceAccount};
use kube::api::{Api, ObjectMeta, PostParams};

use super::ControlPlane;

impl ControlPlane {
    /// Makes a namespace and its `default` service account, without which pods
    /// are refused; what is there already stays.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn namespace(&self, name: &str) -> Result<()> {
        self.labelled_namespace(name, &[]).await
    }

    /// [`ControlPlane::namespace`] with labels.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn labelled_namespace(&self, name: &str, labels: &[(&str, &str)]) -> Result<()> {
        let client = self.admin().await?;
        let labels: BTreeMap<_, _> =
            labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let namespace = Namespace {
            metadata: ObjectMeta { name: Some(name.to_owned()), labels: Some(labels), ..Default::default() },
            ..Default::default()
        };
        let made = Api::all(client.clone()).create(&PostParams::default(), &namespace).await;
        unless_exists(made).with_context(|| format!("namespace {name}"))?;
        default_service_account(&client, name).await?;
        if self.node.is_some() { self.let_pods_run_in(name).await } else { Ok(()) }
    }

    /// Makes what pods on a real node mount without being asked, in a namespace that is there: the
    /// `default` service account, and the ConfigMap with the server's authority.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn let_pods_run_in(&self, namespace: &str) -> Result<()> {
        let client = self.admin().await?;
        default_service_account(&client, namespace).await?;
        let map = ConfigMap {
            metadata: ObjectMeta { name: Some("kube-root-ca.crt".to_owned()), ..Default::default() },
            data: Some(BTreeMap::from([("ca.crt".to_owned(), self.layout.pki.server_ca().to_owned())])),
            ..Default::default()
        };
        let made = Api::namespaced(client, namespace).create(&PostParams::default(), &map).await;
        unless_exists(made).with_context(|| format!("the server's authority in {namespace}"))
    }

    /// Makes a service account (what is there already stays) and a token for it.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn token(&self, namespace: &str, name: &str) -> Result<String> {
        let client = self.admin().await?;
        service_account(&client, namespace, name).await?;
        let api: Api<ServiceAccount> = Api::namespaced(client, namespace);
        let request = TokenRequest {
            spec: Some(TokenRequestSpec { expiration_seconds: Some(3600), ..Default::default() }),
            ..Default::default()
        };
        let what = || format!("a token for {namespace}/{name}");
        let answer = api.create_token_request(name, &PostParams::default(), &request).await;
        let status = answer.with_context(what)?.status.with_context(what)?;
        status.token.with_context(what)
    }
}

/// Makes the `default` service account of a namespace, as the Go manager's
/// serviceaccount controller does.
pub(super) async fn default_service_account(client: &kube::Client, namespace: &str) -> Result<()> {
    service_account(client, namespace, "default").await
}

async fn service_account(client: &kube::Client, namespace: &str, name: &str) -> Result<()> {
    let account = ServiceAccount {
        metadata: ObjectMeta { name: Some(name.to_owned()), ..Default::default() },
        ..Default::default()
    };
    let api = Api::namespaced(client.clone(), namespace);
    unless_exists(api.create(&PostParams::default(), &account).await)
        .with_context(|| format!("service account {namespace}/{name}"))
}

/// Takes "exists already" for an answer.
pub(super) fn unless_exists<T>(made: kube::Result<T>) -> kube::Result<()> {
    match made {
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
        made => made.map(drop),
    }
}
