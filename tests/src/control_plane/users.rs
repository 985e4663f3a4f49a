//! Users with chosen rights, and their kubeconfigs.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject};
use kube::api::{Api, ObjectMeta, Patch, PatchParams};

use super::ControlPlane;
use crate::kubeconfig::{self, Credentials};
use crate::pki;

impl ControlPlane {
    /// A client that may do everything, on the first kube-apiserver.
    ///
    /// # Errors
    /// When no certificate can be made.
    pub async fn admin(&self) -> Result<kube::Client> {
        self.admin_at(0).await
    }

    /// A client that may do everything, on the kube-apiserver `index`.
    ///
    /// # Errors
    /// When no certificate can be made.
    pub async fn admin_at(&self, index: usize) -> Result<kube::Client> {
        self.client(self.apiservers[index].url(), &Credentials::admin()).await
    }

    /// A client of a user, on the first kube-apiserver.
    ///
    /// # Errors
    /// When no certificate can be made (more than two groups).
    pub async fn user(&self, name: &str, groups: &[&str]) -> Result<kube::Client> {
        self.client(self.apiservers[0].url(), &Credentials::user(name, groups)).await
    }

    /// A client at any URL: another kube-apiserver's or a [`crate::Proxy`]'s.
    ///
    /// # Errors
    /// When no certificate can be made.
    pub async fn client(&self, url: &str, credentials: &Credentials) -> Result<kube::Client> {
        kubeconfig::client(&self.layout.kubeconfig(url, credentials)?).await
    }

    /// Writes a kubeconfig for a user of the first kube-apiserver.
    ///
    /// # Errors
    /// When no certificate can be made, or the file cannot be written.
    pub fn kubeconfig(&self, name: &str, groups: &[&str]) -> Result<PathBuf> {
        self.kubeconfig_at(self.apiservers[0].url(), &Credentials::user(name, groups))
    }

    /// Writes a kubeconfig for any URL: another kube-apiserver's or a
    /// [`crate::Proxy`]'s (TLS stays end to end: all are 127.0.0.1).
    ///
    /// # Errors
    /// When no certificate can be made, or the file cannot be written.
    pub fn kubeconfig_at(&self, url: &str, credentials: &Credentials) -> Result<PathBuf> {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = match credentials {
            Credentials::User { name, .. } => name.as_str(),
            Credentials::Token(_) => "token",
            Credentials::Anonymous => "anonymous",
        };
        let name: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
        let file = format!("kubeconfigs/{name}-{}-{number}.conf", std::process::id());
        let path = self.folder().join(file);
        pki::write(&path, &self.layout.kubeconfig(url, credentials)?)?;
        Ok(path)
    }

    /// The kubeconfig of a user who may do everything.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn admin_kubeconfig(&self) -> Result<PathBuf> {
        let path = self.folder().join("admin.conf");
        if !path.exists() {
            let url = self.apiservers[0].url();
            pki::write(&path, &self.layout.kubeconfig(url, &Credentials::admin())?)?;
        }
        Ok(path)
    }

    /// Gives a user these rights in the whole cluster, instead of those of an
    /// earlier call.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn grant(&self, user: &str, rules: &[PolicyRule]) -> Result<()> {
        let client = self.admin().await?;
        let metadata = metadata(user);
        let role = ClusterRole { metadata: metadata.clone(), rules: Some(rules.to_vec()), ..Default::default() };
        apply(&Api::all(client), &role).await?;
        self.bind(user, metadata.name.as_deref().unwrap_or_default()).await
    }

    /// Gives a user a cluster role that exists, such as `cluster-admin`.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn bind(&self, user: &str, cluster_role: &str) -> Result<()> {
        let mut metadata = metadata(user);
        metadata.name = metadata.name.map(|name| format!("{name}:{cluster_role}"));
        let binding = ClusterRoleBinding {
            metadata,
            role_ref: role_ref("ClusterRole", cluster_role),
            subjects: Some(vec![subject(user)]),
        };
        apply(&Api::all(self.admin().await?), &binding).await
    }

    /// Gives a user these rights in one namespace, instead of those of an
    /// earlier call.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn grant_in(&self, namespace: &str, user: &str, rules: &[PolicyRule]) -> Result<()> {
        let client = self.admin().await?;
        let metadata = metadata(user);
        let name = metadata.name.clone().unwrap_or_default();
        let role = Role { metadata: metadata.clone(), rules: Some(rules.to_vec()) };
        apply(&Api::namespaced(client.clone(), namespace), &role).await?;
        let binding = RoleBinding { metadata, role_ref: role_ref("Role", &name), subjects: Some(vec![subject(user)]) };
        apply(&Api::namespaced(client, namespace), &binding).await
    }
}

fn metadata(user: &str) -> ObjectMeta {
    ObjectMeta { name: Some(format!("it:{user}")), ..Default::default() }
}

fn role_ref(kind: &str, name: &str) -> RoleRef {
    RoleRef { api_group: Some("rbac.authorization.k8s.io".to_owned()), kind: kind.to_owned(), name: name.to_owned() }
}

/// A user, or a service account when named `system:serviceaccount:<ns>:<name>`
/// (whose user name that is).
fn subject(user: &str) -> Subject {
    Subject {
        api_group: Some("rbac.authorization.k8s.io".to_owned()),
        kind: "User".to_owned(),
        name: user.to_owned(),
        namespace: None,
    }
}

async fn apply<K>(api: &Api<K>, object: &K) -> Result<()>
where
    K: kube::Resource<DynamicType = ()> + Clone + std::fmt::Debug,
    K: serde::Serialize + serde::de::DeserializeOwned,
{
    let name = object.meta().name.clone().unwrap_or_default();
    let mut object = serde_json::to_value(object)?;
    object["apiVersion"] = K::api_version(&()).into();
    object["kind"] = K::kind(&()).into();
    let params = PatchParams::apply("quarterdeck-it").force();
    let applied = api.patch(&name, &params, &Patch::Apply(&object)).await;
    applied.map(drop).with_context(|| format!("{} {name}", K::kind(&())))
}
